// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * See guest.h. The attachment is spoken with unix_msg.h, which the agent uses
 * too; the rings with ring_driver.h, which nothing of the host does.
 */
#include "guest.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define GPA 0x100000000ull
#define FIRST_QUEUE 5
#define HDR sizeof(struct vtoe_msg_hdr)
#define SLICE_MS 100 /* of a wait, then it looks at the clock */

int guest_wait_ms(void)
{
	const char *ms = getenv("AGENT_WAIT_MS");

	return ms ? atoi(ms) : 4000;
}

static const uint8_t kinds[G_QUEUES] = { VNET_QUEUE_CR, VNET_QUEUE_EQ,
					 VNET_QUEUE_SWQ, VNET_QUEUE_RWQ,
					 VNET_QUEUE_RWQ };
static const uint32_t sizes[VNET_RWQ_CLASSES] = { G_SMALL, G_LARGE };

struct vtoe_addr addr4(uint8_t host, uint16_t port)
{
	struct vtoe_addr addr = { .family = 4, .port = htons(port),
				  .addr = { 10, 0, 0, host } };
	return addr;
}

struct vtoe_credit credit_of(uint64_t ack, uint64_t bytes, uint32_t small,
			     uint32_t large)
{
	struct vtoe_credit credit = {
		.ack = htole64(ack),
		.byte_limit = htole64(bytes),
		.msg_limit = { htole32(small), htole32(large) },
	};
	return credit;
}

int64_t guest_clock_ms(void)
{
	static int64_t last, sum;
	struct timespec ts;
	int64_t now, step;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
	step = now - last;
	last = now;
	sum += step < 2 * SLICE_MS ? step : 2 * SLICE_MS;
	return sum;
}

/* ---- the shim's half ---- */

static int wait_attach(struct guest *g, unsigned int type, struct attach_msg *msg)
{
	int64_t end = guest_clock_ms() + guest_wait_ms();

	for (;;) {
		struct pollfd pfd = { .fd = g->fd, .events = POLLIN };
		int ret = poll(&pfd, 1, SLICE_MS);

		if (ret < 0 || (!ret && guest_clock_ms() >= end))
			return -ETIMEDOUT;
		if (!ret)
			continue;
		ret = attach_recv(g->fd, msg);
		if (ret == -EAGAIN)
			continue;
		if (ret <= 0)
			return ret ? ret : -EPIPE;
		if (le16toh(msg->hdr.type) == type)
			return 0;
	}
}

static int wait_done(struct guest *g)
{
	struct attach_msg msg;
	int ret = wait_attach(g, VNET_ATTACH_DONE, &msg);

	return ret ? ret : (int)le32toh(msg.u.done.status);
}

static void answer_resolve(struct guest *g, const struct attach_msg *msg)
{
	struct vnet_attach_resolve_reply reply = {
		.status = htole32(g->route_reason),
		.agent = g->route,
	};

	g->resolves++;
	g->resolve_seq = le32toh(msg->hdr.seq);
	if (g->mute)
		return;
	attach_send(g->fd, VNET_ATTACH_RESOLVE_REPLY, le32toh(msg->hdr.seq),
		    &reply, NULL, 0);
}

/* True: something came. */
static bool shim_poll(struct guest *g)
{
	struct attach_msg msg;
	bool any = false;
	int ret;

	if (g->fd < 0 || g->eof)
		return false;
	while ((ret = attach_recv(g->fd, &msg)) > 0) {
		any = true;
		if (le16toh(msg.hdr.type) == VNET_ATTACH_RESOLVE)
			answer_resolve(g, &msg);
	}
	if (ret != -EAGAIN) {
		g->eof = true;
		return true;
	}
	return any;
}

static int send_memory(struct guest *g, unsigned int regions)
{
	struct vnet_attach_mem_table table = { .count = htole32(regions) };
	int ret;

	table.region[0].gpa = htole64(g->mem.gpa);
	table.region[0].size = htole64(g->mem.size);
	ret = attach_send(g->fd, VNET_ATTACH_MEM_TABLE, ++g->seq, &table,
			  &g->mem.fd, regions);
	return ret ? ret : wait_done(g);
}

int guest_queue_stop(struct guest *g, int i)
{
	struct vnet_attach_queue_stop stop = {
		.queue = htole16((uint16_t)(FIRST_QUEUE + i)),
	};
	int ret = attach_send(g->fd, VNET_ATTACH_QUEUE_STOP, ++g->seq, &stop,
			      NULL, 0);

	return ret ? ret : wait_done(g);
}

int guest_queue_start(struct guest *g, int i, int kick_fd, int call_fd)
{
	struct ring_driver *q = &g->q[i];
	struct vnet_attach_queue_start start = {
		.queue = htole16((uint16_t)(FIRST_QUEUE + i)),
		.kind = kinds[i],
		.index = (uint8_t)(i > G_RWQ ? i - G_RWQ : 0),
		.num = htole16(q->num),
		.flags = htole16((g->opt.no_event_idx ? 0 : VNET_QUEUE_F_EVENT_IDX) |
				 VNET_QUEUE_F_INDIRECT),
		.desc = htole64(q->desc_gpa),
		.avail = htole64(q->avail_gpa),
		.used = htole64(q->used_gpa),
		.inflight_offset = htole64((uint64_t)i * VNET_INFLIGHT_STRIDE),
	};
	int fds[3] = { kick_fd, call_fd, g->inflight };
	int ret;

	ret = attach_send(g->fd, VNET_ATTACH_QUEUE_START, ++g->seq, &start, fds, 3);
	return ret ? ret : wait_done(g);
}

int guest_rest(struct guest *g)
{
	int ret = 0;

	for (int i = 0; !ret && i < G_QUEUES; i++)
		ret = guest_queue_stop(g, i);
	return ret ? ret : send_memory(g, 0);
}

int guest_go_on(struct guest *g)
{
	int ret = send_memory(g, 1);

	for (int i = 0; !ret && i < G_QUEUES; i++)
		ret = guest_queue_start(g, i, g->q[i].kick_fd, g->q[i].call_fd);
	return ret;
}

static int attach(struct guest *g, const char *socket_path)
{
	struct vnet_attach_hello hello = {
		.version = htole16(VNET_ATTACH_VERSION),
		.tenant = htole32(g->tenant),
	};
	struct attach_msg msg;
	int ret;

	g->fd = unix_connect(socket_path, SOCK_SEQPACKET);
	if (g->fd < 0)
		return g->fd;
	memcpy(hello.mac, g->mac, VNET_MAC_LEN);
	for (int i = 0; i < VNET_RWQ_CLASSES; i++)
		hello.rwq_buf_size[i] = htole32(sizes[i]);
	memcpy(hello.vm, g->name, sizeof(hello.vm));
	ret = attach_send(g->fd, VNET_ATTACH_HELLO, ++g->seq, &hello, NULL, 0);
	if (!ret)
		ret = wait_attach(g, VNET_ATTACH_HELLO_REPLY, &msg);
	if (ret)
		return ret;
	if (msg.u.hello_reply.status)
		return (int)le32toh(msg.u.hello_reply.status);
	ret = send_memory(g, 1);
	for (int i = 0; !ret && i < G_QUEUES; i++)
		ret = guest_queue_start(g, i, g->q[i].kick_fd,
					g->q[i].call_fd);
	return ret;
}

/* ---- buffers ---- */

/* A buffer as one piece, or as a kernel would give it: header, then pages. */
static void add_buffer(struct guest *g, int queue, struct gbuf *buf,
		       uint32_t len, bool writable)
{
	struct ring_piece piece[2 + G_LARGE / 4096];
	unsigned int n = 0;
	uint32_t done = 0;
	int ret;

	if (!g->opt.pages) {
		piece[n++] = (struct ring_piece){ buf->gpa, len };
		done = len;
	}
	while (done < len) {
		uint32_t part = done ? 4096 : (uint32_t)HDR;

		if (part > len - done)
			part = len - done;
		piece[n++] = (struct ring_piece){ buf->gpa + done, part };
		done += part;
	}
	buf->busy = true;
	ret = ring_driver_add(&g->q[queue], piece, writable ? 0 : n,
			      writable ? n : 0, buf, 0);
	if (ret < 0) {
		fprintf(stderr, "guest %s: queue %d is full\n", g->name, queue);
		abort();
	}
}

static struct gbuf *make_buffers(struct guest *g, uint32_t count, uint32_t room,
				 unsigned int class)
{
	struct gbuf *buf = calloc(count ? count : 1, sizeof(*buf));

	for (uint32_t i = 0; i < count; i++) {
		buf[i].gpa = ring_memory_alloc(&g->mem, room, 64);
		buf[i].at = ring_memory_at(&g->mem, buf[i].gpa);
		buf[i].room = room;
		buf[i].class = class;
	}
	return buf;
}

static void post_all(struct guest *g)
{
	for (uint32_t i = 0; i < g->opt.eq_buffers; i++)
		add_buffer(g, G_EQ, &g->eq_buf[i], sizeof(struct vtoe_event), true);
	guest_kick(g, G_EQ);
	for (int c = 0; c < VNET_RWQ_CLASSES; c++) {
		for (uint32_t i = 0; i < g->opt.rwq_posted[c]; i++)
			add_buffer(g, G_RWQ + c, &g->rwq_buf[c][i],
				   (uint32_t)HDR + sizes[c], true);
		guest_kick(g, (unsigned int)(G_RWQ + c));
	}
}

void guest_kick(struct guest *g, unsigned int queue)
{
	ring_driver_kick(&g->q[queue]);
}

/* ---- what the agent did ---- */

static bool cr_poll(struct guest *g)
{
	uint32_t len;

	if (!ring_driver_get_used(&g->q[G_CR], &len))
		return false;
	g->cmd_done = true;
	g->cmd_len = len;
	return true;
}

static bool eq_poll(struct guest *g)
{
	struct gbuf *buf;
	bool any = false;
	uint32_t len;

	while ((buf = ring_driver_get_used(&g->q[G_EQ], &len))) {
		any = true;
		buf->busy = false;
		if (len != sizeof(struct vtoe_event)) {
			g->eq_returned++;
			continue;
		}
		memcpy(&g->events[g->ev_in++ % 4096], buf->at, len);
		if (!g->leaving)
			add_buffer(g, G_EQ, buf, sizeof(struct vtoe_event),
				   true);
	}
	if (any)
		guest_kick(g, G_EQ);
	return any;
}

static bool rwq_poll(struct guest *g, int queue)
{
	struct gbuf *buf;
	bool any = false;
	uint32_t len;

	while ((buf = ring_driver_get_used(&g->q[queue], &len))) {
		struct gmsg *msg = &g->msgs[g->msg_in % 4096];

		any = true;
		buf->busy = false;
		if (!len) {
			g->rwq_returned++;
			continue;
		}
		memcpy(&msg->hdr, buf->at, HDR);
		if (len != HDR + le32toh(msg->hdr.len)) {
			fprintf(stderr, "guest %s: used length %u, header says %u\n",
				g->name, len, le32toh(msg->hdr.len));
			abort();
		}
		msg->buf = buf;
		g->msg_in++;
	}
	return any;
}

static bool swq_poll(struct guest *g)
{
	struct gbuf *buf;
	bool any = false;
	uint32_t len;

	while ((buf = ring_driver_get_used(&g->q[G_SWQ], &len))) {
		buf->busy = false;
		any = true;
	}
	return any;
}

static bool poll_all(struct guest *g)
{
	bool any = shim_poll(g);

	any |= cr_poll(g);
	any |= eq_poll(g);
	any |= swq_poll(g);
	for (int c = 0; c < VNET_RWQ_CLASSES; c++)
		any |= rwq_poll(g, G_RWQ + c);
	return any;
}

bool guest_poll(struct guest *g, int ms)
{
	struct pollfd pfd[G_QUEUES + 1];
	bool any;

	if (poll_all(g))
		return true;
	if (!ms)
		return false;
	for (int i = 0; i < G_QUEUES; i++) {
		/* used send buffers wake nobody who does not wait for one */
		bool wanted = i != G_SWQ || g->wants_buffer;

		pfd[i].fd = wanted ? g->q[i].call_fd : -1;
		pfd[i].events = POLLIN;
		if (wanted)
			ring_driver_enable_calls(&g->q[i]);
	}
	pfd[G_QUEUES].fd = g->eof ? -1 : g->fd;
	pfd[G_QUEUES].events = POLLIN;
	any = poll_all(g);
	if (!any) {
		poll(pfd, G_QUEUES + 1, ms);
		for (int i = 0; i < G_QUEUES; i++)
			if (pfd[i].revents)
				ring_driver_ack_call(&g->q[i]);
		any = poll_all(g);
	}
	for (int i = 0; i < G_QUEUES; i++)
		ring_driver_disable_calls(&g->q[i]);
	return any;
}

/* ---- commands ---- */

int guest_command(struct guest *g, const struct vtoe_cmd *cmd,
		  struct vtoe_reply *reply)
{
	struct ring_piece piece[2] = {
		{ g->cmd_gpa, sizeof(*cmd) },
		{ g->cmd_gpa + sizeof(*cmd), sizeof(*reply) },
	};
	int64_t end = guest_clock_ms() + guest_wait_ms();

	memcpy(ring_memory_at(&g->mem, g->cmd_gpa), cmd, sizeof(*cmd));
	memset(ring_memory_at(&g->mem, piece[1].gpa), 0xee, sizeof(*reply));
	g->cmd_done = false;
	if (ring_driver_add(&g->q[G_CR], piece, 1, 1, g, 0) < 0)
		return -1;
	guest_kick(g, G_CR);
	while (!g->cmd_done && !g->eof && guest_clock_ms() < end)
		guest_poll(g, SLICE_MS);
	if (!g->cmd_done || g->cmd_len != sizeof(*reply))
		return -1;
	memcpy(reply, ring_memory_at(&g->mem, piece[1].gpa), sizeof(*reply));
	return (int)le32toh(reply->status);
}

int guest_simple(struct guest *g, unsigned int opcode, uint32_t sid,
		 unsigned int flags)
{
	struct vtoe_cmd cmd = { .opcode = htole16((uint16_t)opcode),
				.flags = htole16((uint16_t)flags),
				.sid = htole32(sid) };
	struct vtoe_reply reply;

	return guest_command(g, &cmd, &reply);
}

int guest_listen(struct guest *g, uint32_t sid, const struct vtoe_addr *local)
{
	struct vtoe_cmd cmd = { .opcode = htole16(VTOE_CMD_BIND),
				.sid = htole32(sid) };
	struct vtoe_reply reply;
	int ret = guest_simple(g, VTOE_CMD_SOCKET, sid, 0);

	cmd.u.bind.local = *local;
	if (!ret)
		ret = guest_command(g, &cmd, &reply);
	memset(&cmd.u, 0, sizeof(cmd.u));
	cmd.opcode = htole16(VTOE_CMD_LISTEN);
	cmd.u.listen.backlog = htole32(16);
	if (!ret)
		ret = guest_command(g, &cmd, &reply);
	return ret;
}

int guest_connect(struct guest *g, uint32_t sid, const struct vtoe_addr *local,
		  const struct vtoe_addr *remote, uint8_t mac_last,
		  const struct vtoe_credit *credit)
{
	struct vtoe_cmd cmd = { .opcode = htole16(VTOE_CMD_CONNECT),
				.sid = htole32(sid) };
	struct vtoe_reply reply;
	int ret = guest_simple(g, VTOE_CMD_SOCKET, sid, 0);

	if (ret)
		return ret;
	cmd.u.connect.local = *local;
	cmd.u.connect.remote = *remote;
	memcpy(cmd.u.connect.next_hop, g->mac, VNET_MAC_LEN);
	cmd.u.connect.next_hop[VNET_MAC_LEN - 1] = mac_last;
	cmd.u.connect.credit = *credit;
	return guest_command(g, &cmd, &reply);
}

int guest_accept(struct guest *g, uint32_t cid, uint32_t sid,
		 const struct vtoe_credit *credit)
{
	struct vtoe_cmd cmd = { .opcode = htole16(VTOE_CMD_ACCEPT),
				.sid = htole32(sid) };
	struct vtoe_reply reply;

	cmd.u.accept.cid = htole32(cid);
	cmd.u.accept.credit = *credit;
	return guest_command(g, &cmd, &reply);
}

int guest_shutdown(struct guest *g, uint32_t sid, uint64_t final_offset)
{
	struct vtoe_cmd cmd = { .opcode = htole16(VTOE_CMD_SHUTDOWN),
				.sid = htole32(sid) };
	struct vtoe_reply reply;

	cmd.u.shutdown.final_offset = htole64(final_offset);
	return guest_command(g, &cmd, &reply);
}

/* ---- events and messages ---- */

bool guest_event(struct guest *g, struct vtoe_event *ev)
{
	return guest_wait_event(g, 0, ev);
}

/* type 0: any but CREDIT. Events before it that nobody waits for are lost. */
bool guest_wait_event(struct guest *g, unsigned int type, struct vtoe_event *ev)
{
	int64_t end = guest_clock_ms() + guest_wait_ms();

	for (;;) {
		while (g->ev_out != g->ev_in) {
			unsigned int got;

			*ev = g->events[g->ev_out++ % 4096];
			got = le16toh(ev->type);
			if (type ? got == type : got != VTOE_EV_CREDIT)
				return true;
		}
		if (guest_clock_ms() >= end || (g->eof && !poll_all(g)))
			return false;
		guest_poll(g, SLICE_MS);
	}
}

bool guest_message(struct guest *g, struct gmsg *msg, int ms)
{
	int64_t end = guest_clock_ms() + ms;

	while (g->msg_out == g->msg_in) {
		if (g->eof || guest_clock_ms() > end)
			return false;
		guest_poll(g, ms ? SLICE_MS : 0);
	}
	*msg = g->msgs[g->msg_out++ % 4096];
	return true;
}

void guest_release(struct guest *g, const struct gmsg *msg)
{
	add_buffer(g, (int)(G_RWQ + msg->buf->class), msg->buf,
		   (uint32_t)HDR + sizes[msg->buf->class], true);
	guest_kick(g, G_RWQ + msg->buf->class);
}

static struct gbuf *free_send_buffer(struct guest *g)
{
	if (g->q[G_SWQ].free_count <= 2 + G_LARGE / 4096)
		return NULL;
	for (uint32_t i = 0; i < g->opt.swq_num; i++) {
		struct gbuf *buf = &g->swq_buf[g->swq_next++ % g->opt.swq_num];

		if (!buf->busy)
			return buf;
	}
	return NULL;
}

struct gbuf *guest_send_buffer(struct guest *g)
{
	int64_t end = guest_clock_ms() + guest_wait_ms();
	struct gbuf *buf;

	while (!(buf = free_send_buffer(g)) && !g->eof && guest_clock_ms() < end) {
		g->wants_buffer = true;
		guest_poll(g, SLICE_MS);
		g->wants_buffer = false;
	}
	return buf;
}

unsigned int guest_busy(const struct guest *g)
{
	unsigned int busy = 0;

	for (uint32_t i = 0; i < g->opt.eq_buffers; i++)
		busy += g->eq_buf[i].busy;
	for (uint32_t i = 0; i < g->opt.swq_num; i++)
		busy += g->swq_buf[i].busy;
	for (int c = 0; c < VNET_RWQ_CLASSES; c++)
		for (uint32_t i = 0; i < g->opt.rwq_posted[c]; i++)
			busy += g->rwq_buf[c][i].busy;
	return busy;
}

void guest_queue(struct guest *g, struct gbuf *buf,
		 const struct vtoe_msg_hdr *hdr, uint32_t chain_len)
{
	memcpy(buf->at, hdr, HDR);
	add_buffer(g, G_SWQ, buf, chain_len, false);
}

/* ---- start and stop ---- */

static const struct guest_options defaults = {
	.swq_num = 64,
	.rwq_num = { 256, 64 },
	.eq_buffers = 64,
	.rwq_posted = { 256, 64 },
};

static int make_rings(struct guest *g)
{
	uint16_t num[G_QUEUES] = { 16, 0, 0, 0, 0 };
	/* a page-wise buffer takes many descriptors */
	uint16_t per = g->opt.pages ? 32 : 1;
	int ret = 0;

	num[G_EQ] = (uint16_t)(64 * (per > 1 ? 2 : 1));
	num[G_SWQ] = (uint16_t)(g->opt.swq_num * per);
	num[G_SWQ] = num[G_SWQ] < 32 ? 32 : num[G_SWQ];
	num[G_RWQ] = (uint16_t)(g->opt.rwq_num[0] * (per > 1 ? 2 : 1));
	num[G_RWQ + 1] = (uint16_t)(g->opt.rwq_num[1] * per);
	for (int i = 0; i < G_QUEUES && !ret; i++)
		ret = ring_driver_create(&g->q[i], &g->mem, num[i],
					 !g->opt.no_event_idx);
	return ret;
}

int guest_start(struct guest *g, const char *socket_path, const char *name,
		uint32_t tenant, uint8_t mac_last, const struct guest_options *opt)
{
	struct vtoe_cmd hello = { .opcode = htole16(VTOE_CMD_HELLO) };
	int ret;

	memset(g, 0, sizeof(*g));
	g->fd = -1;
	g->opt = opt ? *opt : defaults;
	g->tenant = tenant;
	snprintf(g->name, sizeof(g->name), "%s", name);
	memcpy(g->mac, (uint8_t[]){ 0x02, 0, 0, 0, 0, mac_last }, VNET_MAC_LEN);
	g->route_reason = VTOE_REASON_NO_ROUTE;
	ret = ring_memory_create(&g->mem, GPA, 32u << 20);
	if (!ret)
		ret = make_rings(g);
	if (ret)
		return ret;
	g->inflight = memfd_create("inflight", MFD_CLOEXEC);
	if (g->inflight < 0 ||
	    ftruncate(g->inflight, G_QUEUES * VNET_INFLIGHT_STRIDE) < 0)
		return -errno;
	g->cmd_gpa = ring_memory_alloc(&g->mem, 256, 64);
	g->eq_buf = make_buffers(g, g->opt.eq_buffers, sizeof(struct vtoe_event), 0);
	g->swq_buf = make_buffers(g, g->opt.swq_num, (uint32_t)HDR + G_LARGE, 0);
	for (unsigned int c = 0; c < VNET_RWQ_CLASSES; c++)
		g->rwq_buf[c] = make_buffers(g, g->opt.rwq_posted[c],
					     (uint32_t)HDR + sizes[c], c);
	ret = attach(g, socket_path);
	if (ret || g->opt.no_hello)
		return ret;
	hello.u.hello.version = htole16(VTOE_VERSION);
	hello.flags = htole16(g->opt.balloon ? VTOE_HELLO_F_BALLOON : 0);
	ret = guest_command(g, &hello, &g->hello_reply);
	if (!ret)
		post_all(g);
	return ret;
}

void guest_stop(struct guest *g)
{
	if (g->fd >= 0)
		close(g->fd);
	g->fd = -1;
	for (int i = 0; i < G_QUEUES; i++)
		if (g->q[i].memory)
			ring_driver_destroy(&g->q[i]);
	if (g->inflight > 0)
		close(g->inflight);
	ring_memory_destroy(&g->mem);
	free(g->eq_buf);
	free(g->swq_buf);
	for (int c = 0; c < VNET_RWQ_CLASSES; c++)
		free(g->rwq_buf[c]);
}
