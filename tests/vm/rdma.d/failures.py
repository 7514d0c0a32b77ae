# SPDX-License-Identifier: GPL-2.0-or-later
"""What the others see when a guest, an agent, a machine or the link goes away under traffic over the verbs fabric: every
socket ends with an errno or carries on, and connections are offloaded again once all is back."""

import contextlib
import time

from rig import BENCH, Failure, IP

G2 = IP["g2"]
# What the two programs say when their connection is reset. A lane that is lost is a reset.
RESET = "Connection reset by peer"


def flows(lab):
    """From g1 to g2: a stream, and a connection whose program only waits: the server, having been told that a stream comes, too."""
    lab.background("g1", "%s stream %s 6000 --seconds 10000" % (BENCH, G2), "/tmp/stream")
    lab.background("g1", "exec 3<>/dev/tcp/%s/6000 && printf S >&3 && cat <&3" % G2, "/tmp/idle")
    lab.until("g1", "[ $(grep -c ' %s:6000 vtoe none .* %s ' /proc/net/vnet_sock) = 2 ]" % (G2, lab.fabric))
    if not moves(lab):
        raise Failure(lab.ended("g1", "/tmp/stream"))


def moves(lab):
    """True once the stream has moved more, false if it has ended."""
    out = lab.sh("g1", "sent() { awk '$1 == \"tx_bytes\" { print $2 }' /proc/net/vnet_stat; }; old=$(sent); "
                 "until [ $(sent) -gt $((old + 500000)) ]; do ! grep -q '^END ' /tmp/stream || { echo ended; exit 0; }; sleep 0.2; done", limit=250)
    return "ended" not in out


def reset(lab):
    for out in ("/tmp/stream", "/tmp/idle"):
        said = lab.ended("g1", out)
        if RESET not in said:
            raise Failure("%s: %s" % (out, said))


def stopped(lab):
    """The two programs have ended, as we or the failure made them."""
    lab.sh("g1", "pkill 'bench_tcp|cat'; true")
    for out in ("/tmp/stream", "/tmp/idle"):
        lab.ended("g1", out)


def offloaded_again(lab):
    lab.until("g1", "LD_PRELOAD=/vnet/libvnetsock.so %s rr %s 6000 --seconds 0.2 --size 1 | grep -q '\"path\":\"vtoe\"'" % (BENCH, G2), limit=250)


def guest_killed(tap, lab):
    tap.step("a stream and an idle connection from g1 to g2", flows, lab)
    lab.lab("kill", "guest", "g2")
    tap.step("guest g2 is killed: both programs in g1 get ECONNRESET", reset, lab)
    tap.step("no socket of them is left", lab.wait_no_sockets, "g1")

    def back():
        lab.lab("restart", "guest", "g2", limit=200)
        lab.attached("g2")
        lab.sh("g2", "%s server --daemon --port 6000" % BENCH, offload=True)
        offloaded_again(lab)
    tap.step("g2 boots again: connections to it are offloaded", back)


def agent_killed(tap, lab):
    tap.step("again a stream and an idle connection", flows, lab)
    lab.lab("kill", "agent", "h2")
    tap.step("the agent of h2 is killed: both programs in g1 get ECONNRESET", reset, lab)

    def falls_back():
        out = lab.sh("g1", "%s rr %s 6000 --seconds 0.2 --size 1" % (BENCH, G2), offload=True)
        if '"path":"tcp:' not in out:
            raise Failure(out)
    tap.step("meanwhile connections fall back to TCP, with a reason", falls_back)

    def back():
        lab.lab("restart", "agent", "h2", limit=200)
        lab.attached("g2")
        offloaded_again(lab)
    tap.step("a new agent: connections are offloaded again", back)


@contextlib.contextmanager
def pulled_wire(lab):
    lab.lab("qmp", "m1", "set_link", '{"name": "wire", "up": false}')
    try:
        yield
    finally:
        lab.lab("qmp", "m1", "set_link", '{"name": "wire", "up": true}')


def link_down(tap, lab, seconds):
    """The test is what happens in that time, so it is waited for."""
    tap.step("link down for %d s: before, a stream and an idle connection" % seconds, flows, lab)
    with pulled_wire(lab):
        time.sleep(seconds)

    def after():
        """Both carry on, or both were reset."""
        how = "they carry on"
        if not moves(lab):
            reset(lab)
            how = "they were reset"
        else:
            lab.sh("g1", "! grep '^END ' /tmp/idle")
        stopped(lab)
        lab.wait_no_sockets("g1")
        return how
    tap.step("the link is back after %d s: no program hangs" % seconds, after)
    tap.step("new connections are offloaded", offloaded_again, lab)


def machine_killed(tap, lab):
    tap.step("before the peer's machine is killed, a stream and an idle connection", flows, lab)
    lab.lab("kill", "host", "h2")
    tap.step("the machine of h2 is killed: both programs in g1 get ECONNRESET", reset, lab)
    tap.step("no socket of them is left", lab.wait_no_sockets, "g1")
