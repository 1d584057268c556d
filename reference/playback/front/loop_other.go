//go:build !linux

package front

import (
	"context"
	"net"
)

const haveLoops = false

func (f *Front) serveLoops(context.Context, *net.TCPListener, *rest) error {
	panic("no event loops here")
}
