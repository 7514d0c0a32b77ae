// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * UDP sockets.
 *
 * Links with one local address and port share a socket. A socket with a single
 * link is connected to its remote: the kernel then drops other senders'
 * datagrams and skips the route lookup. On others the sender's address decides,
 * and a datagram from nobody's remote is dropped and counted.
 *
 * UDP_SEGMENT cuts what one sendmsg() gives into datagrams, UDP_GRO joins them
 * for one recvmsg(); both never with a zero UDP checksum. Path MTU discovery is
 * off and DF set: the configuration says what the path carries, and a forged
 * ICMP message cannot shrink it.
 *
 * Threat model: anybody on the underlay can send to the port; whoever can forge
 * the remote's address can send as the remote. Everything in a datagram is
 * checked by rx.c. ICMP errors surface as errors of later calls; they are
 * swallowed.
 */
#include <errno.h>
#include <linux/udp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "conf.h"
#include "log.h"
#include "shim.h"

/* Room for a few thousand trains' worth of bursts; the kernel doubles it. */
#define SOCKET_BUFFER (16 << 20)
/* An ICMP error per call is swallowed; more in a row are somebody's game. */
#define ERRORS_SWALLOWED 4

static void set_buffer(int fd, int force, int plain)
{
	const int size = SOCKET_BUFFER;

	if (setsockopt(fd, SOL_SOCKET, force, &size, sizeof(size)) < 0)
		setsockopt(fd, SOL_SOCKET, plain, &size, sizeof(size));
}

static int open_socket(const struct sockaddr_storage *local)
{
	const int on = 1, probe4 = IP_PMTUDISC_PROBE, probe6 = IPV6_PMTUDISC_PROBE;
	char text[SOCKADDR_STRLEN];
	int fd, ret;

	fd = socket(local->ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
		    IPPROTO_UDP);
	if (fd < 0)
		goto fail;
	if (local->ss_family == AF_INET6) {
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
		setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &probe6,
			   sizeof(probe6));
	} else {
		setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &probe4,
			   sizeof(probe4));
	}
	set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF);
	set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF);
	if (setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof(on)) < 0)
		log_warn("no UDP_GRO in this kernel: receiving will be slow");
	if (bind(fd, (const struct sockaddr *)local, sockaddr_len(local)) == 0)
		return fd;
fail:
	ret = -errno;
	log_err("link address %s: %s", sockaddr_format(local, text),
		strerror(-ret));
	if (fd >= 0)
		close(fd);
	return ret;
}

unsigned int shim_links_probe_segs(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const int one = 1;
	char bytes[SHIM_SEGS_MAX] = { 0 };
	socklen_t len = sizeof(addr);
	unsigned int segs = 64; /* Linux before 6.9, or no loopback to ask */
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return segs;
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 &&
	    getsockname(fd, (struct sockaddr *)&addr, &len) == 0 &&
	    setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &one, sizeof(one)) == 0 &&
	    sendto(fd, bytes, sizeof(bytes), 0, (struct sockaddr *)&addr,
		   len) == sizeof(bytes))
		segs = SHIM_SEGS_MAX;
	close(fd);
	return segs;
}

/* ---- the table ---- */

static struct shim_sock *find_sock(struct shim_links *links,
				   const struct sockaddr_storage *local)
{
	unsigned int i;

	for (i = 0; i < links->sock_count; i++)
		if (sockaddr_equal(&links->sock[i].local, local))
			return &links->sock[i];
	return NULL;
}

static int add_sock(struct shim *shim, struct shim_links *next,
		    const struct sockaddr_storage *local)
{
	struct shim_sock *old = find_sock(&shim->links, local);
	struct shim_sock *sock = &next->sock[next->sock_count];
	int fd = old ? old->fd : open_socket(local);

	if (fd < 0)
		return fd;
	sock->shim = shim;
	sock->fd = fd;
	sock->local = *local;
	sock->pair = next->sock_count++;
	return 0;
}

static void readable(int fd, uint32_t events, void *ctx)
{
	struct shim_sock *sock = ctx;
	socklen_t len = sizeof(int);
	int err;

	if (!sock->paused) {
		shim_rx_run(sock->shim, sock);
		return;
	}
	/* epoll reports errors even if nothing is asked for */
	if (events & EPOLLERR)
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
}

/* Points the socket at its only remote, or at none. */
static void connect_sock(struct shim_links *links, struct shim_sock *sock)
{
	const struct sockaddr none = { .sa_family = AF_UNSPEC };
	unsigned int i;

	for (i = 0; i < links->count; i++) {
		struct shim_link *link = &links->link[i];
		const struct sockaddr_storage *remote = &link->conf->remote;

		if (link->sock != sock || sock->link_count != 1)
			continue;
		sock->last = link;
		/* No route yet is no reason not to start. */
		if (connect(sock->fd, (const struct sockaddr *)remote,
			    sockaddr_len(remote)) == 0) {
			sock->only = link;
			return;
		}
	}
	connect(sock->fd, &none, sizeof(none));
}

static void keep_counters(const struct shim_links *old, struct shim_link *link)
{
	unsigned int i;

	for (i = 0; i < old->count; i++) {
		const struct shim_link *o = &old->link[i];

		if (strcmp(o->conf->name, link->conf->name))
			continue;
		link->tx_datagrams = o->tx_datagrams;
		link->tx_bytes = o->tx_bytes;
		link->rx_datagrams = o->rx_datagrams;
		link->rx_bytes = o->rx_bytes;
	}
}

static int build(struct shim *shim, struct shim_links *next,
		 const struct shim_config *conf)
{
	unsigned int i;
	int ret;

	for (i = 0; i < conf->link_count; i++) {
		const struct shim_link_conf *c = &conf->link[i];
		struct shim_link *link = &next->link[i];

		if (!find_sock(next, &c->local)) {
			ret = add_sock(shim, next, &c->local);
			if (ret < 0)
				return ret;
		}
		link->conf = c;
		link->number = i + 1;
		keep_counters(&shim->links, link);
		next->count++;
	}
	return 0;
}

static void close_unshared(struct shim_links *links, struct shim_links *other)
{
	unsigned int i;

	for (i = 0; i < links->sock_count; i++)
		if (!find_sock(other, &links->sock[i].local))
			close(links->sock[i].fd);
}

static void unwatch(struct shim_links *links)
{
	unsigned int i;

	for (i = 0; i < links->sock_count; i++) {
		loop_remove_fd(links->sock[i].source);
		links->sock[i].source = NULL;
	}
}

static bool same_link(const struct shim_link_conf *a, const struct shim_link_conf *b)
{
	return !strcmp(a->name, b->name) && a->form == b->form &&
	       a->payload == b->payload && sockaddr_equal(&a->local, &b->local) &&
	       sockaddr_equal(&a->remote, &b->remote);
}

bool shim_links_keep(struct shim *shim, const struct shim_config *conf)
{
	struct shim_links *links = &shim->links;
	unsigned int i;

	if (links->count != conf->link_count)
		return false;
	for (i = 0; i < links->count; i++)
		if (!same_link(links->link[i].conf, &conf->link[i]))
			return false;
	for (i = 0; i < links->count; i++)
		links->link[i].conf = &conf->link[i];
	return true;
}

int shim_links_set(struct shim *shim, const struct shim_config *conf)
{
	struct shim_links *links = &shim->links;
	struct shim_links next = { .max_segs = links->max_segs };
	unsigned int i;
	int ret;

	ret = build(shim, &next, conf);
	if (ret < 0) {
		close_unshared(&next, links);
		return ret;
	}
	/* From here on nothing fails. */
	unwatch(links);
	close_unshared(links, &next);
	*links = next;
	for (i = 0; i < links->count; i++) {
		struct shim_link *link = &links->link[i];

		link->sock = find_sock(links, &link->conf->local);
		link->sock->link_count++;
		if (link->conf->form == VNET_TRAIN_SEGMENTED)
			link->sock->linear = true;
	}
	for (i = 0; i < links->sock_count; i++) {
		struct shim_sock *sock = &links->sock[i];

		connect_sock(links, sock);
		sock->source = loop_add_fd(shim->loop, sock->fd, EPOLLIN,
					   readable, sock);
		if (!sock->source)
			log_err("vm %s: cannot watch a link's socket: %s",
				conf->vm, strerror(errno));
	}
	return 0;
}

void shim_links_close(struct shim *shim)
{
	struct shim_links none = { 0 };

	unwatch(&shim->links);
	close_unshared(&shim->links, &none);
	shim->links = none;
}

void shim_sock_pause(struct shim_sock *sock, bool pause)
{
	if (sock->paused == pause)
		return;
	sock->paused = pause;
	if (sock->source)
		loop_set_events(sock->source, pause ? 0 : EPOLLIN);
}

/* ---- sending and receiving ---- */

union segment_cmsg {
	char buf[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

static void put_segment_size(struct msghdr *msg, union segment_cmsg *control,
			     uint16_t size)
{
	struct cmsghdr *cmsg = &control->align;

	cmsg->cmsg_level = IPPROTO_UDP;
	cmsg->cmsg_type = UDP_SEGMENT;
	cmsg->cmsg_len = CMSG_LEN(sizeof(size));
	memcpy(CMSG_DATA(cmsg), &size, sizeof(size));
	msg->msg_control = control->buf;
	msg->msg_controllen = CMSG_SPACE(sizeof(size));
}

static bool icmp_error(int err)
{
	return err == ECONNREFUSED || err == EHOSTUNREACH || err == ENETUNREACH ||
	       err == EHOSTDOWN || err == ENOPROTOOPT;
}

static void count_send_error(struct shim *shim, struct shim_link *link, int err)
{
	static struct log_ratelimit limit;

	if (err == EAGAIN || err == ENOBUFS || err == ENOMEM) {
		shim->stats.tx_drop_full++;
		return;
	}
	if (err == EMSGSIZE || err == EINVAL)
		shim->stats.tx_drop_mtu++;
	else
		shim->stats.tx_drop_error++;
	if (log_ratelimited_ok(&limit, 3, 60))
		log_warn("vm %s: link %s: send: %s%s", shim->conf->vm,
			 link->conf->name, strerror(err),
			 err == EMSGSIZE || err == EINVAL ?
				 " (is its mtu that of the path?)" :
				 "");
}

int shim_link_send(struct shim *shim, struct shim_link *link,
		   struct iovec *iov, unsigned int iov_count, size_t bytes,
		   uint16_t size)
{
	const struct sockaddr_storage *remote = &link->conf->remote;
	union segment_cmsg control;
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = iov_count };
	unsigned int tries = ERRORS_SWALLOWED;
	ssize_t n;

	if (!link->sock->only) {
		msg.msg_name = (void *)remote;
		msg.msg_namelen = sockaddr_len(remote);
	}
	if (bytes > size)
		put_segment_size(&msg, &control, size);
	do {
		n = sendmsg(link->sock->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && (errno == EINTR || icmp_error(errno)) && --tries);
	if (n < 0) {
		const int err = errno;

		count_send_error(shim, link, err);
		return -err;
	}
	shim->stats.tx_sends++;
	shim->stats.tx_datagrams += (bytes + size - 1) / size;
	link->tx_datagrams += (bytes + size - 1) / size;
	link->tx_bytes += bytes;
	return 0;
}

static struct shim_link *find_source(struct shim_sock *sock,
				     const struct sockaddr_storage *from)
{
	struct shim_links *links = &sock->shim->links;
	unsigned int i;

	if (sock->last && sockaddr_equal(&sock->last->conf->remote, from))
		return sock->last;
	for (i = 0; i < links->count; i++) {
		struct shim_link *link = &links->link[i];

		if (link->sock == sock &&
		    sockaddr_equal(&link->conf->remote, from)) {
			sock->last = link;
			return link;
		}
	}
	return NULL;
}

static int segment_size(struct msghdr *msg)
{
	struct cmsghdr *cmsg;
	int size;

	for (cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		if (cmsg->cmsg_level != IPPROTO_UDP ||
		    cmsg->cmsg_type != UDP_GRO)
			continue;
		memcpy(&size, CMSG_DATA(cmsg), sizeof(size));
		return size;
	}
	return 0;
}

int shim_sock_recv(struct shim_sock *sock, struct iovec *iov,
		   unsigned int iov_count, struct shim_batch *batch)
{
	struct shim *shim = sock->shim;
	struct sockaddr_storage from;
	union segment_cmsg control;
	struct msghdr msg = {
		.msg_iov = iov,
		.msg_iovlen = iov_count,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
		.msg_name = &from,
		.msg_namelen = sizeof(from),
	};
	unsigned int tries = ERRORS_SWALLOWED;
	ssize_t n;
	int size;

	do {
		n = recvmsg(sock->fd, &msg, MSG_DONTWAIT);
	} while (n < 0 && (errno == EINTR || icmp_error(errno)) && --tries);
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	size = segment_size(&msg);
	*batch = (struct shim_batch){ .bytes = n };
	batch->size = size > 0 && size < n ? size : n;
	batch->count = n ? (n + batch->size - 1) / batch->size : 1;
	shim->stats.rx_recvs++;
	shim->stats.rx_datagrams += batch->count;
	if (msg.msg_flags & MSG_TRUNC) {
		shim->stats.rx_drop_truncated++;
		return 1;
	}
	/* of a connected socket, too: what came before connect() is from anybody */
	batch->link = find_source(sock, &from);
	if (!batch->link) {
		shim->stats.rx_drop_unknown_source += batch->count;
		return 1;
	}
	batch->link->rx_datagrams += batch->count;
	batch->link->rx_bytes += n;
	return 1;
}
