// Package experiment decides what a chaos experiment says: was the system in its steady state before, during and after
// the faults; must the faults end now; and does the half of the crowd that the faults hit (the canary) fare otherwise than
// the half that they spare (the baseline)? It is pure: times and figures in, decisions and intervals out.
//
// Steady state and strategies are those of Chaos Toolkit (chaostoolkit.org, "steady-state hypothesis" and
// --hypothesis-strategy), with the faults as the method and their restoration as the rollback; stop conditions are those of
// AWS FIS. Canary against baseline follows Basiri et al., "Automating chaos experiments in production" (ICSE 2019), section IV.
//
// Two things an interval here does not know. Viewers of the canary who fail over are served by the baseline's region and
// share its capacity: where that runs out, the baseline suffers too and the difference is smaller than the fault's effect. And
// each interval stands for itself: of twenty measures without any difference, one is expected to look different.
package experiment
