// Package admission decides what becomes of a play start: whether it is admitted, which region it lives in, what the service
// leaves out of its answer, and when its viewer should come back. It is pure: a Control is state, and its methods take the
// clock, so that the playback service and the simulation in virtual time admit, degrade and shed alike.
//
// Overload x, from 0 to 1, is the larger of two measures:
//
//	backlog   the queue that the admitted starts would make at the region's capacity, over its bound Burst. It is the
//	          generic cell rate algorithm's (ITU-T I.371, annex A) debt: (theoretical arrival time − now) / Burst.
//	measured  a moving average, over Smooth, of max(in flight / MaxInFlight, queueing delay / MaxQueue), both as the
//	          caller saw them (package front: since when a request can have been in its socket or the backlog, and how
//	          many were answered meanwhile); for this purpose 0.95 at most, so that what is measured alone never sheds
//	          live play. A queue that viewers keep on their side is not seen: that is what a capacity is for.
//
// A start whose priority number is above 100(1−x³) is shed. Since x rises with the debt, the least important starts are
// shed first and the others take the whole capacity: 6 times the capacity offered leaves as many successful starts as 1
// time.
//
// Levers are moved by pressure: the larger of measured (up to 2) and the moving average of min(2, offered/capacity). A lever
// that sheds counts only the starts that it spares, since shedding the others would leave room unused. A lever engages only
// when those before it are, releases only when those behind it are not, one each step; Hold keeps one from flapping.
//
// If you are about to change it: Start is called a hundred thousand times a second and must not allocate; the tests play
// crowds of up to twelve times the capacity in virtual time and hold the promises above.
package admission
