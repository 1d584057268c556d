// Package spec reads scenario files. Reading is strict: every mistake in a file is reported at once, each as
// file:line:col: path: problem, with the nearest valid word where one is near.
package spec
