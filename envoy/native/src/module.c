// SPDX-License-Identifier: Apache-2.0
//
// The tap as a dynamic module, which Envoy loads and calls for each exchange. It does what tap.lua does, see there for what it reads and writes,
// at a tenth of the cost. What looks at the bytes of a response is in scan.c.

#include "scan.h"

// What Envoy 1.40 and a module have in common, as far as it is used here: source/extensions/dynamic_modules/abi/abi.h of Envoy.
static const char version[] = "v0.2.0";

struct theirs { // a buffer of Envoy's; it is there until the hook returns, or something is set
  const uint8_t *ptr;
  size_t length;
};
struct ours { // a buffer of the module's
  const uint8_t *ptr;
  size_t length;
};
enum { RESPONSE_HEADERS = 2 };             // of the kinds of headers
enum { RECEIVED = 2, BUFFERED = 3 };       // of the kinds of bodies, the response's
enum { DYNAMIC };                          // of the sources of metadata
enum { CONTINUE, STOP };                   // what a hook answers

#define CALL(name) envoy_dynamic_module_callback_http_##name
#define HOOK(name) __attribute__((visibility("default"))) envoy_dynamic_module_on_##name

bool CALL(get_header)(void *envoy, int kind, struct ours key, struct theirs *value, size_t index, size_t *count);
bool CALL(set_header)(void *envoy, int kind, struct ours key, struct ours value);
bool CALL(get_metadata_string)(void *envoy, int source, struct ours space, struct ours key, struct theirs *value);
bool CALL(get_metadata_bool)(void *envoy, int source, struct ours space, struct ours key, bool *value);
void CALL(set_dynamic_metadata_string)(void *envoy, struct ours space, struct ours key, struct ours value);
size_t CALL(get_body_chunks_size)(void *envoy, int kind);
bool CALL(get_body_chunks)(void *envoy, int kind, struct theirs *slices);
bool CALL(drain_body)(void *envoy, int kind, size_t n);
bool CALL(append_body)(void *envoy, int kind, struct ours data);

// Of the C library, which every Envoy has.
void *malloc(size_t);
void free(void *);
struct timespec { int64_t tv_sec, tv_nsec; };
int clock_gettime(int, struct timespec *);
long getrandom(void *, size_t, unsigned);

#define TEXT(s) ((struct ours){(const uint8_t *)(s), sizeof(s) - 1})

enum mode { PASS, TAP, STRIP, REFUSE, REFUSED };

// tap is what is known of one exchange.
struct tap {
  struct scan scan;
  struct strip strip;
  uint8_t *line; // strip.held bytes
  uint8_t mode;
};

struct kept *kept_new(void) { return malloc(sizeof(struct kept)); }

static struct ours same(struct theirs b) { return (struct ours){b.ptr, b.length}; }

static bool equal(struct theirs b, const char *text, size_t n) {
  if (b.length != n) return false;
  for (size_t i = 0; i < n; i++) {
    if (b.ptr[i] != (uint8_t)text[i]) return false;
  }
  return true;
}

static bool contains(struct theirs b, const char *text, size_t n) {
  for (size_t i = 0; i + n <= b.length; i++) {
    if (equal((struct theirs){b.ptr + i, n}, text, n)) return true;
  }
  return false;
}

static void copy(uint8_t *to, const uint8_t *from, size_t n) {
  for (size_t i = 0; i < n; i++) to[i] = from[i];
}

const char *HOOK(program_init)(void) { return version; }

const void *HOOK(http_filter_config_new)(void *envoy, struct theirs name, struct theirs config) { return version; } // anything but NULL
void HOOK(http_filter_config_destroy)(const void *config) {}

const void *HOOK(http_filter_new)(const void *config, void *envoy) {
  struct tap *t = malloc(sizeof *t);
  if (t) *t = (struct tap){0};
  return t;
}

void HOOK(http_filter_destroy)(const void *filter) {
  struct tap *t = (struct tap *)filter;
  if (!t) return;
  free(t->scan.kept);
  free(t->line);
  free(t);
}

// name gives the answers a name that Envoy gives by itself when no processor could: a UUID of version 7.
static void name(void *envoy) {
  static const char hex[] = "0123456789abcdef";
  uint8_t id[16] = {0}, text[36];
  struct timespec now = {0};
  clock_gettime(0, &now);
  getrandom(id, sizeof id, 0);
  uint64_t ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
  for (int i = 0; i < 6; i++) id[i] = (uint8_t)(ms >> (40 - 8 * i));
  id[6] = 0x70 | (id[6] & 0x0f);
  id[8] = 0x80 | (id[8] & 0x3f);
  for (int i = 0, at = 0; i < 16; i++) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text[at++] = '-';
    text[at++] = (uint8_t)hex[id[i] >> 4];
    text[at++] = (uint8_t)hex[id[i] & 15];
  }
  CALL(set_header)(envoy, RESPONSE_HEADERS, TEXT("x-weir-exchange-id"), (struct ours){text, sizeof text});
}

// inform sets headers from lines of the form "name: value\n".
static void inform(void *envoy, struct theirs lines) {
  const uint8_t *b = lines.ptr;
  for (size_t from = 0, i = 0, colon = 0; i < lines.length; i++) {
    if (b[i] == ':' && colon == 0) colon = i;
    if (b[i] != '\n') continue;
    if (colon > from && colon + 2 <= i) {
      struct ours key = {b + from, colon - from}, value = {b + colon + 2, i - colon - 2};
      CALL(set_header)(envoy, RESPONSE_HEADERS, key, value);
    }
    from = i + 1;
    colon = 0;
  }
}

// A provider that refuses the channel's credential says so to the operator, in the log; the client's own key is fine.
#define REFUSAL                                                                                                                  \
  "{\"error\":{\"message\":\"The provider refused the gateway's credential for this model. The operator of the gateway has to "   \
  "mend it.\",\"type\":\"server_error\",\"param\":null,\"code\":\"upstream_auth_failed\"}}"

static void set(void *envoy, struct ours key, struct ours value) { CALL(set_header)(envoy, RESPONSE_HEADERS, key, value); }

static int refuse(void *envoy, struct tap *t, bool end) {
  uint8_t size[] = {'0' + (sizeof REFUSAL - 1) / 100, '0' + (sizeof REFUSAL - 1) / 10 % 10, '0' + (sizeof REFUSAL - 1) % 10};
  set(envoy, TEXT(":status"), TEXT("502"));
  set(envoy, TEXT("content-type"), TEXT("application/json"));
  set(envoy, TEXT("content-encoding"), (struct ours){0});
  set(envoy, TEXT("content-length"), (struct ours){size, sizeof size});
  t->mode = REFUSE;
  if (!end) return STOP; // until the first of the body has come
  CALL(append_body)(envoy, BUFFERED, TEXT(REFUSAL));
  return CONTINUE;
}

int HOOK(http_filter_response_headers)(void *envoy, const void *filter, bool end) {
  struct tap *t = (struct tap *)filter;
  struct theirs value;
  if (!CALL(get_metadata_string)(envoy, DYNAMIC, TEXT("weir.tap"), TEXT("id"), &value)) { // a refusal, or Envoy's own answer
    if (!CALL(get_header)(envoy, RESPONSE_HEADERS, TEXT("x-weir-exchange-id"), &value, 0, NULL)) name(envoy);
    return CONTINUE;
  }
  set(envoy, TEXT("x-weir-exchange-id"), same(value));
  if (CALL(get_metadata_string)(envoy, DYNAMIC, TEXT("weir.tap"), TEXT("headers"), &value)) inform(envoy, value);
  if (!t || !CALL(get_header)(envoy, RESPONSE_HEADERS, TEXT(":status"), &value, 0, NULL)) return CONTINUE;
  if (equal(value, "401", 3) || equal(value, "403", 3)) return refuse(envoy, t, end);
  if (!equal(value, "200", 3)) return CONTINUE;
  t->mode = TAP;
  bool strip = false;
  if (CALL(get_metadata_bool)(envoy, DYNAMIC, TEXT("weir.tap"), TEXT("strip"), &strip) && strip &&
      CALL(get_header)(envoy, RESPONSE_HEADERS, TEXT("content-type"), &value, 0, NULL) && contains(value, "text/event-stream", 17)) {
    set(envoy, TEXT("content-length"), (struct ours){0}); // some providers send one on event streams; it would be wrong now
    t->mode = STRIP;
  }
  return CONTINUE;
}

// strip puts what was held back and the piece together, and lets on what strip_lines leaves of it.
static void strip(void *envoy, struct tap *t, const struct theirs *slices, size_t count, size_t size, bool end) {
  size_t held = t->strip.held, n = held + size;
  uint8_t *b = malloc(n);
  if (!b) return; // Envoy does not outlive that for long
  copy(b, t->line, held);
  for (size_t i = 0, at = held; i < count; i++) {
    copy(b + at, slices[i].ptr, slices[i].length);
    at += slices[i].length;
  }
  size_t out = strip_lines(&t->strip, b, n, end);
  if (held > 0 || out < n) {
    CALL(drain_body)(envoy, RECEIVED, size);
    if (out > 0) CALL(append_body)(envoy, RECEIVED, (struct ours){b, out});
  }
  free(t->line);
  t->line = NULL;
  if (t->strip.held > 0) {
    t->line = malloc(t->strip.held);
    if (t->line) copy(t->line, b + out, t->strip.held);
    else t->strip.held = 0;
  }
  free(b);
}

enum { FEW = 16 }; // slices of a piece, as a rule

int HOOK(http_filter_response_body)(void *envoy, const void *filter, bool end) {
  struct tap *t = (struct tap *)filter;
  if (!t || t->mode == PASS) return CONTINUE;
  size_t count = CALL(get_body_chunks_size)(envoy, RECEIVED), size = 0;
  struct theirs few[FEW], *slices = few;
  if (count > FEW) slices = malloc(count * sizeof *slices);
  if (!slices || (count > 0 && !CALL(get_body_chunks)(envoy, RECEIVED, slices))) count = 0;
  bool found = false, line = false; // line: the piece ends with one
  for (size_t i = 0; i < count; i++) {
    size_t n = slices[i].length;
    if (n == 0) continue;
    size += n;
    line = slices[i].ptr[n - 1] == '\n';
    if (t->mode == TAP || t->mode == STRIP) found |= scan_feed(&t->scan, slices[i].ptr, n);
  }
  if (t->mode == STRIP && t->strip.held + size > 0 && !strip_passes(&t->strip, found, line)) {
    strip(envoy, t, slices, count, size, end);
  } else if (t->mode >= REFUSE) {
    if (size > 0) CALL(drain_body)(envoy, RECEIVED, size);
    if (t->mode == REFUSE) CALL(append_body)(envoy, RECEIVED, TEXT(REFUSAL));
    t->mode = REFUSED;
  }
  if (slices != few) free(slices);
  return CONTINUE;
}

int HOOK(http_filter_response_trailers)(void *envoy, const void *filter) {
  struct tap *t = (struct tap *)filter;
  if (t && t->mode == REFUSE) {
    CALL(append_body)(envoy, BUFFERED, TEXT(REFUSAL));
    t->mode = REFUSED;
  } else if (t && t->strip.held > 0) {
    size_t out = strip_lines(&t->strip, t->line, t->strip.held, true);
    if (out > 0) CALL(append_body)(envoy, BUFFERED, (struct ours){t->line, out});
  }
  return CONTINUE;
}

// Before the access log is written, however the exchange ended.
void HOOK(http_filter_stream_complete)(void *envoy, const void *filter) {
  const struct tap *t = filter;
  if (!t) return;
  size_t n;
  const uint8_t *last = scan_last(&t->scan, &n);
  if (n > 0) CALL(set_dynamic_metadata_string)(envoy, TEXT("weir.usage"), TEXT("last"), (struct ours){last, n});
}

// Envoy loads no module that lacks a hook. Of these, the first three let everything pass, and the others are never called.
int HOOK(http_filter_request_headers)(void *envoy, const void *filter, bool end) { return CONTINUE; }
int HOOK(http_filter_request_body)(void *envoy, const void *filter, bool end) { return CONTINUE; }
int HOOK(http_filter_request_trailers)(void *envoy, const void *filter) { return CONTINUE; }

#define NEVER(name) \
  void HOOK(http_filter_##name)(void) {}
NEVER(http_callout_done)
NEVER(http_stream_headers)
NEVER(http_stream_data)
NEVER(http_stream_trailers)
NEVER(http_stream_complete)
NEVER(http_stream_reset)
NEVER(scheduled)
NEVER(downstream_above_write_buffer_high_watermark)
NEVER(downstream_below_write_buffer_low_watermark)
NEVER(config_scheduled)
NEVER(config_http_callout_done)
NEVER(config_http_stream_headers)
NEVER(config_http_stream_data)
NEVER(config_http_stream_trailers)
NEVER(config_http_stream_complete)
NEVER(config_http_stream_reset)
