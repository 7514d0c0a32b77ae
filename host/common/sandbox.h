/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a daemon gives up after start-up: root, new privileges, and every
 * system call that its path does not need (libseccomp).
 */
#ifndef COMMON_SANDBOX_H
#define COMMON_SANDBOX_H

#include <stdbool.h>

/*
 * Drops to user (NULL: "nobody"; ignored when not root) keeping no capability,
 * sets no_new_privs. 0 or -errno, logged.
 */
int sandbox_drop_privileges(const char *user);
/* In the list of sandbox_restrict(): socket() of AF_INET and AF_INET6 only. */
#define SANDBOX_SOCKET_INET "socket(inet)"
/* ioctl() of the one number that verbs have, on whatever descriptor. */
#define SANDBOX_IOCTL_VERBS "ioctl(verbs)"
#define SANDBOX_VERBS_IOCTL_NR 0xc0181b01u /* RDMA_VERBS_IOCTL: the agent asserts it */
/*
 * Allows the calls named in a NULL-terminated list, on top of a common base;
 * any other kills the process. 0 or -errno, logged. The base has tgkill() of
 * this process alone, for abort(): one that forks names "tgkill", and the child
 * narrows it again.
 */
int sandbox_restrict(const char *const *syscalls);

#endif /* COMMON_SANDBOX_H */
