// Package tminus_test keeps the house in order: which folder may import which, who may read the clock, and that every
// package says what it is.
package tminus_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tminus-live/tminus/"

// arrows says what a folder may import of ours; the longest matching folder decides. Imports run one way:
// cmd → scenarios → {chaos, simulator, dashboards} → telemetry, and the reference pipeline stands apart.
var arrows = map[string][]string{
	"cmd":       {"cmd", "scenarios", "chaos", "simulator", "dashboards", "telemetry", "reference"},
	"scenarios": {"scenarios", "chaos", "simulator", "dashboards", "telemetry", "reference"},
	// The library is data: it must be readable without the code that runs it.
	"scenarios/library": {},
	"chaos":             {"chaos", "telemetry"},
	"dashboards":        {"dashboards", "telemetry"},
	"simulator":         append([]string{"simulator", "telemetry"}, deciders...),
	// A module of its own, and the one place of the crowd's that may break things: a k6 script has one hand for both.
	"simulator/k6":    append([]string{"simulator", "telemetry", "chaos"}, deciders...),
	"telemetry":       {"telemetry"},
	"telemetry/event": {},
	"reference":       {"reference", "telemetry/event"},
}

// deciders are the packages of the reference pipeline that decide and do no I/O: the crowd may share them.
var deciders = []string{"reference/timeline", "reference/manifest", "reference/origin/availability", "reference/playback/steering", "reference/playback/admission", "reference/spread"}

// timeless packages take the time and their randomness as arguments, so that one implementation serves the real server
// and the simulation.
var timeless = []string{
	"reference/timeline", "reference/manifest", "reference/origin/availability", "reference/playback/steering", "reference/playback/admission", "reference/playback/token", "reference/spread", "reference/defect",
	"simulator/audience", "simulator/player", "simulator/stream",
	"dashboards", "scenarios/spec", "scenarios/experiment", "chaos/link", "chaos/evidence", "chaos/media", "scenarios/verdict", "telemetry/event", "telemetry/qoe",
}

type file struct {
	path string // slash-separated, from the root
	ast  *ast.File
}

func sources(t *testing.T) []file {
	t.Helper()
	var files []file
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules" || d.Name() == "runs" || strings.HasPrefix(d.Name(), ".") && p != ".") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(p, ".go") {
			f, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
			if err != nil {
				return err
			}
			files = append(files, file{filepath.ToSlash(p), f})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func inside(pkg, folder string) bool { return pkg == folder || strings.HasPrefix(pkg, folder+"/") }

func rule(pkg string) (folder string, allowed []string, ok bool) {
	for f, a := range arrows {
		if inside(pkg, f) && len(f) > len(folder) {
			folder, allowed, ok = f, a, true
		}
	}
	return
}

func TestImportsRunOneWay(t *testing.T) {
	for _, f := range sources(t) {
		pkg := filepath.ToSlash(filepath.Dir(f.path))
		if pkg == "." {
			continue
		}
		folder, allowed, ok := rule(pkg)
		if !ok {
			t.Errorf("%s: no arrow is drawn for this folder: add it to DESIGN and to this test", f.path)
			continue
		}
		test := strings.HasSuffix(f.path, "_test.go")
		for _, imp := range f.ast.Imports {
			path := strings.Trim(imp.Path.Value, `"`)
			if !strings.HasPrefix(path, module) {
				continue
			}
			path = strings.TrimPrefix(path, module)
			fine := path == pkg || slices.ContainsFunc(allowed, func(a string) bool { return inside(path, a) })
			// A test may look across at what its package consumes in production over the wire, never upwards.
			if test && (inside(path, "reference") || inside(path, "telemetry")) && !inside(pkg, "telemetry") {
				fine = true
			}
			if !fine {
				t.Errorf("%s imports %s, but %s may import only %v", f.path, path, folder, allowed)
			}
		}
	}
}

func TestDecisionsTakeTheTimeAsAnArgument(t *testing.T) {
	forbidden := map[string][]string{
		"time":         {"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"},
		"math/rand":    nil, // nil: the whole package, bar its constructors
		"math/rand/v2": nil,
	}
	constructors := []string{"New", "NewPCG", "NewChaCha8", "NewSource", "Rand", "Source", "PCG", "ChaCha8"}
	for _, f := range sources(t) {
		pkg := filepath.ToSlash(filepath.Dir(f.path))
		if strings.HasSuffix(f.path, "_test.go") || !slices.ContainsFunc(timeless, func(p string) bool { return inside(pkg, p) }) {
			continue
		}
		names := map[string]string{} // local name → import path
		for _, imp := range f.ast.Imports {
			path := strings.Trim(imp.Path.Value, `"`)
			if _, ok := forbidden[path]; !ok {
				continue
			}
			name := path[strings.LastIndex(path, "/")+1:]
			if name == "v2" {
				name = "rand"
			}
			if imp.Name != nil {
				name = imp.Name.Name
			}
			names[name] = path
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			id, ok := sel.X.(*ast.Ident)
			if !ok || id.Obj != nil {
				return true
			}
			path, ok := names[id.Name]
			if !ok {
				return true
			}
			words := forbidden[path]
			if words == nil && !slices.Contains(constructors, sel.Sel.Name) || slices.Contains(words, sel.Sel.Name) {
				t.Errorf("%s uses %s.%s: what decides takes the time and its randomness as arguments", f.path, path, sel.Sel.Name)
			}
			return true
		})
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	documented := map[string]bool{}
	for _, f := range sources(t) {
		pkg := filepath.ToSlash(filepath.Dir(f.path))
		if strings.HasSuffix(f.path, "_test.go") {
			continue
		}
		if _, seen := documented[pkg]; !seen {
			documented[pkg] = false
		}
		if filepath.Base(f.path) == "doc.go" && f.ast.Doc != nil {
			documented[pkg] = true
		}
	}
	for pkg, ok := range documented {
		if !ok {
			t.Errorf("%s has no doc.go with a package comment", pkg)
		}
	}
}

func TestTopLevelFolders(t *testing.T) {
	want := []string{"chaos", "cmd", "dashboards", "docs", "reference", "scenarios", "simulator", "telemetry"}
	ignored := []string{"bin", "runs", "node_modules"}
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && !slices.Contains(want, e.Name()) && !slices.Contains(ignored, e.Name()) {
			t.Errorf("folder %s has no place in the house", e.Name())
		}
	}
}
