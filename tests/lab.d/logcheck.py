# SPDX-License-Identifier: GPL-2.0-or-later
"""Which lines of a guest's kernel log or a daemon's log mean that something is broken, whatever the test said."""

import os
import re

import common

KERNEL = re.compile(
    r"\bWARNING:|\bBUG:|\bBUG \w|UBSAN:|ODEBUG:|refcount_t:|ref_tracker:.*leak|kmemleak: \d+ new|Oops|"
    r"Kernel panic|general protection|INFO: (possible|suspicious|inconsistent|trying|task|lockdep|rcu)|"
    r"possible circular locking|suspicious RCU usage|scheduling while atomic|sleeping function called|"
    r"list_(add|del) corruption|unregister_netdevice: waiting|guestd: fatal|"
    r"unexpected slave request|Unable to handle kernel|Failed to .* vhost-user|qemu-system.*Assertion")
# Buffers that the host has kept. That is right where the device went away under the driver: the shim was killed. Then
# virtio_uml also warns that it cannot tell its dead peer of the queues' end.
LOST = re.compile(r"buffers did not come back|BYE was not answered|event queue is full|WARNING: .*virtio_uml\.c.* vu_del_vqs\+")
# A test asked for a panic: what the kernel says from here to its next start is the answer.
ASKED_PANIC = re.compile(r"sysrq: Trigger a crash")
BOOT = re.compile(r"\bLinux version \d")
DAEMON = re.compile(
    r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|UndefinedBehaviorSanitizer|runtime error:|Assertion .* failed|"
    r"data plane \(pid \d+\) (died of signal|failed|does not end)")
# The supervisor's own, of ends that nobody asked for. A guest may be switched off from inside.
LAB = re.compile(
    r"lab: ((agent|shim|host) \S+ (killed by|exited with)|guest \S+ (killed by|exited with status [1-9]))|ignored SIGTERM|Traceback")


def bad_lines(name, lines, trace=0):
    if not re.fullmatch(r"[gm]\d+\.log", name):
        pattern = LAB if name == "lab.log" else DAEMON
        yield from filter(pattern.search, lines)
        return
    device_lost = panics = False
    behind = None
    for line in lines:
        if line.startswith(common.SHIM_ENDED):
            device_lost = True
        elif BOOT.search(line):
            device_lost = panics = False
        elif ASKED_PANIC.search(line):
            panics = True
        if panics:
            continue
        if LOST.search(line):
            if not device_lost:
                yield line
        elif KERNEL.search(line):
            yield line
            behind = trace if behind is None else behind
        elif behind:
            yield line
            behind -= 1


def find(state, trace=0):
    """[(file name, line)] for every bad line in a lab's logs, and in each kernel's `trace` lines behind the first."""
    bad = []
    for name in sorted(os.listdir(state)):
        if not name.endswith(".log"):
            continue
        with open(os.path.join(state, name), encoding="utf-8", errors="replace") as f:
            bad += [(name, line.rstrip()) for line in bad_lines(name, f, trace)]
    return bad
