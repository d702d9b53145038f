// SPDX-License-Identifier: Apache-2.0

package app

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/config"
)

// certificateLook is how often the files of gateway.tls are read. They are small, and whoever renews a certificate tells nobody: some replace a
// file, some a link, some write into it, and what a file system says of each differs.
const certificateLook = time.Second

// certificate is the one of the gateway, as it was found to be whole last.
type certificate struct {
	files   config.TLS
	log     *slog.Logger
	now     envoy.Certificate // in force
	refused envoy.Certificate // the last that was not whole, to say so once
	expiry  atomic.Int64      // of the one in force, in Unix seconds; 0 without one
	failing atomic.Bool       // what is in the files is not whole
}

// openCertificate reads the certificate for the first time. Without gateway.tls there is none, and nothing to watch.
func openCertificate(files config.TLS, r prometheus.Registerer, log *slog.Logger) (*certificate, error) {
	c := &certificate{files: files, log: log}
	f := promauto.With(r)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "weir_gateway_certificate_expiry_timestamp_seconds",
		Help: "When the first certificate of the gateway's chain to end does so; 0 when the gateway speaks plain HTTP.",
	}, func() float64 { return float64(c.expiry.Load()) })
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "weir_gateway_certificate_failing",
		Help: "1 while the files of gateway.tls cannot be read or do not fit together. The certificate that was read before is served.",
	}, func() float64 {
		if c.failing.Load() {
			return 1
		}
		return 0
	})
	if files.Cert == "" {
		return c, nil
	}
	read, end, err := readCertificate(files)
	if err != nil {
		return nil, hinted{fmt.Errorf("gateway.tls: %w", err), "the files must be readable by the user that weir serve runs as, in PEM, the key without a passphrase"}
	}
	c.adopt(read, end)
	return c, nil
}

// watch looks for another certificate until ctx ends, and hands each that is whole to publish.
func (c *certificate) watch(ctx context.Context, publish func(context.Context, envoy.Certificate) error) error {
	if c.files.Cert == "" {
		return nil
	}
	tick := time.NewTicker(certificateLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := c.look(ctx, publish); err != nil {
			return err
		}
	}
}

// look takes what is in the files now, if it is another certificate and whole. Files that are being written are not, for a moment: what is wrong
// is told when it is so for two looks.
func (c *certificate) look(ctx context.Context, publish func(context.Context, envoy.Certificate) error) error {
	read, end, err := readCertificate(c.files)
	if err != nil {
		if same(read, c.refused) && !c.failing.Swap(true) {
			c.log.Error("the files of gateway.tls cannot be used; the certificate that was there before is served", "err", err)
		}
		c.refused = read
		return nil
	}
	c.refused = envoy.Certificate{}
	if c.failing.Swap(false) {
		c.log.Info("the files of gateway.tls can be used again")
	}
	if same(read, c.now) {
		return nil
	}
	if err := publish(ctx, read); err != nil {
		return fmt.Errorf("gateway.tls: %w", err)
	}
	c.adopt(read, end)
	return nil
}

func (c *certificate) adopt(read envoy.Certificate, end time.Time) {
	c.now = read
	c.expiry.Store(end.Unix())
	c.log.Info("certificate in force", "file", c.files.Cert, "expires", end.UTC().Format(time.RFC3339))
	if time.Now().After(end) {
		c.log.Error("the certificate of the gateway has expired: clients will refuse it", "file", c.files.Cert)
	}
}

func same(a, b envoy.Certificate) bool {
	return bytes.Equal(a.Chain, b.Chain) && bytes.Equal(a.Key, b.Key)
}

// readCertificate returns what is in the files, and an error if that is not a certificate with its key. Errors quote neither.
func readCertificate(files config.TLS) (read envoy.Certificate, end time.Time, err error) {
	if read.Chain, err = os.ReadFile(files.Cert); err != nil {
		return read, end, err
	}
	if read.Key, err = os.ReadFile(files.Key); err != nil {
		return read, end, err
	}
	pair, err := tls.X509KeyPair(read.Chain, read.Key)
	if err != nil {
		return read, end, fmt.Errorf("%s and %s: %w", files.Cert, files.Key, err)
	}
	for _, der := range pair.Certificate {
		one, err := x509.ParseCertificate(der)
		if err != nil {
			return read, end, errors.Join(fmt.Errorf("%s holds a certificate that cannot be read", files.Cert), err)
		}
		if end.IsZero() || one.NotAfter.Before(end) {
			end = one.NotAfter
		}
	}
	return read, end, nil
}
