# SPDX-License-Identifier: Apache-2.0
"""Counts tokens with tiktoken: reads texts, each behind its length in four bytes, and prints both counts of each on a line."""

import struct
import sys

import tiktoken

encodings = [tiktoken.get_encoding(name) for name in ("o200k_base", "cl100k_base")]
print(tiktoken.__version__, flush=True)
while head := sys.stdin.buffer.read(4):
    text = sys.stdin.buffer.read(struct.unpack("<I", head)[0]).decode()
    print(*(len(e.encode_ordinary(text)) for e in encodings))
