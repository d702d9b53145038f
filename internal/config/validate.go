// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Problem is one mistake in a configuration.
type Problem struct {
	Line int    // in the file; 0 when the key is not in the file
	Key  string // with its section, as in "timeouts.idle"; empty when the file as a whole is at fault
	Text string // what is wrong, in the words of the file
}

// Error is all the mistakes in a configuration, a line for each.
type Error struct {
	File     string // may be empty
	Problems []Problem
}

// Error implements error.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		var b strings.Builder
		if e.File != "" {
			b.WriteString(e.File + ":")
			if p.Line > 0 {
				b.WriteString(strconv.Itoa(p.Line) + ":")
			}
			b.WriteByte(' ')
		}
		if p.Key != "" {
			b.WriteString(p.Key + ": ")
		}
		b.WriteString(p.Text)
		lines[i] = b.String()
	}
	return strings.Join(lines, "\n")
}

// maxSocketPath is what fits into sockaddr_un with its final zero, on the strictest system (macOS and the BSDs: 104, Linux: 108).
const maxSocketPath = 103

// Limits that keep a slip of the pen from taking the machine.
const (
	maxBody      = 1 << 30 // bytes; Envoy holds the whole body of each request
	maxBatchRows = 100_000
	maxConns     = 1000
	minRetention = 31 * 24 * time.Hour
	minLease     = time.Second // Envoy writes lines of what is under way four times in it
	maxWorkers   = 1024
	maxHops      = 16
	minStale     = 10 * time.Second
	minAudit     = 24 * time.Hour
	minMetrics   = time.Second
	// What is not synced is held in memory, too.
	maxSyncInterval = 10 * time.Second
	maxDrain        = time.Hour
	minWait         = time.Millisecond
	maxWait         = time.Second // with longer ones what is done about them comes too late
	maxEnvoyDrain   = 24 * time.Hour
	maxClients      = 10_000_000
	minHeap         = 64 << 20 // bytes; Envoy itself takes some 40 MB
	minRotate       = 1 << 16  // bytes; a smaller log holds no more than a few lines
	maxVolume       = 1 << 50  // bytes
	wasmPage        = 1 << 16  // bytes
	maxPluginFuel   = 1_000_000_000_000
	maxPluginMemory = 1 << 32 // bytes
	maxPluginTime   = 10 * time.Second
	maxHeaders      = 64
)

// Validate reports every value that cannot work, as an [*Error]. Secrets are checked by [Config.ValidateSecrets], because not every
// process needs them.
func (c Config) Validate() error {
	var v validator
	v.require("state_dir", c.StateDir)
	v.address("gateway.listen", c.Gateway.Listen)
	v.within("gateway.max_body_bytes", c.Gateway.MaxBodyBytes, 1024, maxBody)
	v.within("gateway.trusted_hops", int64(c.Gateway.TrustedHops), 0, maxHops)
	v.tls(c.Gateway)
	v.timeouts(c.Timeouts)
	socket := c.Complete().Processor.Socket
	if len(socket) > maxSocketPath {
		v.add("processor.socket", "%s is %d bytes long; a Unix socket's path has at most %d: choose a shorter one", socket, len(socket), maxSocketPath)
	}
	if d := c.Processor.Drain; d < 0 || d > maxDrain {
		v.add("processor.drain", "must be from 0s to %v, not %v", maxDrain, d)
	}
	if w := c.Processor.Wait; w != 0 && (w < minWait || w > maxWait) {
		v.add("processor.wait", "must be from %v to %v, or 0s to refuse no request for how long it waits, not %v", minWait, maxWait, w)
	}
	listeners := []listener{{"gateway.listen", c.Gateway.Listen}, {"admin.listen", c.Admin.Listen}, {"envoy.admin", c.Envoy.Admin}}
	if c.Processor.Listen != "" {
		v.address("processor.listen", c.Processor.Listen)
		listeners = append(listeners, listener{"processor.listen", c.Processor.Listen})
	}
	v.mutualTLS(c)
	v.address("envoy.admin", c.Envoy.Admin)
	if c.Envoy.Processor != "" {
		v.reachable("envoy.processor", c.Envoy.Processor)
	}
	if c.Envoy.AccessLog != LogFile && c.Envoy.AccessLog != LogGRPC {
		v.add("envoy.access_log", "must be %s or %s", LogFile, LogGRPC)
	}
	if t := c.Envoy.Tap; t != TapAuto && t != TapNative && t != TapLua {
		v.add("envoy.tap", "must be %s, %s or %s", TapAuto, TapNative, TapLua)
	}
	if !slices.Contains(Oldests(), c.Envoy.Oldest) {
		v.add("envoy.oldest", "must be one of %s, not %q", strings.Join(Oldests(), ", "), c.Envoy.Oldest)
	}
	v.within("envoy.concurrency", int64(c.Envoy.Concurrency), 0, maxWorkers)
	v.envoyLimits(c.Envoy)
	v.address("admin.listen", c.Admin.Listen)
	v.distinct(listeners)
	v.journal(c.Journal)
	v.within("usage.batch_rows", int64(c.Usage.BatchRows), 1, maxBatchRows)
	v.positive("usage.batch_interval", c.Usage.BatchInterval)
	if c.Usage.Lease < minLease {
		v.add("usage.lease", "must be at least %s, not %s", minLease, c.Usage.Lease)
	}
	// Within a month a log may come back from a copy: its exchanges must be found in weir.usage, or they would be counted again.
	if keep := c.Usage.Retention; keep != 0 && keep < minRetention {
		v.add("usage.retention", "must be at least %v, or 0 to keep rows for ever, not %v", minRetention, keep)
	}
	v.usageLog(c.Usage.Log)
	v.plugins(c.Plugins)
	v.limits(c.Limits)
	v.within("database.max_conns", int64(c.Database.MaxConns), 2, maxConns)
	v.ages(c)
	v.telemetry(c.Telemetry)
	return v.err()
}

// mutualTLS checks that both sides of the way between machines have all that they need, or nothing.
func (v *validator) mutualTLS(c Config) {
	p, e := c.Processor.TLS, c.Envoy.ProcessorTLS
	whole := func(section string, files ...string) bool {
		given := 0
		for _, f := range files {
			if f != "" {
				given++
			}
		}
		if given > 0 && given < len(files) {
			v.add(section, "must have all of its files, or none")
		}
		return given > 0
	}
	if whole("processor.tls", p.Cert, p.Key, p.ClientCA) && c.Processor.Listen == "" {
		v.add("processor.tls", "needs processor.listen: the Unix socket is protected by its file")
	}
	if whole("envoy.processor_tls", e.CA, e.Cert, e.Key) && c.Envoy.Processor == "" {
		v.add("envoy.processor_tls", "needs envoy.processor: the Unix socket is protected by its file")
	}
	if e.Name != "" && e.CA == "" {
		v.add("envoy.processor_tls.name", "needs envoy.processor_tls.ca, which the certificate with that name is verified by")
	}
}

func (v *validator) telemetry(t Telemetry) {
	if t.Endpoint != "" && !isWebhook(t.Endpoint) {
		v.add("telemetry.endpoint", "must be a URL that begins with https:// or http://, without a user")
	}
	v.require("telemetry.service", t.Service)
	if t.MetricsInterval < minMetrics {
		v.add("telemetry.metrics_interval", "must be at least %s, not %s", minMetrics, t.MetricsInterval)
	}
}

func (v *validator) tls(g Gateway) {
	if g.TLS.Cert == "" && g.TLS.Key != "" {
		v.add("gateway.tls.key", "needs gateway.tls.cert, the certificate that it belongs to")
	}
	if g.TLS.Cert != "" && g.TLS.Key == "" {
		v.add("gateway.tls.cert", "needs gateway.tls.key, its private key")
	}
	if g.TLS.HTTP3 && g.TLS.Cert == "" {
		v.add("gateway.tls.http3", "needs gateway.tls.cert: HTTP/3 has no form without TLS")
	}
	if g.TLS.HTTP3 && g.ProxyProtocol {
		v.add("gateway.tls.http3", "cannot be had with gateway.proxy_protocol, which HTTP/3 does not have")
	}
}

func (v *validator) limits(l Limits) {
	if l.Unpriced != AllowUnpriced && l.Unpriced != RefuseUnpriced {
		v.add("limits.unpriced", "must be %s or %s", AllowUnpriced, RefuseUnpriced)
	}
	if l.CutOff != GoOn && l.CutOff != Refuse {
		v.add("limits.cut_off", "must be %s or %s", GoOn, Refuse)
	}
	if s := l.Budgets.OutageStatus; s != 429 && s != 503 {
		v.add("limits.budgets.outage_status", "must be 503 or 429, not %d", s)
	}
}

// ages checks how old things may become.
func (v *validator) ages(c Config) {
	if c.Database.MaxStale < minStale {
		v.add("database.max_stale", "must be at least %s, not %s", minStale, c.Database.MaxStale)
	}
	if keep := c.Admin.AuditRetention; keep != 0 && keep < minAudit {
		v.add("admin.audit_retention", "must be at least %v, or 0 to keep entries for ever, not %v", minAudit, keep)
	}
}

// ValidateSecrets reports every secret that is missing or malformed, as an [*Error]. It never quotes one.
func (c Config) ValidateSecrets() error {
	var v validator
	if v.secret("database.url", c.Database.URL) && !isPostgres(c.Database.URL.Reveal()) {
		v.add("database.url", "must begin with postgres:// or be a list of settings such as host=/run/postgresql dbname=weir")
	}
	if v.secret("secret_key", c.SecretKey) {
		if _, err := c.EncryptionKeys(); err != nil {
			v.add("secret_key", "%s", err)
		}
	}
	v.secret("admin.token", c.Admin.Token)
	if c.Limits.Budgets.Webhook != "" && v.secret("limits.budgets.webhook", c.Limits.Budgets.Webhook) && !isWebhook(c.Limits.Budgets.Webhook.Reveal()) {
		v.add("limits.budgets.webhook", "must be a URL that begins with https:// or http://, without a user")
	}
	if c.Limits.Budgets.WebhookToken != "" {
		v.secret("limits.budgets.webhook_token", c.Limits.Budgets.WebhookToken)
	}
	if c.Telemetry.Headers != "" {
		v.secret("telemetry.headers", c.Telemetry.Headers)
	}
	return v.err()
}

func isWebhook(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil
}

func isPostgres(text string) bool {
	return strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://") ||
		!strings.Contains(text, "://") && strings.Contains(text, "=")
}

// validator gathers problems.
type validator struct{ problems []Problem }

func (v *validator) add(key, format string, args ...any) {
	v.problems = append(v.problems, Problem{Key: key, Text: fmt.Sprintf(format, args...)})
}

func (v *validator) err() error {
	if len(v.problems) == 0 {
		return nil
	}
	return &Error{Problems: v.problems}
}

func (v *validator) require(key, value string) {
	if value == "" {
		v.add(key, "must not be empty")
	}
}

func (v *validator) within(key string, n, low, high int64) {
	if n < low || n > high {
		v.add(key, "must be from %d to %d, not %d", low, high, n)
	}
}

func (v *validator) positive(key string, d time.Duration) {
	if d <= 0 {
		v.add(key, "must be more than 0s, not %s", d)
	}
}

func (v *validator) envoyLimits(e Envoy) {
	if e.Drain < 0 || e.Drain > maxEnvoyDrain {
		v.add("envoy.drain", "must be from 0s to %v, not %v", maxEnvoyDrain, e.Drain)
	}
	if e.DrainNotice < 0 || e.DrainNotice > maxDrain {
		v.add("envoy.drain_notice", "must be from 0s to %v, not %v", maxDrain, e.DrainNotice)
	}
	v.within("envoy.max_connections", int64(e.MaxConnections), 1, maxClients)
	if e.MaxHeapBytes != 0 {
		v.within("envoy.max_heap_bytes", e.MaxHeapBytes, minHeap, maxVolume)
	}
}

func (v *validator) journal(j Journal) {
	if j.SyncInterval <= 0 || j.SyncInterval > maxSyncInterval {
		v.add("journal.sync_interval", "must be more than 0s and at most %s, not %s", maxSyncInterval, j.SyncInterval)
	}
	if j.Durability != Async && j.Durability != Fsync {
		v.add("journal.durability", "must be %s or %s", Async, Fsync)
	}
}

func (v *validator) timeouts(t Timeouts) {
	v.positive("timeouts.connect", t.Connect)
	v.positive("timeouts.first_byte", t.FirstByte)
	v.positive("timeouts.first_byte_stream", t.FirstByteStream)
	v.positive("timeouts.idle", t.Idle)
	v.positive("timeouts.total", t.Total)
	// Envoy counts the wait for an answer's first byte as idleness too: it would end the exchange before the next channel is tried.
	if longest := max(t.FirstByte, t.FirstByteStream); t.Idle > 0 && longest > 0 && t.Idle <= longest {
		v.add("timeouts.idle", "%v must be more than first_byte and first_byte_stream, so that a channel that does not answer is given up first", t.Idle)
	}
}

func (v *validator) usageLog(l UsageLog) {
	v.within("usage.log.rotate_bytes", l.RotateBytes, minRotate, maxVolume)
	v.positive("usage.log.rotate_age", l.RotateAge)
	v.positive("usage.log.keep", l.Keep)
	v.within("usage.log.max_bytes", l.MaxBytes, minRotate, maxVolume)
	v.within("usage.log.min_free", l.MinFree, 0, maxVolume)
	if l.MaxBytes < l.RotateBytes && l.RotateBytes <= maxVolume {
		v.add("usage.log.max_bytes", "must not be less than usage.log.rotate_bytes, which is %d", l.RotateBytes)
	}
}

func (v *validator) plugins(p Plugins) {
	if len(p.Headers) > maxHeaders {
		v.add("plugins.headers", "has %d names, and at most %d are possible", len(p.Headers), maxHeaders)
	}
	for _, h := range p.Headers {
		switch {
		case h == "" || strings.Trim(h, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz") != "":
			v.add("plugins.headers", "%q is not the name of a header in lower case", h)
		case h == "authorization" || h == "api-key" || h == "x-api-key":
			v.add("plugins.headers", "%q holds the key of a client, which plugins are never shown", h)
		}
	}
	v.within("plugins.limits.fuel", p.Limits.Fuel, 1000, maxPluginFuel)
	v.within("plugins.limits.memory_bytes", p.Limits.MemoryBytes, wasmPage, maxPluginMemory)
	if p.Limits.MemoryBytes%wasmPage != 0 {
		v.add("plugins.limits.memory_bytes", "must be a multiple of %d", wasmPage)
	}
	if p.Limits.Time < time.Millisecond || p.Limits.Time > maxPluginTime {
		v.add("plugins.limits.time", "must be from 1ms to %s, not %s", maxPluginTime, p.Limits.Time)
	}
	v.within("plugins.limits.concurrency", int64(p.Limits.Concurrency), 0, maxWorkers)
}

// address checks a host:port that is listened on. Port 0 is refused: nobody could be told where the process listens.
func (v *validator) address(key, value string) {
	host, port, err := net.SplitHostPort(value)
	if err != nil {
		v.add(key, "%q is not host:port, as in 127.0.0.1:10000", value)
		return
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		v.add(key, "%q has no port from 1 to 65535", value)
	}
	if host == "" {
		v.add(key, "%q names no address; 0.0.0.0 stands for every one of IPv4", value)
		return
	}
	if net.ParseIP(host) == nil {
		v.add(key, "%q must be an IP address, not a name", host)
	}
}

// reachable checks a host:port that is connected to; the host may be a name.
func (v *validator) reachable(key, value string) {
	host, port, err := net.SplitHostPort(value)
	if err != nil || host == "" {
		v.add(key, "%q is not host:port, as in weir.internal:10005", value)
		return
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		v.add(key, "%q has no port from 1 to 65535", value)
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		v.add(key, "%q is an address to listen on; say which one the processor is reached at", host)
	}
}

type listener struct{ key, address string }

// distinct refuses two listeners on one port, unless each is on an address of its own.
func (v *validator) distinct(all []listener) {
	for i, a := range all {
		for _, b := range all[:i] {
			ah, ap, aerr := net.SplitHostPort(a.address)
			bh, bp, berr := net.SplitHostPort(b.address)
			if aerr != nil || berr != nil || ap != bp {
				continue
			}
			if ah == bh || net.ParseIP(ah).IsUnspecified() || net.ParseIP(bh).IsUnspecified() {
				v.add(a.key, "port %s is already that of %s", ap, b.key)
			}
		}
	}
}

func (v *validator) secret(key string, s Secret) bool {
	if name := s.variable(); name != "" {
		v.add(key, "neither %s nor %s_FILE is set in the environment", name, name)
		return false
	}
	if s == "" {
		v.add(key, "must not be empty")
		return false
	}
	return true
}

// holdsPassword reports whether a database URL or list of settings carries a password.
func holdsPassword(text string) bool {
	if !strings.Contains(text, "://") {
		return strings.Contains(text, "password")
	}
	u, err := url.Parse(text)
	if err != nil {
		return true // It is not known that there is none.
	}
	_, has := u.User.Password()
	return has || u.Query().Has("password")
}
