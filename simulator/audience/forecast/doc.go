// Package forecast predicts how many play starts an event brings and when, and, once the event is on, corrects itself
// from what is seen. Predict gives an arrival curve with a middle (P50) and a high (P90) estimate, and the capacity that
// each region needs; a Nowcast is fed with observed starts once a second and says what the next minutes need. Compare and
// a Nowcast's Score say how wrong they were.
//
// # Before the event
//
// The curve is (scale) × (shape). The shape of each kind of event is a mixture of three groups of viewers: the early, who
// come in a rising straight line; the rush around the start, which climbs and falls exponentially; the late, who come in
// an exponential tail. The kinds' figures are round ones of our own for rehearsal, not a published survey.
//
// Scale: the logarithm of actual/expected is taken as normal. Its mean begins at 0 with the weight of two events, each past
// event of the same kind adds its log(total/expected) with weight 1, of another kind with weight 1/4 (a ridge, or
// shrinkage, mean); its variance is averaged likewise with 0.35². Without an expected audience the weighted geometric mean
// of past totals takes its place, each brought to the event's hour of the day. Shape: log(peak/total ÷ the kind's own
// peak/total) is averaged in the same way, and the rush is made steeper or flatter until its peak agrees. An audience that is
// given is taken to know its hour.
//
// Marketing: a typical event has shown 2^(-h/24) of its final interest (reminders, sign-ups) h hours before its start. Each
// point of the marketing curve says, as a share of the expected audience, what this event has shown; log(share/typical)
// is an observation of the scale, the more certain the later it is: a normal-normal update with sigma 0.3 over the root of
// the sum of typical(h).
//
// # During the event
//
// Per region and over all, the multiplier actual/forecast has a Gamma posterior. Its prior has mean 1 and the variance of
// the forecast's scale (Sigma²), and stays. A second with n starts where e were forecast adds w·n/e to a and w to b, where
// w = e/(1 + 0.04·e): a count is never believed to better than 20 % a second, however large, since errors of shape and not
// Poisson noise dominate. What was observed is halved every 20 s (forgetting). When the smoothed surprise (the logarithm of observed over
// expected, in its own standard deviations) exceeds 2, that second forgets 30 % more: a forecast that is off by a factor of
// two is recognised in seconds, noise is not. A region leans on the whole with the weight of 30 observations. What the
// scaled shape does not explain (a smoothed residual) is carried on and dies away in 20 s.
//
// A plan asks for what the P90 of the next lead time needs, with headroom; it scales up at once, and down only to what was
// the most wanted over the whole hold time, so that it does not flap.
//
// Limits: a nowcast scales the forecast, it does not move it in time: while the rush climbs, late and small look alike. Who
// runs the event says that it is put off (PutOff); otherwise it is first seen as a small one, and instances are given back
// too early.
//
// If you are about to change it: it is pure, `now` is an argument, and every constant above is named in the code.
package forecast
