// SPDX-License-Identifier: Apache-2.0

package proxywasm

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"
)

// Limits of the properties that a plugin sets in one exchange.
const (
	maxProperties    = 256
	maxPropertyBytes = 64 << 10 // of one, with its name
)

// getProperty is proxy_get_property(path, its length, out, its length). The parts of a path are separated by zeros.
func (c caller) getProperty(a args) uint64 {
	path := strings.TrimSuffix(strings.ReplaceAll(c.text(a[0], a[1]), "\x00", "."), ".")
	value, ok := c.property(path)
	if !ok {
		return statusNotFound
	}
	return c.give(value, a[2], a[3])
}

// setProperty is proxy_set_property(path, its length, value, its length). What is set lasts as long as the exchange, and is for this plugin alone.
func (c caller) setProperty(a args) uint64 {
	path := strings.TrimSuffix(strings.ReplaceAll(c.text(a[0], a[1]), "\x00", "."), ".")
	value := c.bytes(a[2], a[3])
	if _, have := c.properties[path]; !have && len(c.properties) >= maxProperties || len(path)+len(value) > maxPropertyBytes {
		return statusInternalFailure
	}
	if c.properties == nil {
		c.properties = map[string][]byte{}
	}
	c.properties[path] = bytes.Clone(value)
	return statusOK
}

// property returns one of Envoy's attributes (https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/advanced/attributes), as far as they are known
// here: numbers and times are 64 bits, little-endian, times in nanoseconds since 1970.
func (c caller) property(path string) ([]byte, bool) {
	if v, ok := c.properties[path]; ok {
		return v, true
	}
	switch path {
	case "plugin_name":
		return []byte(c.plugin.source.Name), true
	case "plugin_root_id":
		return []byte(c.plugin.source.RootID), true
	case "plugin_vm_id":
		return nil, true
	case "plugin_vm_memory": // Higress
		return number(int64(c.guest.Memory())), true
	}
	switch {
	case !c.request.known:
		return nil, false
	case strings.HasPrefix(path, "request."):
		return c.ofRequest(strings.TrimPrefix(path, "request."))
	case strings.HasPrefix(path, "response."):
		return c.ofResponse(strings.TrimPrefix(path, "response."))
	}
	switch path {
	case "route_name", "xds.route_name":
		return []byte(c.about.operation), true
	case "source.address":
		return []byte(c.about.address), c.about.address != ""
	case "weir.tenant": // ours, in decimal
		return strconv.AppendInt(nil, c.about.tenant, 10), true
	case "weir.key":
		return strconv.AppendInt(nil, c.about.key, 10), true
	case "weir.model":
		return []byte(c.about.model), true
	}
	return nil, false
}

func (c caller) ofRequest(name string) ([]byte, bool) {
	header := func(name string) ([]byte, bool) {
		v, ok := c.request.headers.get(name)
		return []byte(v), ok
	}
	path, _ := c.request.headers.get(":path")
	before, query, _ := strings.Cut(path, "?")
	switch name {
	case "path":
		return []byte(path), true
	case "url_path":
		return []byte(before), true
	case "query":
		return []byte(query), true
	case "host":
		return header(":authority")
	case "scheme":
		return header(":scheme")
	case "method":
		return header(":method")
	case "useragent":
		return header("user-agent")
	case "referer":
		return header("referer")
	case "id":
		return []byte(c.about.exchange), true
	case "size":
		return number(int64(len(c.request.body))), true
	case "time":
		return number(c.about.began.UnixNano()), true
	}
	if h, ok := strings.CutPrefix(name, "headers."); ok {
		return header(h)
	}
	return nil, false
}

func (c caller) ofResponse(name string) ([]byte, bool) {
	if !c.response.known {
		return nil, false
	}
	if name == "code" {
		v, _ := c.response.headers.get(":status")
		code, err := strconv.ParseInt(v, 10, 64)
		return number(code), err == nil
	}
	if h, ok := strings.CutPrefix(name, "headers."); ok {
		v, ok := c.response.headers.get(h)
		return []byte(v), ok
	}
	return nil, false
}

func number(v int64) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(v)) }
