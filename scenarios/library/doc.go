// Package library holds the scenarios that come with the program, embedded so that they can be run by name from
// anywhere. They are sources: scenarios/spec reads them as it reads any other file.
package library
