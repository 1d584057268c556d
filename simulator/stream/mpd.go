package stream

import (
	"encoding/xml"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// The elements and attributes of an MPD (ISO/IEC 23009-1 section 5.3) that a player of live streams needs; the rest is
// skipped.
type (
	mpdDoc struct {
		XMLName                    xml.Name      `xml:"MPD"`
		Type                       string        `xml:"type,attr"`
		AvailabilityStartTime      string        `xml:"availabilityStartTime,attr"`
		MediaPresentationDuration  *xsDuration   `xml:"mediaPresentationDuration,attr"`
		MinimumUpdatePeriod        *xsDuration   `xml:"minimumUpdatePeriod,attr"`
		TimeShiftBufferDepth       *xsDuration   `xml:"timeShiftBufferDepth,attr"`
		SuggestedPresentationDelay *xsDuration   `xml:"suggestedPresentationDelay,attr"`
		BaseURL                    []mpdBaseURL  `xml:"BaseURL"`
		Location                   []string      `xml:"Location"`
		Periods                    []mpdPeriod   `xml:"Period"`
		UTCTiming                  []mpdProperty `xml:"UTCTiming"`
	}

	mpdBaseURL struct {
		ServiceLocation        string   `xml:"serviceLocation,attr"`
		AvailabilityTimeOffset xsOffset `xml:"availabilityTimeOffset,attr"`
		Value                  string   `xml:",chardata"`
	}

	mpdProperty struct {
		Scheme string `xml:"schemeIdUri,attr"`
		Value  string `xml:"value,attr"`
	}

	mpdPeriod struct {
		Href            string       `xml:"http://www.w3.org/1999/xlink href,attr"`
		Start           *xsDuration  `xml:"start,attr"`
		Duration        *xsDuration  `xml:"duration,attr"`
		BaseURL         []mpdBaseURL `xml:"BaseURL"`
		SegmentTemplate *mpdTemplate `xml:"SegmentTemplate"`
		AdaptationSets  []mpdSet     `xml:"AdaptationSet"`
	}

	mpdSet struct {
		ContentType         string        `xml:"contentType,attr"`
		MimeType            string        `xml:"mimeType,attr"`
		Codecs              string        `xml:"codecs,attr"`
		Lang                string        `xml:"lang,attr"`
		Width               int32         `xml:"width,attr"`
		Height              int32         `xml:"height,attr"`
		EssentialProperties []mpdProperty `xml:"EssentialProperty"`
		BaseURL             []mpdBaseURL  `xml:"BaseURL"`
		SegmentTemplate     *mpdTemplate  `xml:"SegmentTemplate"`
		Representations     []mpdVersion  `xml:"Representation"`
	}

	mpdVersion struct {
		ID              string       `xml:"id,attr"`
		Bandwidth       uint32       `xml:"bandwidth,attr"`
		MimeType        string       `xml:"mimeType,attr"`
		Codecs          string       `xml:"codecs,attr"`
		Width           int32        `xml:"width,attr"`
		Height          int32        `xml:"height,attr"`
		BaseURL         []mpdBaseURL `xml:"BaseURL"`
		SegmentTemplate *mpdTemplate `xml:"SegmentTemplate"`
	}

	mpdTemplate struct {
		Media                  string       `xml:"media,attr"`
		Initialization         string       `xml:"initialization,attr"`
		Timescale              *uint32      `xml:"timescale,attr"`
		Duration               *uint32      `xml:"duration,attr"`
		StartNumber            *uint32      `xml:"startNumber,attr"`
		EndNumber              *uint32      `xml:"endNumber,attr"`
		PresentationTimeOffset *uint64      `xml:"presentationTimeOffset,attr"`
		AvailabilityTimeOffset xsOffset     `xml:"availabilityTimeOffset,attr"`
		Timeline               *mpdTimeline `xml:"SegmentTimeline"`
	}

	mpdTimeline struct {
		S []mpdS `xml:"S"`
	}

	mpdS struct {
		T *uint64 `xml:"t,attr"`
		D uint64  `xml:"d,attr"`
		R int32   `xml:"r,attr"`
	}
)

// xsDuration is an xs:duration of days, hours, minutes and seconds, 0 to maxSpan. Years and months have no fixed length
// and must be 0.
type xsDuration time.Duration

// UnmarshalXMLAttr reads "PT2S", "P0Y0M0DT0H0M2.000S".
func (d *xsDuration) UnmarshalXMLAttr(a xml.Attr) error {
	bad := fmt.Errorf("%w: %s=%q is no duration from 0 to 100 years", ErrMalformed, a.Name.Local, clip(a.Value))
	rest, ok := strings.CutPrefix(strings.TrimSpace(a.Value), "P")
	if !ok || rest == "" || len(rest) > 64 {
		return bad
	}
	date, clock, _ := strings.Cut(rest, "T")
	var total float64
	for _, part := range []struct {
		s     string
		units string
		size  []float64 // seconds; 0: must be 0
	}{{date, "YMD", []float64{0, 0, 86_400}}, {clock, "HMS", []float64{3600, 60, 1}}} {
		next := 0 // units come in order
		for s := part.s; s != ""; {
			i := strings.IndexAny(s, part.units)
			if i <= 0 {
				return bad
			}
			k := strings.IndexByte(part.units, s[i])
			v, err := strconv.ParseFloat(s[:i], 64)
			if err != nil || !(v >= 0) || k < next || part.size[k] == 0 && v != 0 {
				return bad
			}
			next = k + 1
			total += v * part.size[k]
			s = s[i+1:]
		}
	}
	if total > maxSpan.Seconds() {
		return bad
	}
	*d = xsDuration(math.Round(total*1e6) * 1e3)
	return nil
}

// xsOffset is an availabilityTimeOffset; INF (always available) counts as no offset, for which there is no live edge.
type xsOffset time.Duration

// UnmarshalXMLAttr reads seconds as a decimal number.
func (o *xsOffset) UnmarshalXMLAttr(a xml.Attr) error {
	v, err := strconv.ParseFloat(strings.TrimSpace(a.Value), 64)
	switch {
	case err != nil || math.IsNaN(v) || v < 0:
		return fmt.Errorf("%w: %s=%q", ErrMalformed, a.Name.Local, clip(a.Value))
	case v < 3600:
		*o = xsOffset(v * float64(time.Second))
	}
	return nil
}
