// SPDX-License-Identifier: Apache-2.0

package usage

// maxCount is the highest number of tokens that is believed of one exchange. Two of them can be added without care.
const maxCount = 1_000_000_000

// ParseCounts reads the token counts from the usage object that s begins with, as one of these shapes has it:
//
//	chat, completions, embeddings  prompt_tokens, completion_tokens, total_tokens; prompt_tokens_details with cached_tokens, cache_write_tokens,
//	                               audio_tokens and image_tokens; completion_tokens_details with reasoning_tokens, audio_tokens and
//	                               image_tokens; DeepSeek: prompt_cache_hit_tokens
//	responses                      input_tokens, output_tokens, total_tokens; input_tokens_details and output_tokens_details, as above
//	Anthropic                      input_tokens without what is cached, cache_read_input_tokens, cache_creation_input_tokens
//
// Some providers leave reasoning out of the output (Gemini's and xAI's OpenAI dialects); that shows in their total, and is put right.
// Bytes after the object do not matter: the tap cuts the object out of a stream without parsing it. It is no usage, and ok is false, when
// the object is not whole, or does not give the input, or a count is negative, has a fraction, or is above a thousand million.
func ParseCounts(s string) (t Tokens, ok bool) {
	p := scanner{s: s}
	c := counts{input: -1, output: -1, total: -1}
	p.object(func(key string) { c.member(&p, key) })
	if !p.ok() {
		return Tokens{}, false
	}
	return c.tokens()
}

// counts are the members of a usage object.
type counts struct {
	input, output, total int64 // -1: absent
	read, written        int64 // Anthropic's cache counts, beside input
	hit                  int64 // DeepSeek's
	ofInput, ofOutput    parts
	openAI               bool // input was called prompt_tokens: it includes what is cached, whatever else the object says
}

func (c *counts) member(p *scanner, key string) {
	if v := c.at(key); v != nil {
		tokenCount(p, v)
	} else if d := c.partsAt(key); d != nil {
		d.read(p)
	} else {
		p.skip()
	}
	c.noted(key)
}

// at returns where the count with a key belongs; nil for a key that has none.
func (c *counts) at(key string) *int64 {
	switch key {
	case "prompt_tokens":
		return &c.input
	case "input_tokens":
		if c.openAI { // gateways that translate write both
			return nil
		}
		return &c.input
	case "completion_tokens", "output_tokens":
		return &c.output
	case "total_tokens":
		return &c.total
	case "cache_read_input_tokens":
		return &c.read
	case "cache_creation_input_tokens":
		return &c.written
	case "prompt_cache_hit_tokens":
		return &c.hit
	}
	return nil
}

// partsAt returns where the object of details with a key belongs; nil for a key that has none.
func (c *counts) partsAt(key string) *parts {
	switch key {
	case "prompt_tokens_details", "input_tokens_details":
		return &c.ofInput
	case "completion_tokens_details", "output_tokens_details":
		return &c.ofOutput
	}
	return nil
}

// noted is to be called behind each member.
func (c *counts) noted(key string) {
	if key == "prompt_tokens" {
		c.openAI = c.input >= 0
	}
}

// parts are the members of an object of details. What a provider says of the input and what of the output are different ones of them.
type parts struct{ cached, written, reasoning, audio, image int64 }

// read reads an object that may be null.
func (d *parts) read(p *scanner) {
	if p.null() {
		return
	}
	p.object(func(key string) {
		if v := d.at(key); v != nil {
			tokenCount(p, v)
		} else {
			p.skip()
		}
	})
}

// at returns where the count with a key belongs; nil for a key that has none.
func (d *parts) at(key string) *int64 {
	switch key {
	case "cached_tokens":
		return &d.cached
	case "cache_write_tokens", "cache_creation_tokens":
		return &d.written
	case "reasoning_tokens":
		return &d.reasoning
	case "audio_tokens":
		return &d.audio
	case "image_tokens":
		return &d.image
	}
	return nil
}

// tokenCount reads a count into v. A null leaves it as it is.
func tokenCount(p *scanner, v *int64) {
	if p.null() {
		return
	}
	var n int64
	text := p.number()
	for i := 0; i < len(text); i++ {
		if n = n*10 + int64(text[i]-'0'); text[i]-'0' > 9 || n > maxCount {
			p.fail("not a token count")
			return
		}
	}
	*v = n
}

func (c *counts) tokens() (Tokens, bool) {
	t := Tokens{Input: c.input, Output: max(c.output, 0), Reasoning: c.ofOutput.reasoning}
	if c.output < 0 && c.input >= 0 {
		t.Output = max(c.total-c.input, 0)
	}
	if c.input < 0 {
		if c.total < 0 {
			return Tokens{}, false // half a count is none
		}
		t.Input = max(c.total-t.Output, 0) // some embeddings have a total alone
	}
	if !c.openAI {
		t.Input += c.read + c.written
	}
	t.CachedInput = min(max(c.ofInput.cached, c.hit, c.read), t.Input)
	// A part is never more than the whole: then it was not a part.
	if t.Reasoning > t.Output || t.Reasoning > 0 && c.total == t.Input+t.Output+t.Reasoning {
		t.Output += t.Reasoning
	}
	t.Details = Details{
		CacheWrite: min(max(c.ofInput.written, c.written), t.Input), AudioInput: min(c.ofInput.audio, t.Input), ImageInput: min(c.ofInput.image, t.Input),
		AudioOutput: min(c.ofOutput.audio, t.Output), ImageOutput: min(c.ofOutput.image, t.Output),
	}
	return t, true
}
