//go:build !linux

package engine

func saveSignals() (restore func()) { return func() {} }
