package main

import (
	"bytes"
	"strings"
	"testing"
)

// What is wrong with a load is said before anything is sent.
func TestLoadIsRefused(t *testing.T) {
	for _, c := range []struct{ args, stderr string }{
		{"ftp://127.0.0.1/", "want the http or https URL"},
		{"http://127.0.0.1:9/ --rate 100 --limit-rate 50", "peaks at 100 play starts a second, above the ceiling of 50"},
		{"http://127.0.0.1:9/ --for 1h --limit-duration 10m", "lasts 1h0m0s, above the ceiling of 10m0s"},
		{"http://127.0.0.1:9/ --limit-rate -1", "a ceiling of -1"},
		{"http://127.0.0.1:9/ --curve round", "want constant, ramp or spike"},
		{"http://127.0.0.1:9/ --body {{token}}", "unknown variable {{token}}"},
		{"http://192.0.2.1:9/ --limit-rate 1000 --limit-duration 1h", "no proof that the target agrees"},
	} {
		var stdout, stderr bytes.Buffer
		status := run(append([]string{"load"}, strings.Fields(c.args)...), strings.NewReader(""), &stdout, &stderr)
		if status != exitUsage || stdout.Len() > 0 || !strings.Contains(stderr.String(), c.stderr) {
			t.Errorf("%s: exit status %d, stdout %q, stderr %q", c.args, status, stdout.String(), stderr.String())
		}
	}
}
