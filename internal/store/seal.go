// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// SchemaVersion returns the version of the schema that this program works with. What is kept of a configuration is good for programs with the same one alone: another
// may have something in it that must not be left out.
func SchemaVersion() int64 {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil || len(names) == 0 {
		panic("no migrations are embedded") // cannot be: the pattern is good, and they are
	}
	number, _, _ := strings.Cut(strings.TrimPrefix(names[len(names)-1], "migrations/"), "_")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		panic("a migration has no number") // a mistake in this package
	}
	return n
}

// Rules are what requests are decided by, but for the keys.
type Rules struct {
	Configuration
	Terms
}

// sealedConfiguration is a configuration as JSON. A [Secret] does not go into JSON, so the credentials stand beside the channels.
type sealedConfiguration struct {
	Rules
	Credentials [][]byte // of the channels, as in weir.channel
}

// SealConfiguration encodes rules with their credentials encrypted, for [Store.OpenConfiguration].
func (s *Store) SealConfiguration(c Rules) ([]byte, error) {
	sealed := sealedConfiguration{Rules: c}
	for i := range c.Channels {
		credential, err := s.cipher.seal(c.Channels[i].ID, c.Channels[i].Credential)
		if err != nil {
			return nil, fmt.Errorf("channel %q: %w", c.Channels[i].Name, err)
		}
		sealed.Credentials = append(sealed.Credentials, credential)
	}
	b, err := json.Marshal(sealed)
	if err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	return b, nil
}

// OpenConfiguration decodes what SealConfiguration has made of a configuration, with the same secret key.
func (s *Store) OpenConfiguration(b []byte) (Rules, error) {
	var sealed sealedConfiguration
	if err := json.Unmarshal(b, &sealed); err != nil {
		return Rules{}, fmt.Errorf("decode configuration: %w", err)
	}
	c := sealed.Rules
	if len(sealed.Credentials) != len(c.Channels) {
		return Rules{}, invalid("configuration: %d credentials of %d channels", len(sealed.Credentials), len(c.Channels))
	}
	for i := range c.Channels {
		var err error
		if c.Channels[i].Credential, err = s.cipher.open(c.Channels[i].ID, sealed.Credentials[i]); err != nil {
			return Rules{}, fmt.Errorf("channel %q: %w", c.Channels[i].Name, err)
		}
	}
	return c, nil
}
