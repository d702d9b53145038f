// SPDX-License-Identifier: Apache-2.0

package app

import (
	"bytes"
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
	files   config.MutualTLS
	log     *slog.Logger
	now     atomic.Pointer[tls.Config] // in force for connections that begin; nil: plain TCP
	expiry  atomic.Int64               // of the processor's chain, in Unix seconds; 0 without one
	failing atomic.Bool                // what is in the files does not fit together
	read    peerFiles                  // what the one in force was made of
	refused peerFiles                  // the last that did not fit together, to say so once
	turned  prometheus.Counter         // connections that were turned away

	said struct {
		sync.Mutex
		at time.Time
	}
}

// peerFiles is what is in the files.
type peerFiles struct{ chain, key, trust []byte }

func (f peerFiles) same(g peerFiles) bool {
	return bytes.Equal(f.chain, g.chain) && bytes.Equal(f.key, g.key) && bytes.Equal(f.trust, g.trust)
}

// openPeers reads the files for the first time. Without processor.tls there are none, and nothing to watch.
func openPeers(files config.MutualTLS, r prometheus.Registerer, log *slog.Logger) (*peers, error) {
	f := promauto.With(r)
	p := &peers{files: files, log: log, turned: f.NewCounter(prometheus.CounterOpts{
		Name: "weir_processor_refused_connections_total",
		Help: "Connections to processor.listen that were refused, since who made them has no certificate that processor.tls trusts.",
	})}
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "weir_processor_certificate_expiry_timestamp_seconds",
		Help: "When the first certificate of the chain that Envoys see ends; 0 without processor.tls.",
	}, func() float64 { return float64(p.expiry.Load()) })
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "weir_processor_certificate_failing",
		Help: "1 while the files of processor.tls cannot be read or do not fit together. What was read before is in force.",
	}, func() float64 {
		if p.failing.Load() {
			return 1
		}
		return 0
	})
	if files.Cert == "" {
		return p, nil
	}
	read, made, end, err := p.load()
	if err != nil {
		return nil, hinted{fmt.Errorf("processor.tls: %w", err), "the files must be readable by the user that weir serve runs as, in PEM, the key without a passphrase"}
	}
	p.adopt(read, made, end)
	return p, nil
}

// load reads the files. Errors quote nothing of them.
func (p *peers) load() (read peerFiles, made *tls.Config, end time.Time, err error) {
	own, end, err := readCertificate(config.TLS{Cert: p.files.Cert, Key: p.files.Key})
	read.chain, read.key = own.Chain, own.Key
	if err != nil {
		return read, nil, end, err
	}
	if read.trust, err = os.ReadFile(p.files.ClientCA); err != nil {
		return read, nil, end, err
	}
	pair, err := tls.X509KeyPair(read.chain, read.key)
	if err != nil {
		return read, nil, end, err
	}
	trust := x509.NewCertPool()
	if !trust.AppendCertsFromPEM(read.trust) {
		return read, nil, end, fmt.Errorf("%s holds no certificate", p.files.ClientCA)
	}
	return read, &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		Certificates: []tls.Certificate{pair}, ClientCAs: trust, ClientAuth: tls.RequireAndVerifyClientCert,
		SessionTicketsDisabled: true, // who is not trusted any more must not come in by a ticket of before
	}, end, nil
}

// watch looks for other files until ctx ends. What it finds holds for new connections.
func (p *peers) watch(ctx context.Context) error {
	if p.files.Cert == "" {
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
		p.look()
	}
}

// look takes what is in the files now, if it has changed and fits together. What is wrong is told when it is so for two looks: files may be in
// the middle of being written.
func (p *peers) look() {
	read, made, end, err := p.load()
	if err != nil {
		if read.same(p.refused) && !p.failing.Swap(true) {
			p.log.Error("the files of processor.tls cannot be used; what was there before is in force", "err", err)
		}
		p.refused = read
		return
	}
	p.refused = peerFiles{}
	if p.failing.Swap(false) {
		p.log.Info("the files of processor.tls can be used again")
	}
	if !read.same(p.read) {
		p.adopt(read, made, end)
	}
}

func (p *peers) adopt(read peerFiles, made *tls.Config, end time.Time) {
	p.read = read
	p.now.Store(made)
	p.expiry.Store(end.Unix())
	p.log.Info("certificate for Envoys in force", "file", p.files.Cert, "expires", end.UTC().Format(time.RFC3339))
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
