// Package defect is a component's own misbehaviour, on order: what nothing outside a component can do to it. A clock that
// is wrong, an encoder that makes nothing or the same pictures again, a store that is slow or fails, a cache that forgets, an
// edge with too few hands, a playback service that errs by share.
//
// A defect is on lease: it ends by itself when whoever ordered it does not renew it, so that nothing outlives its
// conductor. Set holds what is in force and decides; it reads no clock and does no I/O, so that a simulation can use it as
// well. A component asks its Part, which costs one atomic load while it is well. Package orders takes orders over HTTP.
//
// Everything is back to normal the moment a defect ends: whoever waits because of it is let go (Hold), and nothing that it
// changed is remembered, but for a wiped cache, which stays empty.
package defect
