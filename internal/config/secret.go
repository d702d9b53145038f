// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// Secret is a value that must not be seen, or the reference that stands for it until it is resolved. It prints as "[redacted]"
// everywhere; only Reveal gives it away.
type Secret string

// String implements fmt.Stringer.
func (Secret) String() string { return "[redacted]" }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return "[redacted]" }

// MarshalText keeps secrets out of JSON and logs.
func (Secret) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// Reveal returns the secret.
func (s Secret) Reveal() string { return string(s) }

// reference matches a whole value only: a secret that is put together from parts would have to be escaped by the rules of what it is
// part of, such as a URL.
var reference = regexp.MustCompile(`^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$`)

// variable returns the name of the environment variable that s refers to, or "" when s is no reference.
func (s Secret) variable() string {
	if m := reference.FindStringSubmatch(string(s)); m != nil {
		return m[1]
	}
	return ""
}

// resolve returns what s refers to. A reference to nothing is returned as it is, for [Config.ValidateSecrets] to report: a process that
// does not need the secret starts without it.
func (s Secret) resolve() (Secret, error) {
	name := s.variable()
	if name == "" {
		return s, nil
	}
	if v := os.Getenv(name); v != "" {
		return Secret(v), nil
	}
	path := os.Getenv(name + "_FILE")
	if path == "" {
		return s, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the file that %s_FILE names: %w", name, err)
	}
	// Editors and echo end files with a newline, which is never part of a secret.
	v := strings.TrimRight(string(b), "\r\n")
	if v == "" {
		return "", fmt.Errorf("read the file that %s_FILE names: %s is empty", name, path)
	}
	return Secret(v), nil
}

// secretKeyBytes is the length of an AES-256 key.
const secretKeyBytes = 32

// EncryptionKey returns the 32 bytes of the first key in secret_key.
func (c Config) EncryptionKey() ([]byte, error) {
	keys, err := c.EncryptionKeys()
	if err != nil {
		return nil, err
	}
	return keys[0], nil
}

// EncryptionKeys returns the keys in secret_key, 32 bytes each: the one to encrypt with, and those that things may still be encrypted with. Standard and
// URL-safe base64 are understood, with and without padding.
func (c Config) EncryptionKeys() ([][]byte, error) {
	texts := strings.Fields(c.SecretKey.Reveal())
	if len(texts) == 0 {
		texts = []string{""}
	}
	keys := make([][]byte, len(texts))
	for i, text := range texts {
		key, err := decodeKey(text)
		if err != nil {
			return nil, err
		}
		keys[i] = key
	}
	return keys, nil
}

func decodeKey(text string) ([]byte, error) {
	s := strings.NewReplacer("-", "+", "_", "/", "=", "").Replace(text)
	b, err := base64.RawStdEncoding.DecodeString(s)
	if err != nil {
		return nil, errors.New("must be base64; make one with: openssl rand -base64 32")
	}
	if len(b) != secretKeyBytes {
		return nil, fmt.Errorf("must be %d bytes in base64, not %d; make one with: openssl rand -base64 32", secretKeyBytes, len(b))
	}
	return b, nil
}
