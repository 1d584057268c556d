#!/usr/bin/env bash
# Put a real Apache Kafka (KRaft needs no ZooKeeper) into the cache folder that every clone shares, for the tests that
# run the event path through it. Idempotent; several clones may run it at once; a killed download leaves nothing half-done.
# Prints the folder on stdout, and what it is doing on stderr.
set -euo pipefail

version=4.1.1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
say() { echo "kafka: $*" >&2; }
die() { say "$*"; exit 1; }

root="${XDG_CACHE_HOME:-$HOME/.cache}/tminus/kafka"
dir="$root/$version"
done_already() {
	[ -s "$dir/libs/kafka_2.13-$version.jar" ] || return 1 # $dir only ever appears whole, by rename
	say "Apache Kafka $version is in $dir"
	echo "$dir"
}
done_already && exit 0

command -v java >/dev/null || die "java is not installed: install a Java runtime, 17 or later (Debian: apt-get install openjdk-17-jdk-headless) and run make setup again"
java_major=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
[ "${java_major:-0}" -ge 17 ] || die "java is version ${java_major:-unknown}: Apache Kafka $version needs 17 or later"
command -v mvn >/dev/null || die "mvn is not installed: install Apache Maven (Debian: apt-get install maven) and run make setup again"
command -v flock >/dev/null || die "flock is not installed: install util-linux and run make setup again"
mkdir -p "$root" || die "cannot write $root: set XDG_CACHE_HOME to a folder that can be written"

exec 9>"$root/.lock"
flock -n 9 || { say "another clone is installing Apache Kafka; waiting for it"; flock -w 1800 9 || die "waited 30 minutes for $root/.lock: is another install stuck?"; }
done_already && exit 0

rm -rf "$root"/.new-* # what a killed install left; we hold the lock
tmp=$(mktemp -d "$root/.new-XXXXXX")
trap 'rm -rf "$tmp"' EXIT
say "downloading Apache Kafka $version and its runtime dependencies (once for all clones) to $dir"
sed "s/@VERSION@/$version/" "$here/install.pom.xml" >"$tmp/pom.xml"
mvn -B -ntp -q -f "$tmp/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
	-DincludeScope=runtime -DoutputDirectory="$tmp/whole/libs" >"$tmp/mvn.log" 2>&1 9>&- ||
	die "mvn could not fetch org.apache.kafka:kafka_2.13:$version: check that mvn reaches its repository ($(grep -m 1 ERROR "$tmp/mvn.log"))"
[ -s "$tmp/whole/libs/kafka_2.13-$version.jar" ] || die "mvn copied no kafka_2.13-$version.jar"
java -cp "$tmp/whole/libs/*" kafka.tools.StorageTool random-uuid >/dev/null 2>"$tmp/java.log" 9>&- ||
	die "Apache Kafka $version does not start: $(head -n 1 "$tmp/java.log")"
rm -rf "$dir"
mv -T "$tmp/whole" "$dir"
say "Apache Kafka $version is ready in $dir"
echo "$dir"
