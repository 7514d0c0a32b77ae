#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A small vhost-user front end for tests/daemons/run.

usage: front.py SOCKET UDP-PORT

Each line of standard input is something to do, and is answered by one line:
features, protocol, config, queues (sets up all of them, and the VTOE queues too),
frame TEXT (sends it, waits for it at 127.0.0.1:UDP-PORT), end.
"""

import array
import mmap
import os
import socket
import struct
import sys

GET_FEATURES, SET_FEATURES, SET_OWNER, SET_MEM_TABLE = 1, 2, 3, 5
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE = 8, 9, 10
SET_VRING_KICK, SET_VRING_CALL = 12, 13
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM = 15, 16, 17
SET_VRING_ENABLE, GET_CONFIG, SET_STATUS = 18, 24, 39

PARAVIRT, VERSION_1, PROTOCOL_FEATURES = 51, 32, 30
MQ, CONFIG, STATUS = 0, 9, 16
QUEUES, NUM, STRIDE = 8, 16, 0x2000  # rx, tx, ctrl, five of VTOE
MEMORY = 1 << 20
USER = 0x10000000  # where the front end would have mapped it
BUFFER = 0x80000
REPLY, NEED_REPLY = 4, 8


class Front:
    def __init__(self, path, port):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(5)
        self.sock.connect(path)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.settimeout(5)
        self.udp.bind(("127.0.0.1", port))
        self.sent = 0
        self.kick = []
        self.fd = os.memfd_create("guest")
        os.ftruncate(self.fd, MEMORY)
        self.mem = mmap.mmap(self.fd, MEMORY)

    def send(self, request, payload=b"", fds=(), answer=False):
        flags = 1 | (NEED_REPLY if answer else 0)
        anc = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([struct.pack("=III", request, flags, len(payload)) + payload], anc)

    def ask(self, request, payload=b""):
        self.send(request, payload)
        head = self.sock.recv(12, socket.MSG_WAITALL)
        got, flags, size = struct.unpack("=III", head)
        assert got == request and flags & REPLY, (got, flags)
        return self.sock.recv(size, socket.MSG_WAITALL) if size else b""

    def features(self):
        self.send(SET_OWNER)
        offer, = struct.unpack("=Q", self.ask(GET_FEATURES))
        names = {"paravirt": PARAVIRT, "version-1": VERSION_1, "protocol": PROTOCOL_FEATURES}
        return " ".join(n for n, bit in names.items() if offer >> bit & 1)

    def protocol(self):
        offer, = struct.unpack("=Q", self.ask(GET_PROTOCOL_FEATURES))
        want = 1 << MQ | 1 << CONFIG | 1 << STATUS
        self.send(SET_PROTOCOL_FEATURES, struct.pack("=Q", want))
        return "taken" if offer & want == want else f"offered {offer:#x}"

    def config(self):
        got = self.ask(GET_CONFIG, struct.pack("=III", 0, 12, 0) + bytes(12))[12:]
        return got[:6].hex(":") + f" mtu {int.from_bytes(got[10:12], 'little')}"

    def queues(self):
        self.send(SET_FEATURES, struct.pack("=Q", 1 << VERSION_1 | 1 << PROTOCOL_FEATURES))
        self.send(SET_MEM_TABLE, struct.pack("=IIQQQQ", 1, 0, 0, MEMORY, USER, 0), [self.fd])
        for i in range(QUEUES):
            at = USER + i * STRIDE
            kick, call = (os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(2))
            self.kick.append(kick)
            self.send(SET_VRING_NUM, struct.pack("=II", i, NUM))
            self.send(SET_VRING_BASE, struct.pack("=II", i, 0))
            # descriptors, used, available
            self.send(SET_VRING_ADDR, struct.pack("=IIQQQQ", i, 0, at, at + 0x1000, at + 0x800, 0))
            self.send(SET_VRING_CALL, struct.pack("=Q", i), [call])
            self.send(SET_VRING_KICK, struct.pack("=Q", i), [kick])
            self.send(SET_VRING_ENABLE, struct.pack("=II", i, 1))
            os.close(call)
        self.send(SET_STATUS, struct.pack("=Q", 15))
        return self.config()  # it has read all of them

    def frame(self, text):
        ring = STRIDE  # queue 1
        payload = text.encode().ljust(60, b".")
        data = bytes(12) + bytes.fromhex("525400000002525400000001" + "88b5") + payload
        self.mem[BUFFER:BUFFER + len(data)] = data
        self.mem[ring:ring + 16] = struct.pack("<QIHH", BUFFER, len(data), 0, 0)
        slot = ring + 0x800 + 4 + 2 * (self.sent % NUM)
        self.mem[slot:slot + 2] = bytes(2)
        self.sent += 1
        self.mem[ring + 0x802:ring + 0x804] = struct.pack("<H", self.sent)
        os.eventfd_write(self.kick[1], 1)
        got = self.udp.recv(2048)
        return "arrived" if got.endswith(payload) else f"got {got!r}"


def main():
    front = Front(sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "end":
            break
        try:
            print(getattr(front, word)(*rest), flush=True)
        except (OSError, AssertionError, struct.error) as error:
            print(f"failed: {error!r}", flush=True)


main()
