// Everyone presses Play at once, while a few watch: play starts from the generator's engine, and full players whose QoE decides.
//
//   bin/tminus up --json > up.json & until [ -s up.json ]; do sleep 1; done
//   bin/k6 run -e UP=$PWD/up.json simulator/k6/examples/storm.js
import tminus from 'k6/x/tminus';

const up = JSON.parse(open(__ENV.UP));
const services = up.regions.map((r) => ({ region: r.region, url: r.playback }));
const title = __ENV.TITLE || 'first-light';
const rate = Number(__ENV.RATE || 2000); // play starts a second
const length = __ENV.FOR || '5s';

// One VU starts each crowd: it is the hand, not a viewer.
const once = { executor: 'per-vu-iterations', vus: 1, iterations: 1, maxDuration: '1h' };

export const options = {
  scenarios: {
    storm: { ...once, exec: 'storm' },
    audience: { ...once, exec: 'audience' },
  },
  thresholds: {
    // The open-loop crowd, from the moment each viewer meant to press Play.
    tminus_play_start_time: ['p(95)<500', 'p(99.9)<2000'],
    tminus_send_lag: ['p(99)<100'], // this machine kept up
    tminus_video_start_failures: ['rate<0.001'],
    tminus_dropped: ['count==0'],
    'tminus_play_starts{status:ok}': [`count>${rate}`],
    // Full players.
    tminus_startup_time: ['p(95)<2000'],
    tminus_rebuffer_ratio: ['avg<0.4'], // per cent, of each session
    tminus_live_latency: ['p(95)<12000'],
    tminus_bitrate: ['avg>300'],
    tminus_playback_failures: ['rate==0'],
  },
};

export function storm() {
  const got = tminus.playStarts({
    services, title, for: length, seed: 7,
    starts: [{ at: 0, rate: rate / 10 }, { at: '1s', rate }],
  });
  console.log(`${got.ok} of ${got.intended} play starts ok, p95 ${got.playStartTime.p95} ms`);
}

export function audience() {
  tminus.players({ services, title, players: 5, for: __ENV.WATCH || '10s', spread: '2s', seed: 7 });
}

export function teardown() {
  console.log(JSON.stringify(tminus.qoe()));
}
