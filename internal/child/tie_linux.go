// SPDX-License-Identifier: Apache-2.0

package child

import "syscall"

func tie(a *syscall.SysProcAttr, last syscall.Signal) { a.Pdeathsig = last }
