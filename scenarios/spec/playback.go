package spec

import (
	"github.com/goccy/go-yaml/ast"

	"github.com/tminus-live/tminus/simulator/audience"
)

func (r *reader) playback(n ast.Node, path string, p *Playback) {
	r.mapping(n, path, []field{
		{"capacity", "", func(n ast.Node, path string) { p.Capacity, _ = r.number(n, path, audience.MaxRate) }},
		{"guidedBackoff", "", func(n ast.Node, path string) {
			if v, ok := r.boolean(n, path); ok {
				p.GuidedBackoff = v
			}
		}},
	})
}
