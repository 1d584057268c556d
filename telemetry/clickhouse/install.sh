#!/usr/bin/env bash
# Put the embedded ClickHouse engine (libchdb.so) into the cache folder that every clone shares.
# Idempotent; several clones may run it at once; a killed download leaves nothing half-done.
# Prints the library's path on stdout, and what it is doing on stderr.
set -euo pipefail

version=26.7.3-stable.1
say() { echo "clickhouse: $*" >&2; }
die() { say "$*"; exit 1; }

case "$(uname -s)/$(uname -m)" in
Linux/x86_64)  package=@chdb/lib-linux-x64-gnu;   so=libchdb.so ;;
Linux/aarch64) package=@chdb/lib-linux-arm64-gnu; so=libchdb.so ;;
*) die "no embedded ClickHouse engine for $(uname -sm): give --clickhouse (or TMINUS_CLICKHOUSE) the address of a ClickHouse server" ;;
esac

root="${XDG_CACHE_HOME:-$HOME/.cache}/tminus/chdb"
dir="$root/$version"
if [ -s "$dir/$so" ]; then # $dir only ever appears whole, by rename
	say "engine $version is in $dir"
	echo "$dir/$so"
	exit 0
fi

command -v npm >/dev/null || die "npm is not installed: install Node.js with npm (Debian: apt-get install npm) and run make setup again"
command -v flock >/dev/null || die "flock is not installed: install util-linux and run make setup again"
mkdir -p "$root" || die "cannot write $root: set XDG_CACHE_HOME to a folder that can be written"

exec 9>"$root/.lock"
flock -n 9 || { say "another clone is installing the engine; waiting for it"; flock -w 1800 9 || die "waited 30 minutes for $root/.lock: is another install stuck?"; }
if [ -s "$dir/$so" ]; then
	say "engine $version is in $dir"
	echo "$dir/$so"
	exit 0
fi

rm -rf "$root"/.new-* # what a killed install left; we hold the lock
free_mb=$(df -Pm "$root" | awk 'NR==2 {print $4}')
[ "$free_mb" -ge 1500 ] || die "only $free_mb MB free in $root: the engine needs 1500 MB while it is installed (566 MB after)"

tmp=$(mktemp -d "$root/.new-XXXXXX")
trap 'rm -rf "$tmp"' EXIT
say "downloading $package $version (once for all clones; 566 MB unpacked) to $dir"
(cd "$tmp" && npm pack --loglevel error --cache "$tmp/npm" "$package@$version" >"$tmp/name" 2>"$tmp/npm.log" 9>&-) ||
	die "npm could not fetch $package@$version: check that npm reaches its registry ($(grep -v '^npm warn' "$tmp/npm.log" | head -n 1))"
mkdir "$tmp/whole"
tar -xzf "$tmp/$(tail -n 1 "$tmp/name")" -C "$tmp/whole" --strip-components=1 9>&- || die "cannot unpack $package: is the disk full?"
[ -f "$tmp/whole/$so" ] || die "$package@$version holds no $so"
size=$(stat -c %s "$tmp/whole/$so")
[ "$size" -ge 300000000 ] || die "$so is only $size bytes: the download is not whole; run make setup again"
missing=$(ldd "$tmp/whole/$so" 2>/dev/null | awk '/not found/ {print $1}' | head -n 3 | tr '\n' ' ')
[ -z "$missing" ] || die "$so needs libraries that this machine lacks: $missing"
sync -f "$tmp/whole/$so"
rm -rf "$dir"
mv -T "$tmp/whole" "$dir"
say "engine $version is ready in $dir"
echo "$dir/$so"
