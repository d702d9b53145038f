// SPDX-License-Identifier: Apache-2.0

package child

import "syscall"

func tie(a *syscall.SysProcAttr) {
	a.Setpgid = true
	a.Pdeathsig = syscall.SIGTERM
}
