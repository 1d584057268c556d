package report

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// The files of a run's folder.
const (
	JSONFile     = "report.json"
	HTMLFile     = "report.html"
	JUnitFile    = "junit.xml"
	TimelineFile = "timeline.ndjson"
)

// Files names the files that Write writes.
func Files() []string { return []string{JSONFile, HTMLFile, JUnitFile, TimelineFile} }

// Write puts report.json, junit.xml, timeline.ndjson and report.html into dir, making it when it is missing.
//
// timeline writes the run's events, one JSON object a line, into the writer it is given; with nil the report's own
// seconds and moments are written instead. It is called before the rest is written, and may change the report. r is not
// changed otherwise: figures that are not finite (NaN, ±Inf) are replaced in
// the copy that is written (see Finite) and named by a failed safety check.
//
// Each file appears complete under its name or not at all. Every file is tried; the error is one
// sentence a file that could not be written, naming it.
func Write(dir string, r *Report, timeline func(w io.Writer) error) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the run's folder %s: %w", dir, reason(err))
	}
	var errs []error
	if timeline != nil { // first, because it may still put into the report how much it left out
		errs = append(errs, writeFile(filepath.Join(dir, TimelineFile), timeline))
	}
	r, bad := r.Finite()
	if timeline == nil {
		errs = append(errs, writeFile(filepath.Join(dir, TimelineFile), r.ndjson))
	}
	if len(bad) > 0 {
		r.Safety = append(r.Safety, Check{
			Name:   "every figure of the report is a number",
			Detail: "not finite, replaced: " + strings.Join(bad, ", "),
		})
	}
	for _, f := range []struct {
		name string
		fill func(io.Writer) error
	}{
		{JSONFile, r.WriteJSON},
		{JUnitFile, r.WriteJUnit},
		{HTMLFile, r.WriteHTML},
	} {
		errs = append(errs, writeFile(filepath.Join(dir, f.name), f.fill))
	}
	return errors.Join(errs...)
}

// WriteJSON writes the report as indented JSON.
func (r *Report) WriteJSON(w io.Writer) error {
	c, _ := r.Finite()
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(c)
}

// ndjson writes the seconds and the moments, each tagged with what it is.
func (r *Report) ndjson(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, m := range r.Moments {
		if err := enc.Encode(struct {
			Type string `json:"type"`
			Moment
		}{"moment", m}); err != nil {
			return err
		}
	}
	for _, s := range r.Timeline {
		if err := enc.Encode(struct {
			Type string `json:"type"`
			Second
		}{"second", s}); err != nil {
			return err
		}
	}
	return nil
}

// writeFile fills a temporary file beside path and renames it into place, so that a reader never sees half a file.
func writeFile(path string, fill func(io.Writer) error) (err error) {
	dir, name := filepath.Split(path)
	f, err := os.CreateTemp(dir, "."+name+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, reason(err))
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", path, reason(err))
		}
	}()
	b := bufio.NewWriterSize(f, 64<<10)
	if err = fill(b); err != nil {
		return err
	}
	if err = b.Flush(); err != nil {
		return err
	}
	if err = f.Chmod(0o644); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// reason strips the operation and path that os errors carry (the caller names the file once, by its final name) and
// says in words what to do about the commonest ones.
func reason(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	var le *os.LinkError
	if errors.As(err, &le) {
		err = le.Err
	}
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w: free some space or choose another folder", err)
	case errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: your quota on that disk is used up", err)
	}
	return err
}
