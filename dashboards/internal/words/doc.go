// Package words turns figures into words for people: figures with as many digits as they deserve, their units, times
// since the start of an event. The report and the progress panel share it, so that both say a figure alike.
package words
