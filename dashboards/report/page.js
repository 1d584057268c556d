'use strict';
// A crosshair and the figures under it. The page says everything without this.
for (const svg of document.querySelectorAll('svg.plot')) {
  const data = JSON.parse(document.getElementById(svg.dataset.figures).textContent);
  const cross = svg.querySelector('.cross'), tip = svg.parentNode.querySelector('.tip');
  const hide = () => { cross.style.visibility = tip.style.visibility = 'hidden'; };
  const row = (label, value) => {
    const s = document.createElement('span'), l = document.createElement('span'), v = document.createElement('span');
    l.textContent = label; v.textContent = value; s.append(l, v); return s;
  };
  svg.addEventListener('pointermove', e => {
    const box = svg.getBoundingClientRect(), x = (e.clientX - box.left) * data.w / box.width;
    const t = data.t0 + (x - data.x0) / (data.x1 - data.x0) * (data.t1 - data.t0);
    const b = data.bins.find(b => t >= b.t && t < b.end);
    if (!b || x < data.x0 || x > data.x1) { hide(); return; }
    const mid = data.x0 + ((b.t + b.end) / 2 - data.t0) / (data.t1 - data.t0) * (data.x1 - data.x0);
    cross.setAttribute('x1', mid); cross.setAttribute('x2', mid);
    const when = document.createElement('b');
    when.textContent = b.at;
    tip.replaceChildren(when, ...data.names.map((n, i) => row(n, b.v[i])));
    for (const f of data.faults) if (f.from < b.end && f.to > b.t) tip.append(row(f.kind, f.name));
    const px = mid * box.width / data.w, left = px + 14 + tip.offsetWidth > box.width ? px - 14 - tip.offsetWidth : px + 14;
    tip.style.transform = 'translate(' + Math.max(0, left) + 'px,' + Math.max(0, Math.min(e.clientY - box.top - 20, box.height - tip.offsetHeight)) + 'px)';
    cross.style.visibility = tip.style.visibility = 'visible';
  });
  svg.addEventListener('pointerleave', hide);
}
