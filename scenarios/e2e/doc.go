// Package e2e holds the end-to-end scenarios: the built binary on real sockets, judged from outside as its user would.
// Ginkgo runs them and writes JUnit; labels choose among them:
//
//	go test ./scenarios/e2e                                    # all of them
//	go test ./scenarios/e2e -ginkgo.label-filter='!slow'
//	go test ./scenarios/e2e -ginkgo.label-filter=browsers
package e2e
