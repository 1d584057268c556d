// Package report writes a run's folder: report.json (versioned schema), report.html (one self-contained page), junit.xml
// (a case per objective, fault and safety check) and timeline.ndjson. Everything is drawn from one Report value; Read
// takes report.json back, to draw it again or to compare runs.
//
// The page needs no network and no script: the timeline is SVG drawn here, once wide and once narrow. To look at it,
// go test ./dashboards/report -run Samples -samples DIR writes a page for each kind of outcome.
package report
