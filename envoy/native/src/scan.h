// SPDX-License-Identifier: Apache-2.0
//
// The pure part of the tap: it finds the usage objects of a response that comes in pieces cut anywhere, and takes the chunk that only
// carries usage out of a stream. What it finds does not depend on the cuts. It reads no byte but those it is given, and asks for memory
// once, by kept_new. It is also built as WebAssembly, and tested so.

#ifndef WEIR_SCAN_H
#define WEIR_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  KEEP = 4096,  // bytes that are kept from the beginning of a usage object
  HOLD = 65536, // bytes of an unfinished line that may be held back
};

// kept is room for two usage objects: the last whole one, and one that is coming in.
struct kept {
  uint8_t bytes[2][KEEP];
};

// kept_new returns room, or NULL when there is none: then nothing is kept.
struct kept *kept_new(void);

// scan is what is known between two pieces of a response. All zero is its beginning.
struct scan {
  struct kept *kept; // NULL until an object is found; to be freed by whoever owns the scan
  uint16_t whole;    // length of the last whole object; 0: none
  uint16_t part;     // length of what there is of the object that is coming in
  uint16_t depth;    // braces open in it; 0: none is coming in
  uint8_t side;      // the half of kept that it goes to
  uint8_t phase;     // how much of "usage" : has been matched
  bool text, escape; // it is within a string, and behind a backslash there
};

// scan_feed looks at the next piece, and reports whether a usage object begins in it.
bool scan_feed(struct scan *s, const uint8_t *b, size_t n);

// scan_last returns the last usage object that is whole, or the beginning of one if none is; NULL if there was none.
const uint8_t *scan_last(const struct scan *s, size_t *n);

// strip is what is known between two pieces of a stream of events. All zero is its beginning.
struct strip {
  size_t held; // bytes that were held back
  bool blank;  // a line was taken out just now: a blank one behind it goes too
  bool middle; // the beginning of a line was let on: the rest of it follows
};

// strip_passes reports whether a piece may go on as it is, without strip_lines: found is what scan_feed said of it, line whether it ends with a line's end.
bool strip_passes(struct strip *s, bool found, bool line);

// strip_lines takes the usage chunk out of b, which begins with what was held back before. It returns how many bytes are left to go on,
// at the beginning of b; held bytes behind them are to be held back. At the end of the stream none are.
size_t strip_lines(struct strip *s, uint8_t *b, size_t n, bool end);

#endif
