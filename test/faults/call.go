// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// call is a request, what the provider is told to do with it, and how its client behaves; all is chosen before it is sent.
type call struct {
	path, model string
	body        string
	header      http.Header // for the provider
	key         int         // whose key it comes with
	h2          bool        // by HTTP/2
	stream      bool
	silent      bool // the provider reports no usage

	leave leave
	after int           // bytes: of the body sent, or of the answer read, before the client leaves
	wait  time.Duration // before the client leaves
}

// leave says when a client leaves.
type leave int

const (
	stays       leave = iota
	leavesSend        // in the middle of its own request
	leavesRead        // in the middle of the answer
	leavesLater       // some time after its request, wherever the exchange is by then
)

// drawCall chooses a call.
func drawCall(r *rand.Rand, keys int) call {
	c := call{header: http.Header{}, key: r.IntN(keys), h2: r.IntN(2) == 0}
	c.drawBody(r)
	c.drawAnswer(r)
	switch n := r.IntN(100); {
	case n < 4:
		c.leave, c.after = leavesSend, r.IntN(len(c.body))
	case n < 14:
		c.leave, c.after = leavesRead, logarithmic(r, 0, 100_000)
	case n < 20:
		c.leave, c.wait = leavesLater, time.Duration(logarithmic(r, 0, 300_000))*time.Microsecond
	}
	return c
}

// drawBody chooses what is asked, tiny to huge.
func (c *call) drawBody(r *rand.Rand) {
	size := logarithmic(r, 1, 20_000)
	if r.IntN(50) == 0 {
		size = logarithmic(r, 100_000, 3_000_000)
	}
	text := strings.Repeat("weir ", size/5+1)[:size]
	switch n := r.IntN(100); {
	case n < 60:
		c.path, c.model = "/v1/chat/completions", []string{"gpt-4o-mini", "gpt-4o", "o3-mini"}[r.IntN(3)]
		c.body = fmt.Sprintf(`"messages":[{"role":"user","content":%q}]`, text)
	case n < 75:
		c.path, c.model = "/v1/responses", "gpt-4o-mini"
		c.body = fmt.Sprintf(`"input":%q`, text)
	case n < 85:
		c.path, c.model = "/v1/completions", "gpt-3.5-turbo-instruct"
		c.body = fmt.Sprintf(`"prompt":%q`, text)
	default:
		c.path, c.model = "/v1/embeddings", "text-embedding-3-small"
		c.body = fmt.Sprintf(`"input":%q`, text)
	}
	if c.model != "text-embedding-3-small" && r.IntN(3) > 0 {
		c.stream = true
		c.body = `"stream":true,` + c.body
		if c.path != "/v1/responses" && r.IntN(3) == 0 {
			c.body = `"stream_options":{"include_usage":true},` + c.body
		}
	}
	c.body = fmt.Sprintf(`{"model":%q,%s}`, c.model, c.body)
}

// drawAnswer chooses what the provider does.
func (c *call) drawAnswer(r *rand.Rand) {
	set := func(name string, v int) { c.header.Set(steerPrefix+name, strconv.Itoa(v)) }
	tokens := logarithmic(r, 0, 3000)
	if r.IntN(4) == 0 { // slow: for up to two seconds
		tokens = logarithmic(r, 1, 200)
		set("Interval-Ms", 1+r.IntN(10))
	} else if r.IntN(3) == 0 {
		set("Frame", max(logarithmic(r, 1, 100_000), tokens/4)) // a write for each byte of a long answer would take all day
	}
	set("Tokens", tokens)
	if r.IntN(5) == 0 {
		set("Delay-Ms", logarithmic(r, 1, 300))
	}
	switch n := r.IntN(100); {
	case n < 5:
		set("Status", []int{400, 404, 429, 500, 503}[r.IntN(5)])
	case n < 10:
		set("Cut-After", r.IntN(tokens+4))
	case n < 15:
		c.silent = true
		c.header.Set(steerPrefix+"No-Usage", "true")
	case n < 18:
		c.header.Set(failFirst, []string{"a", "b"}[r.IntN(2)])
	}
}

// logarithmic returns a number in [from, to): small ones are as likely as large ones.
func logarithmic(r *rand.Rand, from, to int) int {
	return from + int(math.Exp(r.Float64()*math.Log(float64(to-from)))) - 1
}
