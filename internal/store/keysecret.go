// SPDX-License-Identifier: Apache-2.0

package store

import (
	"crypto/rand"
	"strings"
)

const (
	secretPrefix   = "sk-weir-"
	secretAlphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	secretLen      = 43 // of 62 letters: 62^43 > 2^256
)

// newSecret returns a secret that carries 256 random bits.
func newSecret() Secret {
	const fair = 256 - 256%len(secretAlphabet) // larger bytes would favour the first letters
	b := make([]byte, 0, len(secretPrefix)+secretLen)
	b = append(b, secretPrefix...)
	var random [64]byte
	for len(b) < cap(b) {
		rand.Read(random[:]) // never fails: see crypto/rand
		for _, c := range random {
			if int(c) < fair && len(b) < cap(b) {
				b = append(b, secretAlphabet[int(c)%len(secretAlphabet)])
			}
		}
	}
	return Secret(b)
}

// hint returns what may be shown of a secret: four random letters of at least 24, or next to nothing of a short one.
func hint(s Secret) string {
	const ends, enough = 2, 24
	if len(s) < enough {
		return string(s[:ends]) + "…"
	}
	head := 0
	if i := strings.LastIndexByte(string(s[:12]), '-'); i >= 0 {
		head = i + 1
	}
	return string(s[:head+ends]) + "…" + string(s[len(s)-ends:])
}

// HintOf returns what may be shown of a secret, for people to know it by.
func HintOf(s Secret) string {
	const shortest = 3
	if len(s) < shortest {
		return "…"
	}
	return hint(s)
}
