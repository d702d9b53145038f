// SPDX-License-Identifier: Apache-2.0
//
// What the tests call of scan.c, as WebAssembly.

#include "scan.h"

#define EXPORT __attribute__((visibility("default")))

static struct scan scan;
static struct strip strip;
static struct kept room;

struct kept *kept_new(void) { return &room; }

EXPORT void reset(void) {
  scan = (struct scan){0};
  strip = (struct strip){0};
}
EXPORT int feed(const uint8_t *b, size_t n) { return scan_feed(&scan, b, n); }
EXPORT uint32_t last(void) {
  size_t n;
  const uint8_t *b = scan_last(&scan, &n);
  return n == 0 ? 0 : (uint32_t)(uintptr_t)b;
}
EXPORT uint32_t last_size(void) {
  size_t n;
  scan_last(&scan, &n);
  return (uint32_t)n;
}
EXPORT size_t lines(uint8_t *b, size_t n, int end) { return strip_lines(&strip, b, n, end); }
EXPORT int passes(int found, int line) { return strip_passes(&strip, found, line); }
EXPORT size_t held(void) { return strip.held; }
