package rehearsal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/tminus-live/tminus/reference/pipeline"
)

// URLs says where a running pipeline is.
type URLs struct {
	Run     string       `json:"run"`
	Regions []RegionURLs `json:"regions"`
}

// RegionURLs is where one region is.
type RegionURLs struct {
	Region   string     `json:"region"`
	Playback string     `json:"playback"` // POST /v1/play
	Origin   string     `json:"origin"`
	Packager string     `json:"packager"`
	Edges    []EdgeURLs `json:"edges"`
}

// EdgeURLs is what plays from one edge.
type EdgeURLs struct {
	Edge string `json:"edge"`
	DASH string `json:"dash"`
	HLS  string `json:"hls"`
}

func urlsOf(cfg pipeline.Config) URLs {
	urls := URLs{Run: cfg.Run}
	for _, r := range cfg.Regions {
		u := RegionURLs{Region: r.Name, Playback: r.PlaybackURL() + "/v1/play", Origin: r.OriginURL(), Packager: r.PackagerURL()}
		for _, e := range r.EdgeList() {
			base := e.URL + "/" + cfg.Event
			u.Edges = append(u.Edges, EdgeURLs{e.ID, base + "/manifest.mpd", base + "/master.m3u8"})
		}
		urls.Regions = append(urls.Regions, u)
	}
	return urls
}

// String is the URLs as a person reads them.
func (u URLs) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "on the air: %s\n", u.Run)
	for _, r := range u.Regions {
		fmt.Fprintf(&b, "\n%s\n", r.Region)
		for _, e := range r.Edges {
			fmt.Fprintf(&b, "  edge %-14s DASH %s\n  %-19s HLS  %s\n", e.Edge, e.DASH, "", e.HLS)
		}
		fmt.Fprintf(&b, "  play starts         POST %s\n  origin              %s\n  packager            %s\n", r.Playback, r.Origin, r.Packager)
	}
	fmt.Fprintf(&b, "\nplay it: ffplay %s\nCtrl-C ends it.\n", u.Regions[0].Edges[0].HLS)
	return b.String()
}

// Up runs the reference pipeline without a crowd or faults until ctx ends. It calls ready when every edge serves. When
// it returns nothing that it started is left running.
func (r *Rehearsal) Up(ctx context.Context, ready func(URLs) error) (err error) {
	if err := makeFolder(r.folder, minFree); err != nil {
		return err
	}
	defer func() { _ = os.Remove(r.folder) }() // when it is empty: nothing came of it
	var undo stack
	defer func() {
		if err = errors.Join(err, undo.run()); err == nil {
			err = os.RemoveAll(r.folder) // nobody asks an event without a crowd for its figures; after an error it holds the logs
		}
	}()
	r.telemetry, err = openTelemetry(ctx, r.cfg, r.id, r.folder, &r.state, nil)
	if err != nil {
		return err
	}
	undo.push(r.telemetry.close)
	undo.push(r.stopRegions)
	if err := r.startPipeline(ctx, false); err != nil {
		return err
	}
	if err := ready(urlsOf(r.pipeline)); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-r.partFailed(ctx):
		return err
	}
}
