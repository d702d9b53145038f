// SPDX-License-Identifier: Apache-2.0

// Package journal keeps the intents of a processor: which exchanges were admitted and have no row yet, in files that outlive the process.
//
// An intent is appended before Envoy gets the answer, by one write(2) that does not wait for the disk. That outlives SIGKILL, because the
// bytes are the kernel's by then. Power loss it outlives once a sync in the background has passed over it, some milliseconds later; with
// [Fsync] the caller waits for that. When the row of an exchange is in the books its intent is settled.
//
// # Files
//
//	<dir>/lock                          locked while a journal is open
//	<dir>/head                          the numbers of the oldest and the newest segment
//	<dir>/000000000007-<nonce>.seg      segment 7
//	<dir>/quarantine/                   copies of segments that were found damaged
//
// Segments are written to at the end, by the process that made them, and never again after it ended. The oldest is deleted when nothing in
// it is open; what stays open for long is written again to the newest, so that it does not keep the rest of an old one on the disk.
//
// # Layout of a segment
//
// Integers are little-endian; uvarint is that of encoding/binary.
//
//	segment   header, then frames
//
//	 0          8         12        16         24        32          40        44       48
//	 +----------+---------+---------+----------+---------+-----------+---------+--------+
//	 | WEIRJRNL | version | 0       | number   | nonce   | created   | 0       | CRC32C |
//	 +----------+---------+---------+----------+---------+-----------+---------+--------+
//	                                                       unix ns              of 0..44
//
//	frame
//
//	 0       2      3      4         8        12
//	 +-------+------+------+---------+--------+----------------+
//	 | F7 5A | kind | 0    | length  | CRC32C | payload        |
//	 +-------+------+------+---------+--------+----------------+
//	                        of payload          length bytes
//
//	 CRC32C of nonce, number, the frame's first 8 bytes, payload: no frame is valid in another segment.
//
//	 kind 1  intent    exchange (16) | bytes of the request's body (uvarint) | ticket (the rest)
//	 kind 2  settled   n × exchange (16)
//	 kind 3  end       number (8) | length (8): what is behind that length in that older segment does not count
//
// A segment begins with the end of the one before it. So it shows when an older one was cut short or taken away, and what was behind a
// write that failed, which may be on the disk all the same, cannot come back.
//
// # State
//
// An intent is open when a segment has it and none has its exchange as settled; an exchange that is settled once is so for good, and of
// several intents of one exchange the one in the newest segment counts. Therefore the order of frames does not matter, but for the ends.
// A frame "settled" is not waited for: if one is lost, its exchange is looked up in the books before anything is done about it.
//
// An intent that made a row by itself, since no line told its end, is held for a while before it is settled: if the books forget the row,
// nothing else tells of it. That it is held is in memory alone. On the disk, and for a new process, it is open, and is looked up as above.
//
// # Memory
//
// Tickets stay on the disk; of an intent the memory has its id and its place. While many wait for the books ([Journal.Park]) the disk alone has
// those too, but for the last segments:
//
//	in memory   open or held: what is settled, renewed or held is found by its id
//	parked      open, in a segment that is not written to any more: one bit in memory for each frame, and for the segment the first and the last id
//	            and the latest sign of life. A segment is read when one of its exchanges may be among those that are to be settled
//
// It works with any ids, and is quick with those that grow with the time of admission: then a batch of settled ones, which is about in that order,
// is in a few segments. What is parked is never held; what must be looked at by itself, as when leases are over, comes back first.
//
// # Recovery
//
// What is open beyond the newest intents is parked at once; what is settled, 16 bytes each, is in memory while the segments are read.
//
//	bad bytes up to the end of the newest segment    a torn write: passed over
//	bad bytes anywhere else, a segment that is gone  a [Damage]: reported, the segment copied to quarantine/, every valid frame still read
package journal
