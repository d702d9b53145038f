// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package trial

import "time"

// started is when this process began, for systems that do not say what processors have spent on it.
var started = time.Now()

// cpuTime returns the time of the clock instead.
func cpuTime() (time.Duration, error) { return time.Since(started), nil }
