package manifest

import (
	"fmt"
	"time"

	m "github.com/Eyevinn/dash-mpd/mpd"
)

// DASH renders the MPD of a live event (ISO/IEC 23009-1, live profile). It has no minimumUpdatePeriod: the template says
// for all time which URL is due when, so a player fetches it once. Every edge is a BaseURL, in steering order, so that
// a player fails over on its own; every edge is also a clock (UTCTiming http-iso).
func DASH(s Stream, opt Options) ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	edges := opt.edges(s)
	mpd := m.NewMPD(m.DYNAMIC_TYPE)
	mpd.Profiles = "urn:mpeg:dash:profile:isoff-live:2011,urn:mpeg:dash:profile:cmaf:2019"
	mpd.Id = s.Event
	start := s.Timeline.Start(s.First)
	mpd.AvailabilityStartTime = dateTime(start)
	mpd.PublishTime = dateTime(start)
	mpd.MinBufferTime = m.Seconds2DurPtr(int(s.Timeline.Duration / time.Second))
	mpd.MaxSegmentDuration = dur(s.Timeline.Duration)
	mpd.SuggestedPresentationDelay = dur(opt.delay())
	if s.DVR > 0 {
		mpd.TimeShiftBufferDepth = dur(s.DVR)
	}
	for i, e := range edges {
		u := e.URL + "/" + s.Event + "/"
		if opt.Relative && i == 0 {
			u = "./"
		}
		b := m.NewBaseURL(u)
		b.ServiceLocation = e.ID
		mpd.BaseURL = append(mpd.BaseURL, b)
		mpd.UTCTimings = append(mpd.UTCTimings, m.NewDescriptor("urn:mpeg:dash:utc:http-iso:2014", e.URL+"/time", ""))
	}
	_ = fmt.Sprint
	return nil, fmt.Errorf("not rendered yet")
}

func dateTime(t time.Time) m.DateTime { return m.DateTime(t.UTC().Format("2006-01-02T15:04:05.999Z")) }

func dur(d time.Duration) *m.Duration { v := m.Duration(d); return &v }
