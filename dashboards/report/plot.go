package report

import (
	"fmt"
	"math"
	"strings"
)

// A plot is a drawing of one panel beside the timeline's: a storm, a forecast. Like the timeline it is drawn once wide
// and once narrow.
type plot struct {
	ID           string // unique in the page
	Class        string // "wide" or "narrow"
	W, H         float64
	X0, X1       float64
	Top, Bottom  float64
	LabelX       float64 // where the grid's words end
	Title, Descr string
	Keys         []key
	Grid, Ticks  []tick
	Shades       []shade
	Areas        []shape
	Captions     []caption
}

// Height is from the top of the panel to its foot.
func (p *plot) Height() float64 { return p.Bottom - p.Top }

// shade is a stretch of time that is shaded from top to bottom.
type shade struct{ X, W float64 }

// caption is words on the drawing.
type caption struct {
	Class, Text  string
	X, Y         float64
	Anchor       string // start, middle or end
	Left, Right  float64
	Above, Below float64 // the box that the words take
}

// frame turns figures into places: seconds and play starts a second into units of the drawing.
type frame struct {
	x, y   func(float64) float64
	t0, t1 float64 // nothing is drawn outside
}

// newPlot makes an empty drawing of the seconds t0 to t1 and the values 0 to top; below leaves room under the title.
func newPlot(l layout, height, t0, t1, top, head float64) (*plot, frame) {
	p := &plot{Class: l.class, W: l.w, X0: l.left, X1: l.w - l.right, Top: head}
	p.Bottom = p.Top + height
	p.H, p.LabelX = p.Bottom+26, p.X0-6
	if !(t1 > t0) {
		t1 = t0 + 1
	}
	if !(top > 0) || !finite(top) {
		top = 1
	}
	in := frame{t0: t0, t1: t1,
		x: func(t float64) float64 {
			return round1(p.X0 + (math.Min(math.Max(t, t0), t1)-t0)/(t1-t0)*(p.X1-p.X0))
		},
		y: func(v float64) float64 { return round1(p.Bottom - math.Min(math.Max(v, 0), top)/top*height) },
	}
	for _, v := range tidy(top, 5) {
		p.Grid = append(p.Grid, tick{Pos: in.y(v), Label: axisLabel(v, top)})
	}
	return p, in
}

// say puts words on the drawing where they fit: beside x on the side that has room, lowered until no other words are in
// their way.
func (p *plot) say(class, text string, x, y float64) {
	n := caption{Class: class, Text: text, X: round1(x + 6), Anchor: "start"}
	w := textWidth(text, 13)
	n.Left, n.Right = n.X, n.X+w
	if n.Right > p.X1 {
		n.X, n.Anchor = round1(x-6), "end"
		n.Left, n.Right = n.X-w, n.X
	}
	if n.Left < p.X0 {
		n.X, n.Anchor = p.X0+2, "start"
		n.Left, n.Right = n.X, n.X+w
	}
	for y = math.Max(y, p.Top+10); ; y += 4 {
		n.Y, n.Above, n.Below = round1(y), y-11, y+3
		if y > p.Bottom-4 {
			return // no room: the words under the drawing say it too
		}
		if free(p.Captions, n) {
			break
		}
	}
	p.Captions = append(p.Captions, n)
}

// free says whether n's words stand clear of all others.
func free(all []caption, n caption) bool {
	for _, o := range all {
		if n.Left < o.Right+4 && o.Left < n.Right+4 && n.Above < o.Below && o.Above < n.Below {
			return false
		}
	}
	return true
}

// value is what holds from one second to another.
type value struct{ from, to, v float64 }

// stepped draws one flat step a value; closed, the area under it. Only what lies within the frame is drawn.
func (in frame) stepped(vs []value, closed bool) string {
	var d strings.Builder
	open, last := false, math.Inf(-1)
	for _, v := range vs {
		if !(v.to > in.t0) || !(v.from < in.t1) {
			continue
		}
		x0, x1, y := in.x(v.from), in.x(v.to), in.y(v.v)
		gap := open && v.from > last+1e-6
		if gap && closed {
			fmt.Fprintf(&d, "V%gZ", in.y(0))
		}
		switch {
		case open && !gap:
			fmt.Fprintf(&d, "V%gH%g", y, x1)
		case closed:
			fmt.Fprintf(&d, "M%g %gV%gH%g", x0, in.y(0), y, x1)
		default:
			fmt.Fprintf(&d, "M%g %gH%g", x0, y, x1)
		}
		open, last = true, v.to
	}
	if open && closed {
		fmt.Fprintf(&d, "V%gZ", in.y(0))
	}
	return d.String()
}

// point is a figure at a moment.
type point struct{ t, v float64 }

// joined draws straight lines from point to point.
func (in frame) joined(ps []point) string {
	var d strings.Builder
	for i, p := range ps {
		op := "L"
		if i == 0 {
			op = "M"
		}
		fmt.Fprintf(&d, "%s%g %g", op, in.x(p.t), in.y(p.v))
	}
	return d.String()
}

// ribbon is the area between two lines over the same moments.
func (in frame) ribbon(upper, lower []point) string {
	if len(upper) < 2 {
		return ""
	}
	back := make([]point, 0, len(lower))
	for i := len(lower) - 1; i >= 0; i-- {
		back = append(back, lower[i])
	}
	return in.joined(upper) + "L" + strings.TrimPrefix(in.joined(back), "M") + "Z"
}
