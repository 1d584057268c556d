package manifest

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/Eyevinn/dash-mpd/mpd"
	"github.com/Eyevinn/dash-mpd/xml"
)

// Descriptor schemes of the MPD.
const (
	schemeUTC      = "urn:mpeg:dash:utc:http-iso:2014"
	schemeChannels = "urn:mpeg:dash:23003:3:audio_channel_configuration:2011"
)

// steeredMPD is an MPD with the ContentSteering element on the MPD level, where ETSI TS 103 998 puts it and players look
// for it; the mpd package knows it in ServiceDescription only.
type steeredMPD struct {
	*mpd.MPD
	ContentSteering *mpd.ContentSteeringType `xml:"ContentSteering"`
}

// DASH renders the MPD of a live event (ISO/IEC 23009-1, live profile). It has no minimumUpdatePeriod: the template says
// for all time which URL is due when, so a player fetches it once. Every edge is a BaseURL, in steering order, so that
// a player fails over on its own; every edge is also a clock (UTCTiming http-iso).
//
// The clock is the epoch (AST = epoch, one Period at PT0S, no presentation time offset: DASH-IF live media ingest v1.2,
// interface 1), so that segment n is number n and media time is wall-clock time. ffmpeg 5.1 asks for segments of the last
// century under any other AST together with an offset.
//
// Two things are left out because players do worse with them. A relative BaseURL keeps dash.js 5.2 from failing over to the
// next one, so all are absolute, whatever Options.Relative says. ServiceDescription/Latency makes shaka-player 5.2 play at
// 0.95x and fall ever further behind suggestedPresentationDelay.
//
// The end of the event is @endNumber alone. A presentation duration would be the plainer word for it, but players then
// take the event for a recording in progress and start at its beginning.
func DASH(s Stream, opt Options) ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if s.Last > math.MaxUint32 {
		return nil, fmt.Errorf("stream %s: segment number %d does not fit an MPD", s.Event, s.Last)
	}
	doc := mpd.NewMPD(mpd.DYNAMIC_TYPE)
	doc.Id = s.Event
	doc.Profiles = "urn:mpeg:dash:profile:isoff-live:2011,urn:mpeg:dash:profile:cmaf:2019"
	doc.AvailabilityStartTime = dateTime(s.Timeline.Start(0))
	doc.PublishTime = doc.AvailabilityStartTime // it has been true since
	doc.MinBufferTime = duration(s.Timeline.Duration)
	doc.MaxSegmentDuration = duration(s.Timeline.Duration)
	doc.SuggestedPresentationDelay = duration(opt.delay())
	if s.DVR > 0 {
		doc.TimeShiftBufferDepth = duration(s.DVR)
	}
	edges := opt.edges(s)
	for _, e := range edges {
		base := mpd.NewBaseURL(e.base(s))
		base.ServiceLocation = e.ID
		doc.BaseURL = append(doc.BaseURL, base)
		doc.UTCTimings = append(doc.UTCTimings, mpd.NewDescriptor(schemeUTC, e.URL+"/time", ""))
	}
	period := mpd.NewPeriod()
	period.Id = "1"
	period.Start = duration(0)
	if rungs := opt.video(s); len(rungs) > 0 {
		period.AdaptationSets = append(period.AdaptationSets, videoSet(s, opt, rungs))
	}
	for i, r := range s.kind(Audio) {
		period.AdaptationSets = append(period.AdaptationSets, audioSet(s, opt, i, r))
	}
	doc.Periods = append(doc.Periods, period)

	steered := steeredMPD{MPD: doc}
	if opt.SteeringURL != "" {
		steered.ContentSteering = &mpd.ContentSteeringType{Value: opt.SteeringURL}
		if len(edges) > 0 {
			steered.ContentSteering.DefaultServiceLocation = edges[0].ID
		}
	}
	body, err := xml.MarshalIndent(steered, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("render MPD of %s: %w", s.Event, err)
	}
	return append([]byte(xml.Header), append(body, '\n')...), nil
}

func videoSet(s Stream, opt Options, rungs []Rendition) *mpd.AdaptationSetType {
	top := rungs[len(rungs)-1]
	set := mpd.NewAdaptationSetWithParams("video", "video/mp4", true, 1)
	set.Id = mpd.Ptr(uint32(1))
	set.Par = mpd.RatioType(aspect(top.Width, top.Height))
	set.MaxWidth, set.MaxHeight = uint32(top.Width), uint32(top.Height)
	set.MaxFrameRate = top.FrameRate
	set.SegmentTemplate = template(s, opt, top.Timescale)
	for _, r := range rungs {
		rep := mpd.NewVideoRepresentation(r.ID, r.Codecs, "", r.FrameRate, r.Bandwidth, r.Width, r.Height)
		rep.Sar = "1:1"
		if r.Timescale != top.Timescale {
			rep.SegmentTemplate = template(s, opt, r.Timescale)
		}
		set.Representations = append(set.Representations, rep)
	}
	return set
}

func audioSet(s Stream, opt Options, i int, r Rendition) *mpd.AdaptationSetType {
	set := mpd.NewAdaptationSetWithParams("audio", "audio/mp4", true, 1)
	set.Id = mpd.Ptr(uint32(2 + i))
	set.Lang = r.Language
	role := "main"
	if i > 0 {
		role = "dub"
	}
	set.Roles = append(set.Roles, mpd.NewRole(role))
	set.SegmentTemplate = template(s, opt, r.Timescale)
	rep := mpd.NewAudioRepresentation(r.ID, r.Codecs, "", r.Bandwidth, r.SampleHz)
	rep.AudioChannelConfigurations = append(rep.AudioChannelConfigurations,
		mpd.NewDescriptor(schemeChannels, fmt.Sprint(r.Channels), ""))
	set.Representations = append(set.Representations, rep)
	return set
}

// template is SegmentTemplate with @duration: number n = startNumber + floor((now−AST−PeriodStart)/d). Audio segments start up to one
// frame late on that grid; @duration is nominal, as 23009-1 allows.
func template(s Stream, opt Options, timescale uint32) *mpd.SegmentTemplateType {
	t := mpd.NewSegmentTemplate()
	t.SetTimescale(timescale)
	t.Duration = mpd.Ptr(uint32(s.Timeline.DecodeTime(1, timescale)))
	t.StartNumber = mpd.Ptr(uint32(0))
	if s.Last != 0 {
		t.EndNumber = mpd.Ptr(uint32(s.Last))
	}
	t.Initialization = opt.query("$RepresentationID$/init.mp4")
	t.Media = opt.query("$RepresentationID$/$Number$.m4s")
	return t
}

// base returns the URL that a manifest's paths hang below, with a trailing slash.
func (e Edge) base(s Stream) string { return e.URL + "/" + s.Event + "/" }

func (o Options) query(u string) string {
	if o.Query == "" {
		return u
	}
	return u + "?" + strings.ReplaceAll(o.Query, "$", "%24")
}

func dateTime(t time.Time) mpd.DateTime { return mpd.DateTime(t.UTC().Format(mpd.RFC3339MS)) }

func duration(d time.Duration) *mpd.Duration { return mpd.Ptr(mpd.Duration(d)) }

func aspect(w, h int) string {
	a, b := w, h
	for b != 0 {
		a, b = b, a%b
	}
	if a == 0 {
		return ""
	}
	return fmt.Sprintf("%d:%d", w/a, h/a)
}
