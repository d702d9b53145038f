// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/weir-proxy/weir/internal/config"
)

// certificates are those that the processor presents, or has Envoy present.
type certificates struct {
	gateway *certificate // to clients
	envoys  *peers       // to Envoys on other machines
}

// peers tells Envoys on other machines from everybody else: mutual TLS on processor.listen, as processor.tls says.
type peers struct {
	renewable[*tls.Config]
	now    atomic.Pointer[tls.Config] // in force for connections that begin; nil: plain TCP
	turned prometheus.Counter         // connections that were turned away

	said struct {
		sync.Mutex
		at time.Time
	}
}

// openPeers reads the files for the first time. Without processor.tls there are none, and nothing to watch.
func openPeers(files config.MutualTLS, r prometheus.Registerer, log *slog.Logger) (*peers, error) {
	p := &peers{renewable: renewable[*tls.Config]{setting: "processor.tls", file: files.Cert, log: log}}
	p.load = func() ([][]byte, *tls.Config, time.Time, error) { return mutualTLS(files) }
	p.turned = promauto.With(r).NewCounter(prometheus.CounterOpts{
		Name: "weir_processor_refused_connections_total",
		Help: "Connections to processor.listen that were refused, since who made them has no certificate that processor.tls trusts.",
	})
	p.register(r, prometheus.GaugeOpts{
		Name: "weir_processor_certificate_expiry_timestamp_seconds",
		Help: "When the first certificate of the chain that Envoys see ends; 0 without processor.tls.",
	}, prometheus.GaugeOpts{
		Name: "weir_processor_certificate_failing",
		Help: "1 while the files of processor.tls cannot be read or do not fit together. What was read before is in force.",
	})
	first, err := p.open()
	p.now.Store(first)
	return p, err
}

// mutualTLS reads the files. Errors quote nothing of them.
func mutualTLS(files config.MutualTLS) (contents [][]byte, made *tls.Config, end time.Time, err error) {
	own, end, err := readCertificate(config.TLS{Cert: files.Cert, Key: files.Key})
	contents = [][]byte{own.Chain, own.Key, nil}
	if err != nil {
		return contents, nil, end, err
	}
	if contents[2], err = os.ReadFile(files.ClientCA); err != nil {
		return contents, nil, end, err
	}
	pair, err := tls.X509KeyPair(own.Chain, own.Key)
	if err != nil {
		return contents, nil, end, err
	}
	trust := x509.NewCertPool()
	if !trust.AppendCertsFromPEM(contents[2]) {
		return contents, nil, end, fmt.Errorf("%s holds no certificate", files.ClientCA)
	}
	return contents, &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		Certificates: []tls.Certificate{pair}, ClientCAs: trust, ClientAuth: tls.RequireAndVerifyClientCert,
		SessionTicketsDisabled: true, // who is not trusted any more must not come in by a ticket of before
	}, end, nil
}

// put has new connections begin by c.
func (p *peers) put(_ context.Context, c *tls.Config) error {
	p.now.Store(c)
	return nil
}

// over puts mutual TLS on a listener, if there is any.
func (p *peers) over(l net.Listener) net.Listener {
	if p.now.Load() == nil {
		return l
	}
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return p.now.Load(), nil },
	}
	return &peerListener{Listener: l, config: c, refused: p.refuse}
}

// complainOfPeers is how often the log says that somebody was refused.
const complainOfPeers = 10 * time.Second

// refuse counts a connection that came to nothing.
func (p *peers) refuse(from net.Addr, err error) {
	p.turned.Inc()
	p.said.Lock()
	defer p.said.Unlock()
	if now := time.Now(); now.Sub(p.said.at) > complainOfPeers {
		p.said.at = now
		p.log.Warn("a connection to processor.listen was refused", "from", from.String(), "err", err)
	}
}

// peerListener accepts connections that have a handshake to make. It is made by whoever reads or writes first, so that nobody holds up the others.
type peerListener struct {
	net.Listener
	config  *tls.Config
	refused func(from net.Addr, err error)
}

// Accept implements [net.Listener].
func (l *peerListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &peerConn{Conn: tls.Server(c, l.config), refused: l.refused}, nil
}

type peerConn struct {
	*tls.Conn
	once    sync.Once
	refused func(from net.Addr, err error)
}

// Read implements [net.Conn].
func (c *peerConn) Read(b []byte) (int, error) {
	c.begin()
	return c.Conn.Read(b)
}

// Write implements [net.Conn].
func (c *peerConn) Write(b []byte) (int, error) {
	c.begin()
	return c.Conn.Write(b)
}

// begin makes the handshake, once. If it fails, so does all that follows.
func (c *peerConn) begin() {
	c.once.Do(func() {
		if err := c.Handshake(); err != nil { //nolint:noctx // whoever reads or writes has set a deadline
			c.refused(c.RemoteAddr(), err)
		}
	})
}
