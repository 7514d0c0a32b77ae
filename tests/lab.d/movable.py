# SPDX-License-Identifier: GPL-2.0-or-later
"""The root of stock guests that can be migrated (`lab up --movable`).

QEMU does not migrate a guest that has a 9p share mounted. So these have none: the little that they are is in their
initramfs. That is programs of the guests' root with the libraries they ask for, the drivers, and the preload library.
"""

import os
import re
import shutil
import subprocess

import common
from common import LabError

PROGRAMS = """sh bash awk basename cat dmesg env ethtool grep head ip ln ls md5sum mkdir modprobe ping readlink rm rmmod sed sleep
    socat tail tee timeout touch"""
FILES = "etc/passwd etc/group etc/protocols etc/services"
MODULES = ["virtio_net", "vnet_pv", "vtoe_sock"]
TREE = ["dev", "etc", "lab", "mnt", "proc", "root", "run", "sys", "tmp", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "vnet"]

# Run in the guests' root, where links lead to what they mean. What a link leads to is copied under the link's name.
PACK = r"""
PATH=/usr/bin:/usr/sbin
programs=$(type -P %s) || exit
libraries=$(ldd $programs | grep -o '/[^ ]* (0x' | sed 's/ .*//' | sort -u)
printf '%%s\n' $programs $libraries %s | sed 's,^/,,' | tar -c -h -f - -C / -T -
"""


def programs(root, base):
    with subprocess.Popen(["chroot", root, "/bin/bash", "-c", PACK % (" ".join(PROGRAMS.split()), FILES)], stdout=subprocess.PIPE) as pack:
        unpacked = subprocess.run(["tar", "-x", "-C", base], stdin=pack.stdout, check=False)
    if pack.returncode or unpacked.returncode:
        raise LabError("cannot take programs from the guests' root %s: %s" % (root, PROGRAMS))


def modules(tree, base):
    """The drivers' modules, with what they need, from the lab's modules; some are a kernel's own and not there."""
    where = "lib/modules/" + os.listdir(os.path.join(tree, "lib/modules"))[0]
    wanted = {name for name in os.listdir(os.path.join(tree, where)) if name.startswith("modules.")}
    for name in MODULES:
        r = subprocess.run(["modprobe", "-d", tree, "-S", os.path.basename(where), "--show-depends", name],
                           capture_output=True, text=True, check=False)
        wanted.update(os.path.relpath(path, os.path.join(tree, where)) for path in re.findall(r"^insmod (\S+)", r.stdout, re.M))
    for name in wanted:
        target = os.path.join(base, where, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(os.path.join(tree, where, name), target)


def fill(opt, base):
    """Make a root of the initramfs that is in `base`."""
    for path in TREE:
        os.makedirs(os.path.join(base, path), exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        os.symlink("usr/" + name, os.path.join(base, name))
    programs(opt["root"], base)
    modules(os.path.join(opt["state"], "modules"), base)
    shutil.copy(os.path.join(common.BUILD, "guest/libvnetsock.so"), os.path.join(base, "vnet"))
