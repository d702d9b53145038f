// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/policy/budget"
)

func priceCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "price COMMAND",
		Short: "What tokens cost",
		Long: `Weir comes with a list of public prices. A price of your own goes before that of the list. MODEL is a name as clients ask for it, or a
pattern such as vllm/* or *, for models that have no price by their name. Prices are in USD for a million tokens.

A request is charged by the prices that were in force when it was admitted. A model without a price has no cost, which is not zero: weir
usage sum says how many such requests there are, and a key with a budget may not ask for it.`,
	}
	c.AddCommand(priceList(), priceShow(), priceSet(), priceDelete())
	return c
}

func priceList() *cobra.Command {
	var own bool
	c := &cobra.Command{
		Use:   "list [TEXT] [--own]",
		Short: "List prices",
		Long: `List the prices of all models, or of those with TEXT in their names. A + stands behind a model of which some requests have other rates:
weir price show has them all.`,
		Example: `  weir price list gpt-5
  weir price list --own`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			all, err := client.Prices(c.Context(), strings.Join(args, ""), own)
			if err != nil {
				return err
			}
			return printList(c, all, "There is no such price. Set one: weir price set MODEL --input USD --output USD",
				[]string{"MODEL", "INPUT", "CACHED", "OUTPUT", "MAX OUTPUT", "FROM"}, priceCells)
		},
	}
	c.Flags().BoolVar(&own, "own", false, "only prices of your own")
	return c
}

func priceCells(p admin.Price) []string {
	model, first := p.Model, p.Rates[0]
	if len(p.Rates) > 1 {
		model += " +"
	}
	return []string{model, usd(first.Input), usd(first.CachedInput), usd(first.Output), countOr(p.MaxOutput), p.From}
}

// countOr prints nothing for what is not known.
func countOr(n int64) string {
	if n == 0 {
		return ""
	}
	return count(n)
}

func printPrice(c *cobra.Command, p admin.Price) error {
	if asJSON(c) {
		return printJSON(c, p)
	}
	facts := table{}
	facts.add("model", p.Model)
	facts.add("from", p.From)
	facts.add("version", count(p.Version))
	facts.add("takes at most", countOr(p.MaxInput))
	facts.add("answers at most", countOr(p.MaxOutput))
	if err := facts.print(c); err != nil {
		return err
	}
	fmt.Fprintln(c.OutOrStdout())
	rates := table{header: []string{"SERVICE", "ABOVE", "INPUT", "CACHED", "WRITTEN", "AUDIO IN", "IMAGE IN", "OUTPUT", "REASONING", "AUDIO OUT", "IMAGE OUT"}}
	for _, r := range p.Rates {
		service := r.Service
		if service == "" {
			service = "standard"
		}
		rates.add(service, countOr(r.Above), usd(r.Input), usd(r.CachedInput), usd(r.CacheWrite), usd(r.AudioInput), usd(r.ImageInput),
			usd(r.Output), usd(r.Reasoning), usd(r.AudioOutput), usd(r.ImageOutput))
	}
	return rates.print(c)
}

func priceShow() *cobra.Command {
	var version int64
	c := &cobra.Command{
		Use:   "show MODEL [--version N]",
		Short: "Show the price that a model has",
		Long:  "Show the price that a model has: its own, that of the list, or that of a pattern. Rows of usage name the version that they were charged by.",
		Example: `  weir price show gpt-5
  weir price show gpt-5 --version 1795386000123`,
		Args: arguments("MODEL"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			p, err := client.Price(c.Context(), args[0], version)
			if err != nil {
				return err
			}
			return printPrice(c, p)
		},
	}
	c.Flags().Int64Var(&version, "version", 0, "by the version `N` of the prices (default: those in force)")
	return c
}

// tokenRate is a flag for the price of a kind of tokens.
type tokenRate struct {
	name, usage string
	at          func(*admin.PriceRates) **int64
}

func tokenRates() []tokenRate {
	return []tokenRate{
		{"input", "`USD` for a million tokens of input", func(r *admin.PriceRates) **int64 { return &r.Input }},
		{"output", "`USD` for a million tokens of output", func(r *admin.PriceRates) **int64 { return &r.Output }},
		{"cached", "`USD` for input that is read from the provider's cache (default: as --input)", func(r *admin.PriceRates) **int64 { return &r.CachedInput }},
		{"cache-write", "`USD` for input that is put into it (default: as --input)", func(r *admin.PriceRates) **int64 { return &r.CacheWrite }},
		{"audio-input", "`USD` for input that is audio (default: as --input)", func(r *admin.PriceRates) **int64 { return &r.AudioInput }},
		{"image-input", "`USD` for input that is images (default: as --input)", func(r *admin.PriceRates) **int64 { return &r.ImageInput }},
		{"reasoning", "`USD` for reasoning (default: as --output)", func(r *admin.PriceRates) **int64 { return &r.Reasoning }},
		{"audio-output", "`USD` for output that is audio (default: as --output)", func(r *admin.PriceRates) **int64 { return &r.AudioOutput }},
		{"image-output", "`USD` for output that is images (default: as --output)", func(r *admin.PriceRates) **int64 { return &r.ImageOutput }},
	}
}

// priceFlags are what weir price set is told.
type priceFlags struct {
	texts               map[string]*string // of rates, by flag
	service             string
	above               int64
	maxInput, maxOutput int64
}

func (f *priceFlags) register(c *cobra.Command) {
	f.texts = make(map[string]*string)
	for _, r := range tokenRates() {
		f.texts[r.name] = c.Flags().String(r.name, "", r.usage)
	}
	c.Flags().StringVar(&f.service, "service", "", "rates of this `SERVICE` alone, flex or priority, beside the standard ones")
	c.Flags().Int64Var(&f.above, "above", 0, "rates of requests with more than `N` tokens of input alone, beside those below")
	c.Flags().Int64Var(&f.maxInput, "max-input", 0, "the model takes at most `N` tokens")
	c.Flags().Int64Var(&f.maxOutput, "max-output", 0, "an answer has at most `N` tokens; it is what a budget reserves for a request without a limit of its own")
}

// rates reads the flags.
func (f *priceFlags) rates() (admin.PriceRates, error) {
	out := admin.PriceRates{Service: f.service, Above: f.above}
	for _, r := range tokenRates() {
		text := *f.texts[r.name]
		if text == "" {
			continue
		}
		nano, err := budget.ParseUSD(strings.TrimPrefix(text, "$"))
		if err != nil {
			return out, wrongUsage("--%s: %w", r.name, err)
		}
		*r.at(&out) = &nano
	}
	if out.Input == nil || out.Output == nil {
		return out, wrongUsage("give --input and --output; what is free costs 0")
	}
	if f.above < 0 || f.maxInput < 0 || f.maxOutput < 0 {
		return out, wrongUsage("a number of tokens must not be negative")
	}
	return out, nil
}

func priceSet() *cobra.Command {
	var f priceFlags
	c := &cobra.Command{
		Use:   "set MODEL --input USD --output USD [--cached USD] [--FLAG VALUE]...",
		Short: "Set a price of your own",
		Long: `Set a price of your own, in USD for a million tokens. Without --service and --above it takes the place of all rates that you have set for
the model; with them it stands beside those. It is in force within a second on every processor, for requests admitted from then on.`,
		Example: `  weir price set gpt-5 --input 1.25 --output 10 --cached 0.125
  weir price set gpt-5 --service priority --input 2.5 --output 20
  weir price set 'vllm/*' --input 0 --output 0`,
		Args: arguments("MODEL"),
		RunE: func(c *cobra.Command, args []string) error {
			rates, err := f.rates()
			if err != nil {
				return err
			}
			client, err := connect(c)
			if err != nil {
				return err
			}
			n := admin.NewPrice{MaxInput: f.maxInput, MaxOutput: f.maxOutput, Rates: []admin.PriceRates{rates}}
			if rates.Service != "" || rates.Above != 0 {
				if n, err = beside(c, client, args[0], rates); err != nil {
					return err
				}
			}
			p, err := client.SetPrice(c.Context(), args[0], n)
			if err != nil {
				return err
			}
			return printPrice(c, p)
		},
	}
	f.register(c)
	return c
}

// beside returns a model's own price with other rates for one service and size of input.
func beside(c *cobra.Command, client *admin.Client, model string, rates admin.PriceRates) (admin.NewPrice, error) {
	if c.Flags().Changed("max-input") || c.Flags().Changed("max-output") {
		return admin.NewPrice{}, wrongUsage("--max-input and --max-output are of the model: give them without --service and --above")
	}
	p, err := client.Price(c.Context(), model, 0)
	if problem, ok := errors.AsType[*admin.Problem](err); ok && problem.Status == http.StatusNotFound || err == nil && (p.From != "own" || p.Model != model) {
		return admin.NewPrice{}, withHint(fmt.Errorf("%q has no price of your own that these rates could stand beside", model),
			"set its standard price first: weir price set %s --input USD --output USD", model)
	}
	if err != nil {
		return admin.NewPrice{}, err
	}
	n := admin.NewPrice{MaxInput: p.MaxInput, MaxOutput: p.MaxOutput, Rates: slices.DeleteFunc(p.Rates, func(r admin.PriceRates) bool {
		return r.Service == rates.Service && r.Above == rates.Above
	})}
	n.Rates = append(n.Rates, rates)
	return n, nil
}

func priceDelete() *cobra.Command {
	return &cobra.Command{
		Use:   "delete MODEL",
		Short: "Delete a price of your own",
		Long:  "Delete a price of your own, with all of its rates. If the model is in the list it has that price again.",
		Args:  arguments("MODEL"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			if err := client.DeletePrice(c.Context(), args[0]); err != nil {
				return err
			}
			if asJSON(c) {
				return printJSON(c, map[string]string{"deleted": args[0]})
			}
			remark(c, "Your price of %s is deleted.", args[0])
			return nil
		},
	}
}
