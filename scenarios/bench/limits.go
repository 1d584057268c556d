package bench

// What Options may ask for: the length of a measurement in seconds, and how often it is taken.
const (
	MinSeconds = minSeconds
	MaxSeconds = maxSeconds
	MinRounds  = minRounds
	MaxRounds  = maxRounds
)
