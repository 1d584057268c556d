// Package chtest gives tests an embedded ClickHouse: a child process of the test binary with the engine in it.
package chtest
