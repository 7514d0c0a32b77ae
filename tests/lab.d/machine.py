# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtual machine in which hosts of a lab are: Debian's kernel in QEMU, with soft RDMA.

Its first process is guestd, as in a guest, and its root is the guests' root. Daemons and guests of its hosts are sessions on
guestd's line: what they write is their log, a signal is a frame, the exit status comes as one. So the supervisor handles
them as its own children. A user-mode Linux guest has its own guestd's line as standard input and output of its session.
"""

import asyncio
import os
import shlex
import socket
import struct

import common
import proc
import qemu
from common import ACK, CHUNK, EXIT, GONE, LabError, SIGNAL, START, STDERR, STDIN, STDOUT, WINDOW_STDIN
from kinds import IN_MACHINE
from line import Line

BOOT_TIMEOUT = 120


class Input:
    """Standard input of a session, for asyncio's eyes a StreamWriter."""

    def __init__(self, machine, session):
        self.machine = machine
        self.session = session
        self.window = WINDOW_STDIN
        self.queue = bytearray()

    def write(self, data):
        self.queue += data
        self.flush()

    def acknowledged(self, size):
        self.window += size
        self.flush()

    def flush(self):
        while self.queue and self.window:
            data = bytes(self.queue[:min(CHUNK, self.window)])
            del self.queue[:len(data)]
            self.window -= len(data)
            self.machine.send(self.session, STDIN, data)

    def close(self):
        self.queue.clear()


class Process(proc.Child):
    """A daemon or guest in a machine. With `stream` its output is for a reader, else for the log like its errors."""

    def __init__(self, machine, role, name, argv, *, log, env, stream=False):
        super().__init__(role, name, 0)
        self.machine = machine
        self.log = open(log, "ab", buffering=0)     # until it has ended
        self.reader = asyncio.StreamReader() if stream else None
        self.session = machine.open_session(self.deliver)
        self.writer = Input(machine, self.session)
        machine.send(self.session, START, common.start_payload(argv, env))

    def deliver(self, kind, payload):
        if kind in (STDOUT, STDERR):
            if kind == STDOUT and self.reader:
                self.reader.feed_data(payload)
            else:
                self.log.write(payload)
            self.machine.acknowledge(self.session, payload)
        elif kind == ACK:
            self.writer.acknowledged(struct.unpack("<I", payload)[0])
        elif kind == EXIT:
            # As wait(2) would tell it.
            self.finish(payload[1] if payload[0] else payload[1] << 8)
        elif kind == GONE:
            self.expected |= self.machine.child.expected
            self.finish(self.machine.child.status)

    def finish(self, status):
        self.log.close()
        if self.reader:
            self.reader.feed_eof()
        self.machine.lab.children.finished(self, status)

    def signal(self, sig):
        # 1: the process itself, not its group.
        self.machine.send(self.session, SIGNAL, bytes([sig, 1]))


class Machine(Line):
    def __init__(self, lab, name, hosts, cpus):
        super().__init__(lab, "machine " + name)
        self.name = name
        self.hosts = hosts
        self.cpus = cpus
        self.guests = [g for g in lab.topology.guests if g.host in hosts]
        self.log = os.path.join(lab.state, name + ".log")
        self.notify = {}            # path -> Notify

    # -- the machine itself --

    def memory(self):
        """In MB: for its own kernel and programs, and for its guests, whose memory is tmpfs (half of it at most)."""
        return 1024 + 2 * len(self.guests) * common.megabytes(self.lab.opt["mem"])

    def shares(self):
        opt, state = self.lab.opt, self.lab.state
        return [("root", opt["root"], False), ("lab", os.path.join(state, "lab"), True),
                ("modules", os.path.join(opt["machine"]["kernel_dir"], "root/lib/modules"), False),
                ("guest-modules", os.path.join(state, "modules/lib/modules"), False),
                ("vnet", os.path.join(common.BUILD, "guest"), False), ("build", common.BUILD, False)]

    def set_up_script(self, network):
        places = {"lab": IN_MACHINE["lab"], "modules": "/lib/modules", "guest-modules": IN_MACHINE["modules"],
                  "vnet": IN_MACHINE["vnet"], "build": IN_MACHINE["build"]}
        # Nothing but the lab's own directory changes while a lab runs: it may be cached without asking.
        lines = ["set -e", "echo %s >/proc/sys/kernel/hostname" % self.name,
                 "mkdir -p %s" % " ".join(places.values())]
        lines += ["mount -t 9p %s %s -o trans=virtio,version=9p2000.L,msize=262144,%s" % (
            tag, place, "cache=none" if tag == "lab" else "ro,cache=loose") for tag, place in places.items()]
        lines += ["cp /lab/linux /lab/slowtick.so /run",
                  # User-mode Linux puts its memory where there is room, and what can be registered moves with it.
                  "echo 0 >/proc/sys/kernel/randomize_va_space",
                  # rxe wants the first and does not say so.
                  "modprobe -a crc32_generic ib_uverbs rdma_ucm rdma_rxe",
                  "ip link set lo up", *network]
        for host in self.hosts:
            for path, (text, mode) in self.lab.topology.files(host).items():
                lines += ["mkdir -p " + os.path.dirname(path), "umask %03o" % (0o777 & ~mode),
                          "cat >%s <<'EOF'\n%sEOF" % (path, text), "umask 022"]
        return "\n".join(lines) + "\n"

    async def start(self, devices, network):
        opt = self.lab.opt
        ours, theirs = socket.socketpair()
        with theirs:
            argv = qemu.command(opt["machine"], self.lab.state, self.name, theirs.fileno(), mem="%dM" % self.memory(),
                                vcpus=len(self.cpus), shares=self.shares())
            self.child = self.lab.children.start("host", self.name, argv + devices, log=self.log, cpus=self.cpus,
                                                 pass_fds=[theirs.fileno()])
        reader, writer = await asyncio.open_connection(sock=ours)
        await self.connect(reader, writer, BOOT_TIMEOUT)
        await self.set_up(self.set_up_script(network))
        await self.start_relay()

    # -- its processes --

    def start_process(self, role, name, argv, **how):
        child = Process(self, role, name, argv, **how)
        self.lab.children.live.add(child)
        return child

    # -- readiness of its daemons --

    async def start_relay(self):
        paths = [self.lab.topology.notify(role, name, host) for host in self.hosts for role, name in
                 [("agent", host.name)] + [("shim", g.name) for g in self.guests if g.host is host]]
        ready = asyncio.get_running_loop().create_future()
        rest = bytearray()

        def deliver(kind, payload):
            if kind == STDOUT:
                self.acknowledge(session, payload)
                rest.extend(payload)
                *lines, rest[:] = rest.split(b"\n")
                for line in lines:
                    path, _, text = line.decode(errors="replace").partition(" ")
                    if path == "ready" and not ready.done():
                        ready.set_result(None)
                    elif path in self.notify:
                        self.notify[path].take(text)
            elif kind in (STDERR, EXIT, GONE) and not ready.done():
                ready.set_exception(LabError("%s: the relay of readiness: %s" % (self.what, shlex.quote(payload.decode(errors="replace")))))

        session = self.open_session(deliver)
        self.send(session, START, common.start_payload(["/lab/notify", *paths], common.guest_env()))
        await ready

    def listen(self, path):
        notify = self.notify[path] = proc.Notify()
        return notify
