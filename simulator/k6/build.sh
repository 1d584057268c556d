#!/usr/bin/env bash
# Build k6 with the extension k6/x/tminus in it: build.sh OUTPUT. The versions of k6 and xk6 are pinned, here and in install.sh.
# Does nothing where the binary is newer than every source it is made of.
set -euo pipefail

k6=v1.8.1
out=${1:?usage: build.sh OUTPUT}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
say() { echo "k6: $*" >&2; }

if [ -x "$out" ] && [ -z "$(find "$root" \( -name .git -o -name runs -o -name bin \) -prune -o \( -name '*.go' -o -name go.mod -o -name go.sum -o -name build.sh \) -newer "$out" -print -quit)" ]; then
	say "$out is up to date (k6 $k6)"
	exit 0
fi
xk6=$("$here/install.sh")
mkdir -p "$(dirname "$out")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
say "building k6 $k6 with k6/x/tminus (the first time takes some minutes)"
# GOFLAGS: k6 is built in a folder of its own, which has no commit to stamp.
GOWORK=off GOFLAGS=-buildvcs=false "$xk6" -v build --k6-version "$k6" \
	--with "github.com/tminus-live/tminus/simulator/k6=$here" --replace "github.com/tminus-live/tminus=$root" \
	--output "$tmp/k6" >"$tmp/log" 2>&1 || { tail -n 20 "$tmp/log" >&2; say "cannot build k6: see above"; exit 1; }
"$tmp/k6" version >"$tmp/version" # a binary that does not start is none
grep -q "k6 $k6" "$tmp/version" || { say "built $(head -n 1 "$tmp/version") where k6 $k6 was wanted"; exit 1; }
mv "$tmp/k6" "$out"
say "$out is ready: $(tr '\n' ' ' <"$tmp/version")"
