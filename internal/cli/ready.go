// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/admin"
)

// readyPause is how long is waited before Weir is asked again.
const readyPause = 200 * time.Millisecond

// readyTimeout is shorter than what those who check health allow: they want an answer, not a command that was killed.
const readyTimeout = 4 * time.Second

func readyCommand() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "ready [--wait DURATION]",
		Short: "Say whether a request to the gateway would be served",
		Long: `Ask /readyz of the admin API, which needs no token, and print what is missing or degraded. The exit status is 0 if a request would
be served, and 1 if not or if nobody answers within 4 s. It is for health checks in images that have neither a shell nor curl, and, with
--wait, for scripts that have just started or restarted Weir.`,
		Example: `  weir ready --url http://127.0.0.1:10001
  weir ready --wait 1m`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			ready, err := awaitReady(c.Context(), client, wait)
			if err != nil {
				return err
			}
			if asJSON(c) {
				err = printJSON(c, ready)
			} else {
				err = printChecks(c, ready.Checks)
			}
			if err == nil && !ready.Ready {
				err = errSilent
			}
			return err
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "ask again for as long as this `DURATION`, as in 1m, until it would be served")
	return cmd
}

// awaitReady asks until Weir is ready or the time is over, and once in any case. What is returned is the last answer.
func awaitReady(ctx context.Context, client *admin.Client, wait time.Duration) (admin.Readiness, error) {
	ask := func() (admin.Readiness, error) {
		ctx, cancel := context.WithTimeout(ctx, readyTimeout)
		defer cancel()
		return client.Ready(ctx)
	}
	over := time.After(wait)
	for {
		ready, err := ask()
		if err == nil && ready.Ready {
			return ready, nil
		}
		select {
		case <-over:
			return ready, err
		case <-ctx.Done():
			return ready, context.Cause(ctx)
		case <-time.After(readyPause):
		}
	}
}
