// SPDX-License-Identifier: Apache-2.0

// Package fetch gets the module of a plugin from where it is published.
//
//	guard.wasm                                        a file
//	https://example.com/guard.wasm#sha256=1f3a…       a URL, with the SHA-256 of the module, 64 hexadecimal digits
//	oci://registry.example.com/plugins/guard:1.2      an artifact or an image of a registry, by tag or by @sha256:…
//
// A URL without a SHA-256 is refused: whoever answers at it would choose what runs. A reference to a registry may have one too. The layouts of registries are in oci.go.
package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"
)

// Options say how to reach others. The zero value is fit for use.
type Options struct {
	Client   *http.Client // nil: one with a time limit of a minute
	MaxBytes int64        // of a module; zero: 16 MiB
}

const (
	defaultMaxBytes = 16 << 20
	timeout         = time.Minute
)

// Error is a source that cannot be used, and what to do about it.
type Error struct {
	Reason string
	Hint   string
}

// Error implements error.
func (e *Error) Error() string { return e.Reason }

// Module gets the module that source names.
func Module(ctx context.Context, source string, o Options) ([]byte, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.Client == nil {
		o.Client = &http.Client{Timeout: timeout}
	}
	scheme, _, isURL := strings.Cut(source, "://")
	if !isURL {
		return file(source, o)
	}
	place, sum, err := pinned(source)
	if err != nil {
		return nil, err
	}
	var wasm []byte
	switch {
	case scheme == "https" && sum == "":
		return nil, &Error{
			"a module from a URL needs its SHA-256", "add #sha256=… with the 64 hexadecimal digits that sha256sum prints, or download it and name the file",
		}
	case scheme == "https":
		wasm, err = download(ctx, place, o)
	case scheme == "oci":
		wasm, err = pull(ctx, strings.TrimPrefix(place, "oci://"), o)
	default:
		return nil, &Error{fmt.Sprintf("modules do not come by %s://", scheme), "name a file, or a URL that begins with https:// or oci://"}
	}
	if err != nil {
		return nil, err
	}
	if got := sha256.Sum256(wasm); sum != "" && hex.EncodeToString(got[:]) != sum {
		return nil, &Error{fmt.Sprintf("%s has the SHA-256 %x, and not %s", place, got, sum), "it is another version, or not what its author has published"}
	}
	return wasm, nil
}

// pinned takes the SHA-256 off a URL.
func pinned(source string) (place, sum string, err error) {
	place, fragment, has := strings.Cut(source, "#")
	if !has {
		return place, "", nil
	}
	sum, ok := strings.CutPrefix(strings.ToLower(fragment), "sha256=")
	if _, err := hex.DecodeString(sum); !ok || err != nil || len(sum) != 2*sha256.Size {
		return "", "", &Error{fmt.Sprintf("%q is no SHA-256", fragment), "it is #sha256= and 64 hexadecimal digits"}
	}
	return place, sum, nil
}

func file(name string, o Options) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read the module: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	return limited(f, name, o.MaxBytes)
}

// limited reads all of r, unless it is too long.
func limited(r io.Reader, name string, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(b)) > most {
		return nil, &Error{fmt.Sprintf("%s is longer than %d bytes", name, most), "build it without debug information"}
	}
	return b, nil
}

// download gets a URL. Redirects may lead anywhere by https: the SHA-256 says what is right.
func download(ctx context.Context, place string, o Options) ([]byte, error) {
	u, err := url.Parse(place)
	if err != nil || u.Host == "" {
		return nil, &Error{fmt.Sprintf("%q is no URL", place), ""}
	}
	client := *o.Client
	client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if req.URL.Scheme != "https" || len(via) > 9 {
			return errors.New("a redirect leads away from https, or in circles")
		}
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, place, nil)
	if err != nil {
		return nil, fmt.Errorf("download the module: %w", err)
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("download the module: %w", err)
	}
	defer res.Body.Close() //nolint:errcheck // what was read is read
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("download the module: %s answered %s", u.Host, res.Status)
	}
	return limited(res.Body, place, o.MaxBytes)
}

// Name proposes a name for the plugin that source names: the last part of its path, without version and suffix.
func Name(source string) string {
	place, _, _ := strings.Cut(source, "#")
	if rest, ok := strings.CutPrefix(place, "oci://"); ok {
		place, _, _ = strings.Cut(rest, "@")
		place = path.Base(place)
		place, _, _ = strings.Cut(place, ":")
	} else if u, err := url.Parse(place); err == nil {
		place = u.Path
	}
	place = strings.ReplaceAll(place, `\`, "/") // of a file on Windows
	return strings.ToLower(strings.TrimSuffix(path.Base(place), ".wasm"))
}
