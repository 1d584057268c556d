package audience

import (
	"fmt"
	"slices"
)

// Viewer is one member of the crowd.
type Viewer struct {
	ID     uint64 // the viewer's draw from the seed tree; unique in practice
	Device string // "tv", "console", "browser", "phone", "tablet"
	ISP    string // "fibre-1", "mobile-2" …: invented providers
	Home   string // home region
}

// Name is the viewer's id as it goes over the wire: 16 hexadecimal digits.
func (v Viewer) Name() string {
	const digits = "0123456789abcdef"
	var b [16]byte
	for i := range b {
		b[i] = digits[v.ID>>(60-4*i)&15]
	}
	return string(b[:])
}

// share is a weight in a mix.
type share struct {
	name   string
	weight uint32
}

// device is a device's share of a mix, and how the people who hold it reach the Internet.
type device struct {
	name   string
	weight uint32
	isps   []share
}

// mix is a named audience mix. home holds the weights of the home regions in scenario order; the last one repeats.
type mix struct {
	name    string
	devices []device
	home    []uint32
}

// The mixes' weights are round figures of our own for rehearsal, not a published survey.
var (
	wired    = []share{{"fibre-1", 38}, {"cable-1", 34}, {"cable-2", 16}, {"dsl-1", 10}, {"satellite-1", 2}}
	handheld = []share{{"mobile-1", 36}, {"mobile-2", 24}, {"fibre-1", 18}, {"cable-1", 16}, {"dsl-1", 6}}
	cellular = []share{{"mobile-1", 52}, {"mobile-2", 40}, {"fibre-1", 5}, {"cable-1", 3}}

	mixes = []mix{
		{"broadband-tv-heavy", []device{{"tv", 58, wired}, {"console", 9, wired}, {"browser", 13, wired}, {"phone", 14, handheld}, {"tablet", 6, handheld}}, []uint32{54, 46}},
		{"mobile-heavy", []device{{"phone", 62, cellular}, {"tablet", 11, handheld}, {"tv", 15, wired}, {"browser", 9, wired}, {"console", 3, wired}}, []uint32{54, 46}},
		{"browser-heavy", []device{{"browser", 61, wired}, {"phone", 17, handheld}, {"tv", 13, wired}, {"tablet", 7, handheld}, {"console", 2, wired}}, []uint32{54, 46}},
		{"even", []device{{"tv", 1, wired}, {"console", 1, wired}, {"browser", 1, wired}, {"phone", 1, handheld}, {"tablet", 1, handheld}}, []uint32{1}},
	}
)

// DefaultMix is the mix of a scenario that names none.
const DefaultMix = "broadband-tv-heavy"

// Mixes lists the mixes by name, the default first.
func Mixes() []string {
	names := make([]string, len(mixes))
	for i, m := range mixes {
		names[i] = m.name
	}
	return names
}

// Devices lists the devices that occur in a mix; all devices of all mixes for "".
func Devices(mixName string) []string {
	return collect(mixName, func(d device, add func(string)) { add(d.name) })
}

// ISPs lists the providers that occur in a mix; all providers of all mixes for "".
func ISPs(mixName string) []string {
	return collect(mixName, func(d device, add func(string)) {
		for _, p := range d.isps {
			add(p.name)
		}
	})
}

func collect(mixName string, each func(device, func(string))) []string {
	var out []string
	for _, m := range mixes {
		if mixName != "" && m.name != mixName {
			continue
		}
		for _, d := range m.devices {
			each(d, func(s string) {
				if !slices.Contains(out, s) {
					out = append(out, s)
				}
			})
		}
	}
	return out
}

// Crowd is a seeded population: Viewer(k) is who makes the k-th play start. It is immutable and safe for concurrent use.
type Crowd struct {
	mix     mix
	regions []string
	home    []uint32
	seed    uint64
}

// NewCrowd returns the crowd of a mix over the given home regions. Without regions every viewer's Home is "".
func NewCrowd(mixName string, regions []string, seed uint64) (*Crowd, error) {
	i := slices.IndexFunc(mixes, func(m mix) bool { return m.name == mixName })
	if i < 0 {
		return nil, fmt.Errorf("unknown audience mix %q; the mixes are %v", mixName, Mixes())
	}
	c := &Crowd{mix: mixes[i], regions: slices.Clone(regions), seed: Seed(seed, "audience")}
	for r := range regions {
		c.home = append(c.home, c.mix.home[min(r, len(c.mix.home)-1)])
	}
	return c, nil
}

// Viewer returns the k-th viewer: a pure function of the crowd's seed and k.
func (c *Crowd) Viewer(k uint64) Viewer {
	g := splitmix{mix64(c.seed ^ mix64(k+1))}
	v := Viewer{ID: g.next()}
	d := c.mix.devices[pick(g.next(), len(c.mix.devices), func(i int) uint32 { return c.mix.devices[i].weight })]
	v.Device = d.name
	v.ISP = d.isps[pick(g.next(), len(d.isps), func(i int) uint32 { return d.isps[i].weight })].name
	if len(c.regions) > 0 {
		v.Home = c.regions[pick(g.next(), len(c.home), func(i int) uint32 { return c.home[i] })]
	}
	return v
}

// pick maps a uniform draw to one of n weighted choices.
func pick(draw uint64, n int, weight func(int) uint32) int {
	var total uint64
	for i := range n {
		total += uint64(weight(i))
	}
	at := (draw >> 32) * total >> 32
	for i := range n {
		w := uint64(weight(i))
		if at < w {
			return i
		}
		at -= w
	}
	return n - 1
}

// Seed returns the child of a seed under a label. Children of one parent under different labels are unrelated streams,
// so that a part added to the crowd does not change the draws of the others.
func Seed(parent uint64, label string) uint64 {
	h := parent
	for i := range len(label) {
		h = mix64(h ^ uint64(label[i])<<1 ^ 0x9e3779b97f4a7c15)
	}
	return mix64(h + uint64(len(label)))
}

// splitmix is SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
type splitmix struct{ state uint64 }

func (g *splitmix) next() uint64 {
	g.state += 0x9e3779b97f4a7c15
	return mix64(g.state)
}

func mix64(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
