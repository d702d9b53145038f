// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/weir-proxy/weir/internal/admin"
)

// channelsAtOnce is how many channels the doctor tests at a time; each may take seconds.
const channelsAtOnce = 8

func doctorCommand(version string) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Say what is wrong with an installation and how to mend it",
		Long: `Examine an installation: whether its admin API can be reached with this token, what Weir says of itself, and whether each channel's
provider answers. Each finding is ok, warn or fail, with a hint. The exit status is 1 when one is fail.`,
		Example: `  weir doctor
  weir doctor --url http://10.0.0.5:10001 --token @admin.token`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			checks, err := examine(c, version)
			if err != nil {
				return err
			}
			if asJSON(c) {
				if err := printJSON(c, checks); err != nil {
					return err
				}
			} else if err := printChecks(c, checks); err != nil {
				return err
			}
			for _, check := range checks {
				if check.Verdict == admin.Fail {
					return errSilent
				}
			}
			return nil
		},
	}
}

func printChecks(c *cobra.Command, checks []admin.Check) error {
	t := table{}
	for _, check := range checks {
		row := []string{string(check.Verdict), check.Name}
		if check.Detail != "" {
			row = append(row, check.Detail)
		}
		t.add(row...)
		if check.Verdict != admin.OK && check.Hint != "" {
			t.add(" ", " ", "hint: "+check.Hint) // Empty cells are shown as a dash.
		}
	}
	return t.print(c)
}

// examine goes on for as long as what comes next can be found out at all.
func examine(c *cobra.Command, version string) ([]admin.Check, error) {
	e, err := findEndpoint(c)
	if err != nil {
		return []admin.Check{failed("address", err)}, nil
	}
	client, err := connect(c)
	if err != nil {
		return nil, err
	}
	checks := []admin.Check{{Name: "address", Verdict: admin.OK, Detail: client.URL() + ", from " + e.source}}
	ready, err := client.Ready(c.Context())
	if err != nil {
		return append(checks, failed("reach", err)), nil
	}
	checks = append(checks, admin.Check{Name: "reach", Verdict: admin.OK, Detail: "Weir answers there"})
	got, err := client.Version(c.Context())
	if err != nil {
		checks = append(checks, failed("token", err))
		if p, ok := errors.AsType[*admin.Problem](err); ok && p.Status == http.StatusUnauthorized {
			checks = append(checks, ready.Checks...) // All that it tells to strangers.
		}
		return checks, nil
	}
	checks = append(checks, admin.Check{Name: "token", Verdict: admin.OK, Detail: "the token is right"}, compareVersions(version, got.Version))
	found, err := client.Doctor(c.Context())
	if err != nil {
		return append(checks, failed("doctor", err)), nil
	}
	checks = append(checks, found...)
	return append(checks, testChannels(c.Context(), client)...), nil
}

func failed(name string, err error) admin.Check {
	return admin.Check{Name: name, Verdict: admin.Fail, Detail: strings.ReplaceAll(err.Error(), "\n", "; "), Hint: hintOf(err)}
}

func compareVersions(ours, theirs string) admin.Check {
	if ours == theirs {
		return admin.Check{Name: "version", Verdict: admin.OK, Detail: ours}
	}
	return admin.Check{
		Name: "version", Verdict: admin.Warn,
		Detail: fmt.Sprintf("this program is %s, the server %s", ours, theirs),
		Hint:   "use the program of the server's version",
	}
}

// testChannels asks every provider. A channel that does not work is a failure only when no other does: requests go on to the next.
func testChannels(ctx context.Context, client *admin.Client) []admin.Check {
	channels, err := client.Channels(ctx)
	if err != nil {
		return nil // The server has reported it.
	}
	checks := make([]admin.Check, len(channels))
	var g errgroup.Group
	g.SetLimit(channelsAtOnce)
	for i, ch := range channels {
		name := "channel " + ch.Name
		if ch.Disabled {
			checks[i] = admin.Check{Name: name, Verdict: admin.OK, Detail: "disabled"}
			continue
		}
		g.Go(func() error {
			checks[i] = testOne(ctx, client, name, ch.ID)
			return nil
		})
	}
	_ = g.Wait() // Nothing returns an error.
	for i, ch := range channels {
		if !ch.Disabled && checks[i].Verdict != admin.Fail {
			return soften(checks)
		}
	}
	return checks
}

func soften(checks []admin.Check) []admin.Check {
	for i := range checks {
		if checks[i].Verdict == admin.Fail {
			checks[i].Verdict = admin.Warn
		}
	}
	return checks
}

func testOne(ctx context.Context, client *admin.Client, name string, id int64) admin.Check {
	t, err := client.TestChannel(ctx, count(id))
	switch {
	case err != nil:
		return failed(name, err)
	case !t.OK:
		return admin.Check{Name: name, Verdict: admin.Fail, Detail: t.Detail, Hint: t.Hint}
	case len(t.MissingModels) > 0:
		return admin.Check{Name: name, Verdict: admin.Warn, Detail: "the provider does not list " + strings.Join(t.MissingModels, ", "), Hint: t.Hint}
	}
	return admin.Check{Name: name, Verdict: admin.OK, Detail: fmt.Sprintf("answers in %d ms", max(t.LatencyMS, 1))}
}
