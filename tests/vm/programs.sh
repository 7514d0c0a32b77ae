# shellcheck shell=bash disable=SC2016,SC2317 # what stands in single quotes is expanded in the guest; names are called from variables
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Unmodified programs over the offload between g1 and g2 of a lab with two hosts: tests/vm/apps runs them in fast guests, and the
# suites of stock guests on each of their devices and kernels. For each: it does its job, and at least 95 % of the TCP
# connections that it made between the guests were offloaded. How many were not is counted on the hosts' link, where they
# show as inner TCP SYNs (inner_tcp.py); how many were, by the guests' own counters.
#
# The caller has $VNET_LAB, $work and result STATUS NAME [OUTPUT], and may ask for less of everything by these.
program_seconds=2 program_requests=5000 program_mb=20 program_www_mb=5 program_fetches=5
capture=

lab() { tests/lab "$@"; }
g1() { timeout 240 tests/lab exec g1 --offload -n -- "$@"; }
g2() { timeout 240 tests/lab exec g2 --offload -n -- "$@"; }
g2_ip=192.168.77.2

# What the last step said.
said() { tail -n 25 "$work/out" | cut -c1-200; }

check() { # check NAME COMMAND...
	local name=$1
	shift
	"$@" >"$work/out" 2>&1
	result $? "$name" "$(said)"
}

# ---- what ran which way ----

counter() { # counter GUEST NAME
	lab exec "$1" -n -- awk -v name="$2" '$1 == name { print $2; found = 1 } END { exit !found }' /proc/net/vnet_stat
}

# link FIELD: from the capture, everything until now. Also leaves the whole line in $work/link.
link() {
	local marker
	# Counted in a file, for this often runs in a subshell.
	echo >>"$work/markers"
	marker=$((500 + $(wc -l <"$work/markers")))
	lab exec g1 -n -- ping -c 1 -W 5 -s "$marker" "$g2_ip" >>"$work/out" 2>&1 || return 1
	tests/vm/inner_tcp.py "$work/pcap" "$marker" >"$work/link" 2>>"$work/out" || return 1
	/usr/bin/python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$work/link" "$1"
}

snapshot() { # snapshot PREFIX: connections offloaded and not, so far
	local a b c
	a=$(counter g1 offloaded_active) && b=$(counter g2 offloaded_active) && c=$(link syn) || return 1
	printf -v "$1_offloaded" '%d' $((a + b))
	printf -v "$1_plain" '%d' "$c"
}

# app NAME FUNCTION: run it, then judge it and its connections.
app() {
	local offloaded plain status
	before_offloaded=0 before_plain=0 after_offloaded=0 after_plain=0
	: >"$work/out"
	if ! snapshot before; then
		result 1 "$1 (the counters cannot be read)" "$(said)"
		result 1 "$1: at least 95 % of its connections were offloaded"
		return
	fi
	"$2" >>"$work/out" 2>&1
	status=$?
	result $status "$1" "$(said)"
	: >"$work/out"
	snapshot after
	status=$?
	offloaded=$((after_offloaded - before_offloaded))
	plain=$((after_plain - before_plain))
	[ "$status" = 0 ] && [ "$offloaded" -gt 0 ] && [ $((offloaded * 100)) -ge $(((offloaded + plain) * 95)) ]
	status=$?
	if [ $status != 0 ]; then
		echo "$offloaded offloaded, $plain over the overlay; counters that are not 0:"
		for g in g1 g2; do
			lab exec $g -n -- awk -v g=$g '$2 != 0 { print g, $0 }' /proc/net/vnet_stat
		done
	fi >>"$work/out" 2>&1
	result $status "$1: at least 95 % of its connections were offloaded ($offloaded of $((offloaded + plain)))" "$(said)"
}

# listens GUEST PORT: wait until something does.
listens() {
	lab exec "$1" -n -- timeout 60 bash -c "until [ -n \"\$(ss -Hltn 'sport = :$2')\" ]; do sleep 0.02; done"
}

gone() { # gone GUEST NAME: end a server, and wait until it has
	lab exec "$1" -n -- timeout 60 bash -c "pkill -x '$2'; while pgrep -x '$2' >/dev/null; do sleep 0.02; done"
}

# same FILE1-ON-G1 FILE2-ON-G2
same() {
	local a b
	a=$(lab exec g1 -n -- sha256sum "$1") && b=$(lab exec g2 -n -- sha256sum "$2") && [ "${a%% *}" = "${b%% *}" ]
}

# ---- the programs ----

# Also what mpirun starts on the other guest, and that itself, is to be offloaded. sshd starts it, without our environment.
mpi() {
	g1 mpirun -np 2 --host g1,g2 --mca btl tcp,self --mca btl_tcp_if_include vnet0 --mca oob_tcp_if_include vnet0 \
		--mca orte_launch_agent '/vnet/vnet-run orted' "$@"
}

ring() { mpi /build/tests/mpi/ring | tee "$work/ring" && grep -q '^ring: 2 ranks, .* bytes verified$' "$work/ring"; }

alltoall() {
	mpi /build/tests/mpi/alltoall | tee "$work/alltoall" && grep -q '^alltoall: 2 ranks, .* bytes verified$' "$work/alltoall"
}

# Debian's MPICH runs over UCX. Its hydra starts the other half by ssh, which takes the preloaded library along.
pingpong_from() { # pingpong_from GUEST OTHER
	timeout 240 tests/lab exec "$1" --offload -n -e UCX_TLS=tcp,self -e UCX_NET_DEVICES=vnet0 \
		-e HYDRA_LAUNCHER_EXTRA_ARGS='-o SendEnv=LD_PRELOAD' -- \
		mpirun.mpich -launcher ssh -iface vnet0 -hosts "$1,$2" -n 2 /build/tests/mpich/pingpong 0.2 | tee "$work/pingpong"
	# One line for each size; it has verified what came back.
	[ "${PIPESTATUS[0]}" = 0 ] && [ "$(grep -c '^{"bench":"mpi-pingpong",.*"n":[1-9]' "$work/pingpong")" = 6 ]
}

mpich_here() { pingpong_from g1 g2; }
mpich_there() { pingpong_from g2 g1; }

# Between two tests a server does not listen for a moment: each has one of its own.
iperf() { # iperf OPTIONS...: both ends must have moved data
	g2 iperf3 -s -D && listens g2 5201 || return 1
	g1 iperf3 -c "$g2_ip" -t $program_seconds -J "$@" >"$work/iperf.json"
	local status=$?
	gone g2 iperf3 && [ $status = 0 ] || { cat "$work/iperf.json"; return 1; }
	/usr/bin/python3 - "$work/iperf.json" <<-'END'
		import json, sys
		end = json.load(open(sys.argv[1]))["end"]
		got = [end[k]["bytes"] for k in end if k.startswith("sum_received")]
		print("received", got)
		sys.exit(not got or min(got) < 1000000)
	END
}

iperf_short() { iperf && iperf -R; }
iperf_all() { iperf && iperf -R && iperf -P 4 && iperf -P 4 -R && iperf --bidir; }

sockperf() {
	g2 bash -c 'nohup sockperf sr --tcp -i 0.0.0.0 -p 11111 >/tmp/sockperf.log 2>&1 &' && listens g2 11111 || return 1
	g1 sockperf ping-pong --tcp -i "$g2_ip" -p 11111 -t $program_seconds >"$work/sockperf"
	local status=$?
	cat "$work/sockperf"
	gone g2 sockperf && [ "$status" = 0 ] && grep -q 'Summary: Latency is' "$work/sockperf"
}

redis() {
	g2 redis-server --port 6379 --bind 0.0.0.0 --protected-mode no --save '' --daemonize yes --dir /tmp && listens g2 6379 || return 1
	local value="x$RANDOM" status=0
	: >"$work/redis"
	{ [ "$(g1 redis-cli -h "$g2_ip" set key "$value")" = OK ] && [ "$(g1 redis-cli -h "$g2_ip" get key)" = "$value" ] &&
		g1 redis-benchmark -h "$g2_ip" -n "$program_requests" -c 20 -q -t set,get,lrange_100 >"$work/redis" &&
		[ "$(grep -c 'requests per second' "$work/redis")" -ge 3 ]; } || status=1
	tr '\r' '\n' <"$work/redis" | tail -n 5
	gone g2 redis-server && return "$status"
}

nginx() {
	g2 bash -c 'mkdir -p /tmp/www && head -c $0M /dev/urandom >/tmp/www/big && cat >/tmp/nginx.conf <<-END
		worker_processes 1;
		error_log /tmp/nginx.log;
		pid /tmp/nginx.pid;
		events { worker_connections 256; }
		http { sendfile on; tcp_nopush on; access_log off; server { listen 8080; root /tmp/www; } }
	END
	nginx -c /tmp/nginx.conf' $program_www_mb && listens g2 8080 || return 1
	local status=0
	# One connection for three requests, then ten at once.
	{ g1 curl -sSf -o '/tmp/big#1' "http://$g2_ip:8080/big?[1-3]" && same /tmp/big1 /tmp/www/big &&
		same /tmp/big3 /tmp/www/big &&
		g1 curl -sSf --parallel --parallel-immediate --parallel-max 10 -o '/tmp/par#1' "http://$g2_ip:8080/big?[1-10]" &&
		same /tmp/par10 /tmp/www/big; } || status=1
	gone g2 nginx && return "$status"
}

scp() {
	g1 bash -c 'head -c "$0"M /dev/urandom >/tmp/out && scp -q /tmp/out g2:/tmp/in && scp -q g2:/tmp/in /tmp/back && cmp /tmp/out /tmp/back' "$program_mb" &&
		same /tmp/out /tmp/in && [ "$(g1 ssh g2 hostname)" = g2 ]
}

python_http() {
	g2 bash -c 'mkdir -p /tmp/py && head -c 3000000 /dev/urandom >/tmp/py/file && cd /tmp/py && nohup python3 -m http.server 8000 >/tmp/py.log 2>&1 &' &&
		listens g2 8000 || return 1
	local status=0
	for _ in $(seq $program_fetches); do
		g1 curl -sSf -o /tmp/file "http://$g2_ip:8000/file" && same /tmp/file /tmp/py/file || status=1
	done
	lab exec g2 -n -- pkill -f http.server
	return "$status"
}

# A thousand connections at once, each with requests until the time is over.
wrk_1000() {
	g2 bash -c 'mkdir -p /tmp/www && head -c 4000 /dev/urandom >/tmp/www/small && cat >/tmp/nginx.conf <<-END
		worker_processes 1;
		worker_rlimit_nofile 4096;
		error_log /tmp/nginx.log;
		pid /tmp/nginx.pid;
		events { worker_connections 2048; }
		http { access_log off; server { listen 8080 backlog=2048; root /tmp/www; } }
	END
	sysctl -qw net.core.somaxconn=4096; nginx -c /tmp/nginx.conf' && listens g2 8080 || return 1
	local status=0
	g1 bash -c 'ulimit -n 4096; exec wrk -t 1 -c 1000 -d 10s --timeout 60s "http://$0:8080/small"' "$g2_ip" >"$work/wrk" || status=1
	cat "$work/wrk"
	# It says so if a connection failed or an answer was not 200.
	grep -qE '[1-9][0-9]{3,} requests in' "$work/wrk" && ! grep -qE 'Socket errors|Non-2xx' "$work/wrk" || status=1
	gone g2 nginx && return "$status"
}

# Messages of growing size there and back, whose content it checks. One line for each size.
netpipe_openmpi() {
	mpi /usr/bin/NPopenmpi -i -u 70000 -o /tmp/np.out 2>&1 | tee "$work/np"
	[ "${PIPESTATUS[0]}" = 0 ] && [ "$(grep -cE ' bytes .* Integrity check passed' "$work/np")" -ge 20 ]
}

# Here its end hangs now and then, over plain TCP, too (one rank waits for PMI, the other for a message of the first): it is over
# with the last size.
netpipe_mpich() {
	g1 env UCX_TLS=tcp,self UCX_NET_DEVICES=vnet0 HYDRA_LAUNCHER_EXTRA_ARGS='-o SendEnv=LD_PRELOAD' timeout -k 5 100 \
		mpirun.mpich -launcher ssh -iface vnet0 -hosts g1,g2 -n 2 /usr/bin/NPmpich2 -i -u 70000 -o /tmp/np.out 2>&1 | tee "$work/np"
	grep -q ' 65537 bytes .* Integrity check passed' "$work/np" &&
		[ "$(grep -cE ' bytes .* Integrity check passed' "$work/np")" -ge 20 ]
}

# The HPC Challenge, small, on a grid of 1 x 2: it verifies what its parts compute.
hpcc() {
	local g
	for g in g1 g2; do
		lab exec $g -n -- bash -c 'mkdir -p /tmp/hpcc && cd /tmp/hpcc && rm -f hpccoutf.txt && cat >hpccinf.txt <<-END
			HPLinpack benchmark input file
			-
			HPL.out
			8
			1
			200
			1
			80
			0
			1
			1
			2
			16.0
			1
			2
			1
			4
			1
			2
			1
			1
			1
			1
			1
			1
			2
			64
			0
			0
			1
			8
			-
			0
			1200
			0
			40
		END' || return 1
	done
	mpi --wdir /tmp/hpcc /usr/bin/hpcc
	g1 tail -n 8 /tmp/hpcc/hpccoutf.txt && g1 grep -q '^Success=1' /tmp/hpcc/hpccoutf.txt
}

# ---- before and after ----

# sshd too, so that ssh, scp and mpirun have an offloading listener to talk to.
sshd_offloads() {
	local g
	for g in g1 g2; do
		# As a child of process 1 it would take itself for a daemon already, and stay.
		gone "$g" sshd && lab exec "$g" --offload -n -- sh -c '/usr/sbin/sshd; exit' && listens "$g" 22 || return 1
	done
}

capture_starts() { # capture_starts INTERFACE
	rm -f "$work/pcap" "$work/markers"
	tests/lab host h1 -- tcpdump -i "$1" -n -s 0 -U --immediate-mode -B 32768 -w "$work/pcap" 'udp and portrange 9000-13224' 2>"$work/tcpdump" &
	capture=$!
	timeout 60 bash -c "until grep -q 'listening on' '$work/tcpdump'; do sleep 0.02; done" && link syn >/dev/null
	local status=$?
	cat "$work/tcpdump"
	return "$status"
}

# What it did not see cannot be counted.
capture_is_whole() {
	lab host h1 -- pkill -INT -x tcpdump
	wait "$capture"
	capture=
	cat "$work/tcpdump"
	grep -qx '0 packets dropped by kernel' "$work/tcpdump"
}

# 5 % of the connections may be TCP; of those the payload is counted too, so this holds only if there were none.
no_payload() {
	payload=$(link payload)
	local status=$?
	cat "$work/link"
	[ "$status" = 0 ] && [ "$payload" = 0 ] && grep -q '"malformed": 0' "$work/link"
}
