// Package steering decides which CDN edges a viewer is sent to, in which order, and what probes say about an edge's
// health. It is pure: the viewer, the edges, their health and the clock are arguments, so that the playback service and the
// simulation steer alike. It also renders the steering manifest that HLS (RFC 8216bis, 7) and DASH (ETSI TS 103 998) players
// poll.
package steering
