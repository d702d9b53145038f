// SPDX-License-Identifier: Apache-2.0

package policy

import "slices"

// judged goes on with a request whose body has been read, and which a judge has a say in. What counts is the model that the judge leaves: the client may
// have asked for an alias that only the judge knows.
func (x *Exchange) judged(g *grant, req request, body []byte) (*Admission, *Denial) {
	ruling, denial := x.judge.Request(x.questionOf(g, &req, body))
	if denial != nil {
		return nil, denial
	}
	a, denial := x.obey(g, req, body, ruling)
	if denial != nil {
		x.judge.Abandon()
	}
	return a, denial
}

// obey goes on with a request as the judge has left it.
func (x *Exchange) obey(g *grant, req request, body []byte, ruling *Ruling) (*Admission, *Denial) {
	if ruling == nil {
		ruling = &Ruling{}
	}
	changed := ruling.Body != nil
	var denial *Denial
	if changed {
		if body = ruling.Body; int64(len(body)) > x.engine.maxBody {
			return nil, tooLarge(x.engine.maxBody)
		}
		if req, denial = readRequest(body, x.operation); denial != nil {
			return nil, denial
		}
	}
	choices, denial := x.choose(g, req.model)
	if denial != nil {
		return nil, denial
	}
	if len(ruling.Channels) > 0 {
		if choices = x.prefer(g, req.model, ruling.Channels); len(choices) == 0 {
			return nil, noChannel(req.model)
		}
	}
	a, denial := x.admission(g, &req, body, ruled{choices: choices, tags: ruling.Tags})
	if denial != nil {
		return nil, denial
	}
	if changed && a.Body == nil {
		a.Body = body
	}
	a.Set, a.Remove = ruling.Set, ruling.Remove
	if x.judge.Watches() {
		q := x.questionOf(g, &req, body)
		q.StripUsage = a.StripUsage
		a.Watch, a.StripUsage = x.judge.Watch(q), false
	}
	return a, nil
}

// questionOf returns what a judge is shown.
func (x *Exchange) questionOf(g *grant, req *request, body []byte) *Question {
	q := x.question(g, req, body)
	q.Channels = func(model string) []string { return x.offered(g, model) }
	return &q
}

func (x *Exchange) question(g *grant, req *request, body []byte) Question {
	return Question{
		Exchange: x.ID, Tenant: &g.tenant, Key: &g.key, Address: x.address, Headers: x.headers, Path: x.path,
		Operation: x.operation, Model: req.model, Stream: req.stream, Service: req.service, Body: body,
	}
}

// offered returns the names of the channels that serve a model to a key, by falling priority.
func (x *Exchange) offered(g *grant, model string) []string {
	o := x.snapshot.models[model]
	if o == nil {
		return nil
	}
	var names []string
	by := g.reach()
	for i := range o.channels {
		if c := &o.channels[i]; by.opens(c) && !slices.Contains(names, c.name) {
			names = append(names, c.name)
		}
	}
	return names
}

// prefer returns the named channels that serve a model to a key, in the order of the names. A channel that cools down is tried all the same:
// a policy has chosen it.
func (x *Exchange) prefer(g *grant, model string, names []string) []Choice {
	var choices []Choice
	by := g.reach()
	for _, name := range names {
		for i := range x.snapshot.models[model].channels {
			c := &x.snapshot.models[model].channels[i]
			if c.name == name && by.opens(c) && len(choices) < maxChoices {
				choices = append(choices, c.choice())
			}
		}
	}
	return choices
}
