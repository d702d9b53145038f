// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/store"
)

// scopeFlags say what a key may reach beyond its models, and what it carries.
type scopeFlags struct {
	networks, groups string
	tags, metadata   []string
	pinnable         bool
}

func scopeNames() []string { return []string{"allow-ip", "groups", "tags", "metadata", "pinnable"} }

func (f *scopeFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.networks, "allow-ip", "", "only clients of these `NETWORKS`: 10.0.0.0/8,192.0.2.7,2001:db8::/32 (default: any)")
	c.Flags().StringVar(&f.groups, "groups", "", "only channels of these `GROUPS` (default: those of the tenant)")
	c.Flags().StringSliceVar(&f.tags, "tags", nil, "`PAIRS` for the rows of its usage: team=search,env=prod")
	c.Flags().StringSliceVar(&f.metadata, "metadata", nil, "`PAIRS` for people: owner=ann,ticket=17")
	c.Flags().BoolVar(&f.pinnable, "pinnable", false, "it may be sent as SECRET-CHANNEL, and goes to that channel alone then: one-api's form")
}

// pairs takes NAME=VALUE apart.
func pairs(flag string, list []string) (map[string]string, error) {
	m := map[string]string{}
	for _, item := range list {
		name, value, ok := strings.Cut(item, "=")
		if _, twice := m[name]; !ok || name == "" || twice {
			return nil, wrongUsage("--%s: %q is not NAME=VALUE, or its name is there twice", flag, item)
		}
		m[name] = value
	}
	return m, nil
}

// create fills in what is asked of a new key.
func (f *scopeFlags) create(n *admin.NewKey) (err error) {
	n.Networks, n.Groups, n.Pinnable = splitNames(f.networks), splitNames(f.groups), f.pinnable
	if n.Tags, err = pairs("tags", f.tags); err != nil {
		return err
	}
	n.Metadata, err = pairs("metadata", f.metadata)
	return err
}

// change fills in what is to be changed.
func (f *scopeFlags) change(c *cobra.Command, ch *admin.KeyChange) error {
	given := c.Flags().Changed
	if given("allow-ip") {
		list := splitNames(f.networks)
		ch.Networks = &list
	}
	if given("groups") {
		list := splitNames(f.groups)
		ch.Groups = &list
	}
	if given("pinnable") {
		ch.Pinnable = &f.pinnable
	}
	for _, of := range []struct {
		flag string
		list []string
		to   **map[string]string
	}{{"tags", f.tags, &ch.Tags}, {"metadata", f.metadata, &ch.Metadata}} {
		if !given(of.flag) {
			continue
		}
		m, err := pairs(of.flag, of.list)
		if err != nil {
			return err
		}
		*of.to = &m
	}
	return nil
}

// scopeFacts are those that say something: most keys have none of it.
func scopeFacts(k admin.Key) []fact {
	var facts []fact
	for _, f := range []fact{
		{"networks", strings.Join(k.Networks, ",")},
		{"groups", strings.Join(k.Groups, ",")},
		{"tags", joinPairs(k.Tags)},
		{"metadata", joinPairs(k.Metadata)},
	} {
		if f.value != "" {
			facts = append(facts, f)
		}
	}
	if k.Pinnable {
		facts = append(facts, fact{"pinnable", "yes"})
	}
	if k.PreviousUntil != nil && k.PreviousUntil.After(time.Now()) {
		facts = append(facts, fact{"secret before", "works until " + localTime(*k.PreviousUntil)})
	}
	return append(facts, fact{"fingerprint", k.Fingerprint})
}

// termFacts are the budgets and limits that a key is held to, each in a line.
func termFacts(k admin.HeldKey) []fact {
	var facts []fact
	for _, b := range k.Budgets {
		name := "budget"
		if b.Key == nil {
			name = "budget of " + b.Tenant
		}
		each := " a " + b.Period
		if b.Renews == nil {
			each = ", once"
		}
		text := fmt.Sprintf("%s%s: %s of %s spent", usd(&b.AmountNanoUSD), each, usd(&b.SpentNanoUSD), usd(&b.CreditNanoUSD))
		if b.Renews != nil {
			text += ", renews " + localTime(*b.Renews)
		}
		facts = append(facts, fact{name, text})
	}
	for _, l := range k.Limits {
		name := "limit"
		if l.Key == nil {
			name = "limit of " + limitFor(l)
		}
		text := rateText(l)
		if l.Model != "*" {
			text += ", for " + l.Model
		}
		facts = append(facts, fact{name, text})
	}
	return facts
}

// rateText is what a limit allows.
func rateText(l admin.Limit) string {
	var all []string
	for _, r := range []struct {
		n    *int64
		what string
	}{
		{l.Requests, "requests/min"}, {l.Input, "input tokens/min"}, {l.Output, "output tokens/min"}, {l.Total, "tokens/min"}, {l.Concurrency, "at once"},
	} {
		if r.n != nil {
			all = append(all, count(*r.n)+" "+r.what)
		}
	}
	return strings.Join(all, ", ")
}

func joinPairs(m map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		all = append(all, name+"="+m[name])
	}
	return strings.Join(all, ",")
}

func keyRotate() *cobra.Command {
	var overlap string
	c := &cobra.Command{
		Use:   "rotate KEY [--overlap DURATION]",
		Short: "Give a key another secret, and print it, once",
		Long: `Give a key another secret, and print it. The key stays what it is: its id, its limits, its usage. The secret before works for the overlap
yet, so that there is time to bring the new one to where it is needed; without one it ends within a second on every gateway. A second
rotation ends what the first has left.

Standard output holds the secret and nothing else.`,
		Example: `  weir key rotate laptop --overlap 24h`,
		Args:    arguments("KEY"),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := parseSpan("overlap", overlap)
			if err != nil {
				return err
			}
			client, err := connect(c)
			if err != nil {
				return err
			}
			k, err := client.RotateKey(c.Context(), args[0], d)
			if err != nil {
				return err
			}
			if asJSON(c) {
				return printJSON(c, k)
			}
			remark(c, "The new secret of key %d, %q of tenant %q. Keep it: it is not shown again.", k.ID, k.Name, k.Tenant)
			if _, err := fmt.Fprintln(c.OutOrStdout(), k.Secret); err != nil {
				return fmt.Errorf("print: %w", err)
			}
			if k.PreviousUntil != nil {
				remark(c, "The one before works until %s.", localTime(*k.PreviousUntil))
			} else {
				remark(c, "The one before has ended.")
			}
			return nil
		},
	}
	c.Flags().StringVar(&overlap, "overlap", "0s", "let the secret before work for this `DURATION` yet, as in 30m, 24h or 7d")
	return c
}

// parseSpan takes a duration, also in days. It is whole seconds.
func parseSpan(flag, s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		d = time.Duration(n) * 24 * time.Hour //nolint:gosec // below 2^16
	}
	if err != nil || d < 0 || d%time.Second != 0 {
		return 0, wrongUsage("--%s %q is not a duration such as 90s, 24h or 7d", flag, s)
	}
	return d, nil
}

// importChunk is how many keys go in one request: the server takes no more.
const importChunk = 1000

func keyImport() *cobra.Command {
	var n admin.NewKey
	var file, prefix, models, expires string
	var scope scopeFlags
	c := &cobra.Command{
		Use:   "import [--from FILE] [--prefix sk-] [--tenant TENANT] [--models A,B] [--pinnable] …",
		Short: "Make keys of secrets that clients have already",
		Long: `Make keys of secrets that clients have already, such as those of one-api (sk- and 48 letters) or new-api (up to 128), so that these
clients need not be told. Each line of the file, or of standard input, is SECRET [NAME] or sha256:HASH [NAME]; empty lines and those that
begin with # are skipped. Secrets do not leave this machine: only their hashes are sent. --prefix is put before secrets that do not begin
with it, since the tables of those gateways leave it out. What is known already is left as it is, so that an import may be repeated.

With --pinnable a key may also be sent as SECRET-CHANNEL, CHANNEL being the id or name of a channel here; only that channel is used then.`,
		Example: `  psql one-api -Atc 'select key, $$old-$$ || id from tokens' | weir key import --prefix sk- --tenant acme --pinnable`,
		Args:    arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			keys, err := readImport(c, file, prefix)
			if err != nil {
				return err
			}
			n.Models = splitNames(models)
			if expires != "" {
				if n.Expires, err = parseExpiry(expires); err != nil {
					return err
				}
			}
			if err := scope.create(&n); err != nil {
				return err
			}
			return importKeys(c, n, keys)
		},
	}
	c.Flags().StringVar(&file, "from", "-", "the `FILE` to read; - is standard input")
	c.Flags().StringVar(&prefix, "prefix", "", "what secrets begin with, where the file leaves it out: `PREFIX`")
	c.Flags().StringVar(&n.Tenant, "tenant", "", "the `TENANT` that owns them (default \"default\")")
	c.Flags().StringVar(&models, "models", "", "`MODELS` that they may use, * for any characters (default: all)")
	c.Flags().StringVar(&expires, "expires", "", "the `TIME` when they end: 2027-01-01 or 2027-01-01T00:00:00Z (default: never)")
	scope.register(c)
	return c
}

func importKeys(c *cobra.Command, n admin.NewKey, keys []admin.ImportedKey) error {
	if len(n.Metadata) > 0 {
		return wrongUsage("--metadata is for one key at a time: weir key set KEY --metadata")
	}
	client, err := connect(c)
	if err != nil {
		return err
	}
	var total admin.KeyImported
	for chunk := range slices.Chunk(keys, importChunk) {
		got, err := client.ImportKeys(c.Context(), admin.KeyImport{
			Tenant: n.Tenant, Models: n.Models, Groups: n.Groups, Networks: n.Networks, Tags: n.Tags, Pinnable: n.Pinnable, Expires: n.Expires, Keys: chunk,
		})
		if err != nil {
			return fmt.Errorf("after %d keys: %w", total.Created+total.Known, err)
		}
		total.Created += got.Created
		total.Known += got.Known
	}
	if asJSON(c) {
		return printJSON(c, total)
	}
	remark(c, "Keys made: %d. Known already: %d.", total.Created, total.Known)
	return nil
}

// readImport reads secrets or hashes. Errors name the line, and not what stands in it.
func readImport(c *cobra.Command, file, prefix string) ([]admin.ImportedKey, error) {
	in := c.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("read keys: %w", err)
		}
		defer f.Close() //nolint:errcheck // what was read is read
		in = f
	}
	var keys []admin.ImportedKey
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		k, problem := importedKey(fields, prefix)
		if problem != "" {
			return nil, wrongUsage("line %d: %s", n, problem)
		}
		keys = append(keys, k)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("read keys: %w", io.ErrUnexpectedEOF)
	}
	return keys, nil
}

func importedKey(fields []string, prefix string) (k admin.ImportedKey, problem string) {
	if len(fields) > 2 {
		return k, "more than SECRET NAME stands there"
	}
	if len(fields) == 2 {
		k.Name = fields[1]
	}
	secret := fields[0]
	if strings.HasPrefix(secret, "sha256:") {
		k.Hash, k.Hint = strings.ToLower(secret), "sha256:"+admin.FingerprintOf(secret)
		return k, ""
	}
	const shortest, longest = 8, 512
	if !strings.HasPrefix(secret, prefix) {
		secret = prefix + secret
	}
	if len(secret) < shortest || len(secret) > longest || strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return k, fmt.Sprintf("a secret has %d to %d visible ASCII characters", shortest, longest)
	}
	k.Hash, k.Hint = admin.HashOf(secret), store.HintOf(store.Secret(secret))
	return k, ""
}
