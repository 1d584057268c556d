// Package report writes a run's folder: report.json (versioned schema), report.html (one self-contained page), junit.xml
// (a case per objective, fault and safety check) and timeline.ndjson. Everything is drawn from one Report value.
package report
