# SPDX-License-Identifier: GPL-2.0-or-later
"""The kinds of guests: what runs a guest's kernel, and how the guest sees this machine's directories.

  fast    user-mode Linux (tests/uml): a program of its own, hostfs, a serial line on a descriptor, virtio_uml
  stock   Debian's kernel in QEMU (tests/setup/stock-kernel, qemu-root): initramfs, 9p, a virtio serial port, PCI devices

One object per lab. prepare() and stage() run in `lab up`, outside the lab's namespaces, and leave what they found in the
options; the rest runs in the supervisor. The root, guestd and the frames on the line are the same for all kinds.
"""

import ctypes
import json
import mmap
import os
import shutil
import subprocess
import time

import accel
import common
from common import LabError, say


def tsc_khz():
    """How fast this machine's time stamp counter runs, which is also that of an emulated guest."""
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("0f31 48c1e220 4809d0 c3"))        # rdtsc; shl $32,%rdx; or %rdx,%rax; ret
    entry = ctypes.c_char.from_buffer(code)
    rdtsc = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(entry))

    def reading():
        """(ns, ticks) at one moment: the tightest of some tries."""
        tries = []
        for _ in range(20):
            before, ticks, after = time.monotonic_ns(), rdtsc(), time.monotonic_ns()
            tries.append((after - before, before, ticks))
        return min(tries)[1:]

    start = reading()
    time.sleep(0.05)
    end = reading()
    return round((end[1] - start[1]) * 1e6 / (end[0] - start[0]))


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
        opt["boot_timeout"] = 30 if opt["kernel"] == "fast" else 120

    def prepare(self):
        self.opt["kernel_dir"] = common.script(["uml/build", self.opt["kernel"]])

    def command(self, lab, guest, line):
        opt = self.opt
        argv = [os.path.join(opt["kernel_dir"], "linux"), "mem=" + opt["mem"], "umid=" + guest.name,
                "uml_dir=%s/uml/" % opt["state"], "root=/dev/root", "rootfstype=hostfs", "rootflags=" + opt["root"], "ro",
                "init=/lab/guestd", "con=null", "con0=null,fd:1", "ssl=null", "ssl0=fd:%d" % line, "ignore_loglevel",
                # A guest that oopsed must not go on as if nothing had happened.
                "oops=panic"]
        return argv + lab.guest_arguments(guest)

    def device(self, path, guest):
        return ["virtio_uml.device=%s:1" % path]

    def environment(self):
        # Guest memory is a file there, and must be on tmpfs to be shared and registered.
        return dict(super().environment(), TMPDIR="/dev/shm")

    def mounts(self):
        return ["mount -t hostfs none %s -o %s" % (there, here) for _, here, there in self.shares()]


class Stock(Kind):
    kernels = ("6.12", "6.1", "backports")
    options = {"qemu": "11", "front": "vhost-user", "accel": "tcg", "carrier": "config"}

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

    def prepare(self):
        opt = self.opt
        opt["kernel_dir"] = common.script(["setup/stock-kernel", opt["kernel"]])
        opt["tsc_khz"] = tsc_khz()
        opt["qemu_program"] = self.find_qemu()
        if opt["accel"] == "auto":
            opt["accel"], why = accel.choose(opt["qemu_program"], opt["kernel_dir"])
            say("guests run under %s: %s" % (opt["accel"].upper(), why))

    def find_qemu(self):
        opt = self.opt
        if opt["qemu"] == "11":
            return os.path.join(common.script(["setup/qemu-root"]), "qemu-system-x86_64")
        program = shutil.which("qemu-system-x86_64")
        if not program:
            raise LabError("qemu-system-x86_64 is not installed; run tests/setup/install")
        version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        if " version %s." % opt["qemu"] not in version:
            raise LabError("%s is not QEMU %s: %s" % (program, opt["qemu"], version.splitlines()[0]))
        return program

    def stage(self, lab_dir, guestd):
        """The initramfs: guestd as /init, and the modules it loads to reach its root."""
        base = os.path.join(self.opt["state"], "initramfs.d")
        shutil.copytree(os.path.join(self.opt["kernel_dir"], "initramfs"), base)
        shutil.copy(guestd, os.path.join(base, "init"))
        names = b"".join(os.path.join(where, name)[len(base) + 1:].encode() + b"\0"
                         for where, dirs, files in os.walk(base) for name in dirs + files)
        with open(os.path.join(self.opt["state"], "initramfs"), "wb") as out:
            subprocess.run(["cpio", "--quiet", "-0", "-o", "-H", "newc"], cwd=base, input=names, stdout=out, check=True)
        shutil.rmtree(base)

    def vcpus(self):
        # A driver uses no more queue pairs than it has CPUs.
        return self.opt["queues"]

    def cpu(self):
        # Programs and kernels copy by `rep movsb` where these two say that it is fast. TCG moves a byte at a time there,
        # and eight or more otherwise: all streams are twice as fast without.
        return "max,-erms,-fsrm" if self.opt["accel"] == "tcg" else "max"

    def command(self, lab, guest, line):
        opt = self.opt
        # panic=-1 and -no-reboot: a guest that panicked ends, and one that oopsed panics.
        kernel = ["console=ttyS0", "ignore_loglevel", "panic=-1", "oops=panic", "mitigations=off", "guestd_line=/dev/vport0p1"]
        if opt["accel"] == "tcg":
            # On a busy machine an emulated guest that measures this itself may be wrong by a factor of 50.
            kernel += ["tsc=reliable", "tsc_early_khz=%d" % opt["tsc_khz"]]
        argv = [opt["qemu_program"], "-name", guest.name, "-M", "q35,memory-backend=ram", "-m", opt["mem"],
                "-object", "memory-backend-memfd,id=ram,size=%s,share=on" % opt["mem"],
                "-accel", "tcg,thread=multi" if opt["accel"] == "tcg" else opt["accel"], "-cpu", self.cpu(),
                "-smp", str(self.vcpus()), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                "-kernel", os.path.join(opt["kernel_dir"], "vmlinux"), "-initrd", os.path.join(opt["state"], "initramfs"),
                "-append", " ".join(kernel),
                "-chardev", "file,id=console,path=%s/%s.log,append=on" % (opt["state"], guest.name), "-serial", "chardev:console",
                "-chardev", "socket,id=qmp,path=%s/%s.qmp,server=on,wait=off" % (opt["state"], guest.name), "-mon", "chardev=qmp,mode=control",
                "-chardev", "socket,id=line,fd=%d" % line, "-device", "virtio-serial-pci,max_ports=2",
                "-device", "virtserialport,nr=1,chardev=line,name=line"]
        for name, here, writable in [("root", opt["root"], False)] + [(n, h, n == "lab") for n, h, _ in self.shares()]:
            argv += ["-fsdev", "local,id=%s,path=%s,security_model=none,multidevs=remap%s" % (
                name, here, "" if writable else ",readonly=on"),
                     "-device", "virtio-9p-pci,fsdev=%s,mount_tag=%s" % (name, name)]
        return argv + lab.guest_arguments(guest)

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
