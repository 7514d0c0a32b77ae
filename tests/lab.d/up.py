# SPDX-License-Identifier: GPL-2.0-or-later
"""`lab up` and `lab down`: what happens outside the lab's namespaces.

Up gets the things a lab is made of (guest kernel, guest root, guestd, modules), each from the cache or built now, starts
the supervisor under unshare(1) and waits until it is ready. A lock file, held by unshare and the supervisor, tells whether
a lab is alive: it is free exactly when both are gone.
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import common
import logcheck
from common import LabError, say


def lock_path(name):
    return os.path.join(common.RUN, ".%s.lock" % common.check_name(name))


def try_lock(name):
    """A descriptor that holds the lab's lock, or None while the lab is alive."""
    os.makedirs(common.RUN, mode=0o755, exist_ok=True)
    while True:
        fd = os.open(lock_path(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Somebody may have removed the file between our opening and locking it.
            if os.fstat(fd).st_ino == os.stat(lock_path(name)).st_ino:
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except FileNotFoundError:
            pass
        os.close(fd)


def forget(name):
    """Remove what an ended lab left in the file system."""
    fd = try_lock(name)
    if fd is None:
        return
    shutil.rmtree(common.state_dir(name), ignore_errors=True)
    os.unlink(lock_path(name))
    os.close(fd)


def alive(name):
    if not os.path.exists(lock_path(name)):
        return False
    fd = try_lock(name)
    if fd is None:
        return True
    os.close(fd)
    return False


def wait_gone(name, seconds):
    end = time.monotonic() + seconds
    while alive(name):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def find_module(name, kernel):
    for path in ("guest/%s/%s.ko" % (kernel, name), "guest/%s.ko" % name):
        path = os.path.join(common.BUILD, path)
        if os.path.isfile(path):
            return path
    return None


def gather_modules(opt, state):
    """The tree that the guests see as /lib/modules: the kernel's own modules and ours."""
    base = os.path.join(state, "modules")
    shutil.copytree(os.path.join(opt["kernel_dir"], "root"), base, symlinks=True)
    release = os.listdir(os.path.join(base, "lib/modules"))[0]
    ours = {n: find_module(n, opt["kernel"]) for n in ("vnet_pv", "vtoe_sock")}
    if opt["device"] and opt["driver"] == "vnet_pv" and not ours["vnet_pv"]:
        raise LabError("no vnet_pv.ko for the %s kernel under %s/guest; run `make modules`, or use --driver virtio_net" % (
            opt["kernel"], common.BUILD))
    for path in filter(None, ours.values()):
        r = subprocess.run(["modinfo", "-F", "vermagic", path], capture_output=True, text=True, check=False)
        magic = r.stdout.split()
        if not magic or magic[0] != release:
            # The other kernel's module, at the place for both: of no use here, and fatal only if it is needed.
            if opt["device"] and opt["driver"] == "vnet_pv":
                raise LabError("%s is built for kernel %s, this lab runs %s; put the module for it into %s/guest/%s/" % (
                    path, magic[0] if magic else "?", release, common.BUILD, opt["kernel"]))
            continue
        shutil.copy(path, os.path.join(base, "lib/modules", release))
    subprocess.run(["depmod", "-b", base, release], check=True)


def prepare(opt):
    # pylint: disable=import-outside-toplevel
    import hosts  # much, which a command in a guest starts sooner without
    import kinds

    state = opt["state"]
    shutil.rmtree(state, ignore_errors=True)
    lab = os.path.join(state, "lab")
    os.makedirs(os.path.join(lab, "xfer"))
    if opt["device"]:
        for program in ("vnet-shim", "vnet-ibagent"):
            if not os.access(os.path.join(common.BUILD, "host", program), os.X_OK):
                raise LabError("%s/host/%s is not there; run make first, or use --no-device for guests without a network device"
                               % (common.BUILD, program))
    kind = kinds.of(opt)
    kind.prepare()
    opt["root"] = common.script(["setup/guest-root"])
    guestd = common.build("guestd")
    gather_modules(opt, state)
    kind.stage(lab, guestd)
    hosts.prepare(opt, lab, guestd)


def start_supervisor(opt, lock):
    ours, theirs = socket.socketpair()
    options = os.path.join(opt["state"], "options.json")
    with open(options, "w", encoding="utf-8") as f:
        json.dump(opt, f, indent=1)
    with theirs, open(os.path.join(opt["state"], "lab.log"), "wb") as log:
        top = subprocess.Popen(
            ["unshare", "--fork", "--pid", "--kill-child", "--mount-proc", "--mount", "--net",
             sys.executable, "-B", os.path.join(common.TESTS, "lab.d/supervisor.py"), options, str(theirs.fileno())],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True,
            pass_fds=[lock, theirs.fileno()])
    return top, ours


def follow(lease, opt):
    """Show progress until the lab is ready."""
    for line in lease.makefile("r", encoding="utf-8"):
        kind, text = json.loads(line)
        if kind == "ready":
            return
        if kind == "error":
            raise LabError(text)
        say(text)
    with open(os.path.join(opt["state"], "lab.log"), encoding="utf-8", errors="replace") as f:
        raise LabError("the supervisor ended before the lab was ready; it said:\n" + f.read()[-2000:])


def up(opt):
    if os.geteuid() != 0:
        raise LabError("must run as root: it makes network namespaces")
    name = opt["name"]
    opt["state"] = common.state_dir(name)
    lock = try_lock(name)
    if lock is None:
        raise LabError("the lab '%s' is already up; `lab down --name %s` ends it, --name chooses another" % (name, name))
    top = None
    try:
        prepare(opt)
        top, lease = start_supervisor(opt, lock)
        os.close(lock)
        lock = None
        follow(lease, opt)
        with open("/proc/%d/task/%d/children" % (top.pid, top.pid), encoding="ascii") as f:
            init = int(f.read().split()[0])
        with open(os.path.join(opt["state"], "pid"), "w", encoding="ascii") as f:
            f.write("%d\n" % init)
    except BaseException as e:
        # Also KeyboardInterrupt: killing unshare kills all that is below it.
        if top:
            top.send_signal(signal.SIGKILL)
            top.wait()
            wait_gone(name, 10)
        if lock is not None:
            os.close(lock)
        if not isinstance(e, (LabError, OSError)):
            forget(name)
        elif top:
            say("the logs are in " + opt["state"])
        raise
    # top is not waited for: it outlives us on purpose.
    top.returncode = 0
    say("lab '%s' is up: %s on %s" % (name, plural(opt["guests"], "guest"), plural(opt["hosts"], "host")))


def plural(n, word):
    return "%d %s%s" % (n, word, "" if n == 1 else "s")


def request(name, **what):
    """Ask the supervisor; its refusal is a LabError."""
    sock = socket.socket(socket.AF_UNIX)
    path = os.path.join(common.state_dir(name), "ctl")
    try:
        if not alive(name):
            raise OSError
        sock.connect(path)
    except OSError:
        more = ""
        if os.path.isdir(common.state_dir(name)):
            more = "; it has ended, its logs are in " + common.state_dir(name)
        raise LabError("the lab '%s' is not up%s (lab up --name %s)" % (name, more, name)) from None
    sock.sendall(json.dumps(what).encode() + b"\n")
    answer = sock.makefile("r", encoding="utf-8").readline()
    if not answer:
        raise LabError("the lab '%s' ended" % name)
    answer = json.loads(answer)
    if "error" in answer:
        raise LabError(answer["error"])
    return answer["ok"]


def report_logs(state):
    # With a kernel's registers and the calls that led there.
    bad = logcheck.find(state, trace=40)
    for file, line in bad:
        print("%s: %s" % (file, line))
    return 1 if bad else 0


def scan(name):
    """kmemleak's word on the guests; 1 if there is one."""
    leaks = {guest: text for guest, text in request(name, op="scan").items() if text}
    for guest, text in sorted(leaks.items()):
        print("%s: kmemleak:\n%s" % (guest, text))
    return 1 if leaks else 0


def has_kmemleak(name):
    try:
        return request(name, op="status")["options"]["kernel"] == "debug"
    except LabError:
        return False        # still starting


def down(name, keep, look_for_leaks=True):
    state = common.state_dir(name)
    leaks = 0
    if alive(name):
        if look_for_leaks and has_kmemleak(name):
            leaks = scan(name)
        try:
            request(name, op="down")
        except LabError:
            # Still starting, or stuck: its lock file's holder is unshare or the supervisor.
            kill_holders(name)
        if not wait_gone(name, 15):
            kill_holders(name)
            if not wait_gone(name, 10):
                raise LabError("the lab '%s' does not end; see %s/lab.log" % (name, state))
    elif not os.path.isdir(state):
        raise LabError("there is no lab '%s'" % name)
    status = report_logs(state) | leaks
    if status:
        say("the logs above show a fault; they are kept in %s" % state)
    elif not keep:
        forget(name)
    return status


def kill_holders(name):
    """End a lab that does not answer: kill whoever holds its lock open."""
    target = os.path.realpath(lock_path(name))
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            held = any(os.readlink("/proc/%s/fd/%s" % (pid, fd)) == target for fd in os.listdir("/proc/%s/fd" % pid))
            if held and int(pid) != os.getpid():
                os.kill(int(pid), signal.SIGKILL)
        except OSError:
            continue
