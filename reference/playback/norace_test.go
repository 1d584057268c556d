//go:build !race

package playback

const raced = false
