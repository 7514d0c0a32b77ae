# shellcheck shell=bash disable=SC2016 # what stands in single quotes is expanded in the guest
# SPDX-License-Identifier: GPL-2.0-or-later
#
# iperf3's server closes its listener behind each test and makes another: who comes in between is refused, and comes again. Not
# for the offload, whose fallbacks are counted: there each test has a server of its own.

iperf_client() { # iperf_client GUEST OPTION...
	local guest=$1
	shift
	in_guest "$guest" bash -c '
		for _ in $(seq 100); do
			out=$(iperf3 "$@" 2>&1)
			status=$?
			case $out in *"Connection refused"* | *"server is busy"*) sleep 0.1 ;; *) break ;; esac
		done
		printf "%s\n" "$out"
		exit $status' sh "$@"
}
