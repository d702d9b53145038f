// SPDX-License-Identifier: Apache-2.0

// Refuses prompts with a word of its configuration, without an SDK: weir/1 (plugins/ABI.md) needs no more than this.
//
//	clang --target=wasm32 -O2 -nostdlib -Wl,--no-entry -Wl,--export-memory -o guard.wasm guard.c
//	zig cc -target wasm32-freestanding -O2 -nostdlib -Wl,--no-entry -Wl,--export-memory -o guard.wasm guard.c

#define EXPORT(name) __attribute__((export_name(#name)))

typedef unsigned int u32;
typedef unsigned long long u64;

extern unsigned char __heap_base;
static unsigned char *top = &__heap_base;

// Room is never given back: each call begins in the state that weir_configure left.
EXPORT(weir_alloc) void *weir_alloc(u32 size) {
  unsigned char *at = top;
  top += (size + 7u) & ~7u;
  u32 pages = ((u32)top + 65535) / 65536;
  if (pages > __builtin_wasm_memory_size(0)) {
    if (__builtin_wasm_memory_grow(0, pages - __builtin_wasm_memory_size(0)) == (u32)-1) __builtin_trap();
  }
  return at;
}

EXPORT(weir_abi_1) void weir_abi_1(void) {}

// A field of a message: its tag, its length and its value follow each other.
typedef struct {
  u32 tag, length;
  const unsigned char *value;
} field;

// Takes the next field of what is left of a message; 0 at its end.
static int next(const unsigned char **at, const unsigned char *end, field *f) {
  if (end - *at < 8) return 0;
  __builtin_memcpy(&f->tag, *at, 4);
  __builtin_memcpy(&f->length, *at + 4, 4);
  f->value = *at + 8;
  if (f->length > (u32)(end - f->value)) return 0;
  *at = f->value + f->length;
  return 1;
}

static const unsigned char *word;
static u32 word_length;

EXPORT(weir_configure) u64 weir_configure(const unsigned char *at, u32 length) {
  static const char complaint[] = "the configuration is the word that is not allowed, and it is empty";
  word = at, word_length = length;
  return length ? 0 : (u64)(u32)complaint << 32 | (sizeof complaint - 1);
}

static int has_word(const unsigned char *text, u32 length) {
  for (u32 i = 0; i + word_length <= length; i++) {
    u32 n = 0;
    while (n < word_length && text[i + n] == word[n]) n++;
    if (n == word_length) return 1;
  }
  return 0;
}

// A verdict: action (1) is deny, denial (2) has a status (1), a code (2) and a message (3).
static const unsigned char denied[] =
    "\x01\0\0\0\x08\0\0\0\x01\0\0\0\0\0\0\0"
    "\x02\0\0\0\x3c\0\0\0"
    "\x01\0\0\0\x08\0\0\0\x93\x01\0\0\0\0\0\0"
    "\x02\0\0\0\x0e\0\0\0forbidden_word"
    "\x03\0\0\0\x0e\0\0\0Not this word.";

EXPORT(weir_request) u64 weir_request(const unsigned char *at, u32 length) {
  const unsigned char *end = at + length;
  for (field message; next(&at, end, &message);) {
    if (message.tag != 14) continue;
    const unsigned char *m = message.value, *m_end = m + message.length;
    for (field text; next(&m, m_end, &text);) {
      if (text.tag != 3) continue;
      const unsigned char *t = text.value, *t_end = t + text.length;
      for (field f; next(&t, t_end, &f);) {
        if (f.tag == 2 && has_word(f.value, f.length)) return (u64)(u32)denied << 32 | (sizeof denied - 1);
      }
    }
  }
  return 0;
}
