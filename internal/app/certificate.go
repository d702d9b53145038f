// SPDX-License-Identifier: Apache-2.0

package app

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/config"
)

// certificate is the one of the gateway.
type certificate struct {
	renewable[envoy.Certificate]
	first envoy.Certificate // as it was found at the start
}

// openCertificate reads the certificate for the first time. Without gateway.tls there is none, and nothing to watch.
func openCertificate(files config.TLS, r prometheus.Registerer, log *slog.Logger) (*certificate, error) {
	c := &certificate{renewable: renewable[envoy.Certificate]{setting: "gateway.tls", file: files.Cert, log: log}}
	c.load = func() ([][]byte, envoy.Certificate, time.Time, error) {
		read, end, err := readCertificate(files)
		return [][]byte{read.Chain, read.Key}, read, end, err
	}
	c.register(r, prometheus.GaugeOpts{
		Name: "weir_gateway_certificate_expiry_timestamp_seconds",
		Help: "When the first certificate of the gateway's chain to end does so; 0 when the gateway speaks plain HTTP.",
	}, prometheus.GaugeOpts{
		Name: "weir_gateway_certificate_failing",
		Help: "1 while the files of gateway.tls cannot be read or do not fit together. The certificate that was read before is served.",
	})
	var err error
	c.first, err = c.open()
	return c, err
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
