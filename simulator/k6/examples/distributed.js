// One crowd from many pods, one verdict: every pod takes its share of the schedule and of the players, and writes what happened to
// Kafka under the run's id. `tminus judge` decides; deploy/ has the manifests.
//
//   TMINUS_RUN=saturday-1 TMINUS_KAFKA=127.0.0.1:9092 bin/k6 run -e PODS=2 -e SERVICES='[…]' \
//     --execution-segment 0:1/2 --execution-segment-sequence 0,1/2,1 simulator/k6/examples/distributed.js
import tminus from 'k6/x/tminus';

const pods = Number(__ENV.PODS || 1); // the TestRun's parallelism
const services = JSON.parse(__ENV.SERVICES || '[]'); // [{"region": "us-east", "url": "http://…"}]
const title = __ENV.TITLE || 'first-light';
const rate = Number(__ENV.RATE || 2000); // play starts a second, of all pods together
const length = __ENV.FOR || '5s';
const limits = JSON.parse(__ENV.LIMITS || '{}'); // {"rate": …, "duration": "…"}: the ceilings that a target outside loopback needs

// k6 gives each pod its part of the VUs: with as many as there are pods, each pod has one hand. What the hand starts is the pod's
// share of the crowd, by itself.
const once = { executor: 'per-vu-iterations', vus: pods, iterations: 1, maxDuration: '1h' };

export const options = {
  scenarios: {
    storm: { ...once, exec: 'storm' },
    audience: { ...once, exec: 'audience' },
  },
  // What one pod can see by itself ends the run early. The verdict is not these: it is the scenario's objectives, over everybody's
  // events.
  thresholds: { tminus_dropped: [{ threshold: 'count<10000', abortOnFail: true }] },
};

export function storm() {
  tminus.playStarts({ services, title, for: length, seed: 7, rate, limits, at: __ENV.TMINUS_ZERO || '' });
}

export function audience() {
  tminus.players({ services, title, players: Number(__ENV.PLAYERS || 6), for: __ENV.WATCH || '8s', spread: '2s', seed: 7, at: __ENV.TMINUS_ZERO || '' });
}
