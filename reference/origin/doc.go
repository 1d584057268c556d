// Package origin is a media-aware live origin. Packagers PUT candidates of each segment, one a pipeline, to the URL that
// edges GET it from; the origin serves the first candidate without defects in a fixed order of pipelines, holds requests
// for the immediately next segment open, and refuses what the template rules out with lifetimes in milliseconds (header
// Tminus-Max-Age-Ms beside Cache-Control). What to answer is decided in package availability; this package keeps the
// segments, bounded by the time-shift buffer and by bytes, and speaks HTTP.
//
// Reads never slow writes: a read takes no lock that a write needs, and reads have a bound of their own beyond which they
// are refused.
package origin
