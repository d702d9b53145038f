// SPDX-License-Identifier: Apache-2.0

package trial

import "strings"

// section is a file of an archive in the txtar format.
type section struct{ name, text string }

// archive is a comment and sections, in order.
type archive struct {
	comment  string
	sections []section
}

// parseArchive never fails: what is no marker belongs to the text before it.
func parseArchive(text string) archive {
	var a archive
	var b strings.Builder
	flush := func() {
		if len(a.sections) == 0 {
			a.comment = b.String()
		} else {
			a.sections[len(a.sections)-1].text = b.String()
		}
		b.Reset()
	}
	for line := range strings.Lines(text) {
		name, ok := marker(line)
		if !ok {
			b.WriteString(line)
			continue
		}
		flush()
		a.sections = append(a.sections, section{name: name})
	}
	flush()
	return a
}

func marker(line string) (string, bool) {
	line = strings.TrimRight(line, "\r\n")
	if !strings.HasPrefix(line, "-- ") || !strings.HasSuffix(line, " --") || len(line) < len("-- x --") {
		return "", false
	}
	return strings.TrimSpace(line[3 : len(line)-3]), true
}

// get returns a section's text.
func (a *archive) get(name string) (string, bool) {
	for _, s := range a.sections {
		if s.name == name {
			return s.text, true
		}
	}
	return "", false
}

// put replaces a section, or adds it at the end.
func (a *archive) put(name, text string) {
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	for i, s := range a.sections {
		if s.name == name {
			a.sections[i].text = text
			return
		}
	}
	a.sections = append(a.sections, section{name, text})
}

// String writes the archive as it is read.
func (a *archive) String() string {
	var b strings.Builder
	b.WriteString(a.comment)
	for _, s := range a.sections {
		b.WriteString("-- " + s.name + " --\n" + s.text)
	}
	return b.String()
}
