#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The vendor block as PCI config space shows it, read without the driver's help: one line `NAME VALUE` for each field.

Walks the list of capabilities of the device under vnet0 in the dump that sysfs has (struct vnet_pci_vendor_cap in
proto/vnet_dev.h). Runs in a guest.
"""

import os
import struct

device = os.path.dirname(os.path.realpath("/sys/class/net/vnet0/device"))
with open(os.path.join(device, "config"), "rb") as f:
    space = f.read()

at, seen = space[0x34] & ~3, set()
while at and at not in seen:
    seen.add(at)
    kind, following, length, cfg_type = space[at:at + 4]
    # A vendor capability (9) of virtio's vendor type (9), with our ID.
    if kind == 9 and cfg_type == 9 and space[at + 4:at + 6] == b"\x50\x4e":
        break
    at = following & ~3
else:
    raise SystemExit("no vendor capability of ours among %s" % sorted(map(hex, seen)))

block = space[at + 8:at + length]
magic, version, size, features, generation, tenant = struct.unpack_from("<IHHQII", block)
encap_len, encap_len_max, encap_type = struct.unpack_from("<HHB", block, 24)
if magic != 0x54454e56 or version != 1 or size > len(block):
    raise SystemExit("magic %#x, version %u, %u bytes in a capability of %u" % (magic, version, size, length))
print("encap_len", encap_len)
print("encap_len_max", encap_len_max)
print("encap_type", {0: "vnet-udp", 1: "vxlan"}.get(encap_type, encap_type))
print("generation", generation)
print("tenant", tenant)
