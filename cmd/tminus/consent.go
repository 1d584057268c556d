package main

import (
	"errors"
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
		Long: `Make the token by which a target agrees to be loaded. A target that is not on this machine's loopback, private addresses
included, must serve it as plain text at ` + consent.Path + `, on the target's own port,
by HTTP or HTTPS as the target is. It is looked for before a run and every minute of it: redirects are not followed, the
address that answered is the only one that is loaded, and the load ends within seconds when the file is gone.

Whoever loads it gives the token, and sets the load a ceiling: a scenario as target.consent and limits, tminus load as --consent,
--limit-rate and --limit-duration, a k6 script as consent (or TMINUS_CONSENT) and limits.

HOST is a URL, host:port, or a host alone (HTTPS, port 443).`,
		Example: `  tminus consent https://play.example.com
  tminus consent 10.0.7.12:8000 --for 24h`,
		Args: exactArgs(1, "one host, host:port or URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			target, err := consent.ParseTarget(args[0])
			if err != nil {
				return usage(err)
			}
			if target.User != nil {
				return usage(errors.New("a target is loaded without a user: leave out what stands before the @"))
			}
			if target.Path != "" && target.Path != "/" || target.RawQuery != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "tminus: a token is for all that %s serves, not for %s alone\n", target.Host, target.RequestURI())
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
			_, err = fmt.Fprintf(cmd.OutOrStdout(), `%[1]s

Until %[2]s this line lets whoever has it load %[3]s.

1. Have the target serve it, alone on a line of a text file, at
   %[4]s
2. Give it to whoever loads the target, with a ceiling for the load: one of
   a scenario    target: {consent: %[5]s}
                 limits: {rate: 1000, duration: 10m}
   tminus load   --consent %[5]s --limit-rate 1000 --limit-duration 10m
   a k6 script   consent: '%[5]s', limits: {rate: 1000, duration: '10m'}

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
