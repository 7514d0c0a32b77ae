#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""ends.py - one end of a TCP connection that writes down how the connection ended, for tests/vm/failures.

usage: ends.py sink PORT FILE           accept one connection, read until it ends
       ends.py source ADDR PORT FILE    connect, write until that fails
       ends.py idle ADDR PORT FILE      connect, write one byte, wait for what never comes

FILE gets one line: EOF or the name of the error (ECONNRESET), and the seconds since the epoch.
"""

import errno
import os
import socket
import sys
import time


def talk(mode, where):
    if mode == "sink":
        with socket.create_server(("", int(where[0]))) as listener:
            sock = listener.accept()[0]
    else:
        sock = socket.create_connection((where[0], int(where[1])))
    with sock:
        if mode == "source":
            data = bytes(65536)
            while True:
                sock.sendall(data)
        if mode == "idle":
            sock.sendall(b"1")
        while sock.recv(65536):
            pass
    return "EOF"


def main():
    if len(sys.argv) != (4 if sys.argv[1:2] == ["sink"] else 5):
        sys.exit(__doc__)
    try:
        how = talk(sys.argv[1], sys.argv[2:-1])
    except OSError as e:
        how = errno.errorcode.get(e.errno, repr(e))
    line = "%s %.3f\n" % (how, time.time())
    fd = os.open(sys.argv[-1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.write(fd, line.encode())


if __name__ == "__main__":
    main()
