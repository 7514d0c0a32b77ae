// SPDX-License-Identifier: MIT
/*
 * libvnetsock.so, an LD_PRELOAD library that puts unmodified programs on the
 * socket family AF_INET_VNET.
 *
 * socket() for a TCP stream asks for a socket of the family instead, and for
 * the ordinary one if the kernel has no such family. Nothing is swapped later
 * and no descriptor stands in for another: the kernel socket itself decides
 * between offload and TCP when it connects, so read, poll, epoll, dup, fork,
 * exec and descriptor passing need nothing here. connect() and listen() are
 * interposed for the policy alone: they tell the socket which ways it may take
 * (VNET_SO_MODE) before the real call; a bind() by itself decides nothing.
 * close() is interposed to log which way a connection went, and does nothing
 * else.
 *
 * All calls are stateless: which descriptors are sockets of the family is the
 * kernel's knowledge, and setting VNET_SO_MODE on another one fails harmlessly.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vns.h"

#define TYPE_MASK 0xf /* SOCK_TYPE_MASK of the kernel: the rest are flags */

/* ---- socket ---- */

/*
 * Each socket() for an absent family makes the kernel run modprobe. After a
 * failure the family counts as absent for this many seconds.
 */
#define ABSENT_SECONDS 2

static _Atomic int64_t absent_until;

static int64_t now_seconds(void)
{
	struct timespec ts = { 0 };

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return ts.tv_sec;
}

static bool family_absent(void)
{
	int64_t until = atomic_load_explicit(&absent_until, memory_order_relaxed);

	return until && now_seconds() < until;
}

static bool is_tcp_stream(int domain, int type, int protocol)
{
	return (domain == AF_INET || domain == AF_INET6) &&
	       (type & TYPE_MASK) == SOCK_STREAM &&
	       (protocol == 0 || protocol == IPPROTO_TCP);
}

static void log_no_family(const struct vns_config *c, int err, bool refused)
{
	static atomic_flag said = ATOMIC_FLAG_INIT;
	struct vns_text t = { 0 };

	if (atomic_flag_test_and_set(&said))
		return;
	vns_log_start(c, &t);
	vns_put(&t, "no socket of family ");
	vns_put_u(&t, (unsigned long)c->family);
	vns_put(&t, ": ");
	vns_put_error(&t, err);
	if (err == EAFNOSUPPORT)
		vns_put(&t, " (is the module vtoe_sock loaded?)");
	vns_put(&t, refused ? "; refused, since VNET_MODE is vnet" :
			      "; using ordinary TCP sockets");
	vns_log_line(c, VNS_LOG_ERRORS, &t);
}

static int open_stream(const struct vns_config *c, int domain, int type,
		       int protocol)
{
	int saved = errno, err = EAFNOSUPPORT, fd;

	if (!family_absent()) {
		fd = c->next.socket(c->family, type, domain == AF_INET6 ?
				    VNETPROTO_IP6 : VNETPROTO_IP4);
		if (fd >= 0) {
			errno = saved;
			return fd;
		}
		err = errno;
		if (err == EAFNOSUPPORT)
			atomic_store_explicit(&absent_until,
					      now_seconds() + ABSENT_SECONDS,
					      memory_order_relaxed);
	}
	if (c->mode == VNET_MODE_VNET) {
		log_no_family(c, err, true);
		errno = err;
		return -1;
	}
	errno = saved;
	fd = c->next.socket(domain, type, protocol);
	/* Else it is no matter of the family: out of descriptors, say. */
	if (fd >= 0)
		log_no_family(c, err, false);
	return fd;
}

VNS_EXPORT int socket(int domain, int type, int protocol)
{
	const struct vns_config *c = vns_config();

	if (c->offload && is_tcp_stream(domain, type, protocol))
		return open_stream(c, domain, type, protocol);
	return c->next.socket(domain, type, protocol);
}

/* ---- connect, listen ---- */

static bool fd_is_tcp_stream(int fd)
{
	int domain = 0, type = 0, protocol = 0;
	socklen_t len = sizeof(int);

	return !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) &&
	       !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) &&
	       !getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) &&
	       is_tcp_stream(domain, type, protocol);
}

/*
 * Tells the socket which ways it may take to (or at) sa. False, with errno set
 * to refusal, if it must be offloaded and is an ordinary TCP socket.
 */
static bool steer(const struct vns_config *c, int fd, unsigned int dir,
		  const struct sockaddr *sa, socklen_t len, int refusal)
{
	int saved = errno, mode = c->mode;
	struct vns_text t = { 0 };
	bool other;

	if (mode < 0)
		mode = vns_policy_decide(&c->policy, dir, sa, len);
	if (!setsockopt(fd, SOL_VNET, VNET_SO_MODE, &mode, sizeof(mode)))
		return true;
	/* Connected, shut or not a socket: the real call will say it better. */
	other = errno == ENOPROTOOPT || errno == EOPNOTSUPP;
	if (mode == VNET_MODE_VNET && other && fd_is_tcp_stream(fd)) {
		vns_log_start(c, &t);
		vns_put(&t, dir == VNS_DIR_LISTEN ? "listen at " : "connect to ");
		vns_put_addr(&t, sa, len);
		vns_put(&t, " refused: the policy says vnet, and the socket is an ordinary one");
		vns_log_line(c, VNS_LOG_ERRORS, &t);
		errno = refusal;
		return false;
	}
	errno = saved;
	return true;
}

static bool is_inet(const struct sockaddr *sa, socklen_t len)
{
	return sa && len >= sizeof(struct sockaddr_in) &&
	       (sa->sa_family == AF_INET || sa->sa_family == AF_INET6);
}

VNS_EXPORT int connect(int fd, const struct sockaddr *sa, socklen_t len)
{
	const struct vns_config *c = vns_config();
	int ret;

	if (c->steer && is_inet(sa, len) &&
	    !steer(c, fd, VNS_DIR_CONNECT, sa, len, ENETUNREACH))
		return -1;
	ret = c->next.connect(fd, sa, len);
	if (!ret && c->log_level >= VNS_LOG_CONNECTIONS)
		vns_log_path(c, fd);
	return ret;
}

VNS_EXPORT int listen(int fd, int backlog)
{
	const struct vns_config *c = vns_config();
	struct sockaddr_storage local;
	socklen_t len = sizeof(local);
	int saved = errno;

	if (c->steer) {
		if (getsockname(fd, (struct sockaddr *)&local, &len))
			errno = saved;
		else if (is_inet((struct sockaddr *)&local, len) &&
			 !steer(c, fd, VNS_DIR_LISTEN, (struct sockaddr *)&local,
				len, EOPNOTSUPP))
			return -1;
	}
	return c->next.listen(fd, backlog);
}

/* ---- close, and the ends of a process ---- */

VNS_EXPORT int close(int fd)
{
	const struct vns_config *c = vns_config();

	if (c->log_level >= VNS_LOG_CONNECTIONS)
		vns_log_path(c, fd);
	return c->next.close(fd);
}

__attribute__((constructor)) static void start(void)
{
	vns_config();
}

__attribute__((destructor)) static void end(void)
{
	const struct vns_config *c = vns_config();

	if (c->log_level >= VNS_LOG_CONNECTIONS)
		vns_log_remaining(c);
}
