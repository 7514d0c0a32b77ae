# SPDX-License-Identifier: GPL-2.0-or-later
"""`lab migrate`: a running stock guest moves to another host, in the order that vnet-shim(8), LIVE MIGRATION, has.

  1. A shim for it starts at the new host.
  2. The peers' shims get a link to the new host. QEMU starts there, with -incoming.
  3. QEMU migrates it.
  4. The peers' routes move to the new link.
  5. QEMU and the shim at the old host end.

The command line into the guest moves, too: what clients send meanwhile is held back (line.py). If QEMU does not migrate it,
what was started at the new host ends, and the guest is where it was.
"""

import asyncio
import copy
import json
import os
import signal

from common import LabError

TIMEOUT = 60


async def until(condition, what):
    """There is nothing to wait on for some of what other programs do."""
    for _ in range(TIMEOUT * 50):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise LabError("%s: not within %d s" % (what, TIMEOUT))


class Monitor:
    """QEMU's, over QMP."""

    def __init__(self, path):
        self.path = path

    async def connect(self):
        self.reader, self.writer = await asyncio.open_unix_connection(self.path)
        await self.reader.readline()    # the greeting
        await self.call("qmp_capabilities")
        return self

    async def call(self, execute, **arguments):
        self.writer.write(json.dumps({"execute": execute, "arguments": arguments}).encode() + b"\n")
        answer = {"event": ""}
        while "event" in answer:
            line = await self.reader.readline()
            if not line:
                raise LabError("QEMU ended while it was asked to %s" % execute)
            answer = json.loads(line)
        if "error" in answer:
            raise LabError("%s: %s" % (execute, answer["error"]["desc"]))
        return answer["return"]

    async def migrate(self, channel):
        await self.call("migrate", uri=channel)
        for _ in range(TIMEOUT * 20):
            state = await self.call("query-migrate")
            if state.get("status") == "completed":
                return state
            if state.get("status") in ("failed", "cancelled"):
                break
            await asyncio.sleep(0.05)
        else:
            await self.call("migrate_cancel")
        raise LabError("QEMU does not migrate it: %s" % json.dumps(state))

    def close(self):
        self.writer.close()


class Migration:
    def __init__(self, lab, name, host):
        if name not in lab.lines:
            raise LabError("this lab has no guest '%s'" % name)
        hosts = {h.name: h for h in lab.topology.hosts}
        if host not in hosts:
            raise LabError("this lab has no host '%s'; it has %s" % (host, ", ".join(hosts)))
        if not lab.opt.get("movable"):
            raise LabError("the guests of this lab cannot be migrated: lab up --movable")
        self.lab = lab
        self.line = lab.lines[name]
        self.guest = self.line.guest
        if self.guest.host is hosts[host]:
            raise LabError("%s is at %s" % (name, host))
        if not self.line.ready:
            raise LabError("%s is not running" % name)
        # The same guest at its new place.
        self.moved = copy.copy(self.guest)
        self.moved.place(hosts[host])
        self.socket = os.path.join(lab.state, name + ".migration")
        self.monitor = os.path.join(lab.state, name + ".qmp")

    def configure(self, guest):
        t = self.lab.topology
        t.write(t.shim_config(guest), t.shim_text(guest))

    async def configure_peers(self):
        """New files for the shims of all others, and each has said that it follows its own."""
        said = "new configuration in force"
        for peer in self.lab.topology.guests:
            if peer is self.guest:
                continue
            log = self.lab.daemon_log("shim", peer.name)
            before = count(log, said)
            self.configure(peer)
            self.lab.daemons["shim", peer.name].signal(signal.SIGHUP)
            await until(lambda log=log, before=before: count(log, said) > before, "shim %s: %s" % (peer.name, said))

    async def run(self):
        lab, moving = self.lab, self.lab.topology.moving
        old_shim, old_qemu = lab.daemons["shim", self.guest.name], self.line.child
        moving.append(self.moved)
        new_qemu = None
        try:
            self.configure(self.moved)
            await lab.start_shim(self.moved)
            await self.configure_peers()
            monitor = await Monitor(self.monitor).connect()
            if os.path.exists(self.socket):
                os.unlink(self.socket)      # of a migration before this one
            new_qemu, reader, writer = await lab.ground.start_guest(self.moved, self.line.log, incoming=self.socket)
            await until(lambda: os.path.exists(self.socket) or new_qemu.status is not None, "QEMU at the new host")
            await self.line.hold()
            state = await monitor.migrate("unix:" + self.socket)
        except (LabError, OSError):
            moving.remove(self.moved)
            self.line.release()
            if new_qemu:
                end(new_qemu, signal.SIGKILL)
            if lab.daemons["shim", self.guest.name] is not old_shim:
                end(lab.daemons["shim", self.guest.name], signal.SIGTERM)
                lab.daemons["shim", self.guest.name] = old_shim
            await self.configure_peers()
            raise
        moving.remove(self.moved)
        self.guest.place(self.moved.host)
        await self.configure_peers()
        self.line.child = new_qemu
        end(old_qemu, signal.SIGKILL)
        end(old_shim, signal.SIGTERM)
        monitor.close()
        os.rename(monitor_of(self.socket), self.monitor)
        await self.line.move(reader, writer)
        return {key: state[key] for key in ("total-time", "downtime") if key in state}


def monitor_of(channel):
    """Where the monitor of a QEMU is that waits for a guest, until the other has ended."""
    return channel + ".qmp"


def count(path, text):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read().count(text)


def end(child, sig):
    child.asked(sig)
    child.signal(sig)
