# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtual machines that run the payload, each with a vnet-shim, and what can be known of them.

All ends with the test, which has namespaces of its own for processes and networks; files are in its scratch directory.
"""

import json
import os
import re
import select
import signal
import socket
import subprocess
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
BUILD = os.path.join(TOP, "build")
MACS = ("52:54:00:4e:50:01", "52:54:00:4e:50:02")
UDP_PORT = 9000
TENANT = 77
# Until something is believed never to come. Nothing here takes more than some seconds on an idle machine.
PATIENCE = 300


class Broken(Exception):
    """A machine or a shim did not do what it was told to."""


def wait_for(what, condition, process=None):
    end = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if process and process.poll() is not None:
            raise Broken("%s: the process ended with status %s" % (what, process.returncode))
        if time.monotonic() > end:
            raise Broken("%s: not in %d s" % (what, PATIENCE))
        time.sleep(0.01)


def tail(path, lines=15):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read().splitlines()[-lines:]


def eventfds(pid):
    """{descriptor: the kernel's number of the eventfd}: two descriptors of one eventfd have one number."""
    found = {}
    for fd in os.listdir("/proc/%d/fdinfo" % pid):
        try:
            with open("/proc/%d/fdinfo/%s" % (pid, fd), encoding="ascii") as f:
                number = re.search(r"^eventfd-id:\s*(\d+)", f.read(), re.M)
        except OSError:
            continue
        if number:
            found[int(fd)] = int(number.group(1))
    return found


class Process:
    """A child with its log."""

    def __init__(self, argv, log, env=None, pass_fds=()):
        self.log = log
        with open(log, "ab") as out:
            self.popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env,
                                          pass_fds=pass_fds)
        self.pid = self.popen.pid

    def kill(self):
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()

    def end(self):
        """The status after SIGTERM, or of the end that came before."""
        self.popen.terminate()
        return self.popen.wait(PATIENCE)


class Shim(Process):
    """The real vnet-shim of machine 0 or 1, with a link to the other's."""

    def __init__(self, work, which, front, encap, mtu):
        self.socket = os.path.join(work, "vm%d.sock" % which)
        conf = os.path.join(work, "vm%d.conf" % which)
        with open(conf, "w", encoding="ascii") as f:
            f.write("\n".join([
                "vm vm%d" % which, "tenant %d" % TENANT, "mac " + MACS[which], "mtu %d" % mtu,
                "front %s %s" % (front, self.socket), "encap " + encap,
                "link other udp local 127.0.0.1:%d remote 127.0.0.1:%d" % (UDP_PORT + which, UDP_PORT + 1 - which),
                "route dst %s link other" % MACS[1 - which], ""]))
        super().__init__([os.path.join(BUILD, "host", "vnet-shim"), "--config", conf], os.path.join(work, "shim%d.log" % which))
        wait_for("the shim's start", lambda: ": listening at " in "\n".join(tail(self.log)), self.popen)

    def stats(self):
        """Its counters, now."""
        before = self._stat_lines()
        self.popen.send_signal(signal.SIGUSR1)
        return json.loads(wait_for("the shim's statistics", lambda: self._stat_lines()[len(before):], self.popen)[-1])

    def _stat_lines(self):
        with open(self.log, encoding="utf-8") as f:
            return re.findall(r": stats (\{.*\})\n", f.read())


class Injections(Process):
    """Counts the MSIs that KVM injects in a process's own system calls: what it writes to eventfds that are irqfds."""

    EVENT = "kvm:kvm_msi_set_irq"

    def __init__(self, work, which, pid):
        self.out = os.path.join(work, "perf%d" % which)
        control, ours = os.pipe()
        ack, theirs = os.pipe()
        super().__init__(["perf", "stat", "-x", ",", "-o", self.out, "-e", self.EVENT, "-p", str(pid), "--delay", "-1",
                          "--control", "fd:%d,%d" % (control, theirs)],
                         os.path.join(work, "perf%d.log" % which), pass_fds=(control, theirs))
        os.close(control)
        os.close(theirs)
        os.write(ours, b"enable\n")
        enabled = os.read(ack, 16)
        os.close(ours)
        os.close(ack)
        if not enabled.startswith(b"ack"):
            raise Broken("perf cannot count %s: %s" % (self.EVENT, " ".join(tail(self.log))))

    def count(self):
        """Ends it."""
        self.popen.send_signal(signal.SIGINT)
        self.popen.wait(PATIENCE)
        for line in tail(self.out):
            words = line.split(",")
            if self.EVENT in words and words[0].isdigit():
                return int(words[0])
        raise Broken("perf has not counted: %s" % tail(self.out))


class Qmp:
    """Just enough of QEMU's monitor to ask KVM's own statistics."""

    def __init__(self, sock):
        self.file = sock.makefile("rw", encoding="utf-8")
        sock.close()
        self.ready = False

    def ask(self, command, **arguments):
        if not self.ready:
            self.ready = True
            self.file.readline()        # the greeting
            self.ask("qmp_capabilities")
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        for line in self.file:
            answer = json.loads(line)
            if "error" in answer:
                raise Broken("QEMU: %s: %s" % (command, answer["error"]["desc"]))
            if "return" in answer:
                return answer["return"]
        raise Broken("QEMU: %s: the monitor is gone" % command)

    def kvm_stats(self):
        """What KVM counts for the one virtual CPU (KVM_GET_STATS_FD)."""
        cpu = self.ask("query-stats", target="vcpu")[0]
        return {s["name"]: s["value"] for s in cpu["stats"]}

    def close(self):
        self.file.close()


def socket_pair():
    """Ours, which is not waited for longer than PATIENCE, and QEMU's."""
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE)
    return ours, theirs


class Machine(Process):
    def __init__(self, work, which, qemu, front, shim, mtu):
        self.watch = os.path.join(work, "watch%d" % which)
        self.where = "vm%d" % which
        self.serial, serial = socket_pair()
        monitor, control = socket_pair()
        self.qmp = Qmp(monitor)
        self.pending = b""
        argv = [qemu, "-name", self.where + ",debug-threads=on", "-M", "q35,memory-backend=ram", "-accel", "kvm", "-m", "64",
                "-object", "memory-backend-memfd,id=ram,size=64M,share=on", "-nodefaults", "-no-user-config",
                "-display", "none", "-no-reboot", "-device", "isa-debug-exit,iobase=0x501",
                "-kernel", os.path.join(BUILD, "tests", "kvm", "payload.elf"),
                "-chardev", "socket,id=qmp,fd=%d" % control.fileno(), "-mon", "chardev=qmp,mode=control",
                "-chardev", "socket,id=serial,fd=%d" % serial.fileno(), "-serial", "chardev:serial"]
        if front == "vfio-user":
            argv += ["-device", json.dumps({"driver": "vfio-user-pci", "socket": {"type": "unix", "path": shim.socket}})]
        else:
            argv += ["-chardev", "socket,id=net,path=" + shim.socket, "-netdev", "vhost-user,id=net,chardev=net",
                     "-device", "virtio-net-pci,netdev=net,mac=%s,host_mtu=%d,vectors=4,disable-legacy=on,romfile=" % (
                         MACS[which], mtu)]
        env = dict(os.environ, LD_PRELOAD=os.path.join(BUILD, "tests", "kvm", "kvm_watch.so"), KVM_WATCH=self.watch)
        super().__init__(argv, os.path.join(work, "qemu%d.log" % which), env, (serial.fileno(), control.fileno()))
        serial.close()
        control.close()

    def receive(self):
        """Takes what has come from the machine. True: a whole line is there."""
        data = self.serial.recv(4096)
        if not data:
            raise Broken("%s ended: status %s" % (self.where, self.popen.wait(PATIENCE)))
        self.pending += data
        return b"\n" in self.pending

    def answer(self, kind):
        """The line that has come, which must be of this kind, as a dictionary."""
        line, _, self.pending = self.pending.partition(b"\n")
        text = line.decode("ascii", "replace")
        if not text.startswith("@%s " % kind):
            raise Broken("%s said: %s" % (self.where, text))
        return {name: int(value, 0) for name, value in (word.split("=") for word in text.split()[1:])}

    def command(self, byte):
        self.serial.sendall(byte.encode("ascii"))

    def watched(self):
        """What QEMU has asked of KVM and not taken back: ({address: (fd, match)}, {gsi: fd}, number of MSIs it injected)."""
        io, irq, injected = {}, {}, 0
        with open(self.watch, encoding="ascii") as f:
            for line in f:
                words = line.split()
                if words[0] == "signal_msi":
                    injected += 1
                    continue
                live, key, value = (io, (int(words[3], 0), words[4]), int(words[2])) if words[0] == "ioeventfd" \
                    else (irq, int(words[3]), int(words[2]))
                if words[1] == "add":
                    live[key] = value
                elif live.pop(key, None) != value:
                    raise Broken("%s: KVM had no such eventfd: %s" % (self.where, line))
        return io, irq, injected

    def wakes(self):
        """How often QEMU's threads have slept and been woken, less those that run a virtual CPU."""
        woken = 0
        for task in os.listdir("/proc/%d/task" % self.pid):
            try:
                with open("/proc/%d/task/%s/status" % (self.pid, task), encoding="ascii") as f:
                    status = f.read()
            except OSError:
                continue        # it has ended
            if not re.match(r"Name:\tCPU \d+/KVM", status):
                woken += int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.M).group(1))
        return woken

    def kill(self):
        super().kill()
        self.qmp.close()
        self.serial.close()


def answers(machines, kind):
    """A line of each machine; what is wrong with one is known at once, though the others wait for it."""
    silent, said = list(machines), {}
    while silent:
        ready, _, _ = select.select([m.serial for m in silent], [], [], PATIENCE)
        if not ready:
            raise Broken("no @%s of %s in %d s" % (kind, " and ".join(m.where for m in silent), PATIENCE))
        for m in [m for m in silent if m.serial in ready and m.receive()]:
            said[m] = m.answer(kind)
            silent.remove(m)
    return [said[m] for m in machines]
