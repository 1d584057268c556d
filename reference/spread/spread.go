package spread

import "time"

// Mix is one step of splitmix64 from state x: neighbouring inputs give unrelated outputs.
func Mix(x uint64) uint64 { return Finish(x + 0x9e3779b97f4a7c15) }

// Finish is the finaliser of splitmix64, for what is a hash already. 0 stays 0.
func Finish(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Share is x as a number from 0 to 1, 1 excluded: its upper 53 bits.
func Share(x uint64) float64 { return float64(x>>11) / (1 << 53) }

// Jitter is d give or take half of it, decided by x alone.
func Jitter(d time.Duration, x uint64) time.Duration {
	return d/2 + time.Duration(float64(d)*Share(Mix(x)))
}
