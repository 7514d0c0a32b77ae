#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""inner_tcp.py - what TCP crossed the overlay as Ethernet, from a capture on a host's link.

usage: inner_tcp.py PCAP MARKER

PCAP is a growing tcpdump file of the datagrams between two hosts. On links of form `segmented` each segment is a VXLAN header
and an inner frame; of form `whole`, a part of a frame of any size, the first with the inner headers (proto/vnet_train.h); a
datagram that the kernel has not cut yet holds several. MARKER is the payload size of a ping
that was sent through the overlay last: when it is in the file, everything before it is. Prints one JSON line: inner frames,
TCP frames, SYNs (connections opened), bytes of TCP payload, and datagrams that are not what they should be.
"""

import json
import struct
import sys
import time

PORTS = range(9000, 13225)      # tests/lab.d/topology.py: port()
PATIENCE = 20


class Counts:
    def __init__(self):
        self.frames = self.tcp = self.syn = self.payload = self.malformed = 0

    def inner_ip(self, proto, data, length, marker):
        """One transport packet of that length, at least its headers in data; true if it is the marker."""
        if proto == 6:
            self.tcp += 1
            flags = data[13]
            if flags & 0x12 == 0x02:
                self.syn += 1
            self.payload += length - (data[12] >> 4) * 4
        return proto == 1 and data[0] == 8 and length - 8 == marker

    def inner_frame(self, data, room, marker):
        """
        One inner Ethernet frame at the start of data, where it has that much room, perhaps more than is in data: (its length,
        is it the marker).
        """
        self.frames += 1
        kind = struct.unpack_from(">H", data, 12)[0]
        ip = data[14:]
        if kind == 0x0800:
            length = struct.unpack_from(">H", ip, 2)[0]
            if room < 14 + length:
                raise ValueError("an IPv4 packet is cut short")
            start = (ip[0] & 15) * 4
            return 14 + length, self.inner_ip(ip[9], ip[start:length], length - start, marker)
        if kind == 0x86dd:
            length = 40 + struct.unpack_from(">H", ip, 4)[0]
            if room < 14 + length:
                raise ValueError("an IPv6 packet is cut short")
            return 14 + length, self.inner_ip(ip[6], ip[40:length], length - 40, marker)
        return len(data), False

    def datagram(self, data, marker):
        found = False
        while data:
            if data[0] == 1:
                length, hit = self.part(data, marker)
            elif data[0] == 0x08:
                length, hit = self.inner_frame(data[8:], len(data) - 8, marker)
                length += 8
            else:
                raise ValueError("neither a VXLAN header nor a part of a frame")
            data = data[length:]
            found |= hit
        return found

    def part(self, data, marker):
        """struct vnet_seg_hdr and what follows it; in the first part struct vnet_wire_meta, encapsulation, frame."""
        index, _, train, part = struct.unpack_from(">HIIH", data, 2)
        length = min(part, train - index * part)
        if length <= 0 or len(data) < 16 + length:
            raise ValueError("a part is cut short")
        if index:
            return 16 + length, False
        skip = 16 + struct.unpack_from(">H", data, 20)[0]
        return 16 + length, self.inner_frame(data[16 + skip:16 + length], train - skip, marker)[1]

    def outer(self, frame, marker):
        if struct.unpack_from(">H", frame, 12)[0] != 0x0800 or frame[23] != 17:
            return False
        udp = frame[14 + (frame[14] & 15) * 4:14 + struct.unpack_from(">H", frame, 16)[0]]
        if struct.unpack_from(">H", udp, 2)[0] not in PORTS:
            return False
        try:
            return self.datagram(udp[8:], marker)
        except (ValueError, IndexError, struct.error):
            self.malformed += 1
            return False


def packets(f, more):
    """The file's packets; more() says whether to wait for what is not written yet."""
    def read(n):
        data = b""
        while len(data) < n:
            data += f.read(n - len(data))
            if len(data) < n:
                if not more():
                    return None
                time.sleep(0.02)
        return data

    head = read(24)
    if head is None:
        return
    order = {0xa1b2c3d4: "<", 0xa1b23c4d: "<", 0xd4c3b2a1: ">", 0x4d3cb2a1: ">"}.get(struct.unpack("<I", head[:4])[0])
    if not order:
        sys.exit("inner_tcp: this is no pcap file")
    while True:
        record = read(16)
        data = record and read(struct.unpack(order + "IIII", record)[2])
        if data is None:
            return
        yield data


def main():
    if len(sys.argv) != 3 or not sys.argv[2].isdigit():
        sys.exit("usage: inner_tcp.py PCAP MARKER")
    counts, marker = Counts(), int(sys.argv[2])
    end = time.monotonic() + PATIENCE
    with open(sys.argv[1], "rb") as f:
        for data in packets(f, lambda: time.monotonic() < end):
            if counts.outer(data, marker):
                print(json.dumps(vars(counts)))
                return 0
    sys.stderr.write("inner_tcp: the ping of %d bytes is not in %s: %s\n" % (marker, sys.argv[1], json.dumps(vars(counts))))
    return 1


if __name__ == "__main__":
    sys.exit(main())
