# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest of a lab: its process, and the command line into it, shared by any number of clients.

What kind of process that is: kinds.py. The guest's serial line ends in a socket here. Clients connect to GUEST.exec in the state directory, one command each, and
speak the same frames with session number 0; this file gives each a number of its own and passes frames on. Flow control is
between guestd and the client, so nothing piles up here.
"""

import asyncio
import os
import socket
import struct

import common
from common import ACK, EXIT, HELLO, KILL, LabError, START, STDERR, STDIN, STDOUT

# Supervisor to client only: the guest is gone, payload says how.
GONE = 32


class GuestLine:
    def __init__(self, lab, guest):
        self.lab = lab
        self.guest = guest
        self.child = None
        self.clients = {}           # session -> callback(type, payload)
        self.session = 0
        self.writer = None
        self.hello = None           # future, set when guestd is there
        self.server = None
        self.task = None
        self.ready = False

    # -- the kernel --

    async def start(self):
        ours, theirs = socket.socketpair()
        kind = self.lab.kind
        with theirs:
            self.child = self.lab.children.start(
                "guest", self.guest.name, kind.command(self.lab, self.guest, theirs.fileno()), log=self.log,
                cpus=self.guest.cpus, netns=self.guest.host.name, env=kind.environment(), pass_fds=[theirs.fileno()])
        reader, self.writer = await asyncio.open_connection(sock=ours)
        self.hello = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self.read_line(reader))
        try:
            version = await asyncio.wait_for(asyncio.shield(self.hello), self.lab.opt["boot_timeout"])
        except asyncio.TimeoutError:
            raise LabError("guest %s did not come up within %d s; its log is %s" % (
                self.guest.name, self.lab.opt["boot_timeout"], self.log)) from None
        if version != common.PROTOCOL:
            raise LabError("guest %s: guestd speaks version %d, the lab %d" % (self.guest.name, version, common.PROTOCOL))
        status, output = await self.run(["/bin/sh", "-c", self.lab.topology.guest_script(self.guest)])
        if status:
            raise LabError("guest %s: setting it up failed (status %d):\n%s" % (
                self.guest.name, status, output.decode(errors="replace").strip()))
        self.ready = True

    @property
    def log(self):
        return os.path.join(self.lab.state, self.guest.name + ".log")

    async def serve(self):
        path = os.path.join(self.lab.state, self.guest.name + ".exec")
        self.server = await asyncio.start_unix_server(self.client, path)
        os.chmod(path, 0o600)

    def ended(self):
        """The kernel process is gone: nobody must wait for it any longer."""
        self.ready = False
        why = "guest %s %s; its log is %s" % (self.guest.name, self.child.ended(), self.log)
        if self.hello and not self.hello.done():
            self.hello.set_exception(LabError(why))
        clients, self.clients = self.clients, {}
        for deliver in clients.values():
            deliver(GONE, why.encode())
        if self.writer:
            self.writer.close()
            self.writer = None

    # -- the line --

    async def read_line(self, reader):
        parser = common.FrameParser()
        try:
            while True:
                data = await reader.read(65536)
                if not data:
                    return
                for session, kind, payload in parser.feed(data):
                    if kind == HELLO:
                        if not self.hello.done():
                            self.hello.set_result(struct.unpack("<I", payload)[0])
                        continue
                    deliver = self.clients.get(session)
                    if kind == EXIT:
                        self.clients.pop(session, None)
                    if deliver:
                        deliver(kind, payload)
        except (ConnectionError, OSError):
            return
        except LabError as e:
            common.say("guest %s: %s" % (self.guest.name, e))

    def send(self, session, kind, payload=b""):
        if self.writer:
            self.writer.write(common.frame(kind, payload, session))

    def open_session(self, deliver):
        # Numbers come round after 65535 commands, long after the last frame of the old one.
        while True:
            self.session = self.session % 65535 + 1
            if self.session not in self.clients:
                self.clients[self.session] = deliver
                return self.session

    async def run(self, argv):
        """A command of the lab itself. Returns its status and what it said."""
        done = asyncio.get_running_loop().create_future()
        output = bytearray()

        def deliver(kind, payload):
            if kind in (STDOUT, STDERR):
                output.extend(payload)
                self.send(session, ACK, struct.pack("<I", len(payload)))
            elif kind == EXIT and not done.done():
                done.set_result(payload[1] + (128 if payload[0] else 0))
            elif kind == GONE and not done.done():
                done.set_exception(LabError(payload.decode()))

        session = self.open_session(deliver)
        self.send(session, START, common.start_payload(argv, common.guest_env()))
        self.send(session, STDIN)
        try:
            return await done, bytes(output)
        finally:
            if self.clients.pop(session, None):
                self.send(session, KILL)

    # -- clients --

    async def client(self, reader, writer):
        parser = common.FrameParser()
        session = None

        def deliver(kind, payload):
            writer.write(common.frame(kind, payload))
            if kind in (EXIT, GONE):
                writer.close()

        try:
            while True:
                data = await reader.read(65536)
                if not data:
                    break
                for _, kind, payload in parser.feed(data):
                    if session is None:
                        if not self.writer:
                            deliver(GONE, ("guest %s is not running (%s)" % (
                                self.guest.name, self.child.ended() if self.child else "not started")).encode())
                            return
                        session = self.open_session(deliver)
                    self.send(session, kind, payload)
        except (ConnectionError, LabError):
            pass
        except asyncio.CancelledError:
            pass        # the lab ends before its guest has; asyncio's streams would log a traceback
        finally:
            if session in self.clients:
                # The client went away first: so does its command.
                del self.clients[session]
                self.send(session, KILL)
            writer.close()
