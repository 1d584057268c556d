#!/usr/bin/env bash
# usage: apt.sh PACKAGE COMMAND…: install a Debian package unless its commands (or files, by path) are there. Says what it
# does; where it cannot, says what to install.
set -euo pipefail
package=$1
shift
there() { case $1 in */*) [ -e "$1" ] ;; *) command -v "$1" >/dev/null ;; esac; }
missing=
for c in "$@"; do there "$c" || missing="$missing $c"; done
[ -n "$missing" ] || exit 0
fail() {
	echo "tminus: $package is missing: install it (Debian and Ubuntu: apt-get install $package; or what provides:$missing), then run make again" >&2
	exit 1
}
command -v apt-get >/dev/null || fail
sudo=
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null && sudo -n true 2>/dev/null || fail
	sudo="sudo -n"
fi
echo "tminus: installing $package with apt-get"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$package"; } >"$log" 2>&1; then
	tail -n 5 "$log" >&2
	fail
fi
for c in "$@"; do there "$c" || fail; done
