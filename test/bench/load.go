// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/weir-proxy/weir/policy"
)

// load is one kind of request, and how much of it is asked for.
type load struct {
	name   string
	about  string
	body   int // bytes of the request's body
	stream bool
	steer  [][2]string // headers that steer the fake provider
	events int         // that a stream has, with its end; 0 for JSON

	users  int           // of the closed loop
	rate   float64       // of the open loop, requests/s
	spread time.Duration // over which the users of the closed loop begin
	lasts  time.Duration // how long an answer takes at least
}

// answerTokens makes the fake provider's JSON answer 1 KB long.
const answerTokens = "92"

// streamed are the headers for a stream of 100 events: 97 tokens, and one event each for the role, the reason of the end and the end.
func streamed(interval time.Duration) [][2]string {
	out := [][2]string{{"x-fake-tokens", "97"}}
	if interval > 0 {
		out = append(out, [2]string{"x-fake-interval-ms", strconv.FormatInt(interval.Milliseconds(), 10)})
	}
	return out
}

// loads are all that there are, in the order of the report.
func loads() []load {
	const second = time.Second
	return []load{
		{
			name: "json", about: "JSON, 1 KB prompt, 1 KB answer", body: 1 << 10, steer: [][2]string{{"x-fake-tokens", answerTokens}},
			users: 16, rate: 800,
		},
		{
			name: "sse", about: "SSE, 100 events 10 ms apart", body: 1 << 10, stream: true, steer: streamed(10 * time.Millisecond), events: 100,
			users: 100, rate: 100, spread: second, lasts: second,
		},
		{
			name: "burst", about: "SSE, 100 events at once", body: 1 << 10, stream: true, steer: streamed(0), events: 100,
			users: 16, rate: 200,
		},
		{
			name: "prompt", about: "JSON, 72 KB prompt, 1 KB answer", body: 72 << 10, steer: [][2]string{{"x-fake-tokens", answerTokens}},
			users: 16, rate: 400,
		},
	}
}

// crowd is the case that this project comes from: many users who each wait for a provider that takes its time.
func crowd(users int) load {
	const delay = 200 * time.Millisecond
	return load{
		name: "users", about: fmt.Sprintf("%d users in a closed loop, JSON, 1 KB, the provider takes %v", users, delay), body: 1 << 10,
		steer: [][2]string{{"x-fake-tokens", answerTokens}, {"x-fake-delay-ms", strconv.FormatInt(delay.Milliseconds(), 10)}},
		users: users, spread: delay, lasts: delay,
	}
}

// held is a stream that is long enough for all of a crowd to be open at once.
func held(streams int) load {
	const events, interval = 50, 200 * time.Millisecond
	return load{
		name: "streams", about: fmt.Sprintf("%d streams at once, %d events %v apart", streams, events, interval), body: 1 << 10, stream: true,
		steer: [][2]string{
			{"x-fake-tokens", strconv.Itoa(events - 3)}, {"x-fake-interval-ms", strconv.FormatInt(interval.Milliseconds(), 10)},
		},
		events: events, users: streams, spread: 2 * time.Second, lasts: events * interval,
	}
}

// idle is a crowd of streams that have begun and in which nothing happens, as those of models that think.
func idle(streams int) load {
	const interval, spread = 10 * time.Second, 15 * time.Second
	return load{
		name: "idle", about: fmt.Sprintf("%d idle streams at once, an event each %v", streams, interval), body: 1 << 10, stream: true,
		steer:  [][2]string{{"x-fake-tokens", "1"}, {"x-fake-interval-ms", strconv.FormatInt(interval.Milliseconds(), 10)}},
		events: idleEvents, users: streams, spread: spread, lasts: (idleEvents - 2) * interval,
	}
}

// idleEvents are one each for the role, the token, the reason of the end and the end, which comes with the one before.
const idleEvents = 4

// request is the load's request as it goes over the wire.
func (l load) request(host string) []byte {
	body := chatBody(l.body, l.stream)
	var b strings.Builder
	fmt.Fprintf(&b, "POST /v1/chat/completions HTTP/1.1\r\nhost: %s\r\nauthorization: Bearer %s\r\n", host, policy.DevSecret)
	b.WriteString("user-agent: weir-bench\r\naccept: application/json\r\ncontent-type: application/json\r\n")
	for _, h := range l.steer {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	fmt.Fprintf(&b, "content-length: %d\r\n\r\n%s", len(body), body)
	return []byte(b.String())
}

// chatBody is the body of a chat of exactly size bytes.
func chatBody(size int, stream bool) string {
	const text = "A weir is a low dam that regulates a river and measures its flow. "
	head, tail := `{"model":"gpt-4o-mini","messages":[{"role":"user","content":"`, `"}]}`
	if stream {
		tail = `"}],"stream":true}`
	}
	n := max(size-len(head)-len(tail), 1)
	return head + strings.Repeat(text, n/len(text)+1)[:n] + tail
}
