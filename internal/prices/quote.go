// SPDX-License-Identifier: Apache-2.0

package prices

// Quote is what a model costs for a service and an input above a limit, as somebody says it: nano-dollars for a million tokens. A rate that is nil inherits, as
// [Parse] has it.
type Quote struct {
	Service     string `json:"service,omitempty"` // empty, flex or priority
	Above       int64  `json:"above,omitempty"`   // tokens of input, from which on the rates are for the whole request
	Input       *int64 `json:"input"`
	CachedInput *int64 `json:"cached_input,omitempty"`
	CacheWrite  *int64 `json:"cache_write,omitempty"`
	Output      *int64 `json:"output"`
	Reasoning   *int64 `json:"reasoning,omitempty"`
	AudioInput  *int64 `json:"audio_input,omitempty"`
	AudioOutput *int64 `json:"audio_output,omitempty"`
	ImageInput  *int64 `json:"image_input,omitempty"`
	ImageOutput *int64 `json:"image_output,omitempty"`
}

// kinds is how many rates there are.
const kinds = 9

// QuotedRate is one of the rates of a [Quote].
type QuotedRate struct {
	Name string // as in JSON
	At   **int64
}

// Each returns the rates, in the order in which lists have them.
func (q *Quote) Each() [kinds]QuotedRate {
	return [...]QuotedRate{
		{"input", &q.Input},
		{"cached_input", &q.CachedInput},
		{"cache_write", &q.CacheWrite},
		{"output", &q.Output},
		{"reasoning", &q.Reasoning},
		{"audio_input", &q.AudioInput},
		{"audio_output", &q.AudioOutput},
		{"image_input", &q.ImageInput},
		{"image_output", &q.ImageOutput},
	}
}

// missing is a rate that a quote lacks.
const missing = -1

// given returns the rates, in which some may be missing.
func (q *Quote) given() Rates {
	var r Rates
	to := r.each()
	for i, rate := range q.Each() {
		if *to[i] = missing; *rate.At != nil {
			*to[i] = **rate.At
		}
	}
	return r
}

// quote returns rates as somebody would say them. What becomes of the quote leaves them as they are.
func (r Rates) quote(service string, above int64) Quote {
	q := Quote{Service: service, Above: above}
	from := r.each()
	for i, rate := range q.Each() {
		*rate.At = from[i]
	}
	return q
}

// Row is a line of a list: a quote for a model.
type Row struct {
	Model     string `json:"model"`
	MaxInput  int64  `json:"max_input,omitempty"`
	MaxOutput int64  `json:"max_output,omitempty"`
	Quote
}
