# SPDX-License-Identifier: GPL-2.0-or-later
"""What both halves of the lab share: the client (tests/lab) and the supervisor (supervisor.py).

Where things are, how guests and hosts are named and addressed, the frames of the command channel (guestd.c is the other
side), and the one exception that ends in a plain message instead of a traceback.
"""

import os
import re
import struct
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TESTS = os.path.join(TOP, "tests")
BUILD = os.environ.get("VNET_BUILD", os.path.join(TOP, "build"))
CACHE = os.environ.get("VNET_CACHE", "/var/cache/vnet")
RUN = "/run/vnet-lab"

TENANT = 77
UNDERLAY = "10.77.0.%d"
INNER4 = "192.168.77.%d"
INNER6 = "fd00:77::%x"
UDP_PORT = 9000         # plus the guest's number; see topology.py
AGENT_PORT = 7470
MAX_GUESTS = 64

# Frame types and limits of guestd.c
HELLO, START, STDIN, STDOUT, STDERR, EXIT, SIGNAL, WINSIZE, ACK, KILL = range(1, 11)
# Supervisor to client only: the system behind the line is gone, payload says how.
GONE = 32
PROTOCOL = 1
WINDOW_STDIN = 65536
CHUNK = 16384
# In a guest's log: its shim was ended on purpose, so it loses its device.
SHIM_ENDED = "lab: the device goes away"
MAX_PAYLOAD = 1 << 20
HEADER = struct.Struct("<IHBB")


class LabError(Exception):
    """Something the user can act on: the text says what and how."""


def constant(header, name):
    """A number that a header of ours defines."""
    with open(os.path.join(TOP, header), encoding="utf-8") as f:
        found = re.search(r"^#define\s+%s\s+(\d+)\b" % name, f.read(), re.M)
    if not found:
        raise LabError("%s does not define %s as a number" % (header, name))
    return int(found.group(1))


START_TIME = time.monotonic()


def say(text):
    """A progress line with the time since the program started."""
    sys.stderr.write("[%6.1fs] lab: %s\n" % (time.monotonic() - START_TIME, text))
    sys.stderr.flush()


def script(argv):
    """Run one of tests/' preparing scripts; it shows its own progress and errors, and prints a directory."""
    r = subprocess.run([os.path.join(TESTS, argv[0])] + argv[1:], stdout=subprocess.PIPE, text=True, check=False)
    if r.returncode:
        raise LabError("tests/%s failed (see above)" % argv[0])
    return r.stdout.strip()


def build(name, *how):
    """A program of the lab's own that runs in guests or machines."""
    import hashlib  # pylint: disable=import-outside-toplevel
    source = os.path.join(TESTS, "lab.d/%s.c" % name)
    with open(source, "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()[:12]
    path = os.path.join(CACHE, "%s-%s" % (name, digest))
    if not os.path.exists(path):
        os.makedirs(CACHE, exist_ok=True)
        tmp = "%s.%d" % (path, os.getpid())
        r = subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", *(how or ["-static"]), "-o", tmp, source], check=False)
        if r.returncode:
            raise LabError("cannot compile tests/lab.d/%s.c (see above); is gcc installed? (tests/setup/install)" % name)
        os.rename(tmp, path)
    return path


def check_name(name):
    # It becomes part of socket paths, which end at 108 bytes.
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,31}", name):
        raise LabError("'%s' is no name for a lab: 1 to 32 letters, digits, '-', '_' and '.'" % name)
    return name


def state_dir(name):
    return os.path.join(RUN, check_name(name))


def megabytes(size):
    """Of a size as QEMU and user-mode Linux read it: 512M, 2G."""
    found = re.fullmatch(r"(\d+)([MG])", size)
    if not found:
        raise LabError("--mem %s: give it as 512M or 2G" % size)
    return int(found.group(1)) * (1024 if found.group(2) == "G" else 1)


def guest_name(j):
    return "g%d" % j


def host_name(i):
    return "h%d" % i


def guest_mac(j):
    return "52:54:00:4e:50:%02x" % j


def frame(kind, data=b"", session=0):
    return HEADER.pack(len(data), session, kind, 0) + data


class FrameParser:
    """Cuts a byte stream into (session, type, payload)."""

    def __init__(self):
        self.buf = bytearray()

    def feed(self, data):
        self.buf += data
        off = 0
        while len(self.buf) - off >= HEADER.size:
            length, session, kind, zero = HEADER.unpack_from(self.buf, off)
            if length > MAX_PAYLOAD or zero:
                raise LabError("malformed frame on the command channel (type %d, length %d)" % (kind, length))
            if len(self.buf) - off < HEADER.size + length:
                break
            start = off + HEADER.size
            off = start + length
            yield session, kind, bytes(self.buf[start:off])
        del self.buf[:off]


def start_payload(argv, env, cwd="/root", pty=False, rows=0, cols=0):
    strings = [cwd] + list(argv) + ["%s=%s" % kv for kv in env.items()]
    data = b"".join(os.fsencode(s) + b"\0" for s in strings)
    payload = struct.pack("<HHHHH", int(pty), rows, cols, len(argv), len(env)) + data
    if len(payload) > MAX_PAYLOAD or len(argv) > 65535:
        raise LabError("the command line is longer than %d bytes" % MAX_PAYLOAD)
    return payload


def guest_env(offload=False, extra=None):
    """The environment of a command in a guest. LD_PRELOAD is there only when asked for."""
    env = {
        "PATH": "/vnet/bin:/vnet:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/bash", "LANG": "C.UTF-8",
        "TERM": os.environ.get("TERM", "dumb"),
        # Root is the only user of a guest.
        "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    env.update(extra or {})
    if offload:
        env["LD_PRELOAD"] = "/vnet/libvnetsock.so"
    return env
