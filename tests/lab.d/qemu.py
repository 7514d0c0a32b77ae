# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kernel in QEMU with guestd as its first process: what stock guests (kinds.py) and hosts that are virtual machines
(machine.py) have in common.

The options are a dictionary, in part the user's, in part found by prepare(): qemu ("11" or "7.2"), accel, kernel; kernel_dir,
qemu_program, tsc_khz.
"""

import ctypes
import mmap
import os
import shutil
import subprocess
import time

import accel
import common
import movable
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


def find(wanted):
    """QEMU's program of that version."""
    if wanted == "11":
        return os.path.join(common.script(["setup/qemu-root"]), "qemu-system-x86_64")
    program = shutil.which("qemu-system-x86_64")
    if not program:
        raise LabError("qemu-system-x86_64 is not installed; run tests/setup/install")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    if " version %s." % wanted not in version:
        raise LabError("%s is not QEMU %s: %s" % (program, wanted, version.splitlines()[0]))
    return program


def prepare(opt, who):
    opt["kernel_dir"] = common.script(["setup/stock-kernel", opt["kernel"]])
    opt["tsc_khz"] = tsc_khz()
    opt["qemu_program"] = find(opt["qemu"])
    if opt["accel"] == "auto":
        opt["accel"], why = accel.choose(opt["qemu_program"], opt["kernel_dir"])
        say("%s run under %s: %s" % (who, opt["accel"].upper(), why))


def initramfs(opt, state, guestd):
    """guestd as /init, and the modules it loads to reach its root; of movable guests, all that they have."""
    base = os.path.join(state, "initramfs.d")
    shutil.copytree(os.path.join(opt["kernel_dir"], "initramfs"), base)
    shutil.copy(guestd, os.path.join(base, "init"))
    if opt.get("movable"):
        movable.fill(opt, base)
    names = b"".join(os.path.join(where, name)[len(base) + 1:].encode() + b"\0"
                     for where, dirs, files in os.walk(base) for name in dirs + files)
    with open(os.path.join(state, "initramfs"), "wb") as out:
        subprocess.run(["cpio", "--quiet", "-0", "-o", "-H", "newc"], cwd=base, input=names, stdout=out, check=True)
    shutil.rmtree(base)


def odd(mem):
    """That much and 8 KB, so that QEMU 7.2 loses no writes of an emulated guest that migrates.

    Where the size is a multiple of 256 KB it reads and clears the dirty bits of 64 pages at once, and forgets to tell the CPUs,
    which then write to those pages without setting the bits again (QEMU's commit 03bfc2188f07 mends it; 11 has that). With KVM the bits are
    KVM's.
    """
    return "%dK" % (common.megabytes(mem) * 1024 + 8)


def command(opt, state, name, line, *, mem, vcpus, shares, monitor=None):
    """`line` is the descriptor of the lab's end of guestd; shares are (tag, directory, writable), `root` among them or none."""
    # panic=-1 and -no-reboot: a guest that panicked ends, and one that oopsed panics.
    kernel = ["console=ttyS0", "ignore_loglevel", "panic=-1", "oops=panic", "mitigations=off", "guestd_line=/dev/vport0p1"]
    if opt.get("movable"):
        # A kernel that zeroes its receive buffers has QEMU move them, whether or not the shim tells that it wrote to them.
        kernel.append("init_on_alloc=0")
    # Programs and kernels copy by `rep movsb` where these two say that it is fast. TCG moves a byte at a time there,
    # and eight or more otherwise: all streams are twice as fast without.
    cpu, accelerator = "max", opt["accel"]
    if opt["accel"] == "tcg":
        cpu, accelerator = "max,-erms,-fsrm", "tcg,thread=multi"
        # On a busy machine an emulated guest that measures this itself may be wrong by a factor of 50.
        kernel += ["tsc=reliable", "tsc_early_khz=%d" % opt["tsc_khz"]]
        if opt.get("movable"):
            mem = odd(mem)
    argv = [opt["qemu_program"], "-name", name, "-M", "q35,memory-backend=ram", "-m", mem,
            "-object", "memory-backend-memfd,id=ram,size=%s,share=on" % mem,
            "-accel", accelerator, "-cpu", cpu, "-smp", str(vcpus),
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-kernel", os.path.join(opt["kernel_dir"], "vmlinux"), "-initrd", os.path.join(state, "initramfs"),
            "-append", " ".join(kernel),
            "-chardev", "file,id=console,path=%s/%s.log,append=on" % (state, name), "-serial", "chardev:console",
            "-chardev", "socket,id=qmp,path=%s,server=on,wait=off" % (monitor or "%s/%s.qmp" % (state, name)),
            "-mon", "chardev=qmp,mode=control",
            "-chardev", "socket,id=line,fd=%d" % line, "-device", "virtio-serial-pci,max_ports=2",
            "-device", "virtserialport,nr=1,chardev=line,name=line"]
    for tag, directory, writable in shares:
        argv += ["-fsdev", "local,id=%s,path=%s,security_model=none,multidevs=remap%s" % (
            tag, directory, "" if writable else ",readonly=on"),
                 "-device", "virtio-9p-pci,fsdev=%s,mount_tag=%s" % (tag, tag)]
    return argv
