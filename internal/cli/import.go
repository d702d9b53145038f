// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/apply"
	"github.com/weir-proxy/weir/internal/oneapi"
)

func importCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "import COMMAND",
		Short: "Take over users, tokens and channels of another gateway",
		Long: `Take over what another gateway has: its users as tenants, with what is left of their balances as budgets that never renew; its
tokens as keys, which clients go on using, with what is left of their quota; its channels, as far as they speak OpenAI's API, with
credentials, models, groups, priorities and weights. What has no place here is left out and named. Passwords, logs, and ratios of models
and groups are not read: Weir bills dollars, by weir price list.

Nothing is deleted, and a second import changes what has changed in between. So: import, and try with clients of your own; then stop
the old gateway, import once more, and let the clients come. After that, a further import would set budgets back.`,
	}
	c.AddCommand(importFrom(oneapi.OneAPI), importFrom(oneapi.NewAPI))
	return c
}

func importFrom(g oneapi.Gateway) *cobra.Command {
	var dir string
	var quota int64
	var dry bool
	c := &cobra.Command{
		Use:   string(g) + " --from DIR [--dry-run]",
		Short: "Take over those of " + string(g),
		Long: `Read three tables of ` + string(g) + ` from a folder: users, tokens and channels, each a file NAME.csv, or NAME.tsv as mysql --batch
writes it, with the names of the columns in its first line. Secrets do not leave this machine, but for the credentials of channels,
which go to Weir. The dump holds all of them: make it where nobody else reads, and remove it.`,
		Example: `  for t in users tokens channels; do psql "$SQL_DSN" --csv -c "select * from $t" > dump/$t.csv; done
  for t in users tokens channels; do sqlite3 -csv -header one-api.db "select * from $t" > dump/$t.csv; done
  for t in users tokens channels; do mysql --batch -e "select * from $t" oneapi > dump/$t.tsv; done
  weir import ` + string(g) + ` --from dump --dry-run`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			if dir == "" {
				return wrongUsage("--from is needed: the folder with users.csv, tokens.csv and channels.csv")
			}
			if quota < 1 {
				return wrongUsage("--quota-per-usd must be at least 1, not %d", quota)
			}
			in, err := oneapi.Read(oneapi.Options{Gateway: g, Dir: dir, Quota: quota, Now: time.Now()})
			if err != nil {
				return fmt.Errorf("read the dump: %w", err)
			}
			for _, what := range in.LeftOut {
				fmt.Fprintf(c.ErrOrStderr(), "left out: %s\n", printable(what))
			}
			return applyFiles(c, []apply.File{{Name: "what " + dir + " holds", Data: in.File}}, apply.Environment{
				Lookup: func(name string) (string, bool) { secret, ok := in.Secrets[name]; return secret, ok },
			}, applyOptions{dry: dry})
		},
	}
	c.Flags().StringVar(&dir, "from", "", "the `DIR` of the tables")
	c.Flags().Int64Var(&quota, "quota-per-usd", 500_000, "`N` of quota are a dollar: QuotaPerUnit of its options")
	c.Flags().BoolVar(&dry, "dry-run", false, "print what would be done, and do nothing")
	return c
}
