// SPDX-License-Identifier: Apache-2.0

package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"

	"github.com/weir-proxy/weir/policy"
)

// ErrSecretKey says that the credentials of channels cannot be read or written with the secret key that the store was opened with.
var ErrSecretKey = errors.New("wrong or missing secret key")

// Layout of weir.channel.credential:
//
//	version=1 | nonce (12) | AES-256-GCM ciphertext and tag, with "weir.channel:<id>" as additional data
//
// The additional data binds a credential to its channel: one that is copied to another row does not open there.
const (
	cipherVersion = 1
	secretKeyLen  = 32
)

// credentialCipher encrypts with one key, and decrypts what that or a former one encrypted.
type credentialCipher struct {
	aead   cipher.AEAD
	former []cipher.AEAD
}

func newCredentialCipher(key []byte, former ...[]byte) (*credentialCipher, error) {
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	c := &credentialCipher{aead: aead}
	for _, key := range former {
		if aead, err = newAEAD(key); err != nil {
			return nil, err
		}
		c.former = append(c.former, aead)
	}
	return c, nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	if len(key) != secretKeyLen {
		return nil, fmt.Errorf("%w: it has %d bytes and must have %d", ErrSecretKey, len(key), secretKeyLen)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	return aead, nil
}

func channelData(id policy.ChannelID) []byte {
	return strconv.AppendInt([]byte("weir.channel:"), int64(id), 10)
}

// seal encrypts the credential of a channel.
func (c *credentialCipher) seal(id policy.ChannelID, credential Secret) ([]byte, error) {
	if c == nil {
		return nil, fmt.Errorf("encrypt credential: %w: none is set", ErrSecretKey)
	}
	b := make([]byte, 1+c.aead.NonceSize(), 64+len(credential))
	b[0] = cipherVersion
	rand.Read(b[1:]) // never fails: see crypto/rand
	return c.aead.Seal(b, b[1:], []byte(credential), channelData(id)), nil
}

// open decrypts what seal made for the same channel.
func (c *credentialCipher) open(id policy.ChannelID, sealed []byte) (Secret, error) {
	credential, _, err := c.openAny(id, sealed)
	return credential, err
}

// openAny says besides whether it was a former key that decrypted it.
func (c *credentialCipher) openAny(id policy.ChannelID, sealed []byte) (credential Secret, former bool, err error) {
	if c == nil {
		return "", false, fmt.Errorf("decrypt credential: %w: none is set", ErrSecretKey)
	}
	n := 1 + c.aead.NonceSize()
	if len(sealed) < n || sealed[0] != cipherVersion {
		return "", false, errors.New("decrypt credential: unknown format; it was written by another version or damaged")
	}
	plain, err := c.aead.Open(nil, sealed[1:n], sealed[n:], channelData(id))
	for i := 0; err != nil && i < len(c.former); i++ {
		plain, err = c.former[i].Open(nil, sealed[1:n], sealed[n:], channelData(id))
		former = err == nil
	}
	if err != nil {
		return "", false, fmt.Errorf("decrypt credential: %w: it was encrypted with another key, or the row was tampered with", ErrSecretKey)
	}
	return Secret(plain), former, nil
}
