# shellcheck shell=bash disable=SC2016 # what stands in single quotes is expanded in the guest
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What the tests of stock virtual machines (tests/vm/stock, stock-vfio) share: results, a lab, data that is compared, and what
# any configuration with virtio_net, and with vnet_pv, has to do. The caller sets $config, which stands before each name.
here=$(cd "$(dirname "$0")" && pwd)
lab=$here/../lab
work=$(mktemp -d)
count=0 failed=0
limit=240
head -c 4M /dev/urandom >"$work/data"
cd "$here/../.." || exit 1
# shellcheck source=tests/vm/programs.sh
. tests/vm/programs.sh
# shellcheck source=tests/vm/iperf.sh
. tests/vm/iperf.sh

result() { # STATUS NAME [OUTPUT]
	count=$((count + 1))
	if [ "$1" = 0 ]; then
		echo "ok $count - $config: $2"
	else
		failed=$((failed + 1))
		echo "not ok $count - $config: $2"
		[ -n "${3-}" ] && printf '# %s\n' "${3//$'\n'/$'\n'# }"
	fi
}

up=''
finish() {
	trap - EXIT INT TERM
	[ -z "$capture" ] || kill "$capture" 2>/dev/null
	[ -z "$up" ] || "$lab" down >/dev/null 2>&1
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM

in_guest() { # GUEST COMMAND...
	local guest=$1
	shift
	timeout $limit "$lab" exec --no-stdin "$guest" -- "$@" 2>&1
}

offloaded() { # GUEST COMMAND...
	local guest=$1
	shift
	timeout $limit "$lab" exec --no-stdin --offload "$guest" -- "$@" 2>&1
}

run() { # NAME COMMAND...
	local name=$1 out status
	shift
	out=$("$@")
	status=$?
	result $status "$name" "status $status: $out"
}

until_guest() { # SECONDS GUEST SHELL-CONDITION
	in_guest "$2" timeout "$1" sh -c "until $3; do sleep 0.1; done" >/dev/null
}

start() { # LAB-OPTIONS...: false if the lab did not come up
	local out status
	out=$("$lab" up --kind stock "$@" 2>&1)
	status=$?
	result $status "up" "$out"
	[ $status = 0 ] || return 1
	up=yes
	"$lab" exec g1 -- sh -c 'cat >/tmp/data' <"$work/data"
}

stop() {
	local out
	out=$("$lab" down 2>&1)
	result $? "the guests' kernels and the daemons report no fault" "$out"
	up=''
}

# stream MODE MB [FILE]: at least that much data from g1 to g2, and until g1 has the file; MODE is in_guest or offloaded. The
# receiver is there first.
stream() {
	local mode=$1 n=$(($2 / 4)) file=${3-/} i want got receiver
	$mode g2 sh -c 'socat -u TCP4-LISTEN:5000,reuseaddr - | md5sum' >"$work/got" &
	receiver=$!
	until_guest 20 g2 'grep -q ":1388 00000000:0000 0A" /proc/net/tcp'
	$mode g1 sh -c "{ n=0; while [ \$n -lt $n ] || [ ! -e $file ]; do cat /tmp/data || break; n=\$((n + 1)); done
		echo \$n >/tmp/sent; } | socat -u - TCP4:192.168.77.2:5000" || return 1
	wait $receiver
	n=$(in_guest g1 cat /tmp/sent)
	want=$(for ((i = 0; i < n; i++)); do cat "$work/data"; done | md5sum)
	got=$(cat "$work/got")
	echo "sent $n times 4 MB, $want, received $got"
	[ "$got" = "$want" ]
}

# stream_while NAME COMMAND...: the command runs while data is under way, over TCP, or over the offload with mode=offloaded.
stream_while() {
	local name=$1 transfer status
	shift
	in_guest g1 rm -f /tmp/enough
	stream "${mode-in_guest}" 60 /tmp/enough >"$work/stream" &
	transfer=$!
	if [ "${mode-in_guest}" = offloaded ]; then
		until_guest 30 g1 'grep -qE "^ESTABLISHED [^ ]+ 192.168.77.2:5000 vtoe " /proc/net/vnet_sock'
		result $? "$name: the stream is offloaded"
	else
		until_guest 30 g1 'grep -q ":1388 01 " /proc/net/tcp'
	fi
	"$@"
	kill -0 $transfer 2>/dev/null
	result $? "$name while data is under way"
	in_guest g1 touch /tmp/enough
	wait $transfer
	status=$?
	result $status "$name: everything arrives intact" "$(cat "$work/stream")"
}

kill_shim() {
	"$lab" kill shim g1
	sleep 0.5
	"$lab" restart shim g1
}

sessions() { "$lab" logs shim-g1 | grep -c "front end has come"; }

reconnection() {
	local before
	before=$(sessions)
	stream_while "the shim is restarted" "$lab" restart shim g1
	[ "$(sessions)" -gt "$before" ]
	result $? "QEMU has connected to the new shim"
	stream_while "the shim is killed" kill_shim
	run "ping afterwards" in_guest g1 ping -c 3 -i 0.2 -W 5 g2
}

# What is common to all stock drivers.
traffic() {
	run "the guest has its stock driver" in_guest g1 sh -c 'ethtool -i vnet0 | grep "^driver: virtio_net$"'
	run "ping" in_guest g1 ping -c 5 -i 0.2 -W 5 g2
	run "ping, IPv6" in_guest g1 ping -c 3 -i 0.2 -W 5 g2-6
	run "data g1 to g2 intact" stream in_guest 16
	in_guest g2 iperf3 -s -D >/dev/null
	run "iperf3" iperf_client g1 -c g2 -t 1
	run "iperf3, the other way" iperf_client g1 -c g2 -t 1 -R
}

# The shim's count of buffers taken from queue $1 of g1.
chains() {
	"$lab" kill shim g1 --signal USR1
	sleep 0.3
	"$lab" logs shim-g1 | grep '"queues"' | tail -n 1 | grep -oE "\"queue\":$1,[^}]*\"chains\":[0-9]+" | grep -oE '[0-9]+$'
}

used() { # QUEUE...
	local q n
	for q in "$@"; do
		n=$(chains "$q")
		echo "queue $q: $n"
		[ "${n:-0}" -gt 20 ] || return 1
	done
}

multiqueue() {
	run "two queue pairs are in use" in_guest g1 sh -c 'ethtool -l vnet0 | awk "/^Combined/ { n = \$2 } END { exit n != 2 }"'
	# What comes by one link comes by one queue: two peers are two queues.
	in_guest g3 iperf3 -s -D >/dev/null
	run "streams to g2" iperf_client g1 -c g2 -t 1 -P 12
	run "streams to g3" iperf_client g1 -c g3 -t 1 -P 12
	run "4 streams from g3" iperf_client g1 -c g3 -t 1 -P 4 -R
	run "frames went out by both" used 1 3
	run "and came in by both" used 0 2
	in_guest g1 ethtool -L vnet0 combined 1
	run "with one pair again, traffic goes on" iperf_client g1 -c g3 -t 1 -R
	in_guest g1 ethtool -L vnet0 combined 2
	run "and with two" iperf_client g1 -c g3 -t 1 -R
}

offload() {
	local before
	run "the guest has vnet_pv" in_guest g1 sh -c 'ethtool -i vnet0 | grep "^driver: vnet_pv$"'
	until_guest 20 g1 'dmesg | grep -q "vtoe: up"' && until_guest 20 g2 'dmesg | grep -q "vtoe: up"'
	result $? "both guests have said hello to their agents" "$(in_guest g1 dmesg | tail -n 5)"
	run "ping" in_guest g1 ping -c 5 -i 0.2 -W 5 g2
	run "ping, IPv6" in_guest g1 ping -c 3 -i 0.2 -W 5 g2-6
	run "plain TCP: data intact" stream in_guest 16
	[ "$(counter g1 offloaded_active)" = 0 ]
	result $? "which was not offloaded" "$(in_guest g1 cat /proc/net/vnet_stat)"
	before=$(counter g1 tx_bytes)
	run "offload: data intact" stream offloaded 16
	[ "$(counter g1 offloaded_active)" = 1 ] && [ "$(counter g2 offloaded_passive)" = 1 ] &&
		[ $(($(counter g1 tx_bytes) - before)) -ge $((16 << 20)) ]
	result $? "/proc/net/vnet_stat: one connection, 16 MB" "$(in_guest g1 cat /proc/net/vnet_stat)"
}

agents_and_guests_end() {
	"$lab" kill agent h2
	until_guest 20 g2 '[ "$(cat /sys/class/net/vnet0/vnet/vtoe_state)" != up ]'
	result $? "the agent dies: its guest is told" "$(in_guest g2 dmesg | tail -n 3)"
	"$lab" restart agent h2 && until_guest 20 g2 '[ "$(dmesg | grep -c "vtoe: up")" -ge 2 ]'
	result $? "and is told of the next one" "$(in_guest g2 dmesg | tail -n 3)"
	"$lab" restart guest g2 && until_guest 20 g2 'dmesg | grep -q "vtoe: up"'
	result $? "a guest starts again"
	run "offload to it: data intact" stream offloaded 8
	reboots g2
}

process_of() { # GUEST: of its QEMU
	"$lab" status --json | /usr/bin/python3 -c 'import json, sys
print(*[r["pid"] for r in json.load(sys.stdin)["rows"] if r["role"] == "guest" and r["name"] == sys.argv[1]])' "$1"
}

# As users do it: firmware, kernel and driver find a device that was reset, in the same QEMU.
reboots() { # GUEST
	local boots process
	process=$(process_of "$1")
	boots=$("$lab" logs "$1" | grep -c "Linux version")
	"$lab" qmp "$1" set-action '{"reboot": "reset"}' >/dev/null
	in_guest "$1" sh -c 'echo b >/proc/sysrq-trigger' >/dev/null
	until_guest 100 "$1" '[ -e /sys/class/net/vnet0 ] && ip -o address show dev vnet0 | grep -q fd00:77: && dmesg | grep -q "vtoe: up"' &&
		[ "$("$lab" logs "$1" | grep -c "Linux version")" = $((boots + 1)) ] && [ "$(process_of "$1")" = "$process" ]
	result $? "a guest reboots" "$("$lab" logs "$1" | tail -n 20)"
	run "offload to it: data intact" stream offloaded 8
}

# ---- programs of their own, over the offload ----

# The programs of tests/guest between g1 and g2, each offloaded. tests/vm/vtoe-sock runs them in every way that there is;
# left out here, where a processor is emulated: in one guest and over IPv6 (but for some), and over TCP those that have
# nothing to do with the kernel's version; and `many`, which opens connections until something runs out.
socket_programs() { with_server all_socket_programs; }

with_server() { # COMMAND...
	local server
	"$lab" exec --no-stdin g2 -- /build/tests/guest/sock_connect server >/dev/null 2>&1 &
	server=$!
	until_guest 20 g2 'grep -q "^LISTEN.*:7000 " /proc/net/vnet_sock'
	result $? "a server of the family's"
	# Who does not exist is known sooner than in 3 seconds.
	in_guest g1 sh -c 'for f in /proc/sys/net/ipv[46]/neigh/vnet0/retrans_time_ms; do echo 200 >$f; done'
	"$@"
	kill $server
	wait $server 2>/dev/null
}

offloaded_programs() { # NAME...
	local t
	for t in "$@"; do
		run "sock_$t" in_guest g1 env BULK_MB=8 "/build/tests/guest/sock_$t" client 192.168.77.2
	done
}

all_socket_programs() {
	local t
	offloaded_programs connect accept epoll shutdown close signal messages uring urgent flags bind rights bulk fork options corners self cgroup fallback
	for t in connect bulk; do
		run "sock_$t, IPv6" in_guest g1 env BULK_MB=4 "/build/tests/guest/sock_$t" client fd00:77::2
		run "sock_$t, in one guest" in_guest g1 env BULK_MB=4 "/build/tests/guest/sock_$t"
	done
	# What a kernel keeps from us about sockets that run over TCP differs between the two.
	for t in epoll close messages options bulk; do
		run "sock_$t, over TCP" in_guest g1 env BULK_MB=4 "/build/tests/guest/sock_$t" -t
	done
}

# All of tests/vm/apps but MPICH, which only waits longer here, in small: a processor is emulated.
programs() {
	local g
	program_seconds=1 program_requests=200 program_mb=2 program_www_mb=1 program_fetches=2
	check "sshd restarted over the offload" sshd_offloads
	check "a capture shows the overlay's frames" capture_starts eth0
	app "Open MPI ring" ring
	app "Open MPI all-to-all" alltoall
	app "iperf3 both ways and parallel" iperf_all
	app "sockperf" sockperf
	app "redis-server with redis-benchmark" redis
	app "nginx with curl" nginx
	app "ssh with scp" scp
	app "Python's http.server with curl" python_http
	check "no inner TCP payload crossed the link as Ethernet" no_payload
	check "the capture lost nothing" capture_is_whole
	for g in g1 g2; do
		gone $g sshd && in_guest $g sh -c '/usr/sbin/sshd; exit'
	done
}
