// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

// readyTimeout is shorter than what those who check health allow: they want an answer, not a command that was killed.
const readyTimeout = 4 * time.Second

func readyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ready",
		Short: "Say whether a request to the gateway would be served",
		Long: `Ask /readyz of the admin API, which needs no token, and print what is missing or degraded. The exit status is 0 if a request would
be served, and 1 if not or if nobody answers within 4 s. It is for health checks in images that have neither a shell nor curl.`,
		Example: `  weir ready --url http://127.0.0.1:10001`,
		Args:    arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), readyTimeout)
			defer cancel()
			ready, err := client.Ready(ctx)
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
}
