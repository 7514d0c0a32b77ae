# SPDX-License-Identifier: GPL-2.0-or-later
"""Which accelerator stock guests can have here: KVM where Linux really runs under it, else TCG.

That /dev/kvm is there and QEMU opens it says little: in some machines it is an emulation that runs small payloads, and a
stock Linux kernel hangs in it. So the question is put to the kernel: QEMU boots it with an initramfs that ends QEMU with a
status of its own (accel_probe.c) once user space, fork and timers work. A guest that has not done so in PROBE_SECONDS is
killed. The answer holds for one QEMU, one kernel and one boot of this machine, and is kept in the cache for as long.
"""

import hashlib
import json
import os
import subprocess
import tempfile

import common
from common import LabError, say

PROBE_SECONDS = 15      # under KVM the probe takes less than 2
WORKS = 2 * 42 + 1      # what isa-debug-exit makes of ACCEL_WORKS in accel_probe.c
VERDICTS = os.path.join(common.CACHE, "accel.json")


def initramfs(directory, init):
    """directory/initramfs with the program `init` as /init."""
    path = os.path.join(directory, "initramfs")
    with open(path, "wb") as out:
        os.rename(init, os.path.join(directory, "init"))
        subprocess.run(["cpio", "--quiet", "-o", "-H", "newc"], cwd=directory, input=b"init\n", stdout=out, check=True)
    return path


def machine_says(console):
    """The last line on a guest's console, as a clause."""
    try:
        with open(console, encoding="ascii", errors="replace") as f:
            lines = [line.strip() for line in f if line.strip()]
    except OSError:
        lines = []
    return "its last words: " + lines[-1][:100] if lines else "it said nothing"


def probe(accel, qemu, kernel, seconds=PROBE_SECONDS):
    """None if Linux runs under it, else why not."""
    with tempfile.TemporaryDirectory() as work:
        source = os.path.join(common.TESTS, "lab.d/accel_probe.c")
        program = os.path.join(work, "probe")
        if subprocess.run(["gcc", "-O2", "-Wall", "-static", "-o", program, source], check=False).returncode:
            raise LabError("cannot compile tests/lab.d/accel_probe.c (see above); is gcc installed? (tests/setup/install)")
        console = os.path.join(work, "console")
        # setpriv: it must not outlive us, however we end.
        argv = ["setpriv", "--pdeathsig", "KILL", "--", qemu, "-M", "q35", "-m", "256M", "-accel", accel, "-cpu", "max",
                "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
                "-kernel", os.path.join(kernel, "vmlinux"), "-initrd", initramfs(work, program),
                "-append", "console=ttyS0 panic=-1 oops=panic mitigations=off", "-serial", "file:" + console]
        try:
            r = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                               timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return "Linux did not reach user space within %d s; %s" % (seconds, machine_says(console))
        if r.returncode == WORKS:
            return None
        said = r.stderr.strip().splitlines()
        return "QEMU ended with status %d; %s" % (r.returncode, said[-1][:200] if said else machine_says(console))


def remembered():
    """The verdicts of this boot: {key: why not, or None}."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
        boot = f.read().strip()
    try:
        with open(VERDICTS, encoding="utf-8") as f:
            known = json.load(f)
        return known if known.get("boot") == boot else {"boot": boot}
    except (OSError, ValueError, AttributeError):
        return {"boot": boot}


def remember(known):
    os.makedirs(common.CACHE, exist_ok=True)
    tmp = "%s.%d" % (VERDICTS, os.getpid())
    with open(tmp, "w", encoding="utf-8") as f:
        json.dump(known, f, indent=1)
    os.rename(tmp, VERDICTS)


def choose(qemu, kernel):
    """("kvm" or "tcg", why), from an earlier probe of this boot or one made now."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg", "/dev/kvm is not there, or not for us"
    known = remembered()
    version = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=True).stdout
    key = hashlib.sha256("\n".join((qemu, version, kernel)).encode()).hexdigest()[:12]
    if key not in known:
        say("trying whether Linux runs under this machine's KVM (%d s at most, once a boot)" % PROBE_SECONDS)
        known[key] = probe("kvm", qemu, kernel)
        remember(known)
    if known[key] is None:
        return "kvm", "Linux runs under it here"
    return "tcg", "not KVM: " + known[key]
