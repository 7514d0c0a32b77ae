# SPDX-License-Identifier: GPL-2.0-or-later
"""Unmodified programs, and our own socket tests, over the offload between g1 and g2. Each must do its job, and at least 95 % of
the TCP connections made meanwhile must have been offloaded."""

import contextlib
import json

from rig import BENCH, Failure, IP

G2 = IP["g2"]
# Without a look at all processes, which takes seconds there.
STOP = "p=$(<%s); kill $p; while [ -e /proc/$p ]; do sleep 0.1; done"
TESTS = "connect close messages bulk".split()
MORE_TESTS = "accept epoll shutdown options".split()


def listens(lab, port):
    lab.until("g2", "grep -q '^LISTEN [^ ]*:%d ' /proc/net/vnet_sock" % port)


def serve(lab):
    """What the others connect to: the bench server."""
    lab.sh("g2", "%s server --daemon --port 6000" % BENCH, offload=True)
    listens(lab, 6000)


def serve_ssh(lab):
    """An sshd that offloads."""
    # As a child of process 1 it would take itself for a daemon already, and stay.
    lab.sh("g2", STOP % "/run/sshd.pid" + "; LD_PRELOAD=/vnet/libvnetsock.so /usr/sbin/sshd; exit")
    listens(lab, 22)


@contextlib.contextmanager
def served(lab, start, port):
    """Meanwhile a server runs in g2, whose process id is in /run/pid."""
    lab.sh("g2", start, offload=True)
    listens(lab, port)
    try:
        yield
    finally:
        lab.sh("g2", STOP % "/run/pid")


def server(lab, start, port, script):
    """Run a script in g1 while a server runs in g2."""
    with served(lab, start, port):
        return lab.sh("g1", script, G2, offload=True)


# ---- the programs ----

def socket_tests(lab, names):
    with served(lab, "setsid /build/tests/guest/sock_connect server >/dev/null 2>&1 & echo $! >/run/pid", 7000):
        for name in names:
            lab.sh("g1", 'BULK_MB=16 exec timeout 200 /build/tests/guest/sock_%s client "$1"' % name, G2, limit=250, offload=True)
    return ", ".join(names)


def iperf3(lab):
    """A server each way: between two tests it does not listen for a moment."""
    moved = []
    for way in "", "-R":
        report = json.loads(server(lab, "iperf3 -s -D -I /run/pid", 5201, 'iperf3 -J -c "$1" -t 1 ' + way))
        moved.append(report["end"]["sum_received"]["bytes"])
    if min(moved) < 100000:
        raise Failure("received: %s" % moved)
    return "%s MB" % " and ".join("%.1f" % (m / 1e6) for m in moved)


def redis(lab):
    out = server(lab, "redis-server --port 6379 --bind 0.0.0.0 --protected-mode no --save '' --daemonize yes --dir /tmp --pidfile /run/pid", 6379,
                 'redis-cli -h "$1" set key value; redis-cli -h "$1" get key; redis-benchmark -h "$1" -n 200 -c 10 -q -t set,get')
    if not out.startswith("OK\nvalue\n") or out.count("requests per second") < 2:
        raise Failure(out)


NGINX = r"""
mkdir -p /tmp/www && head -c 1000000 /dev/urandom >/tmp/www/big && cat >/tmp/nginx.conf <<-END
	worker_processes 1;
	error_log /tmp/nginx.log;
	pid /run/pid;
	events { worker_connections 64; }
	http { sendfile on; tcp_nopush on; access_log off; server { listen 8080; root /tmp/www; } }
END
nginx -c /tmp/nginx.conf
"""


def nginx(lab):
    """One connection for two requests, then three at once."""
    try:
        server(lab, NGINX, 8080, 'curl -sSf -o "/tmp/big#1" "http://$1:8080/big?[1-2]" && curl -sSf --parallel --parallel-immediate '
               '-o "/tmp/par#1" "http://$1:8080/big?[1-3]"')
    except Failure as e:
        raise Failure("%s\n%s" % (e, lab.sh("g2", "cat /tmp/nginx.log; true"))) from None
    sums = {line.split()[0] for line in (lab.sh("g1", "sha256sum /tmp/big* /tmp/par*") + lab.sh("g2", "sha256sum /tmp/www/big")).splitlines()}
    if len(sums) != 1:
        raise Failure("what curl got is not what nginx has")


def ssh(lab):
    lab.sh("g1", "head -c 1000000 /dev/urandom >/tmp/out && scp -q /tmp/out g2:/tmp/in && scp -q g2:/tmp/in /tmp/back && "
           'cmp /tmp/out /tmp/back && [ "$(ssh g2 hostname)" = g2 ]', offload=True)


def openmpi(lab):
    out = lab.sh("g1", "mpirun -np 2 --host g1,g2 --mca btl tcp,self --mca btl_tcp_if_include vnet0 --mca oob_tcp_if_include vnet0 "
                 "--mca orte_launch_agent '/vnet/vnet-run orted' /build/tests/mpi/ring", offload=True)
    if "bytes verified" not in out:
        raise Failure(out)


def mpich(lab):
    out = lab.sh("g1", "export UCX_TLS=tcp,self UCX_NET_DEVICES=vnet0 HYDRA_LAUNCHER_EXTRA_ARGS='-o SendEnv=LD_PRELOAD'; "
                 "mpirun.mpich -launcher ssh -iface vnet0 -hosts g1,g2 -n 2 /build/tests/mpich/pingpong 0.2", offload=True, limit=400)
    if out.count('{"bench":"mpi-pingpong",') != 6:
        raise Failure(out)


CPYTHON = "BasicTCPTest NonBlockingTCPTests".split()


def cpython(lab):
    """They connect within one guest, hence over memory, beside the lanes of verbs and through the same buffers."""
    out = lab.sh("g1", 'exec python3 -m unittest "$@" 2>&1', *("test.test_socket." + name for name in CPYTHON), offload=True, limit=900)
    if "\nOK" not in out:
        raise Failure(out)
    return out.split("Ran ")[1].split(" tests")[0] + " tests"


def app(tap, lab, name, function, *args):
    """It does its job, and over the offload."""
    before = lab.connections()
    if not tap.step(name, function, lab, *args):
        return
    offloaded, plain = (b - a for a, b in zip(before, lab.connections()))
    tap.result(offloaded > 0 and offloaded * 100 >= (offloaded + plain) * 95,
               "%s: at least 95 %% of its connections were offloaded (%d of %d)" % (name, offloaded, offloaded + plain),
               "\n".join(lab.sh(g, "grep -v ' 0$' /proc/net/vnet_stat") for g in IP))


def run(tap, lab):
    app(tap, lab, "socket tests", socket_tests, TESTS)
    app(tap, lab, "iperf3", iperf3)


def run_more(tap, lab):
    """Some of these socket tests connect to their own guest."""
    app(tap, lab, "more socket tests", socket_tests, MORE_TESTS)
    tap.step("an sshd offloads", serve_ssh, lab)
    for name, function in (("redis", redis), ("nginx and curl", nginx), ("ssh and scp", ssh), ("Open MPI", openmpi), ("MPICH", mpich), ("CPython's socket tests", cpython)):
        app(tap, lab, name, function)
