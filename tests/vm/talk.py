#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""talk.py FILE COMMAND...: a conversation that must not break, for takeover.

COMMAND sends back what it is given (ssh g1 cat). Numbered lines go there and are compared as they come back; FILE.sent has how
many went and FILE how many came. Once FILE.stop is there no more are sent, all must have come back, and COMMAND must end well. Status 0 if so.
"""

import os
import subprocess
import sys
import threading
import time

path, command = sys.argv[1], sys.argv[2:]
FILLING = "x" * 500


def text(number):
    return "%d %s\n" % (number, FILLING)


def tell(file, count):
    with open(file + ".new", "w", encoding="ascii") as f:
        f.write("%d\n" % count)
    os.rename(file + ".new", file)


def send(pipe):
    number = 0
    with pipe:
        while not os.path.exists(path + ".stop"):
            pipe.write(text(number))
            pipe.flush()
            number += 1
            tell(path + ".sent", number)
            time.sleep(0.05)
    sent.append(number)


sent = []
with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
    sender = threading.Thread(target=send, args=(child.stdin,), daemon=True)
    sender.start()
    count = 0
    for line in child.stdout:
        if line != text(count):
            sys.exit("line %d came back as %r" % (count, line[:40]))
        count += 1
        tell(path, count)
    status = child.wait()
    sender.join(5)
if status or sent != [count]:
    sys.exit("%s ended with status %d after %d lines, of %s sent" % (command[0], status, count, sent))
print(count, "lines")
