# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's end of one guestd (guestd.c): any number of commands at once over one byte stream.

Each command is a session with a number of its own. Clients connect to NAME.exec in the state directory, one command each,
and speak the same frames with session number 0; this file gives each a number and passes frames on. Flow control is
between guestd and who reads a session's output, so nothing piles up here.
"""

import asyncio
import fcntl
import os
import struct
import termios

import common
from common import ACK, EXIT, GONE, HELLO, KILL, LabError, START, STDERR, STDIN, STDOUT


def unread(sock):
    """Bytes that the other end has not taken yet."""
    return struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]


class Held:
    """What is sent while the line's other end moves from one process to another."""

    def __init__(self):
        self.data = bytearray()

    def write(self, data):
        self.data += data

    def close(self):
        self.data.clear()


class Line:
    """`what` names the system behind it in messages: "guest g1"."""

    def __init__(self, lab, what):
        self.lab = lab
        self.what = what
        self.child = None           # the process that is that system
        self.log = None
        self.sessions = {}          # number -> callback(type, payload)
        self.session = 0
        self.writer = None
        self.hello = None           # future, set when guestd is there
        self.servers = []
        self.task = None
        self.parser = None
        self.left = None            # the writer that is no more in use, while the line is held

    async def connect(self, reader, writer, timeout):
        """Wait until guestd says hello on this new stream."""
        self.writer = writer
        self.parser = common.FrameParser()
        self.hello = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self.read_line(reader))
        try:
            version = await asyncio.wait_for(asyncio.shield(self.hello), timeout)
        except asyncio.TimeoutError:
            raise LabError("%s did not come up within %d s; its log is %s" % (self.what, timeout, self.log)) from None
        if version != common.PROTOCOL:
            raise LabError("%s: guestd speaks version %d, the lab %d" % (self.what, version, common.PROTOCOL))

    async def set_up(self, script):
        status, output = await self.run(["/bin/sh", "-c", script])
        if status:
            raise LabError("%s: setting it up failed (status %d):\n%s" % (
                self.what, status, output.decode(errors="replace").strip()))

    def give_up(self, why):
        sessions, self.sessions = self.sessions, {}
        for deliver in sessions.values():
            deliver(GONE, why.encode())

    def rebooted(self):
        """Another guestd has said hello: nobody knows of the commands before."""
        self.give_up("%s has rebooted" % self.what)

    def ended(self):
        """The system's process is gone: nobody must wait for it any longer."""
        why = "%s %s; its log is %s" % (self.what, self.child.ended(), self.log)
        if self.hello and not self.hello.done():
            self.hello.set_exception(LabError(why))
        self.give_up(why)
        if self.writer:
            self.writer.close()
            self.writer = self.left = None

    # -- frames --

    async def read_line(self, reader):
        try:
            while True:
                data = await reader.read(65536)
                if not data:
                    return
                for session, kind, payload in self.parser.feed(data):
                    if kind == HELLO:
                        if self.hello.done():
                            self.rebooted()
                        else:
                            self.hello.set_result(struct.unpack("<I", payload)[0])
                        continue
                    deliver = self.sessions.get(session)
                    if kind == EXIT:
                        self.sessions.pop(session, None)
                    if deliver:
                        deliver(kind, payload)
        except (ConnectionError, OSError):
            return
        except LabError as e:
            common.say("%s: %s" % (self.what, e))

    # -- a system that moves to another process, as a migrated machine does --

    async def hold(self):
        """From now on what is sent waits. All that was sent before is with the system, which reads what it has room for."""
        self.left, self.writer = self.writer, Held()
        sock = self.left.get_extra_info("socket")
        while self.left and (self.left.transport.get_write_buffer_size() or unread(sock)):
            await asyncio.sleep(0.01)

    def release(self, writer=None):
        """What has waited goes out, by the writer that there was or by a new one."""
        if self.left:
            held, self.writer, self.left = self.writer, writer or self.left, None
            self.writer.write(bytes(held.data))

    async def move(self, reader, writer):
        """The old process has ended: what it said last comes before what the new one says."""
        await self.task
        self.task = asyncio.create_task(self.read_line(reader))
        self.release(writer)

    def send(self, session, kind, payload=b""):
        if self.writer:
            self.writer.write(common.frame(kind, payload, session))

    def acknowledge(self, session, payload):
        self.send(session, ACK, struct.pack("<I", len(payload)))

    def open_session(self, deliver):
        # Numbers come round after 65535 commands, long after the last frame of the old one.
        while True:
            self.session = self.session % 65535 + 1
            if self.session not in self.sessions:
                self.sessions[self.session] = deliver
                return self.session

    async def run(self, argv):
        """A command of the lab itself. Returns its status and what it said."""
        done = asyncio.get_running_loop().create_future()
        output = bytearray()

        def deliver(kind, payload):
            if kind in (STDOUT, STDERR):
                output.extend(payload)
                self.acknowledge(session, payload)
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
            if self.sessions.pop(session, None):
                self.send(session, KILL)

    # -- clients --

    async def serve(self, name):
        """Clients find this line under that name."""
        path = os.path.join(self.lab.state, name + ".exec")
        self.servers.append(await asyncio.start_unix_server(self.client, path))
        os.chmod(path, 0o600)

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
                            deliver(GONE, ("%s is not running (%s)" % (
                                self.what, self.child.ended() if self.child else "not started")).encode())
                            return
                        session = self.open_session(deliver)
                    self.send(session, kind, payload)
        except (ConnectionError, LabError):
            pass
        except asyncio.CancelledError:
            # The lab ends while the command runs. Told on, asyncio's streams would log it as an error.
            pass
        finally:
            if session in self.sessions:
                # The client went away first: so does its command.
                del self.sessions[session]
                self.send(session, KILL)
            writer.close()
