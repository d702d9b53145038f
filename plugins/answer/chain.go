// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"fmt"
	"slices"

	"github.com/weir-proxy/weir/plugins/abi"
)

// Judge judges the events of one response.
type Judge struct {
	// Name is for errors.
	Name string
	// Event judges one event. It is called for one event at a time, in order, and must not keep the event nor change it. A nil verdict goes on. A verdict
	// that breaks a rule of weir/1 is an error.
	Event func(*abi.Event) (*abi.Verdict, error)
	// State is what the judge's verdict on the request gave as its state. It is put into each event, and replaced by that of each verdict which gives one.
	State []byte
	// Open says that an error is as if the judge had gone on; else the response ends with it.
	Open bool
}

// maxTags bounds what is kept of the tags of a response; a plugin may give as many with each event.
const maxTags = 4 * abi.MaxTags

// chain has events judged by several judges in order.
type chain struct {
	common abi.Event // what all events have
	event  abi.Event // the one under way
	judges []Judge
	tags   []abi.Tag
	errs   []error // of judges that are open
}

// closed reports whether any judge is closed: then nothing passes unjudged.
func (c *chain) closed() bool {
	return slices.ContainsFunc(c.judges, func(j Judge) bool { return !j.Open })
}

// next begins an event.
func (c *chain) next(kind abi.Kind, choice int64) *abi.Event {
	c.event = c.common
	c.event.Kind, c.event.Choice = kind, choice
	return &c.event
}

// none is the verdict of a judge that goes on.
var none abi.Verdict

// call has one judge judge the event. The verdict is not nil without an error; an error is a denial, or of a judge that is closed.
func (c *chain) call(i int) (*abi.Verdict, error) {
	j := &c.judges[i]
	c.event.State = j.State
	v, err := j.Event(&c.event)
	if v == nil {
		v = &none
	}
	if err == nil {
		err = v.CheckEvent(&c.event)
	}
	if err == nil && v.Action == abi.Deny && (v.Denial.Status < 400 || v.Denial.Status > 599) {
		err = fmt.Errorf("it denies with the status %d", v.Denial.Status)
	}
	if err != nil {
		err = &JudgeError{Judge: j.Name, Kind: c.event.Kind, Err: err}
		if !j.Open {
			return nil, err
		}
		c.errs = append(c.errs, err)
		return &none, nil
	}
	if v.State != nil {
		j.State = v.State
	}
	for _, t := range v.Tags {
		c.tag(t)
	}
	if v.Action == abi.Deny {
		return nil, &denied{Denial: v.Denial, judge: j.Name}
	}
	return v, nil
}

// tag keeps the last value of each name.
func (c *chain) tag(t abi.Tag) {
	if i := slices.IndexFunc(c.tags, func(o abi.Tag) bool { return o.Name == t.Name }); i >= 0 {
		c.tags[i] = t
	} else if len(c.tags) < maxTags {
		c.tags = append(c.tags, t)
	}
}

// text has the text of the event judged by the judges from the given one on, each of which sees what the one before has left. Where nothing is left the rest has
// nothing to judge, unless the event also begins a call.
func (c *chain) text(from int, text string) (left string, dropped bool, _ error) {
	begins := c.event.Tool.ID != "" || c.event.Tool.Name != ""
	for i := from; i < len(c.judges) && (text != "" || begins); i++ {
		c.event.Text = text
		v, err := c.call(i)
		if err != nil {
			return "", false, err
		}
		if v.Action == abi.Drop {
			return "", true, nil
		}
		text = v.Apply(0, text)
	}
	return text, false, nil
}

// end tells each judge that a text or a call ends, by the event under way. What one adds goes to the next ones as text before they are told; end returns what has become of all that was added.
func (c *chain) end() (added string, _ error) {
	end := c.event
	for i := range c.judges {
		c.event = end
		v, err := c.call(i)
		if err != nil {
			return "", err
		}
		t := v.Apply(0, "")
		if t == "" {
			continue
		}
		if end.Kind == abi.KindFinish {
			c.next(abi.KindText, end.Choice).Part = end.Part
		}
		if t, _, err = c.text(i+1, t); err != nil {
			return "", err
		}
		added += t
	}
	return added, nil
}

// all shows the event to all judges.
func (c *chain) all() error {
	for i := range c.judges {
		if _, err := c.call(i); err != nil {
			return err
		}
	}
	return nil
}

// close tells all judges that the exchange is over. There is nothing left that an error could end.
func (c *chain) close(reason string) {
	c.next(abi.KindEnd, 0).Reason = reason
	for i := range c.judges {
		if _, err := c.call(i); err != nil {
			c.errs = append(c.errs, err)
		}
	}
}
