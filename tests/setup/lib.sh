# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Shared by the scripts that prepare a machine for the tests: progress lines with elapsed time, and the cache of things
# that take long to make (guest kernels, guest roots). Sourced, not run.
#
# A cache entry is a directory named KIND-HASH, where HASH covers everything the entry was made from. It is made beside its
# final name and renamed when complete, so an entry that exists is whole. A lock file per entry makes a second caller wait.

VNET_CACHE=${VNET_CACHE:-/var/cache/vnet}
# Read by the scripts that source this file.
export VNET_CACHE

say() { printf '[%4ds] %s: %s\n' "$SECONDS" "${0##*/}" "$*" >&2; }
die() { printf '%s: error: %s\n' "${0##*/}" "$*" >&2; exit 1; }

need_root() {
	[ "$(id -u)" = 0 ] || die "must run as root (it $1)"
}

# The Debian mirror that this machine's own apt has for bookworm: it holds the other suites, too.
debian_mirror() {
	apt-get indextargets --format "\$(SITE) \$(RELEASE) \$(COMPONENT)" 'Created-By: Packages' 'Origin: Debian' |
		awk '$2 == "bookworm" && $3 == "main" { print $1; exit }'
}

# hash_of WORD... -- FILE...: 12 hex digits over the words and the files' contents.
hash_of() {
	local words=()
	while [ $# -gt 0 ] && [ "$1" != -- ]; do
		words+=("$1")
		shift
	done
	[ "${1-}" = -- ] && shift
	{ printf '%s\n' "${words[@]}"; cat -- "$@" </dev/null; } | sha256sum | cut -c1-12
}

# with_lock NAME FUNCTION ARG...: run FUNCTION while holding the lock of one cache entry. The lock is dropped by the kernel
# when this process dies, so a killed build never blocks the next one.
with_lock() {
	local name=$1 fd
	shift
	mkdir -p "$VNET_CACHE"
	exec {fd}>"$VNET_CACHE/.$name.lock"
	if ! flock -n "$fd"; then
		say "another process is making $name; waiting for it"
		flock "$fd"
	fi
	"$@"
	exec {fd}>&-
}

# run_logged LOG WHAT COMMAND...: run a long command with its output in LOG, show that it is alive, and on failure show the end of LOG.
run_logged() {
	local log=$1 what=$2 pid in last=0 status=0
	shift 2
	say "$what"
	# Background commands get /dev/null as stdin unless told otherwise.
	exec {in}<&0
	"$@" >"$log" 2>&1 <&"$in" &
	pid=$!
	exec {in}<&-
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.3
		if [ $((SECONDS - last)) -ge 20 ] && [ $SECONDS -gt 5 ]; then
			last=$SECONDS
			say "$what: $(tail -n 1 "$log" | tr -d '\r' | cut -c1-100)"
		fi
	done
	wait "$pid" || status=$?
	if [ "$status" != 0 ]; then
		tail -n 30 "$log" >&2
		die "$what failed with status $status; the whole log is $log"
	fi
}

# make_entry NAME WHAT FUNCTION: the cache entry NAME, in which FUNCTION DIR puts what belongs there. For with_lock.
make_entry() {
	local dir=$VNET_CACHE/$1 tmp=$VNET_CACHE/.$1.$$ log=$VNET_CACHE/$1.log
	[ -d "$dir" ] && return
	# shellcheck disable=SC2064 # the name is fixed now
	trap "rm -rf --one-file-system '$tmp'" EXIT
	mkdir -p "$tmp"
	run_logged "$log" "$2" "$3" "$tmp"
	mv "$tmp" "$dir"
	rm -f "$log"
}
