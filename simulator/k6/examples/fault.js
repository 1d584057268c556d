// A region's addresses are cut off in the kernel while viewers press Play; the fault counts only when it was seen from outside.
// It needs root, and a pipeline on this machine:
//
//   bin/tminus up --json > up.json & until [ -s up.json ]; do sleep 1; done
//   sudo bin/k6 run -e UP=$PWD/up.json simulator/k6/examples/fault.js
import tminus from 'k6/x/tminus';

const up = JSON.parse(open(__ENV.UP));
const services = up.regions.map((r) => ({ region: r.region, url: r.playback }));
const addresses = (region) => [
  ...region.edges.map((e) => e.dash),
  region.playback,
].map((url) => url.split('/')[2]);

const once = { executor: 'per-vu-iterations', vus: 1, iterations: 1, maxDuration: '1h' };

export const options = {
  scenarios: {
    crowd: { ...once, exec: 'crowd' },
    cut: { ...once, exec: 'cut' },
  },
  thresholds: {
    tminus_faults_confirmed: ['rate==1'],
    tminus_video_start_failures: ['rate<0.05'], // the other region takes over
  },
};

export function crowd() {
  tminus.playStarts({ services, title: 'first-light', rate: 200, for: '15s' });
}

export function cut() {
  const [broken, well] = up.regions;
  const got = tminus.fault({
    fail: 'region', model: 'cut', where: broken.region, at: '5s', for: '4s',
    addresses: addresses(broken), elsewhere: addresses(well),
  });
  console.log(`${got.evidence.status}: ${got.evidence.detail}`);
}
