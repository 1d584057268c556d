// Package defects makes a component of the reference pipeline misbehave by its own hand, and watches it do so from outside. It is
// for what nothing between a component and its clients can do to it: a clock that is wrong, an encoder that is away, a cache
// that forgets, a packager that an origin takes nothing from, an edge with too few hands.
//
// Injector orders a defect from the component's region over HTTP, and renews its lease until it is restored: a
// conductor that dies renews nothing, and the defect ends by itself within the lease.
//
// The observers know what a component says to anybody, and nothing of orders: Clock reads what time it takes it to be, Newest the
// age of the newest segment that it has, Candidates whose segments an origin has, Forgets whether a cache still has what it had,
// Crowd how many of several requests at once are refused. Each compares a level before, during and after with what the
// fault promises, on its target and, where there can be one, on a control that must not change. What a component that nothing was
// done to would have shown as well proves nothing, during the fault as after it. For the other defects (stores, answers by share,
// frozen pictures) the audits of HTTP and of segments are the evidence.
package defects
