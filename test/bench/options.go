// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/weir-proxy/weir/envoy"
)

// options are what the flags say.
type options struct {
	loads       []string
	loops       []string
	variants    []string
	rounds      int
	duration    time.Duration
	warm        time.Duration
	rate        float64 // requests/s of the open loops; 0: each load's own
	clients     int     // of the closed loops; 0: each load's own
	users       int     // 0: leave the case out
	replay      int     // rows; 0: leave the case out
	workers     int     // Envoy's threads
	withPlugins bool

	crowded
	places
	command string // what was asked for, without the names of files
}

// crowded are the cases of more than usual. What is 0 is left out.
type crowded struct {
	streams  int           // at once
	idle     int           // at once, in which nothing happens
	overload time.Duration // how long
	http1    bool          // how the clients of the overload speak
}

// places are where things are taken from and put.
type places struct {
	weir    string // the program; empty: it is built
	dir     string // of data and logs
	port    int    // the first
	env     string // for Weir's processor
	tap     string // of Weir's Envoy
	profile string // folder; empty: no profiles
	json    string // file; empty: none
	docs    string // file; empty: none
}

// parseOptions reads the flags. What is wrong with them is an error; -help is [flag.ErrHelp].
func parseOptions(args []string, out io.Writer) (options, error) {
	var o options
	var quick bool
	var loadNames, loops, variants string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(out)
	f.BoolVar(&quick, "quick", false, "see that everything works, in a minute: one short round, few users and streams")
	f.StringVar(&loadNames, "loads", strings.Join(names(loads()), ","), "the loads, by name")
	f.StringVar(&loops, "loops", closedLoop+","+openLoop, "the loops, by name")
	f.StringVar(&variants, "variants", strings.Join([]string{bare, continuation, weir}, ","), "the gateways, by name")
	f.IntVar(&o.rounds, "rounds", 3, "how often each gateway gets each load")
	f.DurationVar(&o.duration, "duration", 5*time.Second, "how long, each time")
	f.DurationVar(&o.warm, "warm", time.Second, "how long before that, without measuring")
	f.Float64Var(&o.rate, "rate", 0, "requests/s of the open loops, instead of each load's own")
	f.IntVar(&o.clients, "clients", 0, "clients of the closed loops, instead of each load's own")
	f.IntVar(&o.users, "users", 1000, "users of a provider that takes 200 ms; 0 leaves this case out")
	f.IntVar(&o.streams, "streams", 2000, "streams held at once; 0 leaves this case out")
	f.IntVar(&o.idle, "idle", 10000, "streams held at once in which nothing happens; 0 leaves this case out")
	f.DurationVar(&o.overload, "overload", 0, "how long to send five times of what Weir can bear; 0 leaves this case out")
	f.BoolVar(&o.http1, "http1", false, "let the clients of the overload speak HTTP/1.1, with a connection each, instead of HTTP/2")
	f.IntVar(&o.replay, "replay", 50000, "rows to account for without anything else to do; 0 leaves this case out")
	f.BoolVar(&o.withPlugins, "plugins", true, "measure what plugins cost, on Weir alone")
	f.IntVar(&o.workers, "workers", runtime.NumCPU(), "threads of each Envoy")
	f.StringVar(&o.weir, "weir", "", "the weir program; empty builds it")
	f.StringVar(&o.dir, "dir", ".weir/bench", "folder for data and logs, which is removed first. It should be on a disk, since Postgres writes there")
	f.IntVar(&o.port, "port", 13000, fmt.Sprintf("first of %d ports", ports))
	f.StringVar(&o.env, "env", "", "variables for the environment of Weir's processor, as in 'GOGC=400 GOMAXPROCS=1'")
	f.StringVar(&o.tap, "tap", string(envoy.TapNative), "what taps responses in Weir's Envoy: native or lua")
	f.StringVar(&o.profile, "profile", "", "folder for profiles of the processor under each load, taken after everything is measured")
	f.StringVar(&o.json, "json", "", "file for all figures of all rounds")
	f.StringVar(&o.docs, "docs", "", "file whose text between "+docsBegin+" and "+docsEnd+" the report replaces")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.tap != string(envoy.TapNative) && o.tap != string(envoy.TapLua) {
		return o, fmt.Errorf("-tap %s is neither %s nor %s", o.tap, envoy.TapNative, envoy.TapLua)
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	given := map[string]bool{}
	o.command = "go run ./test/bench"
	f.Visit(func(f *flag.Flag) {
		given[f.Name] = true
		switch f.Name {
		case "weir", "dir", "profile", "json", "docs":
		default:
			o.command += fmt.Sprintf(" -%s=%s", f.Name, f.Value)
		}
	})
	if quick {
		o.hurry(given)
	}
	o.loads, o.loops, o.variants = list(loadNames), list(loops), list(variants)
	return o, o.check()
}

// hurry makes everything short that was not given.
func (o *options) hurry(given map[string]bool) {
	short := func(name string, set func()) {
		if !given[name] {
			set()
		}
	}
	short("rounds", func() { o.rounds = 1 })
	short("duration", func() { o.duration = time.Second })
	short("warm", func() { o.warm = 300 * time.Millisecond })
	short("users", func() { o.users = 200 })
	short("streams", func() { o.streams = 200 })
	short("idle", func() { o.idle = 0 })
	short("replay", func() { o.replay = 5000 })
}

func (o *options) check() error {
	for _, n := range o.loads {
		if !slices.Contains(names(loads()), n) {
			return fmt.Errorf("there is no load %q: there are %s", n, strings.Join(names(loads()), ", "))
		}
	}
	for _, n := range o.loops {
		if n != closedLoop && n != openLoop {
			return fmt.Errorf("there is no loop %q: there are %s and %s", n, closedLoop, openLoop)
		}
	}
	for _, n := range o.variants {
		if !slices.Contains([]string{bare, continuation, weir}, n) {
			return fmt.Errorf("there is no gateway %q: there are %s, %s and %s", n, bare, continuation, weir)
		}
	}
	switch {
	case len(o.variants) == 0:
		return errors.New("no gateway is left")
	case o.rounds < 1 || o.duration <= 0 || o.warm <= 0 || o.workers < 1:
		return errors.New("-rounds, -duration, -warm and -workers must be positive")
	case o.rate < 0 || o.clients < 0 || o.users < 0 || o.streams < 0 || o.idle < 0 || o.overload < 0 || o.replay < 0:
		return errors.New("-rate, -clients, -users, -streams, -idle, -overload and -replay must not be negative")
	case o.port < 1 || o.port+ports > 65536:
		return fmt.Errorf("-port: %d has no room for %d ports", o.port, ports)
	}
	return nil
}

// chosen are the loads that the options name, in their order.
func (o *options) chosen() []load {
	var out []load
	for _, n := range o.loads {
		for _, l := range loads() {
			if l.name != n {
				continue
			}
			if o.rate > 0 {
				l.rate = o.rate
			}
			if o.clients > 0 {
				l.users = o.clients
			}
			out = append(out, l)
		}
	}
	return out
}

// crowds are the streams that are held at once, as far as they are asked for.
func (o *options) crowds() []load {
	var out []load
	if o.streams > 0 {
		out = append(out, held(o.streams))
	}
	if o.idle > 0 {
		out = append(out, idle(o.idle))
	}
	return out
}

func names(ls []load) []string {
	var out []string
	for _, l := range ls {
		out = append(out, l.name)
	}
	return out
}

func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}
