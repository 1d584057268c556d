#!/usr/bin/env bash
# Build xk6, which builds k6 with extensions, at a pinned version from source, into the shared cache. Nothing of it enters this
# repository's go.mod.
# Idempotent; several may run at once; a killed build leaves nothing half-done.
# Prints the path of the binary on stdout, and what it is doing on stderr.
set -euo pipefail

xk6=v0.20.1
say() { echo "xk6: $*" >&2; }
die() { say "$*"; exit 1; }

root="${XDG_CACHE_HOME:-$HOME/.cache}/tminus/xk6"
dir="$root/$xk6"
done_already() {
	[ -x "$dir/xk6" ] || return 1 # $dir only ever appears whole, by rename
	say "xk6 $xk6 is in $dir"
	echo "$dir/xk6"
}
done_already && exit 0

command -v go >/dev/null || die "Go is missing: install Go 1.26 or later (https://go.dev/dl) and run make setup-k6 again"
command -v git >/dev/null || die "git is not installed: xk6 needs it; install git and run make setup-k6 again"
command -v flock >/dev/null || die "flock is not installed: install util-linux and run make setup-k6 again"
mkdir -p "$root" || die "cannot write $root: set XDG_CACHE_HOME to a folder that can be written"

exec 9>"$root/.lock"
flock -n 9 || { say "xk6 is being built into the shared cache already; waiting for it"; flock -w 1800 9 || die "waited 30 minutes for $root/.lock: is another install stuck?"; }
done_already && exit 0

rm -rf "$root"/.new-* # what a killed install left; we hold the lock
tmp=$(mktemp -d "$root/.new-XXXXXX")
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/module" "$tmp/whole"
say "building xk6 $xk6 into the shared cache"
# In a module of its own that requires just this release: what xk6 needs stays out of the repository's go.mod. The checksums are
# those that xk6 itself published, inside the archive that Go's checksum database vouches for.
(
	cd "$tmp/module"
	export GOWORK=off GOFLAGS="-mod=mod -buildvcs=false"
	go mod init xk6
	go mod edit "-require=go.k6.io/xk6@$xk6"
	sources=$(go mod download -json "go.k6.io/xk6@$xk6" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p')
	cat "$sources/go.sum" >>go.sum
	go build -trimpath -o "$tmp/whole/xk6" go.k6.io/xk6
) >"$tmp/log" 2>&1 9>&- || die "cannot build xk6 $xk6: see the error, then run make setup-k6 again ($(tail -n 2 "$tmp/log" | tr '\n' ' '))"
rm -rf "$dir"
mv -T "$tmp/whole" "$dir"
say "xk6 $xk6 is ready in $dir"
echo "$dir/xk6"
