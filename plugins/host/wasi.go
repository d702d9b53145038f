// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// Error numbers: https://github.com/WebAssembly/WASI/blob/main/legacy/preview1/docs.md#errno.
const (
	errnoSuccess = 0
	errnoBadf    = 8
	errnoInval   = 28
	errnoNosys   = 52
)

const i3 = i2 + i1

// wasi is what of WASI's first preview a plugin may import, so that it can be built by standard toolchains. Nothing in it leads out of the sandbox, and nothing differs
// from one call to the next.
var wasi = map[string]helper{
	"args_get":                {i2, i1, "", answer(errnoSuccess)},
	"args_sizes_get":          {i2, i1, "", noStrings},
	"environ_get":             {i2, i1, "", answer(errnoSuccess)},
	"environ_sizes_get":       {i2, i1, "", noStrings},
	"clock_res_get":           {i2, i1, "", wasiResolution},
	"clock_time_get":          {i1 + typeI64 + i1, i1, "", wasiTime},
	"random_get":              {i2, i1, "", wasiRandom},
	"sched_yield":             {"", i1, "", answer(errnoSuccess)},
	"proc_exit":               {i1, "", "", wasiExit},
	"fd_write":                {i4, i1, "", wasiWrite},
	"fd_fdstat_get":           {i2, i1, "", wasiStat},
	"fd_close":                {i1, i1, "", answer(errnoBadf)},
	"fd_read":                 {i4, i1, "", answer(errnoBadf)},
	"fd_seek":                 {i1 + typeI64 + i2, i1, "", answer(errnoBadf)},
	"fd_tell":                 {i2, i1, "", answer(errnoBadf)},
	"fd_sync":                 {i1, i1, "", answer(errnoBadf)},
	"fd_datasync":             {i1, i1, "", answer(errnoBadf)},
	"fd_advise":               {i1 + typeI64 + typeI64 + i1, i1, "", answer(errnoBadf)},
	"fd_allocate":             {i1 + typeI64 + typeI64, i1, "", answer(errnoBadf)},
	"fd_fdstat_set_flags":     {i2, i1, "", answer(errnoBadf)},
	"fd_fdstat_set_rights":    {i1 + typeI64 + typeI64, i1, "", answer(errnoBadf)},
	"fd_filestat_get":         {i2, i1, "", answer(errnoBadf)},
	"fd_filestat_set_size":    {i1 + typeI64, i1, "", answer(errnoBadf)},
	"fd_filestat_set_times":   {i1 + typeI64 + typeI64 + i1, i1, "", answer(errnoBadf)},
	"fd_pread":                {i3 + typeI64 + i1, i1, "", answer(errnoBadf)},
	"fd_pwrite":               {i3 + typeI64 + i1, i1, "", answer(errnoBadf)},
	"fd_prestat_get":          {i2, i1, "", answer(errnoBadf)},
	"fd_prestat_dir_name":     {i3, i1, "", answer(errnoBadf)},
	"fd_readdir":              {i3 + typeI64 + i1, i1, "", answer(errnoBadf)},
	"fd_renumber":             {i2, i1, "", answer(errnoBadf)},
	"path_create_directory":   {i3, i1, "", answer(errnoBadf)},
	"path_filestat_get":       {i4 + i1, i1, "", answer(errnoBadf)},
	"path_filestat_set_times": {i4 + typeI64 + typeI64 + i1, i1, "", answer(errnoBadf)},
	"path_link":               {i4 + i3, i1, "", answer(errnoBadf)},
	"path_open":               {i4 + i1 + typeI64 + typeI64 + i2, i1, "", answer(errnoBadf)},
	"path_readlink":           {i4 + i2, i1, "", answer(errnoBadf)},
	"path_remove_directory":   {i3, i1, "", answer(errnoBadf)},
	"path_rename":             {i4 + i2, i1, "", answer(errnoBadf)},
	"path_symlink":            {i4 + i1, i1, "", answer(errnoBadf)},
	"path_unlink_file":        {i3, i1, "", answer(errnoBadf)},
	"poll_oneoff":             {i4, i1, "", answer(errnoNosys)},
	"proc_raise":              {i1, i1, "", answer(errnoNosys)},
	"sock_accept":             {i3, i1, "", answer(errnoBadf)},
	"sock_recv":               {i4 + i2, i1, "", answer(errnoBadf)},
	"sock_send":               {i4 + i1, i1, "", answer(errnoBadf)},
	"sock_shutdown":           {i2, i1, "", answer(errnoBadf)},
}

func answer(errno uint64) func(*instance, []uint64) {
	return func(_ *instance, s []uint64) { s[0] = errno }
}

// noStrings answers how many arguments or variables there are, and their length: none.
func noStrings(i *instance, s []uint64) {
	clear(i.bytes(s[0], 4))
	clear(i.bytes(s[1], 4))
	s[0] = errnoSuccess
}

func wasiResolution(i *instance, s []uint64) {
	binary.LittleEndian.PutUint64(i.bytes(s[1], 8), 1)
	s[0] = errnoSuccess
}

// noTime is what plugins without a clock are told, in nanoseconds: 2000-01-01. Go's runtime does not take 0 for an answer.
const noTime = 946_684_800_000_000_000

// wasiTime is clock_time_get(clock, precision, out).
func wasiTime(i *instance, s []uint64) {
	t := uint64(noTime)
	if slices.Contains(i.plugin.source.Grants, Clock) {
		t = uint64(i.call.now.UnixNano())
	}
	binary.LittleEndian.PutUint64(i.bytes(s[2], 8), t)
	s[0] = errnoSuccess
}

// wasiRandom gives bytes that look random and are the same in each call: a SplitMix64 whose state begins with the call.
func wasiRandom(i *instance, s []uint64) {
	b := i.bytes(s[0], s[1])
	i.charge(int64(len(b)))
	for n := range b {
		if n%8 == 0 {
			i.call.random += 0x9e3779b97f4a7c15
		}
		x := i.call.random
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		b[n] = byte((x ^ x>>31) >> (n % 8 * 8))
	}
	s[0] = errnoSuccess
}

func wasiExit(_ *instance, s []uint64) {
	panic(&stop{Exited, fmt.Sprintf("it ended itself with code %d", uint32(s[0]))})
}

// wasiStat says that 0, 1 and 2 are terminals, so that they are not buffered.
func wasiStat(i *instance, s []uint64) {
	if uint32(s[0]) > 2 {
		s[0] = errnoBadf
		return
	}
	b := i.bytes(s[1], 24)
	clear(b)
	const characterDevice = 2
	b[0] = characterDevice
	s[0] = errnoSuccess
}

// wasiWrite is fd_write(fd, vectors, how many, out): a line of the log.
func wasiWrite(i *instance, s []uint64) {
	if fd := uint32(s[0]); fd != 1 && fd != 2 {
		s[0] = errnoBadf
		return
	}
	if uint32(s[2]) > 1024 {
		s[0] = errnoInval
		return
	}
	vectors := i.bytes(s[1], uint64(uint32(s[2]))*8)
	var line strings.Builder
	written := uint32(0)
	for len(vectors) > 0 {
		b := i.bytes(uint64(binary.LittleEndian.Uint32(vectors)), uint64(binary.LittleEndian.Uint32(vectors[4:])))
		written += uint32(len(b))
		if room := i.plugin.limits.LogBytes + 1 - line.Len(); room > 0 {
			line.Write(b[:min(len(b), room)])
		}
		vectors = vectors[8:]
	}
	i.charge(costLog + int64(line.Len()))
	if slices.Contains(i.plugin.source.Grants, Log) {
		for l := range strings.Lines(line.String()) {
			if l = strings.TrimRight(l, "\r\n"); l != "" {
				i.call.log.add(1, []byte(l))
			}
		}
	}
	binary.LittleEndian.PutUint32(i.bytes(s[3], 4), written)
	s[0] = errnoSuccess
}
