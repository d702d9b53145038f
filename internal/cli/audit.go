// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/admin"
)

func auditCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "audit COMMAND",
		Short: "Who changed what, and when",
		Long: `Every change of tenants, keys, channels, plugins and where they are attached is written down in the transaction that makes it: when, who,
what, and how it was before and after, without secrets. Who is the admin token, with what --as or WEIR_AS says behind a slash, which
nobody verifies; or weir, for a gateway itself; or sql: and a role, for who changed the tables by other means.`,
	}
	c.AddCommand(auditList())
	return c
}

func auditList() *cobra.Command {
	var q admin.AuditQuery
	var since, until string
	var last int
	c := &cobra.Command{
		Use:   "list [--last N] [--kind KIND] [--object NAME] [--actor WHO] [--since TIME]",
		Short: "List changes, newest first",
		Long:  "List changes, newest first. --json has all of each.",
		Example: `  weir audit list --kind key --object laptop
  weir audit list --since 24h --json`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if last < 1 {
				return wrongUsage("--last must be at least 1")
			}
			now := time.Now()
			if q.Since, err = parseMoment("since", since, now); err != nil {
				return err
			}
			if q.Until, err = parseMoment("until", until, now); err != nil {
				return err
			}
			client, err := connect(c)
			if err != nil {
				return err
			}
			all, err := client.Audit(c.Context(), q, last)
			if err != nil {
				return err
			}
			return printList(c, all, "Nothing was changed.", []string{"TIME", "WHO", "FROM", "ACTION", "KIND", "OBJECT", "CHANGE"},
				func(e admin.AuditEntry) []string {
					object := e.ObjectID
					if e.Object != "" {
						object = e.Object
					}
					return []string{localTime(e.TS), e.Actor, e.Address, e.Action, e.Kind, object, auditChange(e)}
				})
		},
	}
	c.Flags().IntVar(&last, "last", 20, "at most `N`, the newest")
	c.Flags().StringVar(&q.Kind, "kind", "", "only of this `KIND`: tenant, key, channel, plugin, attachment, …")
	c.Flags().StringVar(&q.Object, "object", "", "only of the thing with this `NAME` or id")
	c.Flags().StringVar(&q.Actor, "actor", "", "only by this `WHO`")
	c.Flags().StringVar(&since, "since", "", "not before this `TIME`: 2026-01-31, 2026-01-31T15:04:05Z, or an age such as 90m, 24h, 7d")
	c.Flags().StringVar(&until, "until", "", "before this `TIME`, in the forms of --since")
	return c
}

// auditChange shows a change in a line. What was made or deleted as a whole would be too long for one.
func auditChange(e admin.AuditEntry) string {
	var before, after map[string]json.RawMessage
	if json.Unmarshal(e.Before, &before) != nil || json.Unmarshal(e.After, &after) != nil || before == nil || after == nil {
		return ""
	}
	names := map[string]bool{}
	for name := range before {
		names[name] = true
	}
	for name := range after {
		names[name] = true
	}
	var changes []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		changes = append(changes, name+": "+shortened(before[name])+" → "+shortened(after[name]))
	}
	return strings.Join(changes, "; ")
}

func shortened(v json.RawMessage) string {
	const most = 60
	s := string(v)
	switch {
	case s == "" || s == "null":
		return "none"
	case len(s) > most:
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
