// SPDX-License-Identifier: Apache-2.0

package host

import (
	"regexp"
	"regexp/syntax"
	"sync"
)

const (
	maxPattern  = 1 << 10 // bytes
	maxProgram  = 2000    // instructions
	maxPatterns = 64      // that a plugin has at a time
)

// pattern is a regular expression, or why it is none.
type pattern struct {
	regexp *regexp.Regexp // nil: it is wrong or too large
	size   int            // instructions of the compiled program
}

// patterns are the regular expressions of a plugin. Compiling one takes longer than using it.
type patterns struct {
	mu    sync.Mutex
	known map[string]*pattern
}

func (p *patterns) init() { p.known = map[string]*pattern{} }

// compile returns the pattern of an expression.
func (p *patterns) compile(expression string) *pattern {
	p.mu.Lock()
	re := p.known[expression]
	p.mu.Unlock()
	if re != nil {
		return re
	}
	re = compilePattern(expression)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.known) >= maxPatterns { // a plugin that makes up patterns compiles them again
		clear(p.known)
	}
	p.known[expression] = re
	return re
}

func compilePattern(expression string) *pattern {
	if len(expression) > maxPattern {
		return &pattern{}
	}
	parsed, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return &pattern{}
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil || len(program.Inst) > maxProgram {
		return &pattern{}
	}
	re, err := regexp.Compile(expression)
	if err != nil {
		return &pattern{}
	}
	return &pattern{re, len(program.Inst)}
}
