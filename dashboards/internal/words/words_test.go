package words

import "testing"

func TestClock(t *testing.T) {
	for _, c := range []struct {
		span, at float64
		want     string
	}{
		{75, 30.4, "T+30 s"}, {75, 0, "T+0 s"}, {75, -3, "T−3 s"},
		{1800, 725, "T+12:05"}, {10800, 725, "T+0:12:05"}, {10800, 3725, "T+1:02:05"},
	} {
		if got := plain(Clock{Span: c.span}.At(c.at)); got != c.want {
			t.Errorf("%v of %v: %q, want %q", c.at, c.span, got, c.want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Significant(20412, 3), "20,412"},
		{Significant(0.0841, 2), "0.084"},
		{Significant(-1234.5, 5), "−1,234.5"},
		{Significant(0.00012, 2), "0.00012"},
		{Count(51204881), "51,204,881"},
		{Compact(150), "150"},
		{Compact(9999), "9,999"},
		{Compact(98_412), "98.4k"},
		{Compact(100_000), "100k"},
		{Compact(999_900), "1M"},
		{Compact(1_021_000), "1.02M"},
		{Compact(1e31), "1e+31"},
		{PerSecond(249.6), "250/s"},
		{PerSecond(98_412), "98.4k/s"},
		{Percent(0), "0 %"},
		{Percent(0.0003), "<0.01 %"},
		{Percent(99.9986), ">99.99 %"},
		{Percent(99.987), "99.99 %"},
		{Percent(100), "100 %"},
		{Times(1.43), "1.4×"},
		{Times(11.7), "12×"},
		{Bytes(0), "0 B"},
		{Bytes(61_200_000), "61.2 MB"},
		{Bytes(999_960_000), "1 GB"},
		{Bytes(1_344_000_000), "1.34 GB"},
		{Millis(0.21), "210 µs"},
		{Millis(14.2), "14.2 ms"},
		{Millis(3011), "3.01 s"},
		{Seconds(0.00734), "7.34 ms"},
		{Seconds(0.1), "0.1 s"},
		{Seconds(1.284), "1.28 s"},
		{Seconds(0), "0 s"},
		{Lasting(0.00734), "7.34 ms"},
		{Lasting(20.2), "20.2 s"},
		{Lasting(125), "2 min 5 s"},
		{Lasting(10950), "3 h 2 min"},
		{Plural(uint64(1), "event"), "1 event"},
		{Plural(2, "region"), "2 regions"},
	} {
		if plain(c.got) != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}

func plain(s string) string {
	out := []rune(s)
	for i, r := range out {
		if r == '\u00a0' {
			out[i] = ' '
		}
	}
	return string(out)
}
