// SPDX-License-Identifier: Apache-2.0

package proxywasm

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/policy"
)

// Limits of a map of headers.
const (
	maxHeaders     = 256
	maxHeaderBytes = 64 << 10
)

// headers are fields in order; names are in lower case, and one name may occur more than once.
type headers []policy.Header

// get returns the values of a name, joined as RFC 9110 has it.
func (h headers) get(name string) (string, bool) {
	value, found := "", false
	for _, f := range h {
		if strings.EqualFold(f.Name, name) {
			if found {
				value += ","
			}
			value, found = value+f.Value, true
		}
	}
	return value, found
}

func (h *headers) remove(name string) {
	*h = slices.DeleteFunc(*h, func(f policy.Header) bool { return strings.EqualFold(f.Name, name) })
}

func (h *headers) replace(name, value string) {
	for i, f := range *h {
		if strings.EqualFold(f.Name, name) {
			(*h)[i].Value = value
			rest := (*h)[i+1:]
			rest.remove(name)
			*h = (*h)[:i+1+len(rest)]
			return
		}
	}
	h.add(name, value)
}

func (h *headers) add(name, value string) {
	*h = append(*h, policy.Header{Name: strings.ToLower(name), Value: value})
}

// fits reports whether there is room for another field.
func (h headers) fits(bytes int) bool {
	for _, f := range h {
		bytes += len(f.Name) + len(f.Value)
	}
	return len(h) < maxHeaders && bytes <= maxHeaderBytes
}

// encode writes the headers as the ABI has them:
//
//	count, then for each the length of its name and of its value (all 32 bits, little-endian), then for each its name, 0, its value, 0
func (h headers) encode() []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(h)))
	for _, f := range h {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(f.Name)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(f.Value)))
	}
	for _, f := range h {
		b = append(append(b, f.Name...), 0)
		b = append(append(b, f.Value...), 0)
	}
	return b
}

// decodeHeaders reads what a plugin has encoded; ok is false if it is not that, or too much.
func decodeHeaders(b []byte) (h headers, ok bool) {
	if len(b) == 0 {
		return nil, true
	}
	if len(b) < 4 || len(b) > maxHeaderBytes+10*maxHeaders {
		return nil, false
	}
	n := binary.LittleEndian.Uint32(b)
	if n > maxHeaders || len(b) < 4+8*int(n) {
		return nil, false
	}
	sizes, rest := b[4:4+8*n], b[4+8*n:]
	for ; len(sizes) > 0; sizes = sizes[8:] {
		name, value := uint64(binary.LittleEndian.Uint32(sizes)), uint64(binary.LittleEndian.Uint32(sizes[4:]))
		if name+value+2 > uint64(len(rest)) {
			return nil, false
		}
		h.add(string(rest[:name]), string(rest[name+1:name+1+value]))
		rest = rest[name+value+2:]
	}
	return h, true
}

// changes compares headers with what they were. What is not for plugins to change is left out.
func (h headers) changes(before headers) (set []policy.Header, remove []string) {
	seen := map[string]bool{}
	for _, f := range h {
		if seen[f.Name] {
			continue
		}
		seen[f.Name] = true
		value, _ := h.get(f.Name)
		if was, ok := before.get(f.Name); (!ok || was != value) && changeable(f.Name, value) {
			set = append(set, policy.Header{Name: f.Name, Value: value})
		}
	}
	for _, f := range before {
		if !seen[f.Name] && changeable(f.Name, "") {
			seen[f.Name] = true
			remove = append(remove, f.Name)
		}
	}
	return set, remove
}

// changeable reports whether a plugin may give this header this value.
func changeable(name, value string) bool {
	return abi.CheckHeaderName(name) == nil && !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}
