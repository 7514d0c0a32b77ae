#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run one of MPICH's lists of tests on the guests g1 and g2, from g1; each line of it is one start of mpirun.

usage: mpich_run.py DIR [LINE...]

DIR has the programs and `testlist`, a line of which is, as MPICH's own runtests reads it: PROGRAM [RANKS [KEY=VALUE]...]. Of
the keys these count here: arg, env, timeLimit, and mem (in GB) and xfail, for which a line is left out, as is one that needs
another judge (resultTest). There are at most four ranks. With LINE only those lines. Prints, one line each as it is known:

    left LINE WHY NAME      not run
    fewer LINE RANKS NAME   so many were asked for
    same LINE OTHER NAME    with these it would be that other line
    ok LINE NAME
    fail LINE WHY NAME      followed by "| " and each of the last lines of its output
    end                     of the list

A test is good if it prints " No Errors" and nothing else, and ends with status 0. The programs run with the environment of this
one, and with finalize.so beside DIR (mpich_finalize.c).
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time

RANKS = 4
# These want 1, 2, 5 or 10; the last one has 100 000 rounds, and four ranks that poll would need ten minutes.
TWO = ("coll2", "coll6", "coll7", "gatherv", "nbcoll2", "p_gatherv", "sendflood")
MEMORY = 1.5        # GB, of both guests, for all ranks
LIMIT = 360         # seconds; twice that of runtests, since two polling ranks share a processor
LEAVE = 10          # what it may take to end after its answer
GOOD = re.compile(r"^\s*No [Ee]rrors\s*$", re.M)
KNOWN = ("arg", "env", "timeLimit", "mem", "xfail", "strict", "mpix", "resultTest", "mpiexecarg", "init", "lock")


class Test:
    """One line of the list."""

    def __init__(self, number, words):
        self.number = number
        self.program = words[0]
        self.asked = int(words[1]) if len(words) > 1 else 2
        self.keys = {}
        for word in words[2:]:
            key, equals, value = word.partition("=")
            # Like runtests: what is none of these is passed over.
            if equals and key in KNOWN:
                self.keys.setdefault(key, []).append(value)
        self.ranks = min(self.asked, 2 if self.program in TWO else RANKS)

    def get(self, key):
        return self.keys.get(key, [])

    def name(self):
        return " ".join(["%s on %d" % (self.program, self.ranks)] + self.get("env") + self.get("arg"))

    def limit(self):
        given = self.get("timeLimit")
        return int(given[-1]) if given and given[-1].isdigit() else LIMIT

    def why_not(self):
        """Without blanks; empty if it is to be run."""
        memory = float((self.get("mem") or ["0"])[-1]) * self.ranks / self.asked
        if self.get("xfail"):
            return "xfail:" + ",".join(self.get("xfail"))
        if memory > MEMORY:
            return "memory:%.1fGB" % memory
        for key in ("resultTest", "mpiexecarg", "init"):
            if self.get(key):
                return key
        return ""


def tests_of(path):
    with open(os.path.join(path, "testlist"), encoding="ascii") as lines:
        for number, line in enumerate(lines, 1):
            words = line.split("#", 1)[0].split()
            if words:
                yield Test(number, words)


class Run:
    """One start of mpirun."""

    def __init__(self, path, test):
        self.program = os.path.join(path, test.program)
        self.out = tempfile.TemporaryFile()
        env = dict(os.environ, **dict(e.split("=", 1) for e in test.get("env")))
        preload = [p for p in (env.get("LD_PRELOAD"), os.path.join(os.path.dirname(path), "finalize.so")) if p]
        self.process = subprocess.Popen(
            ["mpirun.mpich", "-launcher", "ssh", "-iface", "vnet0", "-hosts", "g1,g2", "-n", str(test.ranks),
             "-genv", "LD_PRELOAD", ":".join(preload), self.program] + test.get("arg"),
            env=env, stdin=subprocess.DEVNULL, stdout=self.out, stderr=subprocess.STDOUT, start_new_session=True)

    def text(self):
        self.out.seek(0)
        return self.out.read().decode(errors="replace")

    def kill(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        # What has this one's name as its command, here and there; and hydra's half over there.
        sweep = ["pkill", "-KILL", "-f", "^%s|^/usr/bin/hydra_pmi_proxy" % self.program]
        subprocess.run(sweep, check=False)
        subprocess.run(["ssh", "g2", "'%s'" % "' '".join(sweep)], stdin=subprocess.DEVNULL, timeout=60, check=False)

    def wait(self, limit):
        """What it printed, and why it is no good, without blanks; empty if it is good."""
        end, good = time.monotonic() + limit, None
        while self.process.poll() is None:
            now = time.monotonic()
            if good is None and GOOD.search(self.text()):
                good = now
            if now > end or (good and now > good + LEAVE):
                text = self.text()
                self.kill()
                return text, "no-end" if good else "limit:%ds" % limit
            time.sleep(0.05)
        text = self.text()
        if self.process.returncode:
            return text, "status:%d" % self.process.returncode
        rest = GOOD.sub("", text)
        if rest == text:
            return text, "no-answer"
        rest = [line for line in rest.splitlines() if line.strip() and line.strip() != "Test Passed"]
        return text, "unexpected-output" if rest else ""


def run(path, test):
    text, why = Run(path, test).wait(test.limit())
    if why:
        print("fail %d %s %s" % (test.number, why, test.name()))
        for line in text.splitlines()[-12:]:
            print("| " + line[:200])
        sys.stdout.flush()
    else:
        print("ok %d %s" % (test.number, test.name()), flush=True)


def main():
    path, only = os.path.abspath(sys.argv[1]), [int(n) for n in sys.argv[2:]]
    seen = {}
    for test in tests_of(path):
        if only and test.number not in only:
            continue
        why = test.why_not()
        first = seen.setdefault(test.name(), test.number)
        if why:
            print("left %d %s %s" % (test.number, why, test.name()), flush=True)
            continue
        if test.ranks < test.asked:
            print("fewer %d %d %s" % (test.number, test.asked, test.name()), flush=True)
        if first != test.number:
            print("same %d %d %s" % (test.number, first, test.name()), flush=True)
        else:
            run(path, test)
    print("end")


if __name__ == "__main__":
    main()
