package library

import (
	"embed"
	"fmt"
	"slices"
	"strings"
)

//go:embed *.yaml
var files embed.FS

// Default is the scenario that is rehearsed when none is named.
const Default = "first-light"

// Names lists the scenarios of the library, in alphabetical order: "first-light".
func Names() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil // an embedded folder can always be listed
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".yaml"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Read returns the source of a scenario by its name, with or without .yaml. The error lists the names there are.
func Read(name string) ([]byte, error) {
	name = strings.TrimSuffix(name, ".yaml")
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("no scenario %q in the library; it has %s", name, strings.Join(Names(), ", "))
	}
	return files.ReadFile(name + ".yaml")
}

// Beside returns a file that a scenario of the library goes with, such as a measured curve.
func Beside(name string) ([]byte, error) { return files.ReadFile(name) }
