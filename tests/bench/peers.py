#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""peers.py - labs of what the system is compared with: the kernel's own VXLAN, on the hosts or in the guests, or no overlay.

usage: peers.py NAME hostvxlan|guestvxlan|tap

Starts a lab of two guests on two hosts without our device and daemons: the guests' interfaces are user-mode Linux's vector
driver on taps, with checksum and segmentation offload as a good NIC would have. From then on it is a lab like any other:
tests/lab --name NAME exec|host|cpu|down. Guest, kernel, supervisor and everything else are those of tests/lab.

  hostvxlan   guest vec0 - tap - bridge - vxlan device (host) - veth - veth - ...
  guestvxlan  guest vxlan device - vec0 - tap - bridge - veth - veth - ...
  tap         stock guest's virtio-net - QEMU's tap - bridge - veth - veth - ...; no overlay, so an MTU of 1500. With vhost-net
              where the machine has it
"""

import asyncio
import json
import os
import socket
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lab.d"))

# pylint: disable=wrong-import-position
import common
import kinds
import supervisor
import up as lifecycle
from common import LabError
from proc import run
from topology import Topology

VNI = common.TENANT
PORT = 4789
UNDERLAY_IN_GUEST = "10.78.0.%d"
MTU = 1450              # what VXLAN leaves of 1500


class PeerTopology(Topology):
    def make_networks(self):
        super().make_networks()
        for g in self.guests:
            host = g.host
            tap = "tap-" + g.name
            run(["ip", "-n", host.name, "tuntap", "add", "dev", tap, "mode", "tap", "vnet_hdr"])
            lines = ["link add br-vm type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
                     "link set br-vm up",
                     "link set %s mtu %d master br-vm up" % (tap, MTU if self.on_host() else 1500)]
            if self.on_host():
                peer = next(h for h in self.hosts if h is not host)
                lines += ["link add vxlan0 type vxlan id %d local %s remote %s dstport %d udpcsum" % (VNI, host.ip, peer.ip, PORT),
                          "link set vxlan0 mtu %d master br-vm up" % MTU]
            else:
                lines += ["link set eth0 master br-vm"]
            run(["ip", "-n", host.name, "-batch", "-"], "\n".join(lines) + "\n")

    def on_host(self):
        return self.opt["peer"] == "hostvxlan"

    def guest_script(self, g):
        lines = [super().guest_script(g)]
        if self.opt["peer"] == "tap":
            lines += ["modprobe virtio_net",
                      "dev=$(basename /sys/bus/virtio/drivers/virtio_net/virtio*/net/*)",
                      "ip link set dev $dev name vnet0",
                      "ip link set dev vnet0 mtu 1500 up"]
        elif self.on_host():
            lines += ["ip link set dev vec0 name vnet0",
                      "ip link set dev vnet0 mtu %d up" % MTU]
        else:
            peer = next(p for p in self.guests if p is not g)
            lines += ["ip link set dev vec0 mtu 1500 up",
                      "ip addr add %s/24 dev vec0" % (UNDERLAY_IN_GUEST % g.j),
                      "ip link add vnet0 address %s type vxlan id %d local %s remote %s dstport %d udpcsum" % (
                          g.mac, VNI, UNDERLAY_IN_GUEST % g.j, UNDERLAY_IN_GUEST % peer.j, PORT),
                      "ip link set dev vnet0 mtu %d up" % MTU]
        lines += ["ip addr add %s/24 brd + dev vnet0" % g.ip4,
                  "ip addr add %s/64 dev vnet0 nodad" % g.ip6]
        return "\n".join(lines) + "\n"


class PeerLab(supervisor.Lab):
    def __init__(self, options, lease):
        supervisor.Topology = PeerTopology
        super().__init__(options, lease)

    def guest_arguments(self, g):
        if self.opt["peer"] == "tap":
            vhost = "on" if os.access("/dev/vhost-net", os.R_OK | os.W_OK) else "off"
            return ["-netdev", "tap,id=net,ifname=tap-%s,script=no,downscript=no,vhost=%s" % (g.name, vhost),
                    "-device", "virtio-net-pci,netdev=net,mac=%s,romfile=" % g.mac]
        # The kernel's documentation says depth=128 and gro=1 for throughput.
        return ["vec0:transport=tap,ifname=tap-%s,depth=128,gro=1,mac=%s" % (g.name, g.mac)]


def start_supervisor(opt, lock):
    """lifecycle.start_supervisor, with this file as process 1."""
    ours, theirs = socket.socketpair()
    options = os.path.join(opt["state"], "options.json")
    with open(options, "w", encoding="utf-8") as f:
        json.dump(opt, f, indent=1)
    with theirs, open(os.path.join(opt["state"], "lab.log"), "wb") as log:
        top = subprocess.Popen(
            ["unshare", "--fork", "--pid", "--kill-child", "--mount-proc", "--mount", "--net",
             sys.executable, os.path.abspath(__file__), "--supervise", options, str(theirs.fileno())],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True,
            pass_fds=[lock, theirs.fileno()])
    return top, ours


def supervise(options, fd):
    with open(options, encoding="utf-8") as f:
        options = json.load(f)
    lease = socket.socket(fileno=int(fd))
    lease.set_inheritable(False)
    return asyncio.run(PeerLab(options, lease).main())


def up(name, peer):
    lifecycle.start_supervisor = start_supervisor
    opt = {"name": name, "peer": peer, "guests": 2, "hosts": 2, "kind": "stock" if peer == "tap" else "fast", "kernel": None,
           "driver": "none", "fabric": "auto", "encap": "vxlan", "form": "segmented", "mtu": MTU, "link_mtu": 1500, "poll": "event",
           "pin": True, "queues": 1, "mem": "512M", "device": False, "machines": 0}
    if peer == "tap":
        opt["accel"] = "auto"
    kinds.KINDS[opt["kind"]].check(opt)
    lifecycle.up(opt)


def main():
    if len(sys.argv) == 4 and sys.argv[1] == "--supervise":
        return supervise(sys.argv[2], sys.argv[3])
    if len(sys.argv) != 3 or sys.argv[2] not in ("hostvxlan", "guestvxlan", "tap"):
        sys.stderr.write("usage: peers.py NAME hostvxlan|guestvxlan|tap\n")
        return 2
    try:
        up(sys.argv[1], sys.argv[2])
    except (LabError, OSError) as e:
        sys.stderr.write("peers: error: %s\n" % e)
        return 255
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
