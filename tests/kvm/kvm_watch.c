// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Preloaded into QEMU: writes down what it asks KVM for in the way of eventfds,
 * and each interrupt that it injects itself, a line each, into the file that
 * $KVM_WATCH names:
 *
 *   ioeventfd add|remove FD ADDRESS MATCH     MATCH: the value written, or "any"
 *   irqfd add|remove FD GSI
 *   signal_msi ADDRESS DATA
 *
 * strace would show the calls, but not what they point to.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define LINE_MAX_LEN 128

static int (*real_ioctl)(int fd, unsigned long request, ...);
static int out = -1;

__attribute__((constructor)) static void start(void)
{
	const char *path = getenv("KVM_WATCH");

	real_ioctl = dlsym(RTLD_NEXT, "ioctl");
	if (path)
		out = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

/* One write a line: threads do not mix. A test that misses a line fails. */
__attribute__((format(printf, 1, 2))) static void note(const char *fmt, ...)
{
	char line[LINE_MAX_LEN];
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (out >= 0 && write(out, line, len) < 0)
		abort();
}

static void note_ioeventfd(const struct kvm_ioeventfd *e)
{
	char match[24] = "any";

	if (e->flags & KVM_IOEVENTFD_FLAG_DATAMATCH)
		snprintf(match, sizeof(match), "%" PRIu64, (uint64_t)e->datamatch);
	note("ioeventfd %s %d %#" PRIx64 " %s\n",
	     e->flags & KVM_IOEVENTFD_FLAG_DEASSIGN ? "remove" : "add", e->fd,
	     (uint64_t)e->addr, match);
}

static void note_irqfd(const struct kvm_irqfd *i)
{
	note("irqfd %s %d %u\n",
	     i->flags & KVM_IRQFD_FLAG_DEASSIGN ? "remove" : "add", (int)i->fd,
	     i->gsi);
}

static void note_msi(const struct kvm_msi *m)
{
	note("signal_msi %#x %#x\n", m->address_lo, m->data);
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;
	int ret;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	ret = real_ioctl(fd, request, arg);
	if (ret < 0)
		return ret;
	if (request == KVM_IOEVENTFD)
		note_ioeventfd(arg);
	else if (request == KVM_IRQFD)
		note_irqfd(arg);
	else if (request == KVM_SIGNAL_MSI)
		note_msi(arg);
	return ret;
}
