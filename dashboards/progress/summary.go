package progress

import (
	"fmt"
	"io"
	"strings"

	"golang.org/x/term"

	"github.com/tminus-live/tminus/dashboards/internal/words"
	"github.com/tminus-live/tminus/dashboards/report"
)

// Summary prints the verdict, why, the objectives, the faults, the ledger and where the report is. Call it after Run
// has returned.
func (p *Progress) Summary(r *report.Report, reportPath string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := View{Color: p.color, ASCII: p.ascii}
	wrapAt := plainCols
	if n := p.summaryCols(); n > 0 {
		wrapAt = n
	}
	if p.isTTY {
		v.Width = wrapAt
	}
	_, err := io.WriteString(p.w, summary(r, reportPath, v, wrapAt))
	return err
}

// plainCols is where sentences wrap when no terminal says how wide it is.
const plainCols = 100

// summaryCols is the width of the terminal that the summary goes to, 0 where it goes to none.
func (p *Progress) summaryCols() int {
	switch {
	case p.isTTY:
		return p.view().Width
	case p.width != nil:
		return p.width()
	}
	if f, ok := p.w.(interface{ Fd() uintptr }); ok {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil {
			return n
		}
	}
	return 0
}

// Summary is the block printed at the end of a run. A width of 0 neither wraps nor cuts.
func Summary(r *report.Report, reportPath string, v View) string {
	return summary(r, reportPath, v, v.Width)
}

// summary wraps sentences at wrapAt columns and cuts tables at the view's width, 0 for neither: a program that reads a
// table wants all of it.
func summary(r *report.Report, reportPath string, v View, wrapAt int) string {
	var b strings.Builder
	say := func(l line) {
		if v.Width > 0 {
			l = l.cut(max(v.Width, minWidth))
		}
		text := l.render(v.Color)
		if v.ASCII {
			text = ascii(text)
		}
		b.WriteString(text + "\n")
	}
	b.WriteByte('\n')
	verdict := report.VerdictWord(r.Verdict)
	switch {
	case v.Color:
		say(line{{verdictStyle(r.Verdict), "  " + verdict + "  "}, {plain, "  "}, {bold, safe(r.Scenario)}})
	default:
		say(line{{plain, verdict + "  " + safe(r.Scenario)}})
	}
	for i, reason := range r.Reasons {
		if i == 5 {
			break
		}
		st := plain
		if i == 0 {
			st = bold
		}
		text := []string{safe(reason)}
		if wrapAt > 0 {
			text = wrap(text[0], wrapAt-1)
		}
		for _, t := range text {
			say(line{{st, t}})
		}
	}
	b.WriteByte('\n')
	objectiveLines(r, say)
	// fold says a fact under its mark and its kind, and goes on under itself.
	fold := func(mark string, st style, kind, text string) {
		parts := []string{text}
		if wrapAt > 0 {
			parts = wrap(text, wrapAt-labelCols-1)
		}
		for i, t := range parts {
			if i > 0 {
				mark, kind = " ", ""
			}
			say(line{{st, mark + " "}, {dim, fmt.Sprintf("%-*s", labelCols-2, kind)}, {plain, t}})
		}
	}
	for _, f := range r.Faults {
		mark, st := "?", yellow
		switch {
		case f.Evidence.Status == report.Confirmed && f.Restored:
			mark, st = "✓", green
		case f.Evidence.Status == report.Mismatch, !f.Restored:
			mark, st = "✗", red
		}
		text := safe(fmt.Sprintf("%s: %s, %s", f.Words(), f.Evidence.Status, f.EvidenceWords()))
		if !f.Restored {
			text += ", not undone"
		}
		fold(mark, st, "fault", text)
	}
	experimentLines(r, fold)
	crowdLines(r, fold)
	for _, c := range r.Safety {
		if !c.Pass {
			text := safe(c.Name)
			if c.Detail != "" {
				text += ": " + safe(c.Detail)
			}
			fold("✗", red, "safety", text)
		}
	}
	t := r.Telemetry
	mark, st, sign := "✓", green, "="
	if t.Emitted != t.Stored || t.Lost > 0 {
		mark, st, sign = "✗", red, "≠"
	}
	fold(mark, st, "telemetry", words.Count(t.Emitted)+" emitted "+sign+" "+words.Count(t.Stored)+" stored")
	b.WriteByte('\n')
	// The path is never cut: it is there to be opened.
	b.WriteString("report  " + safe(reportPath) + "\n")
	return b.String()
}

// experimentLines says what the experiment came to: whether the steady state held, why it was stopped, and how the halves
// of the crowd differ.
func experimentLines(r *report.Report, fold func(mark string, st style, kind, text string)) {
	e := r.Experiment
	if e == nil {
		return
	}
	kind := "experiment"
	say := func(mark string, st style, text string) {
		if text != "" {
			fold(mark, st, kind, safe(text))
			kind = ""
		}
	}
	switch s := e.Stopped; {
	case e.NotInjected != "":
		say("?", yellow, "nothing was broken: "+e.NotInjected)
	case s != nil && s.Blind != "":
		say("?", yellow, "stopped: "+s.Blind+"; "+s.UndoneWords())
	case s != nil:
		say("✗", red, "stopped: "+s.Words(e.WindowS)+"; "+s.UndoneWords())
	}
	if text := e.SteadyWords(); e.NotInjected == "" {
		mark, st := "✓", green
		for _, s := range e.SteadyState {
			switch {
			case s.State() == report.Missed:
				mark, st = "✗", red
			case s.State() == report.NoData && mark == "✓":
				mark, st = "?", yellow
			}
		}
		say(mark, st, text)
	}
	say("○", dim, e.CompareWords())
}

// maxStorms bounds the returns that the summary names; the report has the rest.
const maxStorms = 4

// crowdLines says how the load was sent, how interrupted viewers came back, and how right the forecast was.
func crowdLines(r *report.Report, fold func(mark string, st style, kind, text string)) {
	if l := r.Load; l.InTimePercent > 0 {
		mark, st := "✓", green
		switch {
		case r.LateMatters() || l.PlayStarts.Dropped > 0:
			mark, st = "?", yellow
		case l.InTimePercent < report.InTime || l.Behind(): // it is told, and no reason to doubt the run
			mark, st = "○", dim
		}
		text := fmt.Sprintf("%s play starts, %s sent within 10%sms", words.Count(l.PlayStarts.Intended), words.Percent(l.InTimePercent), words.NBSP)
		if n := l.PlayStarts.Dropped; n > 0 {
			text += ", " + words.Count(n) + " dropped"
		}
		if l.Late > 0 {
			text += fmt.Sprintf(", %s (%s) late by this machine's own doing", words.Count(l.Late), words.Percent(l.LatePercent))
		}
		fold(mark, st, "load", text)
		if l.FirstFailure != "" {
			fold(" ", dim, "", safe("first wrong answer: "+l.FirstFailure))
		}
	}
	for i, s := range r.Storms {
		if i == maxStorms {
			fold(" ", dim, "", fmt.Sprintf("and %d more", len(r.Storms)-i))
			break
		}
		mark, st := "✓", green
		switch {
		case !s.Guided:
			mark, st = "○", dim
		case !s.Held():
			mark, st = "✗", red
		}
		fold(mark, st, "storm", safe(fmt.Sprintf("%s, %s: %s, %s", s.Words(), s.Guidance(), s.PeakWords(), s.ReturnWords())))
	}
	if f := r.Forecast; f != nil && len(f.Bins) > 0 {
		fold("○", dim, "forecast", f.Words())
	}
}

func objectiveLines(r *report.Report, say func(line)) {
	type row struct{ name, measured, limit, margin string }
	var rows []row
	var nameCols, measuredCols, limitCols int
	sorted := r.WorstFirst()
	for _, o := range sorted {
		w := row{safe(o.Name() + " " + o.Expression), safe(o.MeasuredWords()), safe(o.LimitWords()), safe(o.MarginWords())}
		nameCols, measuredCols, limitCols = max(nameCols, cols(w.name)), max(measuredCols, cols(w.measured)), max(limitCols, cols(w.limit))
		rows = append(rows, w)
	}
	nameCols = min(nameCols, 48)
	pad := func(s string, n int) string { return s + strings.Repeat(" ", max(0, n-cols(s))) }
	for i, o := range sorted {
		w := rows[i]
		mark, st, word := "✓", green, "met"
		switch o.State() {
		case report.Missed:
			mark, st, word = "✗", red, "missed"
		case report.NoData:
			mark, st, word = "?", yellow, "no data"
		}
		measured := strings.Repeat(" ", max(0, measuredCols-cols(w.measured))) + w.measured
		say(line{{st, mark + " " + pad(word, 9)}, {plain, pad(w.name, nameCols) + "  "}, {bold, measured}, {plain, "  " + pad(w.limit, limitCols) + "  "}, {dim, w.margin}})
	}
}

func verdictStyle(verdict string) style {
	switch verdict {
	case report.Go:
		return "1;97;42"
	case report.NoGo:
		return "1;97;41"
	}
	return "1;30;43"
}
