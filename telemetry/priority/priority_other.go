//go:build !linux

package priority

// Set changes nothing here.
func Set(int) error { return nil }

// GiveWay changes nothing here.
func GiveWay(int) error { return nil }
