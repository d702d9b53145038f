// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Action is what a verdict does with an exchange.
type Action int64

// Actions of a verdict.
const (
	Continue Action = iota
	Deny
	Drop // an event only
)

// Limits of a verdict; a verdict beyond one is refused.
const (
	MaxEdits    = 10_000
	MaxInserts  = 16
	MaxHeaders  = 32
	MaxTags     = 16
	MaxChannels = 16
	MaxState    = 4 << 10

	maxHeaderValue = 8 << 10
	maxTagName     = 64
	maxTagValue    = 256
	maxName        = 256 // of a model, a channel, a header
	maxCode        = 64
	maxMessage     = 1024
)

// Denial is a refusal in a plugin's words.
type Denial struct {
	Status  int
	Code    string
	Message string
}

// Edit puts With in the place of the bytes from Start to End of a text.
type Edit struct {
	Text       int64
	Start, End int64
	With       string
}

// Insert adds a message to the conversation.
type Insert struct {
	Before int64 // the number of the message that it comes before
	Role   string
	Text   string
}

// Tag is a note for the usage row.
type Tag struct{ Name, Value string }

// Verdict is a plugin's answer. The zero value goes on and changes nothing.
type Verdict struct {
	Action    Action
	Denial    Denial // with Deny
	Edits     []Edit // by text and start; at one place in the order given
	Inserts   []Insert
	Set       []Header
	Remove    []string
	Model     string   // to ask for instead; empty: as it was
	Channels  []string // to try, in this order; none: as it was
	MaxOutput int64    // tokens; 0: as it was
	Tags      []Tag
	State     []byte
}

// Empty reports whether the verdict changes nothing at all.
func (v *Verdict) Empty() bool {
	return v.Action == Continue && len(v.Edits)+len(v.Inserts)+len(v.Set)+len(v.Remove)+len(v.Channels)+len(v.Tags) == 0 && v.State == nil &&
		v.Model == "" && v.MaxOutput == 0
}

// ReadVerdict reads what a plugin answered. Nothing of it refers to b afterwards. Whether it fits what the plugin was asked, [Verdict.CheckRequest] and
// [Verdict.CheckEvent] say.
func ReadVerdict(b []byte) (*Verdict, error) {
	v := &Verdict{}
	if err := fields(b, v.field); err != nil {
		return nil, err
	}
	switch v.Action {
	case Continue, Drop:
		if v.Denial != (Denial{}) {
			return nil, errors.New("it gives a denial and does not deny")
		}
	case Deny:
		if err := v.Denial.check(); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("it has the unknown action %d", v.Action)
	}
	return v, nil
}

func (v *Verdict) field(tag uint32, value []byte) error {
	switch tag {
	case 1:
		var n int64
		err := number(&n, value)
		v.Action = Action(n)
		return err
	case 2:
		return v.Denial.read(value)
	case 3:
		return add(&v.Edits, MaxEdits, "edits", value, (*Edit).read)
	case 4:
		return add(&v.Set, MaxHeaders, "headers", value, (*Header).read)
	case 5:
		return add(&v.Remove, MaxHeaders, "headers to remove", value, func(name *string, value []byte) error {
			if err := text(name, value); err != nil {
				return err
			}
			return checkHeaderName(*name)
		})
	case 6:
		return name(&v.Model, "model", value)
	case 7:
		return add(&v.Channels, MaxChannels, "channels", value, func(to *string, value []byte) error { return name(to, "channel", value) })
	case 8:
		return add(&v.Tags, MaxTags, "tags", value, (*Tag).read)
	case 9:
		if len(value) > MaxState {
			return fmt.Errorf("a state of %d bytes, and the limit is %d", len(value), MaxState)
		}
		v.State = append([]byte{}, value...) // empty is a state too: it clears the one before
	case 10:
		return add(&v.Inserts, MaxInserts, "inserted messages", value, (*Insert).read)
	case 11:
		if err := number(&v.MaxOutput, value); err != nil || v.MaxOutput <= 0 {
			return errors.New("max output tokens is not a positive number")
		}
	}
	return nil // a field of a later version
}

// add reads an item of a list.
func add[T any](list *[]T, limit int, what string, value []byte, read func(*T, []byte) error) error {
	if len(*list) == limit {
		return fmt.Errorf("more than %d %s", limit, what)
	}
	var item T
	if err := read(&item, value); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	*list = append(*list, item)
	return nil
}

func name(to *string, what string, value []byte) error {
	if err := text(to, value); err != nil {
		return err
	}
	if *to == "" || len(*to) > maxName || strings.ContainsFunc(*to, isControl) {
		return fmt.Errorf("the %s is not a name of 1 to %d bytes without control characters", what, maxName)
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

func (d *Denial) read(value []byte) error {
	return fields(value, func(tag uint32, value []byte) error {
		switch tag {
		case 1:
			var n int64
			err := number(&n, value)
			if n < 400 || n > 599 {
				return errors.New("the status of a denial is not from 400 to 599")
			}
			d.Status = int(n)
			return err
		case 2:
			return text(&d.Code, value)
		case 3:
			return text(&d.Message, value)
		}
		return nil
	})
}

func (d *Denial) check() error {
	switch {
	case d.Status == 0:
		return errors.New("it denies without a status")
	case d.Code == "" || len(d.Code) > maxCode || strings.Trim(d.Code, "abcdefghijklmnopqrstuvwxyz0123456789_") != "":
		return fmt.Errorf("the code of its denial is not 1 to %d of a-z, 0-9 and _", maxCode)
	case len(d.Message) > maxMessage:
		return fmt.Errorf("the message of its denial has %d bytes, and the limit is %d", len(d.Message), maxMessage)
	}
	return nil
}

func (e *Edit) read(value []byte) error {
	return fields(value, func(tag uint32, value []byte) error {
		switch tag {
		case 1:
			return number(&e.Text, value)
		case 2:
			return number(&e.Start, value)
		case 3:
			return number(&e.End, value)
		case 4:
			return text(&e.With, value)
		}
		return nil
	})
}

func (i *Insert) read(value []byte) error {
	err := fields(value, func(tag uint32, value []byte) error {
		switch tag {
		case 1:
			return number(&i.Before, value)
		case 2:
			return text(&i.Role, value)
		case 3:
			return text(&i.Text, value)
		}
		return nil
	})
	if err == nil && i.Role != "system" && i.Role != "developer" && i.Role != "user" && i.Role != "assistant" {
		err = fmt.Errorf("nobody can speak as %.40q", i.Role)
	}
	return err
}

func (t *Tag) read(value []byte) error {
	if err := pair(&t.Name, &t.Value, value); err != nil {
		return err
	}
	if t.Name == "" || len(t.Name) > maxTagName || len(t.Value) > maxTagValue || strings.ContainsFunc(t.Name+t.Value, isControl) {
		return fmt.Errorf("a tag has a name of 1 to %d bytes, a value of at most %d, and no control characters", maxTagName, maxTagValue)
	}
	return nil
}

func (h *Header) read(value []byte) error {
	if err := pair(&h.Name, &h.Value, value); err != nil {
		return err
	}
	if len(h.Value) > maxHeaderValue || strings.ContainsFunc(h.Value, isControl) || !utf8.ValidString(h.Value) {
		return fmt.Errorf("the value of %s is longer than %d bytes or has control characters", h.Name, maxHeaderValue)
	}
	return checkHeaderName(h.Name)
}

func pair(first, second *string, value []byte) error {
	return fields(value, func(tag uint32, value []byte) error {
		switch tag {
		case 1:
			return text(first, value)
		case 2:
			return text(second, value)
		}
		return nil
	})
}
