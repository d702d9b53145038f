// SPDX-License-Identifier: Apache-2.0

// Package config reads weir.yaml, which says where things are: addresses, paths and limits. Who may do what is in Postgres.
//
// A [Config] is a plain value. [Default] is the whole of what a missing key means, [Load] reads a file over it, and every mistake in a
// file is reported with its line and in the words of the file. The commented file is deploy/weir.yaml; a test holds the two together.
//
// # Secrets
//
// Secrets are never in the file. Their keys hold a reference, ${NAME}, which stands for the environment variable NAME, or, when that is
// not set, for the contents of the file that NAME_FILE names. References work in secrets only.
package config

import (
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// Config is everything that a process of Weir is told at its start.
type Config struct {
	StateDir  string     `yaml:"state_dir"`  // journal, logs and sockets live below it
	LogLevel  slog.Level `yaml:"log_level"`  // debug, info, warn or error
	SecretKey Secret     `yaml:"secret_key"` // 32 bytes in base64; encrypts the credentials of providers at rest
	Gateway   Gateway    `yaml:"gateway"`
	Timeouts  Timeouts   `yaml:"timeouts"`
	Processor Processor  `yaml:"processor"`
	Envoy     Envoy      `yaml:"envoy"`
	Admin     Admin      `yaml:"admin"`
	Journal   Journal    `yaml:"journal"`
	Usage     Usage      `yaml:"usage"`
	Plugins   Plugins    `yaml:"plugins"`
	Limits    Limits     `yaml:"limits"`
	Database  Database   `yaml:"database"`
	Telemetry Telemetry  `yaml:"telemetry"`

	Conditions `yaml:"-"`
}

// Conditions are what no key of the file sets.
type Conditions struct {
	// Dev allows what is convenient and unsafe, such as the key sk-weir-dev. Only weir dev sets it.
	Dev bool
	// Clock tells the time of day; nil means time.Now. Tests of what a clock that is set does to the books give another.
	Clock func() time.Time `json:"-"`
}

// Gateway is where clients connect.
type Gateway struct {
	Listen       string `yaml:"listen"`         // host:port
	MaxBodyBytes int64  `yaml:"max_body_bytes"` // of a request; longer ones get 413
	TrustedHops  int    `yaml:"trusted_hops"`   // proxies before Envoy whose x-forwarded-for is believed

	ProxyProtocol bool `yaml:"proxy_protocol"` // connections begin with the header of the PROXY protocol
	TLS           TLS  `yaml:"tls"`
}

// TLS is the certificate that clients see, and what they may speak by it. Both files or none; without them the gateway speaks plain HTTP.
type TLS struct {
	Cert string `yaml:"cert"` // PEM file of the chain, the server's own certificate first
	Key  string `yaml:"key"`  // PEM file of its private key

	HTTP3 bool `yaml:"http3"` // by UDP on the same port, too
}

// Timeouts bound each exchange. They are Envoy's to keep.
type Timeouts struct {
	Connect         time.Duration `yaml:"connect"`           // to a provider, TLS included
	FirstByte       time.Duration `yaml:"first_byte"`        // of the answer, from one attempt, when the client does not stream
	FirstByteStream time.Duration `yaml:"first_byte_stream"` // the same when the client streams
	Idle            time.Duration `yaml:"idle"`              // without a byte in either direction
	Total           time.Duration `yaml:"total"`             // the whole exchange with all its attempts
}

// Processor is where Envoy finds the processor.
type Processor struct {
	Socket string        `yaml:"socket"` // Unix socket of ext_proc, xDS and OTLP logs; empty means <state_dir>/weir.sock
	Listen string        `yaml:"listen"` // host:port of the same by TCP; empty means that there is none
	TLS    MutualTLS     `yaml:"tls"`    // of Listen
	Wait   time.Duration `yaml:"wait"`   // for a decision, from where on requests are refused when most of them wait longer; 0 means never
	Drain  time.Duration `yaml:"drain"`  // how long to wait, when told to stop, for the lines of exchanges in flight
}

// MutualTLS has Envoys on other machines prove who they are, and hides what goes between them and the processor. All files or none; without them it is
// plain TCP.
type MutualTLS struct {
	Cert     string `yaml:"cert"`      // PEM file of the processor's chain, its own certificate first
	Key      string `yaml:"key"`       // PEM file of its private key
	ClientCA string `yaml:"client_ca"` // PEM bundle of who signs the certificates of Envoys
}

// ProcessorTLS is how an Envoy on another machine knows the processor, and shows who it is. All files or none; without them it is plain TCP.
type ProcessorTLS struct {
	CA   string `yaml:"ca"`   // PEM bundle of who signs the processor's certificate
	Cert string `yaml:"cert"` // PEM file of Envoy's own chain
	Key  string `yaml:"key"`  // PEM file of its private key
	Name string `yaml:"name"` // that the processor's certificate must have; empty means the host of envoy.processor
}

// AccessLog is how Envoy tells the processor of the exchanges that ended.
type AccessLog string

// The values of envoy.access_log.
const (
	LogFile AccessLog = "file" // by a file on a disk that both share
	LogGRPC AccessLog = "grpc" // by messages
)

// Tap is what looks at responses as they pass through Envoy.
type Tap string

// The values of envoy.tap.
const (
	TapAuto   Tap = "auto"   // the native one where it can be had
	TapNative Tap = "native" // a module of Envoy
	TapLua    Tap = "lua"    // a script
)

// Envoy says how Envoy is run and reached.
type Envoy struct {
	Admin       string    `yaml:"admin"`       // host:port of Envoy's own admin interface
	Processor   string    `yaml:"processor"`   // host:port of the processor's processor.listen; empty means its socket
	AccessLog   AccessLog `yaml:"access_log"`  // how Envoy tells of exchanges
	Tap         Tap       `yaml:"tap"`         // what looks at responses
	LogDir      string    `yaml:"log_dir"`     // where the access log is; empty means <state_dir>/log
	Path        string    `yaml:"path"`        // the binary; empty means that it is looked for
	Oldest      string    `yaml:"oldest"`      // the version of the oldest Envoy of a mesh, one of Oldests
	CAFile      string    `yaml:"ca_file"`     // PEM bundle that providers' certificates are verified with; empty means the system's
	Concurrency int       `yaml:"concurrency"` // worker threads; 0 means one per CPU

	ProcessorTLS ProcessorTLS `yaml:"processor_tls"` // of the way to Processor

	DrainNotice    time.Duration `yaml:"drain_notice"`    // how long connections are still taken once Envoy is told to stop
	Drain          time.Duration `yaml:"drain"`           // how long exchanges in flight may go on after that
	MaxConnections int           `yaml:"max_connections"` // of clients, at once; more are closed
	MaxHeapBytes   int64         `yaml:"max_heap_bytes"`  // of Envoy's memory; 0 means no limit

	// Node is the Envoy's name. No key of the file sets it: several Envoys of one processor share the file.
	Node string `yaml:"-"`
}

// Oldests are the values of envoy.oldest. Newer Envoys lack nothing that the last of them has.
func Oldests() []string { return []string{"1.37", "1.38", "1.39", "1.40"} }

// Admin is where the admin REST API, the metrics and the dashboard are.
type Admin struct {
	Listen string `yaml:"listen"` // host:port
	Token  Secret `yaml:"token"`  // the bearer token of the API

	AuditRetention time.Duration `yaml:"audit_retention"` // how long entries of the audit are kept; 0 means for ever
}

// Durability says what the note of an admitted exchange outlives before its request goes on.
type Durability string

// The values of journal.durability.
const (
	Async Durability = "async" // the process; power loss only after journal.sync_interval
	Fsync Durability = "fsync" // power loss: each request waits for the disk, together with those that arrive in the meantime
)

// Journal says how admitted exchanges are noted, so that none is forgotten.
type Journal struct {
	SyncInterval time.Duration `yaml:"sync_interval"` // from a note to its sync, which nobody waits for
	Durability   Durability    `yaml:"durability"`
}

// Usage says how rows of usage are shipped to Postgres.
type Usage struct {
	BatchRows     int           `yaml:"batch_rows"`     // at most this many in one transaction
	BatchInterval time.Duration `yaml:"batch_interval"` // a row waits no longer than this for its batch to fill
	Lease         time.Duration `yaml:"lease"`          // without a sign of life for so long, an exchange gets a row that says unresolved
	Retention     time.Duration `yaml:"retention"`      // how long rows are kept, in whole days; 0 means for ever. Sums and balances stay
	Log           UsageLog      `yaml:"log"`
}

// UsageLog says what becomes of the access logs, from which usage is read.
type UsageLog struct {
	RotateBytes int64         `yaml:"rotate_bytes"` // a log is rotated when it is so large
	RotateAge   time.Duration `yaml:"rotate_age"`   // or so old
	Keep        time.Duration `yaml:"keep"`         // how long it stays after all of it is in Postgres
	MaxBytes    int64         `yaml:"max_bytes"`    // of all logs
	MinFree     int64         `yaml:"min_free"`     // bytes of their volume; 0 means 256 MiB or 5 %, whichever is less
}

// CutOff is what a processor does about limits that it shares with others when it has been cut off from the database for so long that they believe it dead.
type CutOff string

// The values of limits.cut_off.
const (
	GoOn   CutOff = "go_on"  // it goes on with its equal part, which the others have too by then
	Refuse CutOff = "refuse" // it refuses what has a limit
)

// Unpriced says what becomes of a request for a model of which no price is known.
type Unpriced string

// The values of limits.unpriced.
const (
	AllowUnpriced  Unpriced = "allow"  // it is served unless its key or tenant has a budget; its row has no cost
	RefuseUnpriced Unpriced = "refuse" // it is refused
)

// Limits says what holds where Postgres has no answer: how rates are held that processors share, and what has no price.
type Limits struct {
	CutOff   CutOff   `yaml:"cut_off"`
	Unpriced Unpriced `yaml:"unpriced"` // requests for models without a price
	Budgets  Budgets  `yaml:"budgets"`
}

// Plugins says how policies in WebAssembly are run.
type Plugins struct {
	CacheDir string       `yaml:"cache_dir"` // of compiled modules; empty means <state_dir>/plugins
	Headers  []string     `yaml:"headers"`   // of requests and responses that plugins may be shown, in lower case
	Limits   PluginLimits `yaml:"limits"`
}

// PluginLimits bound each plugin that has no limits of its own where it is attached.
type PluginLimits struct {
	Fuel        int64         `yaml:"fuel"`         // of a call
	MemoryBytes int64         `yaml:"memory_bytes"` // a multiple of 65536
	Time        time.Duration `yaml:"time"`         // of a call
	Concurrency int           `yaml:"concurrency"`  // calls at a time; 0 means all CPUs but one
}

// Budgets says what happens around what keys and tenants may spend. The budgets themselves are in Postgres.
type Budgets struct {
	OutageStatus int    `yaml:"outage_status"` // 503 or 429: to what needs more than was leased while Postgres is away
	Webhook      Secret `yaml:"webhook"`       // URL that is told when a share of a budget is spent; empty: only the log is
	WebhookToken Secret `yaml:"webhook_token"` // bearer token for it; may be empty
}

// Database is the Postgres that keeps the books.
type Database struct {
	URL      Secret `yaml:"url"`       // holds a password
	MaxConns int    `yaml:"max_conns"` // per process

	MaxStale time.Duration `yaml:"max_stale"` // how long to decide without it by what it said last
}

// Protocol is how telemetry is sent. Its values are those of OTEL_EXPORTER_OTLP_PROTOCOL.
type Protocol string

// The values of telemetry.protocol besides the empty one, which means what OTEL_EXPORTER_OTLP_PROTOCOL says, or gRPC.
const (
	OTLPGRPC Protocol = "grpc"
	OTLPHTTP Protocol = "http/protobuf"
)

// Telemetry says where what models do is told by OTLP. What is empty is as the standard variables OTEL_… say.
type Telemetry struct {
	Endpoint string   `yaml:"endpoint"` // URL of a collector; empty, and not in the environment either: nothing is sent or traced
	Protocol Protocol `yaml:"protocol"`
	Headers  Secret   `yaml:"headers"` // of each message, as name=value,name=value; may be empty
	Service  string   `yaml:"service"` // service.name of the processor; Envoy's has "-envoy" behind it

	Metrics         bool          `yaml:"metrics"`
	MetricsInterval time.Duration `yaml:"metrics_interval"` // between two messages with measurements
	Traces          bool          `yaml:"traces"`
	SampleRatio     float64       `yaml:"sample_ratio"`  // of the exchanges whose client has no trace, from 0 to 1
	TrustClients    bool          `yaml:"trust_clients"` // to go on with the traces that clients begin
}

// Default returns the configuration that an empty file stands for. Its secrets are references that nothing has resolved yet.
func Default() Config {
	return Config{
		StateDir:  "/var/lib/weir",
		LogLevel:  slog.LevelInfo,
		SecretKey: "${WEIR_SECRET_KEY}",
		Gateway:   Gateway{Listen: "0.0.0.0:10000", MaxBodyBytes: 32 << 20},
		Timeouts: Timeouts{
			Connect:         5 * time.Second,
			FirstByte:       10 * time.Minute,
			FirstByteStream: 2 * time.Minute,
			Idle:            15 * time.Minute,
			Total:           time.Hour,
		},
		Processor: Processor{Wait: 10 * time.Millisecond, Drain: time.Second},
		Envoy:     Envoy{Admin: "127.0.0.1:10002", Oldest: "1.40", AccessLog: LogFile, Tap: TapAuto, DrainNotice: 5 * time.Second, Drain: 10 * time.Minute, MaxConnections: 50_000},
		Admin:     Admin{Listen: "127.0.0.1:10001", Token: "${WEIR_ADMIN_TOKEN}"},
		Journal:   Journal{SyncInterval: 5 * time.Millisecond, Durability: Async},
		Usage: Usage{
			BatchRows: 50_000, BatchInterval: 250 * time.Millisecond, Lease: 5 * time.Minute,
			Log: UsageLog{RotateBytes: 256 << 20, RotateAge: 10 * time.Minute, Keep: 30 * time.Minute, MaxBytes: 8 << 30},
		},
		Plugins:  Plugins{Limits: PluginLimits{Fuel: 20_000_000, MemoryBytes: 32 << 20, Time: 250 * time.Millisecond}},
		Limits:   Limits{CutOff: GoOn, Unpriced: AllowUnpriced, Budgets: Budgets{OutageStatus: 503}},
		Database: Database{URL: "${DATABASE_URL}", MaxConns: 8, MaxStale: 24 * time.Hour},
		Telemetry: Telemetry{
			Service: "weir", Metrics: true, MetricsInterval: time.Minute, Traces: true, SampleRatio: 1, TrustClients: true,
		},
	}
}

// Complete returns c with the paths filled in that follow from state_dir. [Load] has done so; who builds a Config in code does it last.
func (c Config) Complete() Config {
	if c.Processor.Socket == "" {
		c.Processor.Socket = filepath.Join(c.StateDir, "weir.sock")
	}
	if c.Envoy.LogDir == "" {
		c.Envoy.LogDir = filepath.Join(c.StateDir, "log")
	}
	if c.Plugins.CacheDir == "" {
		c.Plugins.CacheDir = filepath.Join(c.StateDir, "plugins")
	}
	if c.Envoy.CAFile == "" {
		c.Envoy.CAFile = systemCAFile()
	}
	return c
}

// systemCAFile returns where this system keeps the certificates that it trusts. Envoy, unlike Go, does not look for them.
func systemCAFile() string {
	const debian = "/etc/ssl/certs/ca-certificates.crt" // Arch and Alpine too
	for _, path := range []string{
		debian,
		"/etc/pki/tls/certs/ca-bundle.crt", // Fedora, Red Hat
		"/etc/ssl/ca-bundle.pem",           // openSUSE
		"/etc/ssl/cert.pem",                // macOS, BSD
	} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return debian // Envoy says that it is missing when a channel needs it.
}
