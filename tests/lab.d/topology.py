# SPDX-License-Identifier: GPL-2.0-or-later
"""What a lab consists of, and the files and networks that follow from it.

Hosts (hosts.py) are on one network; guests are dealt out to them in turn. Every guest has a link and a unicast
route to every other, and the routes for everything else (broadcast) to all of them. All names and addresses come from
common.py, so two labs look alike inside; they never meet, since each has networks of its own.
"""

import os
import secrets

import common
from proc import mount, run


# --fabric, and what agents may take, in that order. RDMA joins hosts, so what stays on one goes by memory.
FABRICS = {"tcp": "tcp", "local": "local", "verbs": "local verbs", "auto": "local tcp"}


class Guest:
    def __init__(self, j, host, vcpus):
        self.j = j
        self.vcpus = vcpus
        self.name = common.guest_name(j)
        self.mac = common.guest_mac(j)
        self.ip4 = common.INNER4 % j
        self.ip6 = common.INNER6 % j
        self.place(host)

    def place(self, host):
        self.host = host
        # Virtual CPUs stay where they are, as operators pin them. More of them than the host has CPUs must not wait for
        # each other's locks there, though.
        self.cpus = None
        if host.cpus and self.vcpus == 1:
            self.cpus = [host.cpus[self.j % len(host.cpus)]]
        elif host.cpus and self.vcpus <= len(host.cpus):
            self.cpus = host.cpus


def share(i, count):
    """The CPUs of the i-th of count hosts: machines do not share theirs, unless there are not enough."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < count:
        return cpus
    return cpus[(i - 1) * len(cpus) // count:i * len(cpus) // count]


class Host:
    def __init__(self, i, state, cpus):
        self.i = i
        self.cpus = cpus
        self.name = common.host_name(i)
        self.ip = common.UNDERLAY % i
        self.dir = os.path.join(state, self.name)
        self.agent_socket = os.path.join(self.dir, "agent.sock")
        self.agent_config = os.path.join(self.dir, "agent.conf")


class Topology:
    def __init__(self, options, state, kind):
        self.opt = options
        self.state = state
        self.kind = kind
        self.key = secrets.token_hex(32)
        self.hosts = [Host(i + 1, state, share(i + 1, options["hosts"]) if options["pin"] else None)
                      for i in range(options["hosts"])]
        self.moving = []        # a guest that migrates is here once more, with the host that it goes to
        self.guests = [Guest(j + 1, self.hosts[j % len(self.hosts)], kind.vcpus()) for j in range(options["guests"])]

    def front(self, guest):
        return os.path.join(guest.host.dir, guest.name + ".sock")

    def shim_config(self, guest):
        return os.path.join(guest.host.dir, guest.name + ".conf")

    @staticmethod
    def notify(role, name, host):
        """The NOTIFY_SOCKET of a daemon."""
        return os.path.join(host.dir, "notify-%s-%s" % (role, name))

    # -- networks --

    def make_networks(self):
        """A bridge here, and a namespace with one veth on it per host."""
        os.makedirs("/run/netns", exist_ok=True)
        # Private to this mount namespace, as the names in it are: both vanish with the supervisor.
        mount("tmpfs", "/run/netns", "tmpfs", 0, "mode=755")
        mtu = self.opt["link_mtu"]
        lines = ["link set lo up", "link add br0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0", "link set br0 up"]
        for h in self.hosts:
            lines += ["netns add " + h.name,
                      "link add %s type veth peer name eth0 netns %s" % (h.name, h.name),
                      "link set %s mtu %d master br0 up" % (h.name, mtu)]
        run(["ip", "-batch", "-"], "\n".join(lines) + "\n")
        # A wire has no firewall: where br_netfilter is there, it looks at every frame.
        for family in ("ip", "ip6", "arp"):
            knob = "/proc/sys/net/bridge/bridge-nf-call-%stables" % family
            if os.path.exists(knob):
                self.write(knob, "0\n")
        for h in self.hosts:
            run(["ip", "-n", h.name, "-batch", "-"],
                "link set lo up\nlink set eth0 mtu %d up\naddr add %s/24 dev eth0\n" % (mtu, h.ip))

    # -- files --

    def write(self, path, text, mode=0o644):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(fd, "w") as f:
            f.write(text)

    def files(self, host):
        """What the daemons of a host read: name -> (text, mode)."""
        key = os.path.join(host.dir, "cluster.psk")
        files = {key: (self.key + "\n", 0o600), host.agent_config: (self.agent_text(host, key), 0o644)}
        for g in self.guests:
            if g.host is host:
                files[self.shim_config(g)] = self.shim_text(g), 0o644
        return files

    def agent_text(self, host, key):
        lines = ["# made by tests/lab",
                 "host " + host.name,
                 "listen %s:%d" % (host.ip, common.AGENT_PORT),
                 "key-file " + key,
                 "socket " + host.agent_socket,
                 "fabric " + FABRICS[self.opt["fabric"]],
                 "poll " + self.opt["poll"]]
        if self.opt["transfer"]:
            lines.append("rdma-transfer " + self.opt["transfer"])
        return "\n".join(lines) + "\n"

    def shim_text(self, g):
        opt = self.opt
        lines = ["# made by tests/lab",
                 "vm " + g.name,
                 "tenant %d" % common.TENANT,
                 "mac " + g.mac,
                 "mtu %d" % opt["mtu"],
                 "front %s %s%s" % (opt.get("front") or "vhost-user", self.front(g),
                                    " in-band" if opt["carrier"] == "in-band" else ""),
                 "agent " + g.host.agent_socket,
                 "queues %d" % opt["queues"],
                 "encap " + opt["encap"]]
        peers = [p for p in self.guests if p.j != g.j]
        for p in peers + [p for p in self.moving if p.j != g.j]:
            lines.append("link %s udp local %s:%d remote %s:%d form %s agent %s:%d" % (
                self.link(p), g.host.ip, self.port(g, p), p.host.ip, self.port(p, g), opt["form"],
                p.host.ip, common.AGENT_PORT))
        lines += ["route dst %s link %s" % (p.mac, self.link(p)) for p in peers]
        lines += ["route dst any link " + self.link(p) for p in peers]
        return "\n".join(lines) + "\n"

    def port(self, guest, peer):
        """What comes to one socket goes to one queue pair of the shim's: with more pairs each link has a port of its own."""
        if self.opt["queues"] == 1:
            return common.UDP_PORT + guest.j
        return common.UDP_PORT + common.MAX_GUESTS * guest.j + peer.j

    @staticmethod
    def link(peer):
        return "%s-%s" % (peer.host.name, peer.name)

    def guest_script(self, g):
        """What a guest runs once it is up: names, addresses, driver. A failing line is the error the user sees.

        Starting a program takes half a second in the slowest guests, so the shell does itself what it can.
        """
        opt = self.opt
        hosts = ["127.0.0.1 localhost", "::1 localhost ip6-localhost"]
        for p in self.guests:
            hosts += ["%s %s" % (p.ip4, p.name), "%s %s-6" % (p.ip6, p.name)]
        lines = ["set -e",
                 "echo %s >/proc/sys/kernel/hostname" % g.name,
                 "echo %s >/etc/hostname" % g.name,
                 "printf '%s\\n' >/etc/hosts" % "\\n".join(hosts),
                 "mkdir -p /lib/modules /build /lab /run/sshd",
                 *self.kind.mounts()]
        links = ["link set lo up"]
        if opt["device"]:
            lines += ["read release </proc/sys/kernel/osrelease",
                      "more=",
                      "if [ %s = vnet_pv ] && [ -e /lib/modules/$release/vtoe_sock.ko ]; then more=vtoe_sock; fi" % opt["driver"],
                      "modprobe -a %s $more" % opt["driver"],
                      # The interface is the one that hangs on the virtio device, whatever its name.
                      "n=0; dev=",
                      "while [ -z \"$dev\" ]; do",
                      "  for d in /sys/class/net/*; do",
                      "    if [ $d/device/subsystem -ef /sys/bus/virtio ]; then dev=${d##*/}; fi",
                      "  done",
                      "  n=$((n + 1)); [ -n \"$dev\" ] || [ $n -lt 100 ] || {",
                      "    echo 'the driver %s made no network interface within 5 s' >&2; exit 1; }" % opt["driver"],
                      "  [ -n \"$dev\" ] || sleep 0.05",
                      "done",
                      "[ $dev = vnet0 ] || ip link set dev $dev name vnet0"]
            links += ["link set dev vnet0 mtu %d up" % opt["mtu"],
                      "addr add %s/24 brd + dev vnet0" % g.ip4,
                      "addr add %s/64 dev vnet0 nodad" % g.ip6]
        lines += ["ip -batch - <<'EOF'\n%s\nEOF" % "\n".join(links)]
        if not opt.get("movable"):
            lines += ["/usr/sbin/sshd"]
        return "\n".join(lines) + "\n"
