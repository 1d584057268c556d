package audience

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
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
	var b [16]byte
	return string(v.AppendName(b[:0]))
}

// AppendName appends Name to dst.
func (v Viewer) AppendName(dst []byte) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, digits[v.ID>>shift&15])
	}
	return dst
}

// patienceSigma is the spread of patience: sigma of its logarithm.
const patienceSigma = 0.5

// Patience is how long the viewer waits for the first picture before they leave, in a crowd whose median that is; two
// in three viewers lie between 0.6 and 1.65 medians, and none waits longer than 7.4. It is a function of who the viewer is.
func (v Viewer) Patience(median time.Duration) time.Duration {
	return logNormal(median, patienceSigma, mix64(v.ID^0x70617469656e6365)) // a stream of its own: "patience"
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
	seed    uint64
	devices []deviceDraw
	device  draw
	regions []string
	home    draw
	part    portion // of the viewers, for one of several generators
}

type deviceDraw struct {
	name string
	isps []string
	isp  draw
}

// draw maps a uniform number to a weighted choice in one look-up: each choice fills as many places as it weighs.
type draw []uint8

func newDraw(weights []uint32) draw {
	var d draw
	for i, w := range weights {
		d = slices.Grow(d, int(w))
		for range w {
			d = append(d, uint8(i))
		}
	}
	return d
}

func (d draw) pick(u uint64) uint8 { return d[(u>>32)*uint64(len(d))>>32] }

// Region is a home region and its share of a crowd; shares are relative to their sum.
type Region struct {
	Name  string
	Share float64
}

// MaxRegions bounds a crowd's home regions.
const MaxRegions = 64

// NewCrowd returns the crowd of a mix over the given home regions, with the mix's own shares: the first region has a little
// more than the others. Without regions every viewer's Home is "".
func NewCrowd(mixName string, regions []string, seed uint64) (*Crowd, error) {
	i := slices.IndexFunc(mixes, func(m mix) bool { return m.name == mixName })
	if i < 0 {
		return nil, fmt.Errorf("unknown audience mix %q; the mixes are %v", mixName, Mixes())
	}
	if len(regions) > MaxRegions {
		return nil, fmt.Errorf("%d home regions, at most %d", len(regions), MaxRegions)
	}
	m := mixes[i]
	c := &Crowd{seed: Seed(seed, "audience"), regions: slices.Clone(regions)}
	var weights []uint32
	for r := range regions {
		weights = append(weights, m.home[min(r, len(m.home)-1)])
	}
	c.home = newDraw(weights)
	weights = nil
	for _, d := range m.devices {
		weights = append(weights, d.weight)
		of := deviceDraw{name: d.name}
		var shares []uint32
		for _, p := range d.isps {
			of.isps = append(of.isps, p.name)
			shares = append(shares, p.weight)
		}
		of.isp = newDraw(shares)
		c.devices = append(c.devices, of)
	}
	c.device = newDraw(weights)
	return c, nil
}

// NewCrowdIn is NewCrowd with the regions' shares as given, kept to a hundredth of a per cent. Who the k-th viewer is
// but for their home does not depend on the regions.
func NewCrowdIn(mixName string, regions []Region, seed uint64) (*Crowd, error) {
	var names []string
	var total float64
	var errs []error
	for _, r := range regions {
		names = append(names, r.Name)
		if !(r.Share >= 0 && r.Share <= math.MaxFloat32) {
			errs = append(errs, fmt.Errorf("region %s: share %v, want 0 or more", r.Name, r.Share))
		}
		total += r.Share
	}
	if len(regions) > 0 && len(errs) == 0 && total == 0 {
		errs = append(errs, errors.New("no region has a share of the crowd"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	c, err := NewCrowd(mixName, names, seed)
	if err != nil {
		return nil, err
	}
	const places = 10_000
	var weights []uint32
	upTo, filled := 0.0, uint32(0)
	for _, r := range regions {
		upTo += r.Share
		edge := uint32(math.Round(upTo / total * places)) // rounding the running sum loses no place
		weights = append(weights, edge-filled)
		filled = edge
	}
	c.home = newDraw(weights)
	return c, nil
}

// Viewer returns the k-th viewer: a pure function of the crowd's seed and k.
func (c *Crowd) Viewer(k uint64) Viewer {
	g := splitmix{mix64(c.seed ^ mix64(c.part.index(k)+1))}
	v := Viewer{ID: g.next()}
	d := &c.devices[c.device.pick(g.next())]
	v.Device = d.name
	v.ISP = d.isps[d.isp.pick(g.next())]
	if len(c.regions) > 0 {
		v.Home = c.regions[c.home.pick(g.next())]
	}
	return v
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
