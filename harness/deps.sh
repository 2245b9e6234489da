#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Makes sure that the packages in harness/packages are there, and with "all" those in
# packages-all: installs what is missing when root, says how to when not. Runs before
# Python may exist.

set -u
here=$(dirname "$0")
lists=$here/packages
[ "${1:-}" != all ] || lists="$lists $here/packages-all"

wanted()
{
	# shellcheck disable=SC2086 # a list of files
	sed -e 's/#.*//' $lists | while read -r package; do
		[ -n "$package" ] || continue
		[ "$package" = linux-source-6.12 ] && [ -n "${KSRC:-}" ] && continue
		echo "$package"
	done
}

missing()
{
	for package in $(wanted); do
		dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null |
			grep -q '^installed' || printf ' %s' "$package"
	done
}

if ! command -v dpkg-query >/dev/null; then
	echo "not a Debian system: see that these are there: $(wanted | tr '\n' ' ')"
	exit 0
fi

lack=$(missing)
[ -z "$lack" ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "error: packages are missing; run: sudo apt-get install --no-install-recommends$lack"
	exit 7
fi

echo "installing$lack"
mkdir -p "$here/../build"
log=$here/../build/deps.log
beat()
{
	while sleep 8; do echo "    installing: $(tail -n 1 "$log" | cut -c 1-80)"; done
}
: > "$log"
beat & beater=$!
# shellcheck disable=SC2086 # $lack is a list of words
{
	apt-get update &&
	DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $lack
} >> "$log" 2>&1
status=$?
kill $beater 2>/dev/null
if [ $status -ne 0 ]; then
	tail -n 15 "$log"
	echo "error: apt-get failed (log: $log); it was: apt-get install --no-install-recommends$lack"
	exit 7
fi
