// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * accel_probe - /init of the guest that accel.py starts to find out whether
 * Linux runs under an accelerator.
 *
 * It does what a kernel must be able to do before anything else is worth
 * trying: enter and leave user space, fork and wait, sleep until a timer's
 * interrupt. Then it writes ACCEL_WORKS to the isa-debug-exit device, which
 * ends QEMU with the status 2 * ACCEL_WORKS + 1. Whatever fails ends it as
 * init, so the kernel panics and QEMU ends with another status.
 */
#include <stdlib.h>
#include <sys/io.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DEBUG_EXIT 0xf4		/* accel.py puts the device there */
#define ACCEL_WORKS 42

int main(void)
{
	struct timespec nap = { .tv_nsec = 50000000 };
	int i, status;
	pid_t child;

	for (i = 0; i < 3; i++) {
		child = fork();
		if (child == 0)
			_exit(nanosleep(&nap, NULL) ? 1 : 0);
		if (child < 0 || waitpid(child, &status, 0) != child || status)
			return 1;
	}
	if (ioperm(DEBUG_EXIT, 1, 1))
		return 1;
	outb(ACCEL_WORKS, DEBUG_EXIT);
	return 1;
}
