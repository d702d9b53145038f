// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/admin"
)

// rateFlags are the flags of what a limit allows. Each is a number, or none.
type rateFlags struct{ rpm, itpm, otpm, tpm, concurrency, burst string }

// rateNames are the names of the flags.
var rateNames = [...]string{"rpm", "itpm", "otpm", "tpm", "concurrency", "burst"}

func (r *rateFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&r.rpm, "rpm", "", "`N` requests a minute at most, or none")
	f.StringVar(&r.itpm, "itpm", "", "`N` tokens of input a minute at most, or none")
	f.StringVar(&r.otpm, "otpm", "", "`N` tokens of output a minute at most, or none")
	f.StringVar(&r.tpm, "tpm", "", "`N` tokens of both a minute at most, or none")
	f.StringVar(&r.concurrency, "concurrency", "", "`N` requests at once at most, or none")
	f.StringVar(&r.burst, "burst", "", "what falls due in this `TIME` may come at once, from 1s to 1m (default 10s)")
}

// rates returns what was asked for; nil if nothing was.
func (r *rateFlags) rates(c *cobra.Command) (*admin.Rates, error) {
	if !anyChanged(c, rateNames[:]...) {
		return nil, nil //nolint:nilnil // nothing is to be changed
	}
	var out admin.Rates
	for _, f := range []struct {
		name, text string
		to         *admin.Nullable[int64]
	}{
		{"rpm", r.rpm, &out.Requests},
		{"itpm", r.itpm, &out.Input},
		{"otpm", r.otpm, &out.Output},
		{"tpm", r.tpm, &out.Total},
		{"concurrency", r.concurrency, &out.Concurrency},
	} {
		if !c.Flags().Changed(f.name) {
			continue
		}
		if f.text == "none" {
			*f.to = admin.Null[int64]()
			continue
		}
		n, err := strconv.ParseInt(f.text, 10, 64)
		if err != nil || n < 1 {
			return nil, wrongUsage("--%s %q is neither a whole number from 1 on nor none", f.name, f.text)
		}
		*f.to = admin.To(n)
	}
	if c.Flags().Changed("burst") {
		d, err := time.ParseDuration(r.burst)
		switch {
		case r.burst == "none" || r.burst == "default":
			out.BurstSeconds = admin.Null[float64]()
		case err != nil || d < time.Second || d > time.Minute:
			return nil, wrongUsage("--burst %q is not a time from 1s to 1m", r.burst)
		default:
			out.BurstSeconds = admin.To(d.Seconds())
		}
	}
	return &out, nil
}

func limitCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "limit COMMAND",
		Short: "Requests and tokens a minute, requests at once",
		Long: `A limit holds a key, a tenant or everybody to rates, for all models or some. All that apply to a request count; it is
refused with 429 rate_limit_exceeded if one of them has not enough left. Limits hold for all gateways on one database
together.`,
	}
	c.AddCommand(limitSet(), limitList(), limitDelete())
	return c
}

// limitFor says whom a limit is for.
func limitFor(l admin.Limit) string {
	switch {
	case l.Key != nil:
		return "key " + *l.Tenant + "/" + *l.Key
	case l.Tenant != nil && l.EachKey:
		return "each key of " + *l.Tenant
	case l.Tenant != nil:
		return "tenant " + *l.Tenant
	case l.EachKey:
		return "each key"
	}
	return "all"
}

func rate(n *int64) string {
	if n == nil {
		return "-"
	}
	return count(*n)
}

func burst(l admin.Limit) string {
	return time.Duration(l.BurstSeconds * float64(time.Second)).String()
}

func limitFacts(l admin.Limit) []fact {
	return []fact{
		{"id", count(l.ID)},
		{"for", limitFor(l)},
		{"model", l.Model},
		{"requests/min", rate(l.Requests)},
		{"input tokens/min", rate(l.Input)},
		{"output tokens/min", rate(l.Output)},
		{"tokens/min", rate(l.Total)},
		{"concurrency", rate(l.Concurrency)},
		{"burst", burst(l)},
		{"created", timeAndAge(l.Created)},
	}
}

func limitSet() *cobra.Command {
	var s admin.SetLimit
	var r rateFlags
	c := &cobra.Command{
		Use:   "set [--tenant TENANT | --key KEY] [--each-key] [--model MODEL] [--rpm N] [--tpm N] [--concurrency N] …",
		Short: "Set what some requests are held to",
		Long: `Set what the requests of a key, of a tenant, or of everybody are held to. There is one limit for each of these and
each MODEL; what is not given stays as it is. It takes effect within a second on every gateway.

With --each-key every key has the limit for itself, unless it has one of its own for the same MODEL. All models that
MODEL describes share the limit.`,
		Example: `  weir limit set --key laptop --rpm 60 --concurrency 4
  weir limit set --tenant acme --model 'gpt-4o*' --tpm 200000
  weir limit set --each-key --rpm 600 --burst 5s
  weir limit set --key laptop --rpm none`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			rates, err := r.rates(c)
			if err != nil {
				return err
			}
			if rates == nil {
				return errNothingToSet
			}
			s.Rates = *rates
			client, err := connect(c)
			if err != nil {
				return err
			}
			l, err := client.SetLimit(c.Context(), s)
			if err != nil {
				return err
			}
			if l.ID == 0 {
				if asJSON(c) {
					return printJSON(c, nil)
				}
				remark(c, "There is no such limit any more.")
				return nil
			}
			return printThing(c, l, limitFacts(l))
		},
	}
	c.Flags().StringVar(&s.Tenant, "tenant", "", "for this `TENANT`: all of its keys together (default: everybody)")
	c.Flags().StringVar(&s.Key, "key", "", "for this `KEY`")
	c.Flags().BoolVar(&s.EachKey, "each-key", false, "for each key by itself")
	c.Flags().StringVar(&s.Model, "model", "", "for this `MODEL`, * for any characters (default: all)")
	r.add(c)
	return c
}

func limitList() *cobra.Command {
	var tenant, key string
	c := &cobra.Command{
		Use:   "list [--tenant TENANT] [--key KEY]",
		Short: "List the limits",
		Long:  "List the limits, oldest first.",
		Args:  arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			all, err := client.Limits(c.Context(), tenant, key)
			if err != nil {
				return err
			}
			return printList(c, all, "There is no limit. Set one: weir limit set --rpm N",
				[]string{"ID", "FOR", "MODEL", "RPM", "ITPM", "OTPM", "TPM", "CONCURRENCY", "BURST"},
				func(l admin.Limit) []string {
					return []string{
						count(l.ID), limitFor(l), l.Model, rate(l.Requests), rate(l.Input), rate(l.Output), rate(l.Total), rate(l.Concurrency), burst(l),
					}
				})
		},
	}
	c.Flags().StringVar(&tenant, "tenant", "", "only those of this `TENANT` and its keys")
	c.Flags().StringVar(&key, "key", "", "only those of this `KEY`")
	return c
}

func limitDelete() *cobra.Command {
	return &cobra.Command{
		Use:   "delete ID",
		Short: "Delete a limit",
		Long:  "Delete a limit. It ends within a second on every gateway.",
		Args:  arguments("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return wrongUsage("%q is no id: weir limit list shows them", args[0])
			}
			client, err := connect(c)
			if err != nil {
				return err
			}
			if err := client.DeleteLimit(c.Context(), id); err != nil {
				return err
			}
			if asJSON(c) {
				return printJSON(c, map[string]int64{"deleted": id})
			}
			remark(c, "Limit %d is deleted.", id)
			return nil
		},
	}
}
