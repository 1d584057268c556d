// Package packager turns an encoder's segments into CMAF (ISO/IEC 23000-19) init and media segments and publishes them
// over HTTP PUT to the origin of every region. The bytes depend on the rendition and the segment number alone, so the
// packagers of two regions make interchangeable segments. Origins do not wait for each other: each has its own bounded
// queue, and one that is dead or silent delays nobody else.
package packager
