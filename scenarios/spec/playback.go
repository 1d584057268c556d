package spec

import (
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/tminus-live/tminus/simulator/audience"
)

// playback reads how the playback services are set up; instance is where it says what an instance carries.
func (r *reader) playback(n ast.Node, path string, p *Playback) (instance noted[struct{}]) {
	var capacity, lead noted[struct{}]
	r.mapping(n, path, []field{
		{"capacity", "", func(n ast.Node, path string) {
			p.Capacity, _ = r.number(n, path, audience.MaxRate)
			capacity = keep(n, path)
		}},
		{"instance", "", func(n ast.Node, path string) {
			v, ok := r.number(n, path, audience.MaxRate)
			if ok && v < 1 {
				r.bad(n, path, "an instance carries at least 1 play start a second")
			}
			p.Instance = v
			instance = keep(n, path)
		}},
		{"lead", "", func(n ast.Node, path string) {
			p.Lead, _ = r.duration(n, path, 0, 10*time.Minute)
			lead = keep(n, path)
		}},
		{"tokens", "", func(n ast.Node, path string) {
			if v, ok := r.boolean(n, path); ok {
				p.Tokens = v
			}
		}},
		{"guidedBackoff", "", func(n ast.Node, path string) {
			if v, ok := r.boolean(n, path); ok {
				p.GuidedBackoff = v
			}
		}},
	})
	if capacity.ok && instance.ok {
		r.bad(capacity.node, capacity.path, "instances make the capacity: leave out one of the two")
	}
	if lead.ok && !instance.ok {
		r.bad(lead.node, lead.path, "only instances have a lead time")
	}
	if instance.ok && !lead.ok {
		p.Lead = 20 * time.Second
	}
	return instance
}
