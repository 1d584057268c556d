#!/usr/bin/env bash
# Build the load generators that `tminus bench play-starts` is compared with, at pinned versions, from source,
# into the shared cache. Nothing of theirs enters this repository's go.mod.
# Idempotent; several may run at once; a killed build leaves nothing half-done.
# Prints the folder that holds the binaries on stdout, and what it is doing on stderr.
set -euo pipefail

vegeta=v12.13.0
k6=v1.8.1
say() { echo "peers: $*" >&2; }
die() { say "$*"; exit 1; }

root="${XDG_CACHE_HOME:-$HOME/.cache}/tminus/peers"
dir="$root/vegeta-$vegeta-k6-$k6"
done_already() {
	[ -x "$dir/vegeta" ] && [ -x "$dir/k6" ] || return 1 # $dir only ever appears whole, by rename
	say "vegeta $vegeta and k6 $k6 are in $dir"
	echo "$dir"
}
done_already && exit 0

command -v go >/dev/null || die "Go is missing: install Go 1.26 or later (https://go.dev/dl) and run make setup-peers again"
command -v flock >/dev/null || die "flock is not installed: install util-linux and run make setup-peers again"
mkdir -p "$root" || die "cannot write $root: set XDG_CACHE_HOME to a folder that can be written"

exec 9>"$root/.lock"
flock -n 9 || { say "the peers are being built into the shared cache already; waiting for it"; flock -w 1800 9 || die "waited 30 minutes for $root/.lock: is another install stuck?"; }
done_already && exit 0

rm -rf "$root"/.new-* # what a killed install left; we hold the lock
tmp=$(mktemp -d "$root/.new-XXXXXX")
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/whole"
build() { # name, module, version
	say "building $1 $3 into the shared cache (k6 takes some minutes)"
	# In a module of its own that requires just this release: what the peer needs stays out of the repository's go.mod.
	mkdir "$tmp/$1"
	(
		cd "$tmp/$1"
		export GOWORK=off GOFLAGS=-mod=mod
		go mod init peers && go mod edit "-require=$2@$3" && go build -trimpath -o "$tmp/whole/$1" "$2"
	) >"$tmp/$1.log" 2>&1 9>&- || die "cannot build $1 $3: see the error, then run make setup-peers again ($(tail -n 2 "$tmp/$1.log" | tr '\n' ' '))"
}
build vegeta github.com/tsenart/vegeta/v12 "$vegeta"
build k6 go.k6.io/k6 "$k6"
rm -rf "$dir"
mv -T "$tmp/whole" "$dir"
say "vegeta $vegeta and k6 $k6 are ready in $dir"
echo "$dir"
