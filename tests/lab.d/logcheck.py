# SPDX-License-Identifier: GPL-2.0-or-later
"""Which lines of a guest's kernel log or a daemon's log mean that something is broken, whatever the test said."""

import os
import re

KERNEL = re.compile(
    r"\bWARNING:|\bBUG:|\bBUG \w|UBSAN:|ODEBUG:|refcount_t:|ref_tracker:.*leak|kmemleak: \d+ new|Oops|"
    r"Kernel panic|general protection|INFO: (possible|suspicious|inconsistent|trying|task|lockdep|rcu)|"
    r"possible circular locking|suspicious RCU usage|scheduling while atomic|sleeping function called|"
    r"list_(add|del) corruption|unregister_netdevice: waiting|guestd: fatal|"
    r"unexpected slave request|Unable to handle kernel|Failed to .* vhost-user|qemu-system.*Assertion")
DAEMON = re.compile(
    r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|UndefinedBehaviorSanitizer|runtime error:|Assertion .* failed|"
    r"ignored SIGTERM")


def find(state):
    """[(file name, line)] for every bad line in a lab's logs."""
    bad = []
    for name in sorted(os.listdir(state)):
        if not name.endswith(".log"):
            continue
        pattern = KERNEL if re.fullmatch(r"g\d+\.log", name) else DAEMON
        with open(os.path.join(state, name), encoding="utf-8", errors="replace") as f:
            bad += [(name, line.rstrip()) for line in f if pattern.search(line)]
    return bad
