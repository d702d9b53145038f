// SPDX-License-Identifier: Apache-2.0

#include "scan.h"

static const char usage[] = "\"usage\"";
static const char choices[] = "\"choices\"";
static const char chosen[] = "\"choices\":[{"; // as every chunk has it that carries text

#define SIZE(text) (sizeof(text) - 1)

static bool blank(uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static bool same(const uint8_t *b, const char *text, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if (b[i] != (uint8_t)text[i]) return false;
  }
  return true;
}

// find returns where text stands in b, at from or behind it, or n.
static size_t find(const uint8_t *b, size_t from, size_t n, const char *text, size_t size) {
  for (size_t i = from; i + size <= n; i++) {
    if (b[i] == (uint8_t)text[0] && same(b + i, text, size)) return i;
  }
  return n;
}

// find_usage finds the key as find does, and looks at one byte in seven: the last of those where it may stand says how much further on it can stand next
// (Horspool's search).
static size_t find_usage(const uint8_t *b, size_t from, size_t n) {
  for (size_t i = from; i + SIZE(usage) <= n;) {
    switch (b[i + SIZE(usage) - 1]) {
    case '"':
      if (same(b + i, usage, SIZE(usage))) return i;
      i += 6;
      break;
    case 'u': i += 5; break;
    case 's': i += 4; break;
    case 'a': i += 3; break;
    case 'g': i += 2; break;
    case 'e': i += 1; break;
    default: i += SIZE(usage);
    }
  }
  return n;
}

// keep adds bytes to the object that is coming in, up to its end.
static void keep(struct scan *s, const uint8_t *b, size_t n) {
  if (s->kept == NULL) return;
  uint8_t *kept = s->kept->bytes[s->side & 1];
  for (size_t i = 0; i < n && s->depth > 0; i++) {
    if (s->part == KEEP) {
      s->depth = 0; // too long: its beginning is all there will be of it
      return;
    }
    uint8_t c = b[i];
    kept[s->part++] = c;
    if (s->escape) {
      s->escape = false;
    } else if (s->text) {
      s->escape = c == '\\';
      s->text = c != '"';
    } else if (c == '"') {
      s->text = true;
    } else if (c == '{') {
      s->depth++;
    } else if (c == '}' && --s->depth == 1) { // begin counts one more
      s->whole = s->part;
      s->part = s->depth = 0;
      s->side ^= 1;
    }
  }
}

// begin makes ready for an object.
static void begin(struct scan *s) {
  if (s->kept == NULL) s->kept = kept_new();
  s->part = 0;
  s->depth = 1;
  s->text = s->escape = false;
}

// The text of a message cannot pass for the key, since a quote within a string has a backslash before it; and null, as OpenAI sends it with every
// other chunk, is no object.
bool scan_feed(struct scan *s, const uint8_t *b, size_t n) {
  bool found = false;
  size_t from = 0; // what is before is kept
  for (size_t i = 0; i < n; i++) {
    if (s->phase == 0) {
      size_t key = find_usage(b, i, n);
      if (key < n) {
        s->phase = SIZE(usage);
        i = key + SIZE(usage) - 1;
        continue;
      }
      if (n - i >= SIZE(usage)) i = n - SIZE(usage) + 1; // the last bytes may be the beginning of one
    }
    uint8_t c = b[i];
    if (s->phase < SIZE(usage)) {
      s->phase = c == (uint8_t)usage[s->phase] ? s->phase + 1 : c == '"';
    } else if (blank(c)) {
      continue;
    } else if (s->phase == SIZE(usage) && c == ':') {
      s->phase++;
    } else {
      if (s->phase > SIZE(usage) && c == '{') {
        if (s->depth > 0) keep(s, b + from, i - from);
        from = i;
        begin(s);
        found = true;
      }
      s->phase = c == '"';
    }
  }
  if (s->depth > 0) keep(s, b + from, n - from);
  return found;
}

const uint8_t *scan_last(const struct scan *s, size_t *n) {
  *n = 0;
  if (s->kept == NULL) return NULL;
  bool whole = s->whole > 0;
  *n = whole ? s->whole : s->part;
  return s->kept->bytes[(s->side ^ whole) & 1];
}

// may_be says whether a line, or the beginning of one, may be the usage chunk. A line that is none is never held: what an unlucky provider sends
// as its last words without a line's end must not be lost. Of its bytes, the first seen have passed before.
static bool may_be(const uint8_t *b, size_t n, size_t seen) {
  static const char with[] = "data: {", without[] = "data:{";
  if (!same(b, with, n < SIZE(with) ? n : SIZE(with)) && !same(b, without, n < SIZE(without) ? n : SIZE(without))) return false;
  return find(b, seen < SIZE(chosen) ? 0 : seen - SIZE(chosen), n, chosen, SIZE(chosen)) == n;
}

// has says whether a key stands in a line with these signs behind it, and blanks between them at most.
static bool has(const uint8_t *b, size_t n, const char *key, size_t size, const char *signs, size_t count) {
  for (size_t i = find(b, 0, n, key, size); i < n; i = find(b, i, n, key, size)) {
    i += size;
    size_t matched = 0;
    for (size_t j = i; j < n && matched < count; j++) {
      if (blank(b[j])) continue;
      if (b[j] != (uint8_t)signs[matched]) break;
      matched++;
    }
    if (matched == count) return true;
  }
  return false;
}

// is_chunk says whether a line is the usage chunk: it carries usage, and no choices.
static bool is_chunk(const uint8_t *b, size_t n) {
  return n <= HOLD && may_be(b, n, 0) && has(b, n, usage, SIZE(usage), ":{", 2) && has(b, n, choices, SIZE(choices), ":[]", 3);
}

static size_t move(uint8_t *to, const uint8_t *from, size_t n) {
  for (size_t i = 0; i < n; i++) to[i] = from[i]; // to is not behind from
  return n;
}

bool strip_passes(struct strip *s, bool found, bool line) {
  if (found || !line || s->blank || s->held > 0) return false;
  s->middle = false;
  return true;
}

size_t strip_lines(struct strip *s, uint8_t *b, size_t n, bool end) {
  size_t out = 0, seen = s->held;
  s->held = 0;
  for (size_t from = 0; from < n;) {
    size_t to = from + seen;
    while (to < n && b[to] != '\n') to++;
    bool whole = to < n;
    if (whole) to++;
    const uint8_t *line = b + from;
    size_t size = to - from;
    bool empty = whole ? size == 1 || (size == 2 && line[0] == '\r') : size == 1 && line[0] == '\r';
    if (s->middle) {
      s->middle = !whole;
      out += move(b + out, line, size);
    } else if (s->blank && empty && !whole && !end) {
      s->held = move(b + out, line, size); // a carriage return, until it is known whether its line feed follows
      break;
    } else if (s->blank && empty) {
      s->blank = false;
    } else if (!whole && !end && size < HOLD && may_be(line, size, seen)) {
      s->blank = false;
      s->held = move(b + out, line, size);
      break;
    } else {
      s->blank = is_chunk(line, size);
      s->middle = !whole;
      if (!s->blank) out += move(b + out, line, size);
    }
    from = to;
    seen = 0;
  }
  return out;
}
