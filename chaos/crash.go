package chaos

import (
	"context"
	"errors"
	"fmt"
)

// crash kills a region's processes and starts them again.
type crash struct{ region Region }

func planCrash(f Fault, cfg *Config) (plan, error) {
	r, err := region(f, cfg.Regions)
	if err != nil {
		return plan{}, err
	}
	o, err := newProber(f, r, cfg, Refused)
	if err != nil {
		return plan{}, err
	}
	return plan{injector: crash{r}, observer: o}, nil
}

func (c crash) Inject(context.Context) error {
	if err := c.region.Kill(); err != nil {
		return fmt.Errorf("kill region %s: %w", c.region.Name(), err)
	}
	if c.region.Alive() {
		return fmt.Errorf("kill region %s: it lives on", c.region.Name())
	}
	return nil
}

func (c crash) Restore(ctx context.Context) error {
	if c.region.Alive() {
		return nil
	}
	if err := c.region.Start(ctx); err != nil {
		return fmt.Errorf("start region %s again: %w", c.region.Name(), err)
	}
	if !c.region.Alive() {
		return errors.New("region " + c.region.Name() + " was started again and is gone already")
	}
	return nil
}
