// SPDX-License-Identifier: Apache-2.0

package app

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// renewalLook is how often files of certificates are read. They are small, and whoever renews a certificate tells nobody: some replace a file,
// some a link, some write into it, and what a file system says of each differs.
const renewalLook = time.Second

// renewable is a certificate with what belongs to it, in files that may be replaced at any time. A T is what is made of them.
type renewable[T any] struct {
	setting string // that names the files, as in gateway.tls
	file    string // of the certificate; empty: there is none, and nothing to watch
	log     *slog.Logger
	// load reads the files and makes a T of them. It returns the contents also with an error, which quotes nothing of them.
	load func() (contents [][]byte, made T, end time.Time, err error)

	read    [][]byte     // what the T in force was made of
	refused [][]byte     // the last that did not fit together, to say so once
	expiry  atomic.Int64 // of the chain in force, in Unix seconds; 0 without one
	failing atomic.Bool  // what is in the files does not fit together
}

// register makes the metrics of the certificate.
func (c *renewable[T]) register(r prometheus.Registerer, expiry, failing prometheus.GaugeOpts) {
	f := promauto.With(r)
	f.NewGaugeFunc(expiry, func() float64 { return float64(c.expiry.Load()) })
	f.NewGaugeFunc(failing, func() float64 {
		if c.failing.Load() {
			return 1
		}
		return 0
	})
}

// open reads the files for the first time. Then they must fit together.
func (c *renewable[T]) open() (made T, err error) {
	if c.file == "" {
		return made, nil
	}
	contents, made, end, err := c.load()
	if err != nil {
		return made, hinted{fmt.Errorf("%s: %w", c.setting, err), "the files must be readable by the user that weir serve runs as, in PEM, the key without a passphrase"}
	}
	c.adopt(contents, end)
	return made, nil
}

// watch looks for other files until ctx ends, and hands each T that they make to put.
func (c *renewable[T]) watch(ctx context.Context, put func(context.Context, T) error) error {
	if c.file == "" {
		return nil
	}
	tick := time.NewTicker(renewalLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := c.look(ctx, put); err != nil {
			return err
		}
	}
}

// look takes what is in the files now, if it has changed and fits together. Files that are being written do not, for a moment: what is wrong is
// told when it is so for two looks.
func (c *renewable[T]) look(ctx context.Context, put func(context.Context, T) error) error {
	contents, made, end, err := c.load()
	if err != nil {
		if same(contents, c.refused) && !c.failing.Swap(true) {
			c.log.Error("the files of a certificate cannot be used; what was there before is in force", "setting", c.setting, "err", err)
		}
		c.refused = contents
		return nil
	}
	c.refused = nil
	if c.failing.Swap(false) {
		c.log.Info("the files of a certificate can be used again", "setting", c.setting)
	}
	if same(contents, c.read) {
		return nil
	}
	if err := put(ctx, made); err != nil {
		return fmt.Errorf("%s: %w", c.setting, err)
	}
	c.adopt(contents, end)
	return nil
}

func (c *renewable[T]) adopt(contents [][]byte, end time.Time) {
	c.read = contents
	c.expiry.Store(end.Unix())
	c.log.Info("a certificate is in force", "setting", c.setting, "file", c.file, "expires", end.UTC().Format(time.RFC3339))
	if time.Now().After(end) {
		c.log.Error("a certificate has expired: it will be refused", "setting", c.setting, "file", c.file)
	}
}

func same(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) }
