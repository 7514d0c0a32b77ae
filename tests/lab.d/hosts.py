# SPDX-License-Identifier: GPL-2.0-or-later
"""What the hosts of a lab are, and how daemons and guests are started on them.

  Namespaces   network namespaces of this machine on one bridge
  Machines     virtual machines with soft RDMA (machine.py): one, in which all hosts are addresses of one device, or one for
               each of two hosts, joined by a wire

Both start a program on a host and return a proc.Child. Files and sockets of a host have the same names in both.
"""

import asyncio
import os
import shutil
import socket

import common
import proc
import qemu
from common import LabError
from machine import Machine
from topology import share

# A socket of a stream netdev is there when its server's QEMU runs.
WIRE = "wire"


class Namespaces:
    daemon_timeout = 15

    def __init__(self, lab):
        self.lab = lab

    async def up(self):
        topology = self.lab.topology
        for host in topology.hosts:
            for path, (text, mode) in topology.files(host).items():
                os.makedirs(os.path.dirname(path), exist_ok=True)
                topology.write(path, text, mode)
        topology.make_networks()

    @staticmethod
    def program(name):
        return os.path.join(common.BUILD, "host", name)

    def listen(self, _, path):
        """The other end of a NOTIFY_SOCKET."""
        return proc.LocalNotify(path)

    def start_daemon(self, host, role, name, argv, *, log, env):
        return self.lab.children.start(role, name, argv, log=log, cpus=host.cpus, netns=host.name, env=dict(os.environ, **env))

    async def start_guest(self, guest, log, **how):
        """Its process, and the stream of its guestd."""
        kind = self.lab.kind
        ours, theirs = socket.socketpair()
        with theirs:
            child = self.lab.children.start(
                "guest", guest.name, kind.command(self.lab, guest, theirs.fileno(), **how), log=log,
                cpus=guest.cpus, netns=guest.host.name, env=kind.environment(), pass_fds=[theirs.fileno()])
        return child, *await asyncio.open_connection(sock=ours)

    def state_of(self, _):
        return "up"

    def machine(self, _):
        raise LabError("the hosts of this lab are network namespaces; machines have --fabric verbs and --machines")

    def ended(self, child):
        """A child of role `host` ended: there are none."""


class Machines:
    # Starting a process in an emulated machine takes a while.
    daemon_timeout = 60

    def __init__(self, lab):
        self.lab = lab
        hosts = lab.topology.hosts
        count = lab.opt["machines"]
        self.machines = [Machine(lab, "m%d" % (i + 1), hosts if count == 1 else [hosts[i]], share(i + 1, count))
                         for i in range(count)]

    def of(self, host):
        return next(m for m in self.machines if host in m.hosts)

    async def up(self):
        for m in self.machines:
            for host in m.hosts:
                await m.serve(host.name)
        self.lab.tell("say", "starting %d machines with soft RDMA (kernel %s)" % (
            len(self.machines), self.lab.opt["machine"]["kernel"]))
        await asyncio.gather(*(m.start(self.devices(m), self.network(m)) for m in self.machines))

    def devices(self, machine):
        """One machine needs no network device."""
        if len(self.machines) == 1:
            return []
        first = machine is self.machines[0]
        wire = os.path.join(self.lab.state, WIRE)
        return ["-netdev", "stream,id=wire,addr.type=unix,addr.path=%s,server=%s%s" % (
            wire, "on" if first else "off", "" if first else self.reconnect()),
                "-device", "virtio-net-pci,netdev=wire,mac=52:54:00:4e:50:f%d,host_mtu=%d,romfile=" % (
                    machine.hosts[0].i, self.lab.opt["link_mtu"])]

    def reconnect(self):
        return ",reconnect-ms=200" if self.lab.opt["machine"]["qemu"] == "11" else ",reconnect=1"

    def network(self, machine):
        """Shell lines that make eth0, the hosts' addresses on it, and its RDMA device."""
        if len(self.machines) == 1:
            lines = ["ip link add eth0 type dummy"]
        else:
            lines = ["modprobe virtio_net",
                     "n=0; until [ -e /sys/class/net/eth0 ] || [ $n = 200 ]; do sleep 0.05; n=$((n + 1)); done"]
        lines += ["ip link set eth0 mtu %d up" % self.lab.opt["link_mtu"]]
        lines += ["ip addr add %s/24 dev eth0" % host.ip for host in machine.hosts]
        return lines + ["rdma link add rxe0 type rxe netdev eth0"]

    @staticmethod
    def program(name):
        return "/build/host/" + name

    def listen(self, host, path):
        return self.of(host).listen(path)

    def start_daemon(self, host, role, name, argv, *, log, env):
        return self.of(host).start_process(role, name, argv, log=log, env=common.guest_env(False, env))

    async def start_guest(self, guest, log):
        kind = self.lab.kind
        child = self.of(guest.host).start_process("guest", guest.name, kind.command(self.lab, guest, None), log=log,
                                                  env=kind.environment(), stream=True)
        return child, child.reader, child.writer

    def state_of(self, host):
        return self.of(host).child.ended()

    def machine(self, name):
        for host in self.lab.topology.hosts:
            if host.name == name:
                return self.of(host)
        raise LabError("this lab has no host '%s'" % name)

    def ended(self, child):
        for m in self.machines:
            if m.child is child:
                m.ended()


def check(opt):
    """Fill in the options of hosts; refuse what cannot be."""
    if opt["fabric"] == "verbs":
        opt["machines"] = opt["machines"] or 1
    elif opt["transfer"]:
        raise LabError("--transfer is of the fabric verbs: --fabric verbs")
    if not opt["machines"]:
        if opt["host_kernel"]:
            raise LabError("--host-kernel is for hosts that are virtual machines: --fabric verbs, or --machines")
        opt["link_mtu"] = opt["link_mtu"] or 1500
        opt["mem"] = opt["mem"] or "512M"
        return
    if opt["kind"] != "fast":
        raise LabError("--machines: guests in such hosts are user-mode Linux, --kind fast")
    if not opt["device"]:
        raise LabError("--machines: guests in such hosts have a device")
    if opt["machines"] == 2 and opt["hosts"] != 2:
        raise LabError("--machines 2: one wire joins two hosts, not %d" % opt["hosts"])
    opt["link_mtu"] = opt["link_mtu"] or 9000
    # Little, since soft RDMA registers a guest's memory page by page.
    opt["mem"] = opt["mem"] or "96M"
    common.megabytes(opt["mem"])
    # What would be options of guests is about the machines.
    opt["machine"] = {"kernel": opt["host_kernel"] or "6.12", "qemu": opt["qemu"] or "11", "accel": opt["accel"] or "tcg"}
    opt["qemu"] = opt["accel"] = None


def prepare(opt, lab_dir, guestd):
    if opt["machines"]:
        shutil.copy(common.build("notify"), os.path.join(lab_dir, "notify"))
        qemu.prepare(opt["machine"], "hosts")
        qemu.initramfs(opt["machine"], opt["state"], guestd)


def of(lab):
    return Machines(lab) if lab.opt["machines"] else Namespaces(lab)
