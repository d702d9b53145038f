// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// Node is an Envoy that is connected to a [Server].
type Node struct {
	ID        string    // its name
	Admin     string    // host:port of its admin interface; empty when it did not say
	AccessLog AccessLog // how it tells of exchanges
	Tap       Tap       // what looks at its responses

	version   string // as in "1.40.0"; empty when it did not say
	instance  string
	tapModule string // where the native tap is; empty for the one in Lua
}

var nodePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// CheckNode says what is wrong with the name of an Envoy, if anything is. It becomes a part of file names.
func CheckNode(name string) error {
	if !nodePattern.MatchString(name) || name == "jsonl" || name == "grpc" {
		return fmt.Errorf("name of an Envoy: %q must be of at most 32 characters a-z, 0-9 and -, not begin or end with -, and not be jsonl or grpc", name)
	}
	return nil
}

// LogFile returns where the access log of an Envoy goes, when that of the Envoy [NodeID] goes to file: exchanges.jsonl is
// exchanges.NAME.jsonl for the others.
func LogFile(file, node string) string {
	if node == NodeID {
		return file
	}
	ext := filepath.Ext(file)
	return strings.TrimSuffix(file, ext) + "." + node + ext
}

// nodeOf reads what an Envoy says of itself; usual is how one tells of exchanges that does not say.
func nodeOf(n *corev3.Node, usual AccessLog) (Node, error) {
	about := n.GetMetadata().GetFields()
	node := Node{
		ID: n.GetId(), Admin: about[metadataAdmin].GetStringValue(), instance: about[metadataInstance].GetStringValue(),
		AccessLog: cmp.Or(AccessLog(about[metadataAccessLog].GetStringValue()), usual, AccessLogFile),
		version:   versionOf(n),
		Tap:       TapLua, tapModule: about[metadataTap].GetStringValue(),
	}
	if node.tapModule != "" {
		node.Tap = TapNative
	}
	return node, errors.Join(CheckNode(node.ID), node.AccessLog.Check())
}

// versionOf returns the version of an Envoy in its own words, empty when it has none.
func versionOf(n *corev3.Node) string {
	v := n.GetUserAgentBuildVersion().GetVersion()
	if v == nil {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch())
}

// tooOld says of an Envoy that it is older than Weir's own may be.
func (n Node) tooOld() bool {
	lacks, err := LacksOf(n.version)
	return n.version != "" && (err != nil || lacks != Lacks{})
}

// Reopen has an Envoy close its logs and open them anew by their names. It answers before it has done so, which it does when it writes
// next.
func Reopen(ctx context.Context, admin string) error {
	return post(ctx, admin, "/reopen_logs")
}

// WriteFailures asks how often an Envoy failed to write to a log or to open one anew since it started. Each time lines were lost.
func WriteFailures(ctx context.Context, admin string) (int64, error) {
	body, err := get(ctx, admin, `/stats?filter=^filesystem\.(write|reopen)_failed$`)
	if err != nil {
		return 0, err
	}
	var sum int64
	seen := 0
	for line := range strings.Lines(body) {
		_, value, _ := strings.Cut(line, ":")
		n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("write failures: %w", err)
		}
		sum += n
		seen++
	}
	if seen != 2 {
		return 0, errors.New("write failures: envoy does not count them")
	}
	return sum, nil
}
