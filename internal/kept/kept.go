// SPDX-License-Identifier: Apache-2.0

// Package kept keeps on the disk what the database said last, so that a processor that starts while the database is away can decide.
//
// A [File] holds the configuration and the keys. It replaces itself as a whole, and whoever reads it gets all of it or an error: it carries an authentication
// code under a key that is derived from the one that credentials are encrypted with, so that a file that was damaged, altered, or written under another key is
// refused. Of keys it has the hashes, and credentials are in it as they are in the database, encrypted. [Modules] does the same for the plugins.
//
// How old what is kept may be is for its reader to say: a key that was revoked since then would work.
package kept

import (
	"bufio"
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy"
)

// ErrUnusable is wrapped by the errors of [File.Read] for a file that is there and must not be used.
var ErrUnusable = errors.New("unusable")

// Layout of the file; integers are little-endian:
//
//	"WEIRKEPT" | format=1 (4) | schema (4) | time (8, Unix ms) | length (8) | configuration, JSON | keys, see policy.Keyring.Write | code (32)
//
// The code is HMAC-SHA-256 of all before it. Beside it, in a file of its own, is when the database has confirmed it last:
//
//	"WEIRSEEN" | time (8, Unix ms) | code of the file (32) | code (32)
const (
	magic     = "WEIRKEPT"
	seenMagic = "WEIRSEEN"
	format    = 1
	headBytes = len(magic) + 4 + 4 + 8 + 8
	seenBytes = len(seenMagic) + 8 + 2*sha256.Size
	seenName  = ".seen" // behind the name of the file
)

// File is where the state is kept. Its methods are for one goroutine at a time.
type File struct {
	path string
	key  []byte
	code []byte // of the file that was written or read last
}

// State is what a database said at a time.
type State struct {
	Time  time.Time // the database has confirmed it then
	Rules store.Rules
	Keys  *policy.KeyBuilder
}

// Codec encodes a configuration with its credentials encrypted; *store.Store is one.
type Codec interface {
	SealConfiguration(c store.Rules) ([]byte, error)
	OpenConfiguration(b []byte) (store.Rules, error)
}

// New returns the file at path, for the key that credentials are encrypted with.
func New(path string, secretKey []byte) (*File, error) {
	key, err := hkdf.Key(sha256.New, secretKey, nil, "weir kept state", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	return &File{path: path, key: key}, nil
}

func (f *File) mac() hash.Hash { return hmac.New(sha256.New, f.key) }

// Write puts a state, as of at, in the place of the one that is kept. The keys may change meanwhile.
func (f *File) Write(at time.Time, c store.Rules, keys *policy.Keyring, codec Codec) error {
	sealed, err := codec.SealConfiguration(c)
	if err != nil {
		return fmt.Errorf("keep configuration: %w", err)
	}
	var code []byte
	err = replace(f.path, func(w io.Writer) error {
		mac := f.mac()
		out := bufio.NewWriterSize(io.MultiWriter(w, mac), 1<<18)
		head := make([]byte, 0, headBytes)
		head = append(head, magic...)
		head = binary.LittleEndian.AppendUint32(head, format)
		head = binary.LittleEndian.AppendUint32(head, uint32(store.SchemaVersion())) //nolint:gosec // a small number
		head = binary.LittleEndian.AppendUint64(head, uint64(at.UnixMilli()))
		head = binary.LittleEndian.AppendUint64(head, uint64(len(sealed)))
		_, _ = out.Write(head) // the first error comes back from Flush
		_, _ = out.Write(sealed)
		if err := keys.Write(out); err != nil {
			return err
		}
		if err := out.Flush(); err != nil {
			return err
		}
		code = mac.Sum(nil)
		_, err := w.Write(code)
		return err
	})
	if err != nil {
		return fmt.Errorf("keep configuration: %w", err)
	}
	f.code = code
	return nil
}

// Confirm notes that the database still says what was written last, as of at.
func (f *File) Confirm(at time.Time) error {
	if f.code == nil {
		return nil
	}
	b := binary.LittleEndian.AppendUint64([]byte(seenMagic), uint64(at.UnixMilli()))
	b = append(b, f.code...)
	mac := f.mac()
	mac.Write(b)
	err := replace(f.path+seenName, func(w io.Writer) error {
		_, err := w.Write(mac.Sum(b))
		return err
	})
	if err != nil {
		return fmt.Errorf("confirm what is kept: %w", err)
	}
	return nil
}

// Read returns what is kept. The error wraps fs.ErrNotExist when nothing is, and [ErrUnusable] when it must not be used, with the reason.
func (f *File) Read(codec Codec) (State, error) {
	b, err := os.ReadFile(f.path)
	if err != nil {
		return State{}, fmt.Errorf("read what is kept: %w", err)
	}
	unusable := func(why string) (State, error) {
		return State{}, fmt.Errorf("%s: %w: %s", f.path, ErrUnusable, why)
	}
	if len(b) < headBytes+sha256.Size || string(b[:len(magic)]) != magic {
		return unusable("it is cut, or of another kind")
	}
	body, code := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	mac := f.mac()
	mac.Write(body)
	if !hmac.Equal(mac.Sum(nil), code) {
		return unusable("it was damaged, altered, or written under another secret_key")
	}
	head := body[len(magic):]
	if v := binary.LittleEndian.Uint32(head); v != format {
		return unusable(fmt.Sprintf("it has format %d", v))
	}
	if v := binary.LittleEndian.Uint32(head[4:]); int64(v) != store.SchemaVersion() {
		return unusable(fmt.Sprintf("it was written by a weir whose schema has version %d; that of this one has %d", v, store.SchemaVersion()))
	}
	at := time.UnixMilli(int64(binary.LittleEndian.Uint64(head[8:]))) //nolint:gosec // as it was written
	n, rest := binary.LittleEndian.Uint64(head[16:]), body[headBytes:]
	if n > uint64(len(rest)) {
		return unusable("it is cut")
	}
	c, err := codec.OpenConfiguration(rest[:n])
	if err != nil {
		return unusable(err.Error())
	}
	keys, err := policy.ReadKeys(rest[n:])
	if err != nil {
		return unusable(err.Error())
	}
	f.code = bytes.Clone(code)
	if seen, ok := f.confirmed(); ok && seen.After(at) {
		at = seen
	}
	return State{Time: at, Rules: c, Keys: keys}, nil
}

// confirmed returns when the file that was read has been confirmed last.
func (f *File) confirmed() (time.Time, bool) {
	b, err := os.ReadFile(f.path + seenName)
	if err != nil || len(b) != seenBytes || string(b[:len(seenMagic)]) != seenMagic {
		return time.Time{}, false // then it is as old as it says itself
	}
	body, code := b[:seenBytes-sha256.Size], b[seenBytes-sha256.Size:]
	mac := f.mac()
	mac.Write(body)
	if !hmac.Equal(mac.Sum(nil), code) || !bytes.Equal(body[len(seenMagic)+8:], f.code) {
		return time.Time{}, false
	}
	return time.UnixMilli(int64(binary.LittleEndian.Uint64(body[len(seenMagic):]))), true //nolint:gosec // as it was written
}

// replace writes a file that only its owner may read, beside the one at path, and puts it in its place when it is whole and on the disk.
func replace(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := write(f); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir has a rename reach the disk.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
