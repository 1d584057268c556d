// Package report writes a run's folder: report.json (versioned schema), report.html (one self-contained page), junit.xml
// (a case per objective, fault and safety check) and timeline.ndjson. Everything is drawn from one Report value; Read
// takes report.json back, to draw it again or to compare runs.
//
// The page needs no network and no script: the timeline, each retry storm and the forecast are SVG drawn here, once wide
// and once narrow. What a report has no data for is not on its page.
//
// If you are about to change it: html.go, crowd.go, storm.go and forecast.go decide every word and place of a section, and
// page.tmpl prints them; chart.go and starts.go draw the timeline's panels from bins that keep the worst second, plot.go is
// what the other drawings share. A new figure goes through Finite (a NaN must not reach JSON) and Parse (bounded). To look,
// go test ./dashboards/report -run Samples -samples DIR writes a page for each kind of outcome.
package report
