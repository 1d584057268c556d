#!/usr/bin/env bash
# Fetch the three browser players that the end-to-end tests play the stream in, at the versions it is known to play in.
set -euo pipefail
players="hls.js@1.7.4 dashjs@5.2.1 shaka-player@5.2.12"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tminus
dir=$cache/players/$(echo "$players" | tr ' @' '_-')
[ -e "$dir/node_modules/.complete" ] && exit 0
if ! command -v npm >/dev/null; then
	echo "tminus: npm is missing: install Node.js 18 or later (Debian and Ubuntu: apt-get install npm), then run make again" >&2
	exit 1
fi
mkdir -p "$cache/players"
exec 9>"$cache/players/.lock"
flock 9
[ -e "$dir/node_modules/.complete" ] && exit 0
echo "tminus: fetching $players"
rm -rf "$dir"
mkdir -p "$dir"
# shellcheck disable=SC2086 # a list of packages
if ! npm install --silent --no-save --ignore-scripts --prefix "$dir" $players; then
	echo "tminus: npm could not fetch $players: check the network and the npm registry setting, then run make again" >&2
	exit 1
fi
touch "$dir/node_modules/.complete"
