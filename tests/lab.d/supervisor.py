#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The supervisor of one lab: process 1 of the lab's own pid, mount and network namespaces.

`lab up` starts it through unshare(1) with the options as JSON and a socket, the lease. It reports progress on the lease; if
the lease closes before the lab is ready (Ctrl-C, a killed `lab up`), it ends. It ends at once too when the unshare above it
dies. Whatever way it ends, the kernel then kills every process of the lab and drops its mounts and networks.

Order: networks, configuration files, agents, shims, guests. A daemon is up when it has said READY=1 to its NOTIFY_SOCKET.
Later it serves one-line JSON requests on the socket `ctl`: status, cpu, kill, restart, scan,
migrate, down.
"""

import asyncio
import json
import os
import signal
import socket
import sys

import common
import hosts
import kinds
import migrate
import proc
from common import LabError, say
from guest import GuestLine
from topology import Topology

SCAN_TIMEOUT = 120

KMEMLEAK = """
k=/sys/kernel/debug/kmemleak
[ -w $k ] || exit 0
# An object must be 5 s old, and have the same contents in two scans; a third clears those that were on the move.
echo scan >$k && sleep 5.5 && echo scan >$k && [ -z "$(head -c 1 $k)" ] || echo scan >$k && cat $k
"""


class Lab:
    def __init__(self, options, lease):
        self.opt = options
        self.state = options["state"]
        self.lease = lease
        self.children = proc.Children()
        self.children.on_end = self.child_ended
        self.kind = kinds.of(options)
        self.topology = Topology(options, self.state, self.kind)
        self.ground = hosts.of(self)
        self.lines = {g.name: GuestLine(self, g) for g in self.topology.guests}
        self.daemons = {}       # (role, name) -> Child
        self.notify = {}        # (role, name) -> Notify
        self.waiters = {}       # (role, name) -> future of the start under way
        self.stop = asyncio.Event()
        self.phase = "starting"

    def tell(self, kind, text=""):
        """To the waiting `lab up`, and to our own log."""
        if text:
            say(text)
        if self.lease:
            try:
                self.lease.sendall(json.dumps([kind, text]).encode() + b"\n")
            except OSError:
                self.stop.set()

    # -- processes --

    def child_ended(self, child):
        if not child.as_asked():
            say("%s %s %s" % (child.role, child.name, child.ended()))    # logcheck.py knows this line
        if child.role == "guest":
            line = self.lines[child.name]
            if line.child is child:
                line.ended()
            return
        if child.role == "host":
            self.ground.ended(child)
            return
        waiter = self.waiters.get((child.role, child.name))
        if waiter and not waiter.done():
            waiter.set_exception(LabError("%s %s %s before it was ready; it said:\n%s" % (
                child.role, child.name, child.ended(), tail(self.daemon_log(child.role, child.name)))))

    def daemon_log(self, role, name):
        return os.path.join(self.state, "%s-%s.log" % (role, name))

    async def start_daemon(self, role, name, program, config, host):
        key = (role, name)
        timeout = self.ground.daemon_timeout
        if key in self.notify:
            self.notify[key].close()
        path = self.topology.notify(role, name, host)
        notify = self.notify[key] = self.ground.listen(host, path)
        ready = self.waiters[key] = asyncio.get_running_loop().create_future()
        notify.on_ready = lambda: ready.done() or ready.set_result(None)
        self.daemons[key] = self.ground.start_daemon(host, role, name, [self.ground.program(program), "--config", config],
                                                     log=self.daemon_log(role, name), env={"NOTIFY_SOCKET": path})
        try:
            await asyncio.wait_for(ready, timeout)
        except asyncio.TimeoutError:
            raise LabError("%s %s did not report READY=1 within %d s; it said:\n%s" % (
                role, name, timeout, tail(self.daemon_log(role, name)))) from None

    def start_agent(self, host):
        return self.start_daemon("agent", host.name, "vnet-ibagent", host.agent_config, host)

    def start_shim(self, g):
        return self.start_daemon("shim", g.name, "vnet-shim", self.topology.shim_config(g), g.host)

    def guest_arguments(self, g):
        """What a guest's command line says about its network device."""
        return self.kind.device(self.topology.front(g), g) if self.opt["device"] else []

    # -- life --

    async def up(self):
        t = self.topology
        # The guests' init is found through the shared root; seen by this lab alone.
        proc.mount(os.path.join(self.state, "lab"), os.path.join(self.opt["root"], "lab"), None, proc.MS_BIND)
        await self.ground.up()
        if self.opt["device"]:
            self.tell("say", "starting %d agents" % len(t.hosts))
            await asyncio.gather(*(self.start_agent(h) for h in t.hosts))
            self.tell("say", "starting %d shims" % len(t.guests))
            await asyncio.gather(*(self.start_shim(g) for g in t.guests))
        self.tell("say", "starting %d %s guests (kernel %s)" % (len(t.guests), self.opt["kind"], self.opt["kernel"]))
        for line in self.lines.values():
            await line.serve(line.guest.name)
        await asyncio.gather(*(line.start() for line in self.lines.values()))

    async def main(self):
        try:
            return await self.live()
        finally:
            # asyncio closes what its signal handler writes to before it takes the handler away. Who dies from now on, dies unseen.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})

    async def live(self):
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self.children.reap)
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(sig, self.stop.set)
        self.lease.setblocking(True)
        loop.add_reader(self.lease, self.lease_closed)
        starting = asyncio.create_task(self.up())
        stopping = asyncio.create_task(self.stop.wait())
        await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            return 1
        try:
            starting.result()
        except (LabError, OSError) as e:
            self.tell("error", str(e))
            return 1
        ctl = os.path.join(self.state, "ctl")
        server = await asyncio.start_unix_server(self.control, ctl)
        os.chmod(ctl, 0o600)
        self.phase = "up"
        self.tell("ready")
        loop.remove_reader(self.lease)
        self.lease.close()
        self.lease = None
        await stopping
        server.close()
        await self.down()
        return 0

    def lease_closed(self):
        # The client never writes: readable means that it is gone.
        say("`lab up` went away; ending")
        asyncio.get_running_loop().remove_reader(self.lease)
        self.stop.set()

    async def down(self):
        """Guests first, then the daemons, asked politely: their own checks at exit are worth having."""
        say("going down")
        for child in self.running("guest"):
            self.end(child, signal.SIGKILL)
        for role in ("shim", "agent"):
            for child in self.running(role):
                self.end(child, signal.SIGTERM)
            for _ in range(100):
                if not self.running(role):
                    break
                await asyncio.sleep(0.03)
            for child in self.running(role):
                say("%s %s ignored SIGTERM for 3 s" % (role, child.name))
        for child in self.running("host"):
            self.end(child, signal.SIGKILL)

    def running(self, role):
        return [child for child in self.children.live if child.role == role]

    def end(self, child, sig):
        """Send it a signal. If that ends it, that is no fault; nor is what the guest of a killed shim says of its device."""
        child.asked(sig)
        if child.role == "shim" and sig in proc.ENDING and self.phase == "up":
            with open(self.lines[child.name].log, "a", encoding="utf-8") as f:
                f.write("%s: %s to shim %s\n" % (common.SHIM_ENDED, signal.Signals(sig).name, child.name))
        child.signal(sig)

    # -- requests --

    async def control(self, reader, writer):
        try:
            request = json.loads(await reader.readline())
            handler = getattr(self, "do_" + str(request.get("op")), None)
            if not handler:
                raise LabError("unknown request '%s'" % request.get("op"))
            answer = {"ok": await handler(request)}
        except (LabError, OSError) as e:
            answer = {"error": str(e)}
        except ValueError:
            answer = {"error": "malformed request"}
        try:
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
            writer.close()
        except ConnectionError:
            pass

    def find(self, role, name):
        if role == "guest" and name in self.lines:
            return self.lines[name].child
        if role == "host":
            return self.ground.machine(name).child
        if (role, name) in self.daemons:
            return self.daemons[(role, name)]
        have = list(self.lines) if role == "guest" else [n for r, n in self.daemons if r == role]
        raise LabError("this lab has no %s '%s'%s" % (role, name, "; it has " + ", ".join(have) if have else ""))

    async def do_status(self, _):
        rows = []
        for h in self.topology.hosts:
            rows.append({"role": "host", "name": h.name, "address": h.ip, "state": self.ground.state_of(h)})
            for key, child in self.daemons.items():
                if key == ("agent", h.name):
                    rows.append(self.row(child, h.name, self.notify[key].status))
            for g in self.topology.guests:
                if g.host is not h:
                    continue
                if ("shim", g.name) in self.daemons:
                    rows.append(self.row(self.daemons[("shim", g.name)], h.name, self.notify[("shim", g.name)].status))
                row = self.row(self.lines[g.name].child, h.name, "")
                row["address"] = g.ip4 if self.opt["device"] else "-"
                rows.append(row)
        return {"phase": self.phase, "options": self.opt, "rows": rows}

    @staticmethod
    def row(child, host, status):
        return {"role": child.role, "name": child.name, "host": host, "pid": child.pid, "state": child.ended(),
                "status": status}

    async def do_cpu(self, _):
        roles = {"guest": 0.0, "shim": 0.0, "agent": 0.0}
        each = {}
        for (role, name), seconds in sorted(self.children.cpu().items()):
            roles[role] = round(roles.get(role, 0.0) + seconds, 2)
            each["%s %s" % (role, name)] = round(seconds, 2)
        return {"roles": roles, "total": round(sum(roles.values()), 2), "each": each}

    async def do_kill(self, request):
        child = self.find(request["role"], request["who"])
        if child.status is not None:
            raise LabError("%s %s is not running (%s)" % (child.role, child.name, child.ended()))
        self.end(child, request.get("signal", signal.SIGKILL))
        return None

    async def do_scan(self, _):
        """Ask kmemleak, in all guests at once. What it says of each; empty is good. A kernel without it has nothing to say."""
        running = [line for line in self.lines.values() if line.ready]

        async def scan(line):
            try:
                status, output = await asyncio.wait_for(line.run(["/bin/sh", "-c", KMEMLEAK]), SCAN_TIMEOUT)
            except asyncio.TimeoutError:
                return "no answer to the scan within %d s" % SCAN_TIMEOUT
            except LabError as e:
                return str(e)
            text = output.decode(errors="replace").strip()
            return "the scan failed, status %d: %s" % (status, text) if status else text

        return dict(zip((line.guest.name for line in running), await asyncio.gather(*map(scan, running))))

    async def do_restart(self, request):
        child = self.find(request["role"], request["who"])
        if child.status is None:
            self.end(child, signal.SIGTERM if child.role != "guest" else signal.SIGKILL)
        for i in range(200):
            if child.status is not None:
                break
            if i == 100:
                say("%s %s ignored SIGTERM for 3 s" % (child.role, child.name))
                self.end(child, signal.SIGKILL)
            await asyncio.sleep(0.03)
        if child.role == "agent":
            await self.start_agent(next(h for h in self.topology.hosts if h.name == child.name))
        elif child.role == "shim":
            await self.start_shim(next(g for g in self.topology.guests if g.name == child.name))
        else:
            await self.lines[child.name].start()

    async def do_migrate(self, request):
        return await migrate.Migration(self, request["who"], request["to"]).run()

    async def do_down(self, _):
        self.stop.set()


def tail(path, lines=15):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return "".join(f.readlines()[-lines:]).rstrip() or "(nothing)"
    except OSError:
        return "(nothing)"


def main():
    if os.getpid() != 1:
        raise SystemExit("supervisor.py is started by tests/lab up")
    with open(sys.argv[1], encoding="utf-8") as f:
        options = json.load(f)
    lease = socket.socket(fileno=int(sys.argv[2]))
    lease.set_inheritable(False)
    sys.exit(asyncio.run(Lab(options, lease).main()))


if __name__ == "__main__":
    main()
