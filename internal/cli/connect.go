// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/store"
)

// defaultDevDir is where weir dev keeps its state, unless WEIR_DEV_DIR or --dir say otherwise.
const defaultDevDir = ".weir/dev"

// devFile is what weir dev writes into its directory, so that the other commands find it.
const devFile = "admin.json"

// endpoint is where a Weir is administered.
type endpoint struct {
	URL   string       `json:"url"`
	Token store.Secret `json:"token"`

	source string // where the URL comes from, for people
}

// connectionFlags adds the flags that [connect] reads.
func connectionFlags(c *cobra.Command) {
	f := c.PersistentFlags()
	f.String("url", "", "the admin `URL` of Weir (default $WEIR_URL, then that of weir dev)")
	f.String("token", "", "the admin `TOKEN`, or @FILE that holds it (default $WEIR_TOKEN, then that of weir dev)")
	f.String("as", "", "`WHO` you are, for weir audit (default $WEIR_AS)")
}

// findEndpoint looks at the flags, then at the environment, then for a weir dev. The token of weir dev is only ever sent to weir dev.
func findEndpoint(c *cobra.Command) (endpoint, error) {
	var e endpoint
	flag, err := c.Flags().GetString("url")
	if err != nil {
		return e, err
	}
	e.URL = cmp.Or(flag, os.Getenv("WEIR_URL"))
	switch {
	case flag != "":
		e.source = "--url"
	case e.URL != "":
		e.source = "WEIR_URL"
	default:
		if e, err = findDev(); err != nil {
			return e, err
		}
	}
	token, err := c.Flags().GetString("token")
	if err != nil {
		return e, err
	}
	if token = cmp.Or(token, os.Getenv("WEIR_TOKEN")); token != "" {
		if token, err = fromFile("token", token); err != nil {
			return e, err
		}
		e.Token = store.Secret(token)
	}
	return e, nil
}

// findDev reads the file of the weir dev that has its state in WEIR_DEV_DIR, or else in .weir/dev of this folder or of one above it.
func findDev() (endpoint, error) {
	notFound := withHint(errors.New("it is not known where Weir runs"), "set WEIR_URL and WEIR_TOKEN, or go to a folder in which weir dev was started")
	if dir := os.Getenv("WEIR_DEV_DIR"); dir != "" {
		e, err := readDev(filepath.Join(dir, devFile))
		if errors.Is(err, fs.ErrNotExist) {
			return e, notFound
		}
		return e, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return endpoint{}, fmt.Errorf("find the current folder: %w", err)
	}
	for {
		e, err := readDev(filepath.Join(dir, defaultDevDir, devFile))
		if !errors.Is(err, fs.ErrNotExist) {
			return e, err
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return e, notFound
		}
		dir = parent
	}
}

// readDev refuses a file that points anywhere but to this machine: weir dev never does, and who put the file there is not known.
func readDev(path string) (endpoint, error) {
	var e endpoint
	b, err := os.ReadFile(path)
	if err != nil {
		return e, fmt.Errorf("read the address of weir dev: %w", err)
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return e, withHint(fmt.Errorf("%s cannot be read: %w", path, err), "start weir dev again, or remove the file")
	}
	u, err := url.Parse(e.URL)
	if err != nil || !isLoopback(u.Hostname()) {
		return e, withHint(fmt.Errorf("%s does not point to this machine", path), "remove it, or set WEIR_URL and WEIR_TOKEN")
	}
	e.source = path
	return e, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// connect returns a client for the Weir that the command is to speak to.
func connect(c *cobra.Command) (*admin.Client, error) {
	e, err := findEndpoint(c)
	if err != nil {
		return nil, err
	}
	client, err := admin.NewClient(e.URL, e.Token)
	if err != nil {
		return nil, wrongUsage("%s: %w", e.source, err)
	}
	as := os.Getenv("WEIR_AS")
	if f := c.Flag("as"); f != nil { // a command that changes nothing has none
		as = cmp.Or(f.Value.String(), as)
	}
	client.As(as)
	return client, nil
}
