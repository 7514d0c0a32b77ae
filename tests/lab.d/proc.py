# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes of a lab, as its supervisor sees them.

The supervisor is process 1 of its own pid namespace, so it reaps everything: its children with their processor time, and
orphans. A role's processor time is what its ended children used plus what the live ones and their descendants have used
so far; descendants count because user-mode Linux runs each guest process as a child of its own.
"""

import asyncio
import ctypes
import os
import signal
import socket
import subprocess

TICKS = os.sysconf("SC_CLK_TCK")
# Signals that end whoever does not handle them; the others are no leave to end.
ENDING = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS}


class Child:
    """One started program: a guest kernel, a shim, an agent, a host that is a virtual machine."""

    def __init__(self, role, name, pid):
        self.role = role
        self.name = name
        self.pid = pid          # 0 if it runs on another kernel
        self.status = None      # wait status once it ended
        self.expected = set()   # how it may end: statuses as of subprocess, -N for signal N

    def ended(self):
        if self.status is None:
            return "running"
        if os.WIFSIGNALED(self.status):
            return "killed by %s" % signal.Signals(os.WTERMSIG(self.status)).name
        return "exited with status %d" % os.WEXITSTATUS(self.status)

    def asked(self, sig):
        """We are about to send it this signal: what it may end with. A daemon that is told to go says 0."""
        if sig in ENDING:
            self.expected |= {-sig, 0}

    def signal(self, sig):
        try:
            os.kill(self.pid, sig)
        except ProcessLookupError:
            pass

    def as_asked(self):
        return os.waitstatus_to_exitcode(self.status) in self.expected


class Children:
    def __init__(self):
        self.live = set()
        self.popen = {}         # pid -> (Child, Popen) of those that are processes of this kernel
        self.used = {}          # (role, name) -> seconds of ended children
        self.on_end = lambda child: None

    def start(self, role, name, argv, *, log, cpus=None, netns=None, env=None, pass_fds=()):
        """Start a program with its output in the file `log`, on these CPUs and inside a named network namespace if given."""
        if cpus:
            argv = ["taskset", "--cpu-list", ",".join(map(str, cpus))] + argv
        if netns:
            argv = ["nsenter", "--net=/run/netns/" + netns, "--"] + argv
        with open(log, "ab", buffering=0) as out:
            popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env,
                                     pass_fds=pass_fds, start_new_session=True)
        child = Child(role, name, popen.pid)
        self.live.add(child)
        self.popen[child.pid] = child, popen
        return child

    def finished(self, child, status):
        child.status = status
        self.live.discard(child)
        self.on_end(child)

    def reap(self):
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child, popen = self.popen.pop(pid, (None, None))
            if not child:
                continue
            popen.returncode = os.waitstatus_to_exitcode(status)
            key = (child.role, child.name)
            self.used[key] = self.used.get(key, 0.0) + usage.ru_utime + usage.ru_stime
            self.finished(child, status)

    def cpu(self):
        """Seconds of user and system time per (role, name)."""
        total = dict(self.used)
        stats, below = {}, {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                with open("/proc/%s/stat" % entry, encoding="ascii", errors="replace") as f:
                    fields = f.read().rpartition(")")[2].split()
            except OSError:
                continue
            # After the command name: state, ppid, ..., utime stime cutime cstime are fields 14 to 17 of the line.
            stats[int(entry)] = sum(int(x) for x in fields[11:15]) / TICKS
            below.setdefault(int(fields[1]), []).append(int(entry))
        for pid, (child, _) in self.popen.items():
            todo, seconds = [pid], 0.0
            while todo:
                p = todo.pop()
                seconds += stats.get(p, 0.0)
                todo += below.get(p, [])
            key = (child.role, child.name)
            total[key] = total.get(key, 0.0) + seconds
        return total


class Notify:
    """What one daemon says by sd_notify(3): that it is ready, and its status."""

    def __init__(self):
        self.status = ""
        self.on_ready = lambda: None

    def take(self, line):
        key, _, value = line.partition("=")
        if key == "READY" and value == "1":
            self.on_ready()
        elif key == "STATUS":
            self.status = value

    def close(self):
        pass


class LocalNotify(Notify):
    """Of a daemon on this kernel: its lines come as datagrams."""

    def __init__(self, path):
        super().__init__()
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        self.sock.bind(path)
        # A daemon that dropped its rights still reports.
        os.chmod(path, 0o666)
        asyncio.get_running_loop().add_reader(self.sock, self.read)

    def read(self):
        while True:
            try:
                data = self.sock.recv(4096)
            except BlockingIOError:
                return
            for line in data.decode(errors="replace").splitlines():
                self.take(line)

    def close(self):
        asyncio.get_running_loop().remove_reader(self.sock)
        self.sock.close()


_libc = ctypes.CDLL(None, use_errno=True)
MS_BIND = 4096


def mount(source, target, fstype=None, flags=0, options=None):
    args = [s.encode() if s is not None else None for s in (source, target, fstype)]
    if _libc.mount(*args, ctypes.c_ulong(flags), options.encode() if options else None):
        err = ctypes.get_errno()
        raise OSError(err, "mount: " + os.strerror(err), target)


def run(argv, stdin=None):
    """Run a short helper; its complaint is the exception's text."""
    r = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if r.returncode:
        raise OSError("%s: %s" % (" ".join(argv), (r.stderr or r.stdout).strip() or "status %d" % r.returncode))
    return r.stdout
