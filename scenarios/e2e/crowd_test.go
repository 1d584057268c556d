package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/tminus-live/tminus/dashboards/report"
)

// crowd is a scenario of two regions; the rest of its audience and what follows it are filled in.
const crowd = `apiVersion: tminus/v1
name: crowd
event:    {duration: %s, dvr: 20s}
topology: {regions: [us-east, us-west], edges: {us-east: 1, us-west: 1}}
audience:
  players: 3
  playersWithin: 3s
%s`

// Small crowds: how a crowd is judged does not depend on its size; a hundred thousand a second are the library's scenarios'.
var _ = Describe("A crowd", Label("crowd"), func() {
	It("six times as large as the services can serve is shed, and they go on serving what they can", func(ctx context.Context) {
		dir := GinkgoT().TempDir()
		status, rep, folder := rehearse(ctx, dir, write(dir, "six.yaml", fmt.Sprintf(crowd, "30s", `  starts: [{at: 0s, rate: 100}, {at: 6s, rate: 3000, for: 14s}]
  people: {human: 100%, presses: 1}
  connections: {inFlight: 8, perService: 8}
playback: {capacity: 500}
objectives:
  'play_starts_per_second{from=7s,to=20s}': ["min>=475"]
  'video_start_failures{from=24s,to=30s}':  ["rate==0%"]
  rebuffer_duration: ["count==0"]
`)))
		Expect(rep.Verdict).To(Equal(report.Go), "%v", rep.Reasons)
		Expect(status).To(Equal(exitGo))
		Expect(rep.Load.PlayStarts.Shed).To(BeNumerically(">", 30_000))
		Expect(rep.Load.PlayStarts.Failed + rep.Load.PlayStarts.Dropped).To(BeZero())
		Expect(rep.Timeline[10].Capacity).To(BeNumerically("==", 500))
		expectWhole(ctx, rep, folder)
	}, SpecTimeout(2*time.Minute))

	It("that is interrupted comes back as it is asked to, or as people do, and the report shows both", func(ctx context.Context) {
		dir := GinkgoT().TempDir()
		status, rep, folder := rehearse(ctx, dir, write(dir, "storm.yaml", fmt.Sprintf(crowd, "80s", `  starts: [{at: 0s, rate: 200}]
  people: {human: 0%, again: 90%, after: 1s, presses: 4}
  interruptions:
    - {at: 15s, region: us-east, viewers: 1200}
    - {at: 60s, region: us-west, viewers: 1200, guided: false}
playback: {capacity: 4000}
objectives:
  'load_amplification{from=15s,to=60s}': ["max<2"]
`)))
		Expect(rep.Verdict).To(Equal(report.Go), "%v", rep.Reasons)
		Expect(status).To(Equal(exitGo))
		Expect(rep.Storms).To(HaveLen(2))
		guided, people := rep.Storms[0], rep.Storms[1]
		Expect(guided.Guided).To(BeTrue())
		Expect(people.Guided).To(BeFalse())
		Expect(guided.Amplification).To(BeNumerically("<", 2))
		Expect(people.Amplification).To(BeNumerically(">", 2))
		Expect(people.PeakPerS).To(BeNumerically(">", 2*guided.PeakPerS))
		expectWhole(ctx, rep, folder)
	}, SpecTimeout(3*time.Minute))

	It("larger than forecast is seen coming: there is capacity for it, and the report says how wrong the forecast was", func(ctx context.Context) {
		dir := GinkgoT().TempDir()
		status, rep, _ := rehearse(ctx, dir, write(dir, "big.yaml", fmt.Sprintf(crowd, "60s", `  forecast: {kind: launch, viewers: 60000, from: -45s}
  starts: [{at: 0s, curve: forecast, times: 2}]
playback: {instance: 100, lead: 5s}
objectives:
  video_start_failures: ["rate<2%"]
`)))
		Expect(rep.Verdict).To(Equal(report.Go), "%v", rep.Reasons)
		Expect(status).To(Equal(exitGo))
		Expect(rep.Forecast).NotTo(BeNil())
		Expect(rep.Forecast.ErrorPct).To(BeNumerically("~", 50, 10), "half of those who came were not expected")
		Expect(rep.Forecast.NowcastPct).To(BeNumerically("<", rep.Forecast.ErrorPct))
		Expect(len(rep.Forecast.Scaling)).To(BeNumerically(">", 2))
		Expect(rep.Forecast.Warnings).NotTo(BeEmpty())
	}, SpecTimeout(2*time.Minute))

	for kind, connections := range map[string]string{"TCP": "fresh", "TLS 1.3": "fresh-tls"} {
		It("can bring a connection of its own for each play start: "+kind, func(ctx context.Context) {
			dir := GinkgoT().TempDir()
			status, rep, _ := rehearse(ctx, dir, write(dir, "fresh.yaml", fmt.Sprintf(crowd, "12s", `  starts: [{at: 0s, rate: 300}]
  connections: {kind: `+connections+`}
objectives:
  video_start_failures: ["rate==0%"]
`)))
			Expect(rep.Verdict).To(Equal(report.Go), "%v", rep.Reasons)
			Expect(status).To(Equal(exitGo))
		}, SpecTimeout(time.Minute))
	}

	It("can be sent at any HTTP play API", func(ctx context.Context) {
		var asked atomic.Int64
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if r.Method != http.MethodPut || r.Header.Get("X-Event") != "theirs" || !strings.HasPrefix(string(body), `{"who":"`) || !strings.HasPrefix(r.UserAgent(), "tminus/") {
				http.Error(w, "not what was agreed", http.StatusBadRequest)
				return
			}
			fmt.Fprintf(w, `{"data":{"session":{"id":"s%d"}}}`, asked.Add(1))
		}))
		DeferCleanup(srv.Close)
		dir := GinkgoT().TempDir()
		status, rep, folder := rehearse(ctx, dir, write(dir, "theirs.yaml", fmt.Sprintf(`apiVersion: tminus/v1
name: theirs
event: {duration: 8s}
audience: {starts: [{at: 0s, rate: 200}]}
target:
  play: {url: "%s/start", method: PUT, headers: {X-Event: "{{title}}"}, body: '{"who":"{{viewer}}","on":"{{device}}"}', session: data.session.id}
objectives:
  video_start_failures: ["rate==0%%"]
`, srv.URL)))
		Expect(rep.Verdict).To(Equal(report.Go), "%v", rep.Reasons)
		Expect(status).To(Equal(exitGo))
		Expect(asked.Load()).To(BeNumerically("==", 1600))
		Expect(rep.Load.PlayStarts.OK).To(BeNumerically("==", 1600))
		expectWhole(ctx, rep, folder)
	}, SpecTimeout(time.Minute))
})
