// Package catalogue proves the whole catalogue of faults on a system of its own: each model is injected, confirmed by its evidence
// and undone, and what users of the broken part get returns to what they got before; with an injector that does nothing, ends too
// early or never, each one's evidence says so. It has tests alone; run them after whatever changes a fault, an injector or an
// observer:
//
//	go test ./scenarios/catalogue
//
// The system is what a rehearsal makes: three regions of the reference pipeline in processes of their own, a broker, and services of
// one's own, with relays in front and, as root, a network. Two regions are broken, and the third one is what is compared with. Faults
// that do not disturb each other are injected together.
package catalogue
