# SPDX-License-Identifier: GPL-2.0-or-later
"""The client's end of one command in a guest: `lab exec` and `lab shell`.

stdin, stdout and stderr of this process become those of the command. Ctrl-C goes to the command; a second one kills it.
When this process dies, however it dies, the supervisor kills the command.
"""

import fcntl
import os
import select
import signal
import socket
import struct
import sys
import termios
import tty

import common
from common import ACK, CHUNK, EXIT, GONE, KILL, LabError, SIGNAL, START, STDERR, STDIN, STDOUT, WINDOW_STDIN, WINSIZE


def terminal_size():
    try:
        return struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))[:2]
    except OSError:
        return 24, 80


def write_all(fd, data):
    while data:
        try:
            data = data[os.write(fd, data):]
        except BlockingIOError:
            select.select([], [fd], [])


class Command:
    def __init__(self, state, guest):
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            self.sock.connect(os.path.join(state, guest + ".exec"))
        except OSError:
            have = sorted(f[:-5] for f in os.listdir(state) if f.endswith(".exec"))
            raise LabError("this lab has no guest '%s'; it has %s" % (guest, ", ".join(have) or "none")) from None
        self.window = WINDOW_STDIN
        self.interrupts = 0

    def send(self, kind, payload=b""):
        try:
            self.sock.sendall(common.frame(kind, payload))
        except BrokenPipeError:
            pass        # what it has to say is still to be read

    def on_interrupt(self, signum, _):
        self.interrupts += 1
        if self.interrupts > 1:
            self.send(KILL)
            os._exit(128 + signum)
        self.send(SIGNAL, bytes([signum]))

    def on_terminate(self, signum, _):
        self.send(KILL)
        os._exit(128 + signum)

    def run(self, argv, env, cwd="/root", stdin=True, out=None):
        """Run it with our stdin, stdout and stderr; return its status as a shell would. With `out`, collect stdout there."""
        for sig in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(sig, self.on_terminate)
        signal.signal(signal.SIGINT, self.on_interrupt)
        self.send(START, common.start_payload(argv, env, cwd))
        if not stdin:
            self.send(STDIN)
        return self.relay(stdin, out)

    def shell(self, argv, env):
        rows, cols = terminal_size()
        saved = termios.tcgetattr(0)

        def resized(*_):
            self.send(WINSIZE, struct.pack("<HH", *terminal_size()))

        signal.signal(signal.SIGWINCH, resized)
        self.send(START, common.start_payload(argv, env, pty=True, rows=rows, cols=cols))
        try:
            tty.setraw(0)
            return self.relay(True, None)
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)

    def relay(self, stdin, out):
        parser = common.FrameParser()
        while True:
            want = [self.sock] + ([0] if stdin and self.window else [])
            readable = select.select(want, [], [])[0]
            if 0 in readable:
                stdin = self.read_stdin()
            if self.sock in readable:
                data = self.sock.recv(262144)
                if not data:
                    raise LabError("the lab ended while the command ran")
                for _, kind, payload in parser.feed(data):
                    status = self.handle(kind, payload, out)
                    if status is not None:
                        return status

    def read_stdin(self):
        try:
            data = os.read(0, min(CHUNK, self.window))
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        self.window -= len(data)
        self.send(STDIN, data)
        return bool(data)

    def handle(self, kind, payload, out):
        if kind == STDOUT and out is not None:
            out += payload
            self.send(ACK, struct.pack("<I", len(payload)))
        elif kind in (STDOUT, STDERR):
            try:
                write_all(1 if kind == STDOUT else 2, payload)
            except BrokenPipeError:
                self.send(KILL)
                os._exit(128 + signal.SIGPIPE)
            self.send(ACK, struct.pack("<I", len(payload)))
        elif kind == ACK:
            self.window += struct.unpack("<I", payload)[0]
        elif kind == EXIT:
            return payload[1] + (128 if payload[0] else 0)
        elif kind == GONE:
            sys.stderr.flush()
            raise LabError(payload.decode())
        return None
