package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/simulator/wire/consent"
)

func consentCommand() *cobra.Command {
	life := consent.DefaultLife
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "consent HOST",
		Short: "Make the token by which a target agrees to be loaded",
		Long: `Make the token by which a target agrees to be loaded. A scenario's target that is not on this machine's loopback, private
addresses included, must serve it as plain text at ` + consent.Path + `, on the target's own port,
by HTTP or HTTPS as the target is. It is looked for before a run and every minute of it: redirects are not followed, the
address that answered is the only one that is loaded, and the load ends within seconds when the file is gone.

HOST is a URL, host:port, or a host alone (HTTPS, port 443).`,
		Example: `  tminus consent https://play.example.com
  tminus consent 10.0.7.12:8000 --for 24h`,
		Args: exactArgs(1, "one host, host:port or URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			target, err := consent.ParseTarget(args[0])
			if err != nil {
				return usage(err)
			}
			token, err := consent.NewToken(target, time.Now(), life)
			if err != nil {
				return usage(err)
			}
			at := fmt.Sprintf("%s://%s%s", target.Scheme, target.Host, consent.Path)
			if asJSON {
				return printJSON(cmd, struct {
					Token   string    `json:"token"`
					Host    string    `json:"host"`
					Expires time.Time `json:"expires"`
					ServeAt string    `json:"serve_at"`
				}{token.String(), token.Host, token.Expires, at})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), `%s

Until %s this line lets whoever has it load %s.

1. Have the target serve it, alone on a line of a text file, at
   %s
2. Give it in the scenario:
   target:
     consent: %s

To end a load at once, remove the file.
`, token, token.Expires.Format("2 January 2006, 15:04 UTC"), token.Host, at, token)
			return err
		},
	}
	fl := cmd.Flags()
	fl.DurationVar(&life, "for", life, "how long the token lasts, 31 days (744h) at the most")
	fl.BoolVar(&asJSON, "json", false, "print the token as JSON")
	return cmd
}
