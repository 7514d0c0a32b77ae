# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest of a lab: its process, and the command line into it (line.py), shared by any number of clients.

What kind of process that is: kinds.py; where it runs: hosts.py. The guest's serial line ends here.
"""

import asyncio
import os

import common
from common import LabError
from line import Line


class GuestLine(Line):
    def __init__(self, lab, guest):
        super().__init__(lab, "guest " + guest.name)
        self.guest = guest
        self.log = os.path.join(lab.state, guest.name + ".log")
        self.ready = False
        self.again = None   # the task that sets it up after a reboot

    async def start(self):
        self.child, reader, writer = await self.lab.ground.start_guest(self.guest, self.log)
        await self.connect(reader, writer, self.lab.opt["boot_timeout"])
        await self.set_up(self.lab.topology.guest_script(self.guest))
        self.ready = True

    def rebooted(self):
        self.ready = False
        super().rebooted()
        self.again = asyncio.create_task(self.start_again())

    async def start_again(self):
        try:
            await self.set_up(self.lab.topology.guest_script(self.guest))
            self.ready = True
        except LabError as e:
            common.say("%s has rebooted: %s" % (self.what, e))

    def ended(self):
        self.ready = False
        super().ended()
