// SPDX-License-Identifier: Apache-2.0

// Package oneapi reads the tables of one-api and new-api, and says what is in them as a file that package apply takes: users become tenants, their
// balances budgets that never renew, tokens keys by their hashes, and channels channels.
//
// What Weir has no place for is left out and named; nothing is guessed. A later dump gives the same names, so that what has changed since is changed.
package oneapi

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weir-proxy/weir/policy/budget"
)

// Gateway is whose tables are read.
type Gateway string

// The gateways whose tables are known.
const (
	OneAPI Gateway = "one-api"
	NewAPI Gateway = "new-api"
)

// Options are how a dump is read.
type Options struct {
	Gateway Gateway
	Dir     string    // with users, tokens and channels, each .csv or .tsv
	Quota   int64     // that a dollar is worth: 500,000, unless QuotaPerUnit was set
	Now     time.Time // by which tokens have expired
}

// Installation is what a dump holds.
type Installation struct {
	File    []byte            // for package apply
	Secrets map[string]string // the credentials of its channels, by the environment variables that the file names
	LeftOut []string          // what has no place in Weir, and why
}

// thing is an element of a section of the file.
type thing map[string]any

type reader struct {
	o       Options
	out     Installation
	file    map[string][]thing
	tenants map[string]row    // users, by id
	names   map[string]string // of their tenants, by id
}

// Read reads a dump.
func Read(o Options) (*Installation, error) {
	var tables [3][]row
	for i, name := range []string{"users", "tokens", "channels"} {
		var err error
		if tables[i], err = readTable(o.Dir, name); err != nil {
			return nil, err
		}
	}
	r := reader{o: o, file: map[string][]thing{}, tenants: map[string]row{}, names: map[string]string{}}
	r.out.Secrets = map[string]string{}
	for _, u := range tables[0] {
		r.user(u)
	}
	for _, t := range tables[1] {
		r.token(t)
	}
	for _, c := range tables[2] {
		r.channel(c)
	}
	var err error
	if r.out.File, err = json.MarshalIndent(r.file, "", " "); err != nil { // which is YAML, too
		return nil, fmt.Errorf("write the installation: %w", err)
	}
	return &r.out, nil
}

func (r *reader) add(section string, t thing) { r.file[section] = append(r.file[section], t) }

func (r *reader) leaveOut(what string, of row, format string, args ...any) {
	name := of["name"] + of["username"]
	r.out.LeftOut = append(r.out.LeftOut, fmt.Sprintf("%s %s (%s): ", what, of["id"], name)+fmt.Sprintf(format, args...))
}

const (
	enabled   = "1"
	disabled  = "2"
	banned    = "3" // of a user: deleted
	adminRole = 10  // and root above it
)

func (r *reader) user(u row) {
	if u.deleted() || u["status"] == banned {
		return
	}
	name := nameOf(u["username"])
	if name != u["username"] {
		name = numbered(name, "user", u["id"])
	}
	r.tenants[u["id"]], r.names[u["id"]] = u, name
	r.add("tenants", thing{"name": name, "disabled": u["status"] == disabled, "groups": groups(u["group"])})
	r.budget(u, "user", "quota", thing{"tenant": name})
}

// budget makes a budget of what is left. A balance below nothing is nothing.
func (r *reader) budget(of row, what, column string, b thing) {
	quota, err := strconv.ParseInt(of[column], 10, 64)
	if err != nil {
		r.leaveOut("budget of "+what, of, "%s %q is no number", column, of[column])
		return
	}
	quota = max(quota, 0)
	if quota/r.o.Quota >= budget.MaxAmount/budget.NanoUSD {
		r.leaveOut("budget of "+what, of, "%d is more than a budget can be; it has none, and may spend without end", quota)
		return
	}
	nano := quota/r.o.Quota*budget.NanoUSD + quota%r.o.Quota*budget.NanoUSD/r.o.Quota
	b["usd"], b["period"] = strings.ReplaceAll(budget.FormatUSD(nano), "$", ""), budget.Never
	r.add("budgets", b)
}

func (r *reader) token(t row) {
	user, ok := r.tenants[t["user_id"]]
	if t.deleted() || !ok {
		return
	}
	tenant, name := r.names[t["user_id"]], numbered(nameOf(t["name"]), "token", t["id"])
	key := thing{"name": name, "tenant": tenant, "hash": hashOf(t["key"]), "disabled": t["status"] == disabled, "models": t.list("models")}
	if r.o.Gateway == NewAPI {
		delete(key, "models")
		if t.truth("model_limits_enabled") {
			key["models"] = t.list("model_limits")
		}
		key["groups"] = groups(t["group"])
	}
	networks, err := networksOf(append(t.list("subnet"), t.list("allow_ips")...))
	if err != nil {
		r.leaveOut("token", t, "%v", err)
		return
	}
	key["allow_ip"] = networks
	if seconds, err := strconv.ParseInt(t["expired_time"], 10, 64); err == nil && seconds > 0 {
		end := time.Unix(seconds, 0).UTC()
		if !end.After(r.o.Now) {
			r.leaveOut("token", t, "it has expired at %s", end.Format(time.RFC3339))
			return
		}
		key["expires"] = end.Format(time.RFC3339)
	}
	if role, err := strconv.Atoi(user["role"]); err == nil && role >= adminRole {
		key["pinnable"] = true // only their tokens could be
	}
	r.add("keys", key)
	if !t.truth("unlimited_quota") {
		r.budget(t, "token", "remain_quota", thing{"tenant": tenant, "key": name})
	}
}

func (r *reader) channel(c row) {
	dialect, base, err := endpoint(r.o.Gateway, c["type"], c["base_url"])
	if err != nil {
		r.leaveOut("channel", c, "%v", err)
		return
	}
	models, err := modelsOf(c)
	if err != nil {
		r.leaveOut("channel", c, "%v", err)
		return
	}
	// new-api keeps several credentials in one channel, one on each line.
	for i, secret := range strings.Fields(c["key"]) {
		id := c["id"]
		if i > 0 {
			id += "-" + strconv.Itoa(i+1)
		}
		ch := thing{
			"name": numbered(nameOf(c["name"]), "channel", id), "provider": dialect, "base_url": base, "models": models, "groups": c.groups(),
			"disabled": c["status"] != enabled, "priority": number(c["priority"], 0), "weight": max(number(c["weight"], 1), 1),
			"api_key": "env:CHANNEL_" + id,
		}
		r.out.Secrets["CHANNEL_"+id] = secret
		r.add("channels", ch)
	}
}

// modelsOf joins the models of a channel with its mapping, which may lead from one name to the next.
func modelsOf(c row) ([]string, error) {
	mapping := map[string]string{}
	if text := strings.TrimSpace(c["model_mapping"]); text != "" {
		if err := json.Unmarshal([]byte(text), &mapping); err != nil {
			return nil, fmt.Errorf("its model_mapping is not JSON: %w", err)
		}
	}
	models := c.list("models")
	if len(models) == 0 {
		return nil, fmt.Errorf("it serves no model")
	}
	for i, name := range models {
		upstream := name
		for range len(mapping) {
			if next, ok := mapping[upstream]; ok && next != "" {
				upstream = next
			}
		}
		if upstream != name {
			models[i] = name + "=" + upstream
		}
	}
	slices.Sort(models)
	return slices.Compact(models), nil
}

func networksOf(texts []string) ([]string, error) {
	out := []string{}
	for _, text := range texts {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			var one netip.Addr
			if one, err = netip.ParseAddr(text); err != nil {
				return nil, fmt.Errorf("%q is no network: it would be open to all without it", text)
			}
			prefix = netip.PrefixFrom(one, one.BitLen())
		}
		out = append(out, prefix.Masked().String())
	}
	return out, nil
}

func (r row) groups() []string {
	out := []string{}
	for _, g := range r.list("group") {
		out = append(out, groups(g)...)
	}
	return out
}

// groups is a group as Weir may call it; new-api's auto is none of its own. Two groups never become one: a name that has to change is marked by
// what it was.
func groups(name string) []string {
	if name = strings.TrimSpace(name); name == "" || name == "auto" {
		return []string{}
	}
	out := numbered(nameOf(name), "group", "")
	if out != name {
		sum := sha256.Sum256([]byte(name))
		out += "-" + hex.EncodeToString(sum[:4])
	}
	return []string{out}
}

// hashOf is what is known of a key: clients send it with the prefix that the tables leave out.
func hashOf(key string) string {
	key = strings.TrimSpace(key) // Postgres pads char(48)
	if !strings.HasPrefix(key, "sk-") {
		key = "sk-" + key
	}
	sum := sha256.Sum256([]byte(key))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func number(s string, otherwise int) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return otherwise
	}
	return n
}

// nameOf leaves of a name what a name may have in Weir: lowercase letters, digits, and - _ . between them.
func nameOf(s string) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' || r == '.' {
			return r
		}
		return '-'
	}, strings.ToLower(s))
	for strings.Contains(s, "--") {
		s = strings.ReplaceAll(s, "--", "-")
	}
	const longest = 40
	return strings.Trim(s[:min(len(s), longest)], "-_.")
}

// numbered tells names apart that may be given twice, or of which nothing is left.
func numbered(name, kind, id string) string {
	if strings.Trim(name, "0123456789") == "" {
		name = strings.Trim(kind+"-"+name, "-")
	}
	if id == "" {
		return name
	}
	return name + "-" + id
}
