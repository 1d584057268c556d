package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestBench(t *testing.T) {
	for _, c := range []struct {
		args   []string
		status int
		stdout string // what it begins with
		stderr string // part of its one line
	}{
		{[]string{"bench"}, 0, "play-starts", ""},
		{[]string{"bench", "play-stops"}, exitUsage, "", `there is no benchmark "play-stops"; there is play-starts`},
		{[]string{"bench", "play-starts", "extra"}, exitUsage, "", "one benchmark at most"},
		{[]string{"bench", "play-starts", "--rounds", "1"}, exitUsage, "", "rounds"},
		{[]string{"bench", "play-starts", "--rounds", "0"}, exitUsage, "", "--rounds 3 to 99"},
		{[]string{"bench", "play-starts", "--seconds", "0"}, exitUsage, "", "--seconds wants 0.2 to 60"},
		{[]string{"bench", "play-starts", "--json", "--seconds", "-1"}, exitUsage, "", "seconds"},
	} {
		var stdout, stderr bytes.Buffer
		status := run(c.args, strings.NewReader(""), &stdout, &stderr)
		if status != c.status || !strings.HasPrefix(stdout.String(), c.stdout) || c.stdout == "" && stdout.Len() > 0 ||
			!strings.Contains(stderr.String(), c.stderr) || strings.Count(stderr.String(), "\n") > 1 {
			t.Errorf("%v: exit status %d, stdout %q, stderr %q", c.args, status, stdout.String(), stderr.String())
		}
	}
}
