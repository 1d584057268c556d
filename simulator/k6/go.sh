#!/usr/bin/env bash
# Run go in the extension's module: go.sh COMMAND ARGUMENTS…, such as go.sh test ./... or go.sh staticcheck ./...
# What the main module requires by now is taken in beside go.mod and go.sum, in copies: neither has to follow each of its changes,
# and a test leaves nothing changed. make k6-mod writes them.
set -euo pipefail

cd "$(dirname "$0")"
mod=$(mktemp -d)
trap 'rm -rf "$mod"' EXIT
cp go.mod "$mod/k6.mod"
sort -u go.sum ../../go.sum >"$mod/k6.sum"
command=$1
shift
check=
[ "$command" != staticcheck ] || check=$(go -C ../.. tool -n staticcheck)
export GOWORK=off GOFLAGS="${GOFLAGS:-} -mod=mod -modfile=$mod/k6.mod"
if [ -n "$check" ]; then "$check" "$@"; else go "$command" "$@"; fi
