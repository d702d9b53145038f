// SPDX-License-Identifier: Apache-2.0

package answer

import "bytes"

// stream judges the events of a stream that have come.
func (a *Answer) stream(chunk []byte, last bool) error {
	a.frames.write(chunk)
	for {
		raw, err := a.frames.next()
		if err == nil && raw == nil {
			break
		}
		if err == nil {
			err = a.event(raw)
		} else if !a.chain.closed() {
			return a.raw(err, last)
		}
		if err != nil {
			return err
		}
	}
	if !last {
		return nil
	}
	if raw := a.frames.rest(); len(raw) > 0 { // no blank line has ended it, but some clients do not wait for one
		if err := a.event(raw); err != nil {
			return err
		}
		if eol := a.page.end(); a.passed && (bytes.HasSuffix(raw, []byte("\n")) || bytes.HasSuffix(raw, []byte("\r"))) {
			a.gap = eol
		} else if a.passed {
			a.gap = eol + eol
		}
	}
	return a.finish()
}

// raw passes on the rest of a stream that cannot be judged.
func (a *Answer) raw(err error, last bool) error {
	a.chain.errs = append(a.chain.errs, err)
	a.out = append(a.out, a.frames.rest()...)
	a.stage, a.dialect = passing, nil
	if last {
		return a.count()
	}
	return nil
}

// event judges one event and adds what is left of it to the output.
func (a *Answer) event(raw []byte) error {
	if a.frames.tail { // see frames.next
		if a.passed {
			a.out = append(a.out, raw...)
		}
		return nil
	}
	f := a.frames.parse(raw, &a.join)
	text := bytes.TrimSpace(f.text)
	a.passed = true
	switch {
	case len(text) == 0: // a comment, or nothing
		a.out = append(a.out, raw...)
		return nil
	case bytes.HasPrefix(text, []byte("[DONE]")):
		a.page.eol = f.eol
		if err := a.finish(); err != nil {
			return err
		}
		a.out = append(a.out, raw...)
		return nil
	}
	p := &a.page
	p.reset(f.text, true, f.eol)
	err := a.dialect.judge(p)
	if isUnreadable(err) && !a.chain.closed() {
		a.chain.errs = append(a.chain.errs, err)
		a.out = append(a.out, raw...)
		return nil
	}
	if err == nil && p.failed { // clients stop here
		err = a.dialect.finish(p)
	}
	if err == nil {
		err = a.note(p)
	}
	if err != nil {
		return err
	}
	a.out = append(a.out, p.before...)
	switch {
	case p.drop, p.onlyUsage && a.strip:
		a.passed = false
	case len(p.edits) == 0:
		a.out = append(a.out, raw...)
	default:
		a.out = f.render(a.out, p.edits)
	}
	return nil
}

// finish ends what the provider has left open, and tells of usage: before the word that ends a stream, or at its end.
func (a *Answer) finish() error {
	p := &a.page
	p.reset(nil, true, p.end())
	if err := a.dialect.finish(p); err != nil {
		return err
	}
	if len(p.before) > 0 {
		a.out = append(append(a.out, a.gap...), p.before...)
		a.gap = ""
	}
	return a.count()
}
