#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run CPython's own tests in a guest, one line for each as it ends.

usage: cpython_run.py RESULTS LIMIT NAME...

NAME is a module, class or test below the package `test`. RESULTS gets a line "ok|skip|fail ID" for each; the traceback
of a failure goes to standard output. LIMIT seconds after a test began this process ends with a traceback of every thread,
and the test that hangs is the one with "start" and no other line.
"""

import faulthandler
import os
import sys
import tempfile
import unittest

from test import support


class Result(unittest.TestResult):
    """Writes down what happens while it happens."""

    def __init__(self, path, limit):
        super().__init__()
        self.out = open(path, "a", buffering=1, encoding="utf-8")
        self.limit = limit
        self.failed = False

    def say(self, what, test):
        self.out.write("%s %s\n" % (what, test.id() if hasattr(test, "id") else test))

    def startTest(self, test):
        super().startTest(test)
        self.failed = False
        self.say("start", test)
        faulthandler.dump_traceback_later(self.limit, exit=True, file=sys.stdout)

    def stopTest(self, test):
        super().stopTest(test)
        faulthandler.cancel_dump_traceback_later()

    def fail(self, test, err):
        if not self.failed:
            self.say("fail", test)
        self.failed = True
        print("==== %s\n%s" % (test, self._exc_info_to_string(err, test)), flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.say("ok", test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.say("skip", test)

    def addError(self, test, err):
        super().addError(test, err)
        self.fail(test, err)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.fail(test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.fail(test, err)

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.say("ok", test)


def main():
    path, limit, names = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
    # Without internet; socketserver's tests call loopback a network.
    support.use_resources = ["cpu", "walltime"]
    if any("socketserver" in name for name in names):
        support.use_resources.append("network")
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        result = Result(path, limit)
        suite = unittest.defaultTestLoader.loadTestsFromNames(["test." + name for name in names])
        suite.run(result)
        os.chdir("/")
    print("%d tests, %d failures, %d errors, %d skipped" %
          (result.testsRun, len(result.failures), len(result.errors), len(result.skipped)))


if __name__ == "__main__":
    main()
