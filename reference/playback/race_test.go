//go:build race

package playback

const raced = true
