# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of the verbs fabric share: a lab on soft RDMA, commands in its guests and hosts, and the counters of all
who take part: the guests (/proc/net/vnet_stat), the agents (their statistics) and the devices (hw_counters).
"""

import json
import os
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
LAB = os.path.join(os.path.dirname(os.path.dirname(HERE)), "lab")
BENCH = "/build/tests/bench/bench_tcp"
PRELOAD = "LD_PRELOAD=/vnet/libvnetsock.so"
IP = {"g1": "192.168.77.1", "g2": "192.168.77.2"}
GUEST_OF = {"h1": "g1", "h2": "g2"}
PACKET = 4096   # bytes: InfiniBand's largest
MESSAGE = 65536  # bytes: what a guest puts into one
STEP = 120      # seconds: starting a program takes half a second there, and nobody measures time


class Failure(Exception):
    """The text says what was expected and what came."""


class Tap:
    def __init__(self):
        self.count = self.failed = 0

    def result(self, ok, name, detail=""):
        self.count += 1
        print("%sok %d - %s" % ("" if ok else "not ", self.count, name), flush=True)
        if not ok:
            self.failed += 1
            for line in str(detail).splitlines()[-40:]:
                print("# " + line[:300], flush=True)
        return ok

    def step(self, name, function, *args):
        """One test: it passes unless function raises. How long it took is for the log."""
        began = time.monotonic()
        try:
            told = function(*args)
        except (Failure, subprocess.TimeoutExpired) as e:
            return self.result(False, name, e)
        print("# %.1f s" % (time.monotonic() - began))
        return self.result(True, name + (" (%s)" % told if told else ""))

    def end(self):
        print("1..%d" % self.count)
        return 1 if self.failed else 0


class Lab:
    def __init__(self, name, fabric, machines, transfer="send"):
        self.name = name
        self.transfer = transfer
        self.fabric = fabric
        self.machines = machines

    def lab(self, *args, limit=STEP):
        r = subprocess.run([LAB, "--name", self.name, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, timeout=limit, text=True, errors="replace", check=False)
        if r.returncode:
            raise Failure("lab %s: status %d\n%s" % (" ".join(args), r.returncode, r.stdout))
        return r.stdout

    def up(self, *options):
        if self.fabric == "verbs":
            options += ("--transfer", self.transfer)
        self.lab("up", "--fabric", self.fabric, "--machines", str(self.machines), *options, limit=240)

    def sh(self, guest, script, *args, limit=STEP, offload=False):
        """A shell script in a guest. The lab ends it if we give up; each program it starts takes a second on a busy machine."""
        return self.lab("exec", guest, *(["--offload"] if offload else []), "-n", "--", "bash", "-c", script, "sh", *args, limit=limit)

    def host(self, host, script, *args, limit=STEP):
        return self.lab("host", host, "--", "sh", "-c", script, "sh", *args, limit=limit)

    def until(self, guest, condition, limit=180):
        """Wait until a shell condition holds in a guest."""
        self.sh(guest, "until %s; do sleep 0.2; done" % condition, limit=limit)

    def attached(self, guest):
        self.until(guest, '[ "$(cat /sys/class/net/vnet0/vnet/vtoe_state)" = up ]')

    def background(self, guest, script, out):
        """Run it over the offload, detached; its output goes to a file, at the end of it stands END and its status."""
        self.sh(guest, 'rm -f "$2"; (%s setsid bash -c "$1"; echo "END $?") >"$2" 2>&1 </dev/null &' % PRELOAD, script, out)

    def ended(self, guest, out, limit=180):
        """What a background program said, once it has ended."""
        try:
            return self.sh(guest, 'until grep -qs "^END " "$1"; do sleep 0.2; done; cat "$1"', out, limit=limit)
        except subprocess.TimeoutExpired:
            raise Failure("%s: the program still runs after %d s\n%s" % (guest, limit, self.sockets(guest))) from None

    # -- counters --

    def stat(self, guest):
        pairs = (line.split() for line in self.sh(guest, "cat /proc/net/vnet_stat").splitlines())
        return {name: int(value) for name, value in pairs}

    def sockets(self, guest):
        return self.sh(guest, "cat /proc/net/vnet_sock")

    def connections(self):
        """(offloaded, over plain TCP) so far: what the family's sockets of both guests became, and TCP's own count of all others,
        less those that nobody can offload: refused, as nobody listens or a backlog is full, or with an option that wants TCP.
        """
        offloaded = plain = 0
        for guest in IP:
            out = self.sh(guest, "cat /proc/net/vnet_stat; awk '/^Tcp: [0-9]/ { print \"active\", $6 }' /proc/net/snmp")
            stat = {name: int(value) for name, value in (line.split() for line in out.splitlines())}
            offloaded += stat["offloaded_active"]
            plain += stat["active"] - sum(stat.get("fallback_" + reason, 0) for reason in ("no-listener", "backlog-full", "option"))
        return offloaded, plain

    def agent(self, host):
        """The statistics of an agent: {"vms": [...], "lanes": [...]} over its tenants."""
        old = len(self.lab("logs", "agent-" + host))
        self.lab("kill", "agent", host, "--signal", "USR1")
        end = time.monotonic() + STEP
        while time.monotonic() < end:
            lines = [line for line in self.lab("logs", "agent-" + host)[old:].splitlines() if line.startswith("{")]
            try:
                stats = [json.loads(line) for line in lines]
            except ValueError:
                continue        # half a line
            main = [s for s in stats if s["process"] == "main"]
            tenants = [s for s in stats if s["process"] == "tenant"]
            if main and len(tenants) >= main[0]["tenants"]:
                return {key: [x for t in tenants for x in t[key]] for key in ("vms", "lanes")}
            time.sleep(0.1)
        raise Failure("no statistics of the agent of %s" % host)

    def messages(self, host):
        """(messages, of those written) that this agent has put on lanes of verbs."""
        lanes = [lane for lane in self.agent(host)["lanes"] if lane.get("fabric") == "verbs"]
        return sum(lane["tx_msgs"] for lane in lanes), sum(lane["tx_writes"] for lane in lanes)

    def carried(self, host):
        """Bytes of the guests' messages that this agent has put on lanes of the fabric."""
        return sum(lane["tx_bytes"] for lane in self.agent(host)["lanes"] if lane.get("fabric", "tcp") == self.fabric)

    def too_late(self, host):
        """Messages of guests on connections that their peer had reset meanwhile: they go nowhere."""
        return sum(vm["drops"].get(why, 0) for vm in self.agent(host)["vms"] for why in ("broken_conn", "unknown_sid"))

    def device_packets(self, host):
        """That the RDMA device has sent."""
        return int(self.host(host, "cat /sys/class/infiniband/rxe0/ports/1/hw_counters/sent_pkts"))

    def wait_no_sockets(self, guest):
        try:
            self.until(guest, '[ "$(grep -cE " (vtoe|-) " /proc/net/vnet_sock)" = 0 ]')
        except subprocess.TimeoutExpired:
            raise Failure("%s still has sockets:\n%s" % (guest, self.sockets(guest))) from None

    def rdma_resources(self, host):
        """Queue pairs, connection ids, regions and the like that processes of a host hold; the kernel's own do not count."""
        out = self.host(host, "rdma resource show qp; rdma resource show cm_id; rdma resource show mr; rdma resource show pd; rdma resource show cq; "
                        "rdma resource show srq")
        return [line for line in out.splitlines() if " pid " in line]
