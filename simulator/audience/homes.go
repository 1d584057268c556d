package audience

import (
	"fmt"
	"slices"
)

// Homes returns the home regions of a mix's crowd with their shares, which sum to 1: what NewCrowd draws from.
func Homes(mixName string, regions []string) ([]Region, error) {
	i := slices.IndexFunc(mixes, func(m mix) bool { return m.name == mixName })
	if i < 0 {
		return nil, fmt.Errorf("unknown audience mix %q; the mixes are %v", mixName, Mixes())
	}
	home := mixes[i].home
	total := 0.0
	homes := make([]Region, len(regions))
	for r, name := range regions {
		homes[r] = Region{name, float64(home[min(r, len(home)-1)])}
		total += homes[r].Share
	}
	for r := range homes {
		homes[r].Share /= total
	}
	return homes, nil
}
