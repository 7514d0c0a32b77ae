// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * RDMA devices of a tenant: addresses, completion queues, and what comes of a
 * device apart from completions.
 *
 * Theory of operation. Every address that the operator allows (`rdma`) becomes a
 * port: an id of the connection manager that listens there, and through it the
 * device that it belongs to. Addresses of one device share it. A device has a
 * protection domain and one completion queue, which grows with what may complete
 * on it at once. Its channel wakes the loop; while the process is awake it polls.
 *
 * Everything is opened before the sandbox closes, since librdmacm and libibverbs
 * open files and load providers then; main has them loaded before it forks. What
 * stays possible is one ioctl number, and reads and writes on open descriptors.
 *
 * A device that goes away (DEVICE_REMOVAL, DEVICE_FATAL) takes its lanes, the
 * registrations and its ports with it; the kernel waits for us to let go. Its
 * connections end or go on over another fabric, and this process does not use it
 * again.
 */
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <rdma/rdma_user_ioctl_cmds.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "sandbox.h"

_Static_assert(RDMA_VERBS_IOCTL == SANDBOX_VERBS_IOCTL_NR,
	       "the filter lets pass what libibverbs calls");

#define LISTEN_BACKLOG 64
#define CQE_FIRST 1024u
#define CQE_IWARP 32768u /* whose drivers cannot make it larger */
#define POLL_BUDGET 256u

/* ---- before the sandbox ---- */

void iba_verbs_prepare(const struct iba_config *cfg)
{
	const struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	struct ibv_device **list;
	int count = 0;

	if (!iba_config_allows(cfg, VTOE_FABRIC_VERBS))
		return;
	if (setrlimit(RLIMIT_MEMLOCK, &unlimited) < 0) {
		struct rlimit limit = { 0, 0 };

		getrlimit(RLIMIT_MEMLOCK, &limit);
		if (limit.rlim_cur != RLIM_INFINITY)
			log_warn("RLIMIT_MEMLOCK is %llu kB and cannot be raised (%s): VMs with more memory go without verbs",
				 (unsigned long long)limit.rlim_cur >> 10,
				 strerror(errno));
	}
	list = ibv_get_device_list(&count); /* loads the providers */
	if (list)
		ibv_free_device_list(list);
	if (!count)
		log_warn("fabric verbs: this host has no RDMA device; one that comes later is found when the agent is started again");
}

/* ---- completion queues ---- */

int iba_vdev_reserve(struct iba_vdev *dev, uint32_t n)
{
	uint32_t needed = dev->cqe_needed + n;
	uint32_t size = (uint32_t)dev->cq->cqe;

	if (needed > (uint32_t)dev->attr.max_cqe)
		return -ENOSPC;
	while (size < needed)
		size *= 2;
	if (size > (uint32_t)dev->attr.max_cqe)
		size = (uint32_t)dev->attr.max_cqe;
	if (size > (uint32_t)dev->cq->cqe) {
		int err = ibv_resize_cq(dev->cq, (int)size);

		if (err) {
			log_warn("verbs: %s: completion queue of %u: %s",
				 ibv_get_device_name(dev->ctx->device), size,
				 strerror(err));
			return -err;
		}
	}
	dev->cqe_needed = needed;
	return 0;
}

void iba_vdev_release(struct iba_vdev *dev, uint32_t n)
{
	dev->cqe_needed -= n;
}

uint32_t iba_vdev_sends(const struct iba_vdev *dev, uint32_t n)
{
	return dev->immediates ? n : 2 * n; /* verbs_ring.c */
}

uint32_t iba_vlane_cqes(const struct iba_vlane *lane)
{
	return IBA_V_CTRL_RX + IBA_V_CTRL_TX +
	       iba_vdev_sends(lane->dev, VNET_RWQ_CLASSES * IBA_V_EARLY);
}

struct iba_vqp *iba_vdev_qp(struct iba_vdev *dev, uint32_t number)
{
	struct iba_vqp *qp;

	LIST_FOREACH(qp, &dev->qp[number % IBA_V_BUCKETS], link)
		if (qp->number == number)
			return qp;
	return NULL;
}

/* ---- events ---- */

static void channel_readable(int fd, uint32_t events, void *ctx)
{
	struct iba_vdev *dev = ctx;
	struct ibv_cq *cq;
	void *cq_ctx;

	(void)fd;
	(void)events;
	/*
	 * The pass polls: here the channel is only emptied. It has one event, two if
	 * it was armed for more meanwhile; looking would cost a system call.
	 */
	if (!ibv_get_cq_event(dev->channel, &cq, &cq_ctx)) {
		ibv_ack_cq_events(cq, 1);
		dev->armed = IBA_V_NOTHING;
	}
}

static void async_event(struct iba_vdev *dev, const struct ibv_async_event *ev,
			struct iba_vqp *qp)
{
	const char *name = ibv_event_type_str(ev->event_type);

	switch (ev->event_type) {
	case IBV_EVENT_QP_LAST_WQE_REACHED:
		if (qp)
			qp->last_wqe = true;
		break;
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
		if (qp)
			iba_vlane_end(qp->lane, VTOE_REASON_LANE_LOST, name);
		break;
	case IBV_EVENT_DEVICE_FATAL:
	case IBV_EVENT_CQ_ERR:
		iba_vdev_dead(dev, name);
		break;
	default: /* ports that come and go: the queue pairs tell */
		log_info("verbs: %s: %s", ibv_get_device_name(dev->ctx->device),
			 name);
		break;
	}
}

static bool is_qp_event(enum ibv_event_type type)
{
	switch (type) {
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
	case IBV_EVENT_QP_LAST_WQE_REACHED:
		return true;
	default:
		return false;
	}
}

static void async_readable(int fd, uint32_t events, void *ctx)
{
	struct iba_vdev *dev = ctx;
	struct ibv_async_event ev;

	(void)fd;
	(void)events;
	while (!dev->dead && !ibv_get_async_event(dev->ctx, &ev)) {
		struct iba_vqp *qp = NULL;

		if (is_qp_event(ev.event_type))
			qp = iba_vdev_qp(dev, ev.element.qp->qp_num);
		/* before a queue pair is destroyed, which waits for this */
		ibv_ack_async_event(&ev);
		async_event(dev, &ev, qp);
	}
}

/* ---- the pass ---- */

bool iba_verbs_run(struct iba_tenant *t)
{
	struct iba_verbs *v = t->verbs;
	struct iba_vdev *dev;
	bool work = false;

	if (!v)
		return false;
	LIST_FOREACH(dev, &v->devs, link)
		if (!dev->dead && iba_vrx_poll(dev, POLL_BUDGET)) {
			t->received = true;
			work = true;
		}
	return work;
}

/*
 * Messages are sent as solicited, and of what we send only that wakes us by which
 * somebody gets on: a guest its buffers, a lane a slot. The rest is taken with
 * what comes next; that a SEND has failed, by the tick that lanes have. Soft iWARP
 * does not tell of what comes in solicited, but of what goes out.
 */
static enum iba_varmed wanted(const struct iba_vdev *dev)
{
	return dev->awaited || dev->lanes_short || !dev->immediates ?
		       IBA_V_COMPLETIONS : IBA_V_MESSAGES;
}

bool iba_verbs_rest(struct iba_tenant *t)
{
	struct iba_verbs *v = t->verbs;
	struct iba_vdev *dev;
	bool work = false;

	if (!v)
		return false;
	LIST_FOREACH(dev, &v->devs, link) {
		enum iba_varmed arm = wanted(dev);

		if (dev->dead || dev->armed >= arm)
			continue;
		if (ibv_req_notify_cq(dev->cq, arm == IBA_V_MESSAGES)) {
			iba_vdev_dead(dev, "its completion queue is lost");
			return true;
		}
		dev->armed = arm;
		/* what came before that is not told */
		work |= iba_vrx_poll(dev, POLL_BUDGET) > 0;
	}
	return work;
}

uint16_t iba_verbs_pieces(const struct iba_tenant *t)
{
	const struct iba_vdev *dev;
	int pieces = IBA_V_SGE_MAX;

	if (!t->verbs)
		return IBA_PIECES_MAX;
	LIST_FOREACH(dev, &t->verbs->devs, link) {
		if (dev->attr.max_sge < pieces)
			pieces = dev->attr.max_sge;
		if (dev->attr.max_srq_sge < pieces)
			pieces = dev->attr.max_srq_sge;
	}
	return (uint16_t)(pieces - 1); /* the agent's header is one */
}

/* ---- statistics ---- */

#define FIELD(out, stats, field) \
	fprintf(out, "\"" #field "\":%llu,", (unsigned long long)(stats)->field)

static void print_lane(FILE *out, const struct iba_vlane *lane)
{
	const struct iba_vlane_stats *s = &lane->stats;
	const struct iba_vvm *vvm = lane->vvm;

	fprintf(out, "{\"peer\":\"%s\",\"fabric\":\"verbs\",\"device\":\"%s\",\"state\":\"%s\",",
		lane->name, ibv_get_device_name(lane->dev->ctx->device),
		iba_vlane_state_name(lane->state));
	FIELD(out, s, tx_msgs);
	FIELD(out, s, tx_bytes);
	FIELD(out, s, tx_inline);
	FIELD(out, s, tx_inline_bytes);
	FIELD(out, s, tx_writes);
	FIELD(out, s, rx_msgs);
	FIELD(out, s, rx_bytes);
	FIELD(out, s, rx_early);
	FIELD(out, s, rx_recycled);
	FIELD(out, s, rx_writes);
	FIELD(out, s, rx_copied_bytes);
	FIELD(out, s, ctrl_tx);
	FIELD(out, s, ctrl_rx);
	FIELD(out, s, ctrl_waits);
	FIELD(out, s, nops);
	for (int c = 0; vvm && c < VNET_RWQ_CLASSES; c++)
		fprintf(out, "\"%s\":{\"posted\":%u,\"promised\":%u,\"ghosts\":%u,\"suspect\":%u},",
			c == VNET_RWQ_SMALL ? "small" : "large", vvm->posted[c],
			vvm->promised[c], vvm->ghosts[c], vvm->suspect[c]);
	if (vvm)
		FIELD(out, vvm, grants_deferred);
	fprintf(out, "\"paths\":%u,\"queued\":%u}", lane->path_count,
		lane->fifo_count);
}

void iba_verbs_print(const struct iba_tenant *t, FILE *out, const char *comma)
{
	const struct iba_vlane *lane;

	if (!t->verbs)
		return;
	TAILQ_FOREACH(lane, &t->verbs->lanes, link) {
		fputs(comma, out);
		print_lane(out, lane);
		comma = ",";
	}
}

/* ---- ports ---- */

/* The address without its port; how many bits it has. */
static unsigned int address_of(const struct sockaddr *addr,
			       const uint8_t **bytes)
{
	if (addr->sa_family == AF_INET6) {
		*bytes = ((const struct sockaddr_in6 *)addr)->sin6_addr.s6_addr;
		return 128;
	}
	*bytes = (const uint8_t *)&((const struct sockaddr_in *)addr)->sin_addr;
	return 32;
}

static bool same_prefix(const struct sockaddr *a, const struct sockaddr *b,
			unsigned int bits)
{
	const uint8_t *x, *y;

	if (a->sa_family != b->sa_family)
		return false;
	address_of(a, &x);
	address_of(b, &y);
	return !memcmp(x, y, bits / 8) &&
	       (bits % 8 == 0 || !((x[bits / 8] ^ y[bits / 8]) >> (8 - bits % 8)));
}

/* Of the interface that has it; the whole address if none has. */
static unsigned int prefix_of(const struct sockaddr *addr)
{
	const uint8_t *bytes;
	unsigned int all = address_of(addr, &bytes), bits = 0;
	struct ifaddrs *list, *i;

	if (getifaddrs(&list))
		return all;
	for (i = list; i; i = i->ifa_next)
		if (i->ifa_addr && i->ifa_netmask &&
		    same_prefix(addr, i->ifa_addr, all))
			break;
	if (i)
		address_of(i->ifa_netmask, &bytes);
	while (i && bits < all && bytes[bits / 8] & 0x80 >> bits % 8)
		bits++;
	freeifaddrs(list);
	return bits ? bits : all;
}

bool iba_vport_meets(const struct iba_vport *port,
		     const struct sockaddr_storage *to)
{
	return same_prefix((const struct sockaddr *)&port->addr,
			   (const struct sockaddr *)to, port->prefix);
}

static bool same_family(const struct iba_vport *port,
			const struct sockaddr_storage *to)
{
	return port->addr.ss_family == to->ss_family;
}

static struct iba_vport *next_port(struct iba_verbs *v,
				   bool (*suits)(const struct iba_vport *port,
						 const struct sockaddr_storage *to),
				   const struct sockaddr_storage *to)
{
	for (unsigned int i = 0; i < v->port_count; i++) {
		struct iba_vport *port =
			&v->port[v->port_next++ % v->port_count];

		if (port->listen && !port->dev->dying &&
		    (!suits || suits(port, to)))
			return port;
	}
	return NULL;
}

struct iba_vport *iba_vport_next(struct iba_verbs *v)
{
	return next_port(v, NULL, NULL);
}

struct iba_vport *iba_vport_toward(struct iba_verbs *v,
				   const struct sockaddr_storage *to)
{
	struct iba_vport *port = next_port(v, iba_vport_meets, to);

	return port ? port : next_port(v, same_family, to);
}

static int set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno :
									 0;
}

static void dev_close(struct iba_vdev *dev)
{
	loop_remove_fd(dev->channel_source);
	loop_remove_fd(dev->async_source);
	if (dev->cq)
		ibv_destroy_cq(dev->cq);
	if (dev->channel)
		ibv_destroy_comp_channel(dev->channel);
	if (dev->pd)
		ibv_dealloc_pd(dev->pd);
	dev->channel_source = dev->async_source = NULL;
	dev->cq = NULL;
	dev->channel = NULL;
	dev->pd = NULL;
}

static int dev_build(struct iba_vdev *dev)
{
	struct loop *loop = dev->v->t->loop;
	uint32_t cqe;

	if (ibv_query_device(dev->ctx, &dev->attr))
		return -ENODEV;
	if (dev->attr.max_srq <= 0 || dev->attr.max_srq_sge < 6 ||
	    dev->attr.max_sge < 6)
		return -EOPNOTSUPP;
	dev->immediates = dev->ctx->device->transport_type != IBV_TRANSPORT_IWARP;
	dev->pd = ibv_alloc_pd(dev->ctx);
	dev->channel = ibv_create_comp_channel(dev->ctx);
	if (!dev->pd || !dev->channel)
		return -errno;
	cqe = dev->immediates ? CQE_FIRST : CQE_IWARP;
	if (cqe > (uint32_t)dev->attr.max_cqe)
		cqe = (uint32_t)dev->attr.max_cqe;
	dev->cq = ibv_create_cq(dev->ctx, (int)cqe, dev, dev->channel, 0);
	if (!dev->cq || set_nonblocking(dev->channel->fd) ||
	    set_nonblocking(dev->ctx->async_fd))
		return -errno;
	dev->channel_source = loop_add_fd(loop, dev->channel->fd, EPOLLIN,
					  channel_readable, dev);
	dev->async_source = loop_add_fd(loop, dev->ctx->async_fd, EPOLLIN,
					async_readable, dev);
	return dev->channel_source && dev->async_source ? 0 : -errno;
}

static struct iba_vdev *dev_get(struct iba_verbs *v, struct ibv_context *ctx)
{
	struct iba_vdev *dev;
	int err;

	LIST_FOREACH(dev, &v->devs, link)
		if (dev->ctx == ctx)
			return dev;
	dev = calloc(1, sizeof(*dev));
	if (!dev)
		return NULL;
	dev->v = v;
	dev->ctx = ctx;
	err = dev_build(dev);
	if (err) {
		log_warn("verbs: %s cannot be used: %s",
			 ibv_get_device_name(ctx->device), strerror(-err));
		dev_close(dev);
		free(dev);
		return NULL;
	}
	LIST_INSERT_HEAD(&v->devs, dev, link);
	if (!dev->immediates && v->t->cfg->fabric_count > 1)
		log_warn("verbs: %s is iWARP, which does not give buffers back to other fabrics while a lane lives: allow no other beside it (docs/rdma.md)",
			 ibv_get_device_name(ctx->device));
	return dev;
}

static void set_port(struct sockaddr_storage *addr, uint16_t port)
{
	if (addr->ss_family == AF_INET6)
		((struct sockaddr_in6 *)addr)->sin6_port = port;
	else
		((struct sockaddr_in *)addr)->sin_port = port;
}

static void port_close(struct iba_vport *port)
{
	if (port->listen)
		rdma_destroy_id(port->listen);
	port->listen = NULL;
}

/* libibverbs reads a file for each: not possible later. */
static int gid_index(const struct rdma_cm_id *id)
{
	const union ibv_gid *want = &id->route.addr.addr.ibaddr.sgid;
	struct ibv_port_attr attr;
	union ibv_gid gid;

	if (ibv_query_port(id->verbs, id->port_num, &attr))
		return -1;
	for (int i = 0; i < attr.gid_tbl_len; i++)
		if (!ibv_query_gid(id->verbs, id->port_num, i, &gid) &&
		    !memcmp(&gid, want, sizeof(gid)))
			return i;
	return -1;
}

/* On any port. Of iWARP's some are taken: see port_taken() in verbs_cm.c. */
static int port_listen(struct iba_verbs *v, struct iba_vport *port)
{
	int err = -EADDRINUSE;

	set_port(&port->addr, 0);
	for (unsigned int i = 0; i < IBA_V_PORT_TRIES && err == -EADDRINUSE; i++) {
		port_close(port);
		err = 0;
		if (rdma_create_id(v->cm, &port->listen, NULL, RDMA_PS_TCP) ||
		    rdma_bind_addr(port->listen, (struct sockaddr *)&port->addr) ||
		    rdma_listen(port->listen, LISTEN_BACKLOG))
			err = -errno;
	}
	return err;
}

static int port_open(struct iba_verbs *v, struct iba_vport *port,
		     const struct sockaddr_storage *addr)
{
	int err;

	port->addr = *addr;
	port->prefix = prefix_of((const struct sockaddr *)addr);
	err = port_listen(v, port);
	if (err)
		return err;
	if (!port->listen->verbs) /* a wildcard: no device */
		return -EADDRNOTAVAIL;
	set_port(&port->addr, rdma_get_src_port(port->listen));
	port->dev = dev_get(v, port->listen->verbs);
	if (!port->dev)
		return -EOPNOTSUPP;
	port->gid_index = gid_index(port->listen);
	return 0;
}

/* ---- the end of a device ---- */

void iba_vdev_dead(struct iba_vdev *dev, const char *why)
{
	struct iba_verbs *v = dev->v;
	struct iba_vlane *lane, *next;

	if (dev->dying)
		return;
	dev->dying = true;
	log_err("verbs: tenant %u: %s is gone: %s", v->t->id,
		ibv_get_device_name(dev->ctx->device), why);
	for (lane = TAILQ_FIRST(&v->lanes); lane; lane = next) {
		next = TAILQ_NEXT(lane, link);
		if (lane->dev != dev)
			continue;
		iba_vlane_end(lane, VTOE_REASON_LANE_LOST, why);
		iba_vlane_release(lane);
	}
	for (unsigned int i = 0; i < IBA_V_VMS_MAX; i++)
		if (v->vvm[i] && v->vvm[i]->dev == dev)
			iba_vvm_destroy(v->vvm[i]);
	for (unsigned int i = 0; i < v->port_count; i++)
		if (v->port[i].dev == dev)
			port_close(&v->port[i]);
	dev_close(dev);
	dev->dead = true;
	/*
	 * librdmacm keeps it open as long as the process lives, and a driver
	 * that cannot take a device from under its users (rxe) waits for them.
	 * No id of ours will refer to this device again, and so nor will it.
	 */
	ibv_close_device(dev->ctx);
	dev->ctx = NULL;
}

/* ---- start and end ---- */

static uint64_t memlock(void)
{
	struct rlimit limit = { 0, 0 };

	getrlimit(RLIMIT_MEMLOCK, &limit);
	return limit.rlim_cur;
}

/*
 * rdma_resolve_route() asks librdmacm's client of ibacm, which looks for that
 * daemon once, by opening files. That must be before our sandbox is closed.
 */
static void meet_ibacm(const struct iba_vport *port)
{
	struct sockaddr_storage addr = port->addr;
	struct rdma_addrinfo hints = {
		.ai_src_addr = (struct sockaddr *)&addr,
		.ai_src_len = sockaddr_len(&addr),
		.ai_dst_addr = (struct sockaddr *)&addr,
		.ai_dst_len = sockaddr_len(&addr),
	}, *found;

	if (rdma_getaddrinfo(NULL, NULL, &hints, &found) == 0)
		rdma_freeaddrinfo(found);
}

static void log_unusable(const struct sockaddr_storage *addr, int err)
{
	bool absent = err == -ENODEV || err == -EADDRNOTAVAIL;
	char name[SOCKADDR_STRLEN];

	log_warn("verbs: %s: %s: %s", sockaddr_format(addr, name),
		 absent ? "no RDMA device has this address" : "not usable",
		 strerror(-err));
}

/* Without a device the other fabrics do; what is missing is logged. */
int iba_verbs_start(struct iba_tenant *t)
{
	struct iba_verbs *v = calloc(1, sizeof(*v));
	char name[SOCKADDR_STRLEN];

	if (!v)
		return -ENOMEM;
	v->t = t;
	v->memlock = memlock();
	TAILQ_INIT(&v->lanes);
	TAILQ_INIT(&v->dirty_lanes);
	TAILQ_INIT(&v->dead_lanes);
	v->cm = rdma_create_event_channel();
	if (!v->cm) {
		log_warn("verbs: no RDMA connection manager: %s",
			 strerror(errno));
		free(v);
		return 0;
	}
	for (unsigned int i = 0; i < t->cfg->rdma_count; i++) {
		struct iba_vport *port = &v->port[v->port_count];
		int err = port_open(v, port, &t->cfg->rdma[i]);

		if (err) {
			log_unusable(&t->cfg->rdma[i], err);
			port_close(port);
			continue;
		}
		log_info("verbs: tenant %u: %s on %s", t->id,
			 sockaddr_format(&port->addr, name),
			 ibv_get_device_name(port->dev->ctx->device));
		v->port_count++;
	}
	if (v->port_count)
		meet_ibacm(&v->port[0]);
	t->verbs = v;
	v->cm_source = set_nonblocking(v->cm->fd) ?
			       NULL :
			       loop_add_fd(t->loop, v->cm->fd, EPOLLIN,
					   iba_vcm_event, v);
	return v->cm_source ? 0 : -errno;
}

void iba_verbs_stop(struct iba_tenant *t)
{
	struct iba_verbs *v = t->verbs;
	struct iba_vlane *lane;
	struct iba_vdev *dev;

	if (!v)
		return;
	while ((lane = TAILQ_FIRST(&v->lanes))) {
		iba_vlane_end(lane, VTOE_REASON_LANE_LOST, "agent stops");
		iba_vlane_release(lane);
	}
	for (unsigned int i = 0; i < IBA_V_VMS_MAX; i++)
		if (v->vvm[i])
			iba_vvm_destroy(v->vvm[i]);
	iba_verbs_bury(t);
	for (unsigned int i = 0; i < v->port_count; i++)
		port_close(&v->port[i]);
	while ((dev = LIST_FIRST(&v->devs))) {
		LIST_REMOVE(dev, link);
		dev_close(dev);
		free(dev);
	}
	loop_remove_fd(v->cm_source);
	rdma_destroy_event_channel(v->cm);
	free(v);
	t->verbs = NULL;
}
