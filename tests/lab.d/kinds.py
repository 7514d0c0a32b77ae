# SPDX-License-Identifier: GPL-2.0-or-later
"""The kinds of guests: what runs a guest's kernel, and how the guest sees this machine's directories.

  fast    user-mode Linux (tests/uml): a program of its own, hostfs, a serial line on a descriptor, virtio_uml
  stock   Debian's kernel in QEMU (tests/setup/stock-kernel, qemu-root): initramfs, 9p, a virtio serial port, PCI devices

One object per lab. prepare() and stage() run in `lab up`, outside the lab's namespaces, and leave what they found in the
options; the rest runs in the supervisor. The root, guestd and the frames on the line are the same for all kinds.
"""

import json
import os
import shutil
import subprocess

import common
import migrate
import qemu
from common import LabError


# Where a host that is a virtual machine (machine.py) has what guests see.
IN_MACHINE = {"lab": "/lab", "modules": "/run/guest-modules", "vnet": "/vnet", "build": "/build"}


class Kind:
    kernels = ()            # first is the default
    options = {}            # options of `lab up` that only this kind has, with their defaults

    def __init__(self, opt):
        self.opt = opt

    @classmethod
    def check(cls, opt):
        """Fill in the defaults of this kind's options; refuse what cannot be."""
        opt["kernel"] = opt["kernel"] or cls.kernels[0]
        if opt["kernel"] not in cls.kernels:
            raise LabError("--kernel %s: %s guests have %s" % (opt["kernel"], opt["kind"], " and ".join(cls.kernels)))
        for name, default in cls.options.items():
            opt[name] = opt.get(name) or default
        for kind in KINDS.values():
            for name in kind.options:
                if name not in cls.options and opt.get(name):
                    raise LabError("--%s is not for %s guests" % (name, opt["kind"]))

    def prepare(self):
        """Get the kernel: opt["kernel_dir"] with root/lib/modules in it, from the cache or made now."""
        raise NotImplementedError

    def stage(self, lab_dir, guestd):
        """Put what guests start from into the state directory."""
        shutil.copy(guestd, os.path.join(lab_dir, "guestd"))

    def command(self, lab, guest, line):
        """The program that is the guest; `line` is the descriptor of the lab's end of guestd."""
        raise NotImplementedError

    def device(self, path, guest):
        """What its command line says about its network device; the shim serves it on the socket `path`."""
        raise NotImplementedError

    def environment(self):
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}

    def vcpus(self):
        return 1

    def shares(self):
        """What guests see of this machine: (name, directory here, directory there)."""
        state = self.opt["state"]
        wanted = [("lab", os.path.join(state, "lab"), "/lab"),
                  ("modules", os.path.join(state, "modules/lib/modules"), "/lib/modules"),
                  ("vnet", os.path.join(common.BUILD, "guest"), "/vnet"),
                  ("build", common.BUILD, "/build")]
        return [share for share in wanted if os.path.isdir(share[1])]

    def mounts(self):
        """Shell lines that make shares() visible."""
        raise NotImplementedError


class Fast(Kind):
    kernels = ("fast", "debug")
    options = {"carrier": "config"}

    @classmethod
    def check(cls, opt):
        super().check(opt)
        opt["boot_timeout"] = 30 if opt["kernel"] == "fast" and not opt["machines"] else 120

    def prepare(self):
        self.opt["kernel_dir"] = common.script(["uml/build", self.opt["kernel"]])

    def stage(self, lab_dir, guestd):
        super().stage(lab_dir, guestd)
        if self.opt["machines"]:
            subprocess.run(["strip", "--strip-debug", "-o", os.path.join(lab_dir, "linux"),
                            os.path.join(self.opt["kernel_dir"], "linux")], check=True)
            shutil.copy(common.build("slowtick", "-shared", "-fPIC"), os.path.join(lab_dir, "slowtick.so"))

    def command(self, lab, guest, line):
        """In a host that is a virtual machine (line None), its standard input and output are the line."""
        opt = self.opt
        program, root, directory = os.path.join(opt["kernel_dir"], "linux"), opt["root"], opt["state"]
        console, serial = "fd:1", "fd:%s" % line
        if line is None:
            program, root, directory = "/run/linux", "/", "/run"
            console, serial = "fd:2", "fd:0,fd:1"
        argv = [program, "mem=" + opt["mem"], "umid=" + guest.name, "uml_dir=%s/uml/" % directory,
                "root=/dev/root", "rootfstype=hostfs", "rootflags=" + root, "ro",
                "init=/lab/guestd", "con=null", "con0=null," + console, "ssl=null", "ssl0=" + serial, "ignore_loglevel",
                # A guest that oopsed must not go on as if nothing had happened.
                "oops=panic"]
        return argv + lab.guest_arguments(guest)

    def device(self, path, guest):
        return ["virtio_uml.device=%s:1" % path]

    def environment(self):
        # Guest memory is a file there, and must be on tmpfs to be shared and registered.
        env = dict(super().environment(), TMPDIR="/dev/shm")
        if self.opt["machines"]:
            env["LD_PRELOAD"] = "/run/slowtick.so"
        return env

    def shares(self):
        shares = super().shares()
        if self.opt["machines"]:
            return [(name, IN_MACHINE[name], there) for name, _, there in shares]
        return shares

    def mounts(self):
        return ["mount -t hostfs none %s -o %s" % (there, here) for _, here, there in self.shares()]


class Stock(Kind):
    kernels = ("6.12", "6.1", "backports")
    options = {"qemu": "11", "front": "vhost-user", "accel": "tcg", "carrier": "config", "movable": False, "balloon": False}

    # Queues that vnet_pv has behind the pairs and the control queue: CR, EQ, SWQ and two RWQ.
    VTOE_QUEUES = 5

    @classmethod
    def check(cls, opt):
        # The virtio-net-pci of QEMU, which is all that 7.2 has, knows no vendor block and no queues of its own.
        if opt.get("qemu") == "7.2" and opt["driver"] == "vnet_pv":
            opt["carrier"] = opt.get("carrier") or "in-band"
        super().check(opt)
        opt["boot_timeout"] = 120
        if opt["qemu"] != "11" and opt["front"] == "vfio-user":
            raise LabError("--front vfio-user needs --qemu 11: QEMU %s has no vfio-user-pci" % opt["qemu"])
        if opt["qemu"] != "11" and opt["driver"] == "vnet_pv" and opt["carrier"] != "in-band":
            raise LabError("--carrier %s needs --qemu 11: with QEMU %s vnet_pv has the vendor block in-band only" % (
                opt["carrier"], opt["qemu"]))
        if opt["front"] == "vfio-user" and opt["carrier"] == "in-band":
            raise LabError("--carrier in-band is for --front vhost-user: a vfio-user device shows its vendor block itself")
        if opt["movable"] and (opt["front"] == "vfio-user" or (opt["driver"] == "vnet_pv" and opt["carrier"] != "in-band")):
            raise LabError("--movable: QEMU migrates its virtio-net-pci; use --driver virtio_net or --carrier in-band")

    def prepare(self):
        qemu.prepare(self.opt, "guests")

    def stage(self, lab_dir, guestd):
        qemu.initramfs(self.opt, self.opt["state"], guestd)

    def vcpus(self):
        # A driver uses no more queue pairs than it has CPUs.
        return self.opt["queues"]

    def shares(self):
        return [] if self.opt["movable"] else super().shares()

    def command(self, lab, guest, line, incoming=None):
        """incoming: the socket by which another QEMU brings it."""
        opt = self.opt
        shares = [(n, h, n == "lab") for n, h, _ in self.shares()]
        if not opt["movable"]:
            shares.insert(0, ("root", opt["root"], False))
        argv = qemu.command(opt, opt["state"], guest.name, line, mem=opt["mem"], vcpus=self.vcpus(), shares=shares,
                            monitor=incoming and migrate.monitor_of(incoming)) + lab.guest_arguments(guest)
        if opt["balloon"]:
            argv += ["-device", "virtio-balloon-pci"]
        return argv + (["-incoming", "unix:" + incoming] if incoming else [])

    def device(self, path, guest):
        opt = self.opt
        pairs = opt["queues"]
        if opt["carrier"] == "in-band":
            pairs += common.constant("proto/vnet_hello.h", "VNET_HELLO_RESERVED_PAIRS")
        if opt["front"] == "vfio-user":
            return ["-device", json.dumps({"driver": "vfio-user-pci", "socket": {"type": "unix", "path": path}})]
        if opt["driver"] == "vnet_pv" and opt["carrier"] != "in-band":
            # The generic device shows the guest all that the shim has. QEMU does not reconnect it.
            return ["-chardev", "socket,id=net,path=" + path,
                    "-device", "vhost-user-test-device-pci,chardev=net,virtio-id=1,config_size=256,vq_size=256,num_vqs=%d" % (
                        2 * pairs + 1 + self.VTOE_QUEUES)]
        again = "reconnect-ms=200" if opt["qemu"] == "11" else "reconnect=1"
        vectors = 2 * pairs + 2
        if opt["qemu"] == "7.2" and opt["accel"] == "tcg":
            # It dies of a null pointer when a vhost-user device uses MSI-X without KVM's irqfds: use INTx.
            vectors = 0
        return ["-chardev", "socket,id=net,path=%s,%s" % (path, again),
                "-netdev", "vhost-user,id=net,chardev=net,queues=%d" % pairs,
                "-device", "virtio-net-pci,netdev=net,mac=%s,mq=%s,vectors=%d,romfile=" % (
                    guest.mac, "on" if pairs > 1 else "off", vectors)]

    def mounts(self):
        return ["mount -t 9p %s %s -o trans=virtio,version=9p2000.L,msize=262144%s" % (name, there, "" if name == "lab" else ",ro")
                for name, _, there in self.shares()]


KINDS = {"fast": Fast, "stock": Stock}


def of(opt):
    return KINDS[opt["kind"]](opt)
