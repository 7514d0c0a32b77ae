// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Lanes, good and bad: hello with a wrong token, tenant, version; requests that
 * are refused; a peer that breaks the rules of a connection, or of the lane; a
 * VM or a lane that goes in the middle of a message.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "by_hand.h"
#include "tap.h"

static struct bed bed;

static void test_lane_hello(void)
{
	struct lane_by_hand l;
	char junk[48];
	int fd;

	lane_ask(&l);
	is_int(lane_greet(&l, BED_TENANT, VNET_PEER_VERSION, 3), 0, "a good token is taken");
	close(l.fd);
	is_int(lane_greet(&l, BED_TENANT, VNET_PEER_VERSION, 3), VTOE_REASON_PROTOCOL,
	       "but once only");
	lane_end(&l);

	lane_ask(&l);
	l.answer.token[31] ^= 1;
	is_int(lane_greet(&l, BED_TENANT, VNET_PEER_VERSION, 3), VTOE_REASON_PROTOCOL,
	       "a wrong token");
	ok(ends(l.fd), "ends the lane");
	lane_end(&l);

	lane_ask(&l);
	is_int(lane_greet(&l, BED_TENANT + 1, VNET_PEER_VERSION, 3), VTOE_REASON_TENANT,
	       "another tenant");
	lane_end(&l);
	lane_ask(&l);
	is_int(lane_greet(&l, BED_TENANT, VNET_PEER_VERSION + 1, 3), VTOE_REASON_VERSION,
	       "another version");
	ok(agent_logged(&bed.agent[0], "it speaks version 3, we speak 2 (version)"),
	   "both numbers are in the log");
	close(l.fd);
	is_int(lane_greet(&l, BED_TENANT, VNET_PEER_VERSION, 3), VTOE_REASON_PROTOCOL,
	       "uses up the token too");
	lane_end(&l);
	lane_ask(&l);
	is_int(lane_greet(&l, BED_TENANT, VNET_PEER_VERSION, 4), VTOE_REASON_PROTOCOL,
	       "a token from another host");
	lane_end(&l);

	memset(junk, 'x', sizeof(junk));
	fd = tcp_connect(1, ntohs(l.answer.addr.port), 3);
	send(fd, junk, sizeof(junk), MSG_NOSIGNAL);
	ok(ends(fd), "garbage on the lane port");
	close(fd);
}

static void test_lane_requests(void)
{
	struct vtoe_msg_hdr hdr;
	struct vnet_lane_req req;
	struct lane_by_hand l;

	open_lane(&l);
	make_req(&hdr, &req);
	req.remote.port = htons(9);
	lane_send(&l, &hdr, &req, sizeof(req));
	is_int(lane_rejected(&l, VTOE_MSG_REJ), VTOE_REASON_NO_LISTENER,
	       "REQ without listener");
	make_req(&hdr, &req);
	req.remote_mac[5] = 88;
	lane_send(&l, &hdr, &req, sizeof(req));
	is_int(lane_rejected(&l, VTOE_MSG_REJ), VTOE_REASON_PEER_NO_VTOE,
	       "REQ for no VM of ours");
	make_req(&hdr, &req);
	memcpy(req.local_mac, bed.a.mac, 6);
	lane_send(&l, &hdr, &req, sizeof(req));
	is_int(lane_rejected(&l, VTOE_MSG_REJ), VTOE_REASON_PROTOCOL,
	       "REQ in the name of a VM that is here");
	make_req(&hdr, &req);
	req.local.family = 6;
	lane_send(&l, &hdr, &req, sizeof(req));
	is_int(lane_rejected(&l, VTOE_MSG_REJ), VTOE_REASON_ADDR_FAMILY,
	       "REQ of two address families");
	make_req(&hdr, &req);
	memcpy(req.local.addr, (uint8_t[]){ 127, 0, 0, 1 }, 4);
	lane_send(&l, &hdr, &req, sizeof(req));
	is_int(lane_rejected(&l, VTOE_MSG_REJ), VTOE_REASON_NOT_LOCAL,
	       "REQ from a loopback address");
	make_req(&hdr, &req);
	memcpy(req.remote.addr, (uint8_t[]){ 127, 0, 0, 1 }, 4);
	lane_send(&l, &hdr, &req, sizeof(req));
	is_int(lane_rejected(&l, VTOE_MSG_REJ), VTOE_REASON_NOT_LOCAL,
	       "REQ to a loopback address");
	/* the same as an IPv4-mapped one, which a guest would show as it is */
	make_req(&hdr, &req);
	req.local.family = req.remote.family = 6;
	memcpy(req.local.addr, (uint8_t[]){ [10] = 0xff, 0xff, 127, 0, 0, 1 }, 16);
	lane_send(&l, &hdr, &req, sizeof(req));
	is_int(lane_rejected(&l, VTOE_MSG_REJ), VTOE_REASON_ADDR_FAMILY,
	       "REQ from an IPv4-mapped address");
	make_req(&hdr, &req);
	hdr.len = htole32(79);
	lane_send(&l, &hdr, &req, sizeof(req));
	ok(ends(l.fd), "REQ of another length ends the lane");
	lane_end(&l);
}

/* Requests without end, whose answers are not read: they are not kept for ever. */
static void test_deaf(void)
{
	enum { AT_ONCE = 64, TIMES = 10000 };
	static struct {
		struct vtoe_msg_hdr hdr;
		struct vnet_lane_req req;
	} __attribute__((packed)) flood[AT_ONCE];
	struct timeval patience = { .tv_sec = 20 };
	struct lane_by_hand l;
	struct vtoe_msg_hdr hdr;
	struct vnet_lane_req req;
	int n = 0;

	make_req(&hdr, &req);
	req.remote.port = htons(9);
	for (unsigned int i = 0; i < AT_ONCE; i++) {
		flood[i].hdr = hdr;
		flood[i].req = req;
	}
	small_buffer = true;
	open_lane(&l);
	small_buffer = false;
	setsockopt(l.fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	while (n < TIMES && send(l.fd, flood, sizeof(flood), MSG_NOSIGNAL) ==
				    sizeof(flood))
		n++;
	ok(n < TIMES && errno != EAGAIN, "a peer that asks and does not listen: its lane ends");
	ok(agent_logged(&bed.agent[0], "the peer does not read our answers"),
	   "the log says why");
	lane_end(&l);
}

enum breach { OFFSET, BYTES, MSGS, SIZE, FIN_OFFSET, ACK, BREACHES };

static void test_peer_breach(enum breach breach)
{
	static const char *const names[BREACHES] = {
		"offset", "byte limit", "message limit", "buffer size",
		"FIN offset", "acknowledgement",
	};
	struct vtoe_credit grant = credit_of(0, 100000, 1, 1);
	struct vtoe_msg_hdr hdr = { .type = VTOE_MSG_DATA };
	uint32_t sid = bed.next_sid++, len = 10, want = VTOE_REASON_CREDIT;
	static uint8_t body[200000];
	struct lane_by_hand l;
	struct stream a;
	uint32_t cid;

	if (breach == BYTES)
		grant = credit_of(0, 5, 1, 1);
	cid = open_conn(&l, &bed.a, sid, &grant, &grant);
	if (!ok(cid != 0, "%s: a connection by hand", names[breach]))
		return;
	stream_init(&a, &bed.a, sid, &a);
	a.unchecked = a.hold = true;
	hdr.id = htole32(cid);
	switch (breach) {
	case OFFSET:
		hdr.offset = htole64(1);
		want = VTOE_REASON_PROTOCOL;
		break;
	case MSGS:
		hdr.len = htole32(len);
		lane_send(&l, &hdr, body, len);
		hdr.offset = htole64(len);
		break;
	case SIZE:
		len = 65537;
		break;
	case FIN_OFFSET:
		hdr.type = VTOE_MSG_FIN;
		hdr.offset = htole64(1);
		len = 0;
		want = VTOE_REASON_PROTOCOL;
		break;
	case ACK:
		hdr.type = VTOE_MSG_CREDIT;
		hdr.credit.ack = htole64(1);
		len = 0;
		want = VTOE_REASON_PROTOCOL;
		break;
	default:
		break;
	}
	hdr.len = htole32(len);
	lane_send(&l, &hdr, body, len);
	is_int(lane_rejected(&l, VTOE_MSG_RST), want, "the peer is reset");
	ok(stream_wait_broken(&a) && a.reason == want, "our guest is told");
	/* the lane is good for others: its framing is intact */
	hdr.type = VTOE_MSG_NOP;
	hdr.len = 0;
	lane_send(&l, &hdr, body, 0);
	hdr.type = VTOE_MSG_DATA;
	hdr.id = htole32(0x999999);
	hdr.len = htole32(100000);
	lane_send(&l, &hdr, body, 100000);
	stream_close(&a, 0);
	hdr.type = 200;
	lane_send(&l, &hdr, body, 0);
	ok(ends(l.fd), "a type that does not exist ends the lane");
	lane_end(&l);
	streams_reset();
}

/* Those that only connect do not keep out the one with the token. */
static void test_greeting_full(void)
{
	struct lane_by_hand l;
	int fd[70];

	lane_ask(&l);
	for (int i = 0; i < 70; i++)
		fd[i] = tcp_connect(1, ntohs(l.answer.addr.port), 3);
	is_int(lane_greet(&l, BED_TENANT, VNET_PEER_VERSION, 3), 0,
	       "a good token behind 70 that say nothing");
	ok(ends(fd[0]), "the oldest gave way");
	for (int i = 0; i < 70; i++)
		close(fd[i]);
	lane_end(&l);
}

/* A lane that dies in the middle of a message. */
static void test_torn(void)
{
	struct vtoe_credit grant = credit_of(0, 1 << 20, 10, 10);
	struct vtoe_msg_hdr hdr = { .type = VTOE_MSG_DATA,
				    .len = htole32(60000) };
	static uint8_t body[60000];
	struct lane_by_hand l;
	struct stream a, c, d;

	hdr.id = htole32(open_conn(&l, &bed.a, 990, &grant, &grant));
	stream_init(&a, &bed.a, 990, &a);
	lane_send(&l, &hdr, body, 30000);
	bed_pump(&bed, 50);
	is_int(a.rx, 0, "half a message is no message");
	is_int(bed_open(&bed, &c, &d), 0, "buffers behind it are taken");
	ok(stream_exchange(&c, &d, 1 << 20, G_LARGE), "by another connection");
	stream_close(&c, 0);
	ok(stream_wait_broken(&d), "reset");
	stream_close(&d, 0);
	lane_end(&l);
	ok(stream_wait_broken(&a) && a.reason == VTOE_REASON_LANE_LOST,
	   "the lane is lost in the middle of it");
	stream_close(&a, 0);
	streams_reset();
	is_int(bed_open(&bed, &c, &d), 0, "another connection");
	ok(stream_exchange(&c, &d, 8 << 20, G_LARGE), "the buffers are still good");
	is_int(bed.a.rwq_returned, 0, "and none came back empty");
	stream_close(&c, 0);
	ok(stream_wait_broken(&d), "reset");
	stream_close(&d, 0);
	streams_reset();
}

/*
 * Lanes that say anything: random bytes, then messages that are well formed but
 * for one random field. The agent must not mind (and runs under the sanitizers).
 */
static void test_random(void)
{
	struct vtoe_credit grant = credit_of(0, 1 << 20, 100, 10);
	static uint8_t body[4096];
	unsigned int ended = 0;
	struct lane_by_hand l;

	for (int round = 0; round < 40; round++) {
		uint32_t sid = bed.next_sid++;
		uint32_t cid = open_conn(&l, &bed.a, sid, &grant, &grant);
		uint64_t offset = 0;

		for (int n = 0; n < 40; n++) {
			static const uint8_t types[] = { 1, 1, 1, 2, 16, 17, 18,
							 19, 20, 21 };
			struct vtoe_msg_hdr hdr = {
				.type = types[random() % 10],
				.id = htole32(random() % 4 ? cid : (uint32_t)random()),
				.offset = htole64(random() % 8 ? offset : 1),
			};
			uint32_t len = 0;

			if (hdr.type == VTOE_MSG_DATA)
				len = (uint32_t)(random() % 4000) + 1;
			else if (hdr.type == VTOE_MSG_REQ)
				len = sizeof(struct vnet_lane_req);
			else if (hdr.type >= VTOE_MSG_REP &&
				 hdr.type != VTOE_MSG_FIN &&
				 hdr.type != VTOE_MSG_NOP)
				len = 16;
			hdr.len = htole32(len);
			if (random() % 20 == 0)
				((uint8_t *)&hdr)[random() % sizeof(hdr)] ^=
					(uint8_t)(1 << random() % 8);
			for (uint32_t i = 0; i < len; i++)
				body[i] = random() % 3 ? 0 : (uint8_t)random();
			lane_send(&l, &hdr, body, len);
			if (hdr.type == VTOE_MSG_DATA)
				offset += len;
		}
		for (unsigned int i = 0; i < sizeof(body); i++)
			body[i] = (uint8_t)random();
		send(l.fd, body, sizeof(body), MSG_NOSIGNAL);
		shutdown(l.fd, SHUT_WR);
		ended += ends(l.fd);
		lane_end(&l);
		bed_pump(&bed, 4);
		guest_simple(&bed.a, VTOE_CMD_CLOSE, sid, 0);
	}
	is_int(ended, 40, "random messages end their lanes");
	ok(!bed.a.eof, "and nothing else");
	streams_reset();
	bed_pump(&bed, 50);
	bed.a.ev_out = bed.a.ev_in; /* what it was told of them */
}

/*
 * A VM vanishes while the lane is full of its data and half a message for it has
 * come: nothing of it is touched any more, and the lane's framing holds.
 */
static void test_vm_gone_in_between(void)
{
	static uint8_t body[G_LARGE];
	struct vtoe_credit grant = credit_of(0, 1 << 20, 10, 10);
	struct vtoe_credit ours = credit_of(0, 100 << 20, 1000, 1000);
	struct vtoe_addr any = { .family = 4, .port = htons(BED_PORT) };
	struct vtoe_msg_hdr hdr = { .type = VTOE_MSG_DATA,
				    .len = htole32(60000) };
	static struct guest c;
	struct lane_by_hand l;
	struct stream s;
	struct vnet_lane_req req;
	const unsigned int idle = 64 + 256 + 64; /* buffers posted */
	uint64_t offset = 0, sent;
	bool good = true;

	is_int(guest_start(&c, bed.agent[0].socket, "c", BED_TENANT, 3, NULL), 0,
	       "another guest");
	guest_listen(&c, 1, &any);
	small_buffer = true;
	hdr.id = htole32(open_conn(&l, &c, 5, &grant, &ours));
	small_buffer = false;
	stream_init(&s, &c, 5, &s);
	s.tx_limit = 100 << 20;
	s.tx_msg_limit[1] = 1000;
	for (int i = 0; i < 1000 && guest_busy(&c) < idle + 40; i++) {
		if (stream_send(&s, G_LARGE))
			guest_kick(&c, G_SWQ);
		streams_pump(&c, 1);
	}
	for (int i = 0; i < 20; i++)
		streams_pump(&c, 5);
	ok(guest_busy(&c) > idle + 10, "the lane is full of its data");
	sent = s.tx;
	lane_send(&l, &hdr, body, 30000);
	usleep(50000);
	guest_stop(&c);
	usleep(50000);
	send(l.fd, body, 30000, MSG_NOSIGNAL);
	do { /* what was sent before, whole messages in order, then RST */
		if (!lane_read(&l, &hdr, sizeof(hdr)))
			break;
		if (hdr.type != VTOE_MSG_DATA)
			continue;
		good &= le64toh(hdr.offset) == offset &&
			le32toh(hdr.len) == G_LARGE &&
			lane_read(&l, body, G_LARGE);
		for (uint32_t i = 0; i < G_LARGE; i++)
			good &= body[i] == pattern(s.seed, offset + i);
		offset += G_LARGE;
	} while (good && hdr.type != VTOE_MSG_RST);
	ok(good && offset && hdr.type == VTOE_MSG_RST, "whole messages, then RST");
	good = lane_read(&l, body, sizeof(struct vnet_lane_rej));
	is_int(((struct vnet_lane_rej *)body)->reason, htole32(VTOE_REASON_PEER_GONE),
	       "for the VM has gone");
	ok(offset < sent, "what was not begun is not sent");
	make_req(&hdr, &req);
	req.remote.port = htons(9);
	lane_send(&l, &hdr, &req, sizeof(req));
	ok(good && lane_rejected(&l, VTOE_MSG_REJ) == VTOE_REASON_NO_LISTENER,
	   "the lane is still in step, both ways");
	lane_end(&l);
	streams_reset();
}

/* ---- a VM that sends more than its lane takes ---- */

#define FLOOD 200 /* messages of G_LARGE */
#define FLOOD_RING 256
#define QUEUED_MAX (2u << 20)

/* c has as much under way as it may have. */
static bool queue_fills(void)
{
	for (int i = 0; i < 400; i++)
		if (agent_vm_counter(&bed.agent[0], "c", "tx_queued") >
		    QUEUED_MAX / 2)
			return true;
	return false;
}

/* Reads the lane to the end of the flood. True: in order, and no byte is wrong;
 * *other: bytes of it that came before the message of cid 0x77. */
static bool read_flood(struct lane_by_hand *l, uint32_t seed, uint64_t *other)
{
	static uint8_t body[G_LARGE];
	struct vtoe_msg_hdr hdr;
	uint64_t offset = 0;
	bool good = true;

	*other = 0;
	while (good && (offset < FLOOD * (uint64_t)G_LARGE || !*other)) {
		uint32_t len;

		if (!lane_read(l, &hdr, sizeof(hdr)))
			return false;
		len = le32toh(hdr.len);
		if (len > sizeof(body) || (len && !lane_read(l, body, len)))
			return false;
		if (hdr.type == VTOE_MSG_DATA && le32toh(hdr.id) == 0x77) {
			*other = offset + 1;
			continue;
		}
		if (hdr.type != VTOE_MSG_DATA)
			continue;
		good = le64toh(hdr.offset) == offset && len == G_LARGE;
		for (uint32_t i = 0; i < len; i += 61)
			good &= body[i] == pattern(seed, offset + i);
		offset += len;
	}
	return good;
}

/* A command that the answer of which is not awaited. */
static void start_command(struct guest *g, unsigned int opcode, uint32_t sid)
{
	struct vtoe_cmd cmd = { .opcode = htole16((uint16_t)opcode),
				.sid = htole32(sid) };
	struct ring_piece piece[2] = {
		{ g->cmd_gpa, sizeof(cmd) },
		{ g->cmd_gpa + sizeof(cmd), sizeof(struct vtoe_reply) },
	};

	memcpy(ring_memory_at(&g->mem, g->cmd_gpa), &cmd, sizeof(cmd));
	g->cmd_done = false;
	ring_driver_add(&g->q[G_CR], piece, 1, 1, g, 0);
	guest_kick(g, G_CR);
}

/*
 * One VM has 13 MB to send, to a host that does not read for a while: little of
 * it stands in front of what another VM sends on the same lane.
 */
static void test_throttle(void)
{
	static const struct guest_options opt = {
		.swq_num = FLOOD_RING, .rwq_num = { 256, 64 }, .eq_buffers = 64,
		.rwq_posted = { 16, 4 },
	};
	struct vtoe_credit grant = credit_of(0, 1 << 20, 10, 4);
	struct vtoe_credit ours = credit_of(0, 100 << 20, 1000, 1000);
	struct vtoe_addr any = { .family = 4, .port = htons(BED_PORT) };
	static struct guest c;
	struct lane_by_hand l;
	struct stream s, a;
	uint64_t before;
	long long queued;
	unsigned int cpu;

	is_int(guest_start(&c, bed.agent[0].socket, "c", BED_TENANT, 3, &opt), 0,
	       "a guest with a long send ring");
	guest_listen(&c, 1, &any);
	stream_init(&s, &c, 5, &s);
	stream_init(&a, &bed.a, bed.next_sid++, &a);
	small_buffer = true;
	ok(open_conn(&l, &c, 5, &grant, &ours) != 0 &&
	   open_another(&l, &bed.a, 0x77, a.sid, &grant, &ours) != 0,
	   "two guests on one lane");
	small_buffer = false;
	s.tx_limit = a.tx_limit = 100 << 20;
	s.tx_msg_limit[1] = a.tx_msg_limit[0] = 1000;
	for (int i = 0; i < FLOOD; i++)
		stream_send(&s, G_LARGE);
	guest_kick(&c, G_SWQ);
	queue_fills();
	queued = agent_vm_counter(&bed.agent[0], "c", "tx_queued");
	ok(queued > QUEUED_MAX / 2 && queued <= QUEUED_MAX + G_LARGE,
	   "the agent takes 2 MB and no more");
	is_int(agent_vm_counter(&bed.agent[0], "c", "tx_throttled") > 0, true,
	       "the guest is throttled");
	stream_send(&a, 100);
	guest_kick(&bed.a, G_SWQ);
	start_command(&c, VTOE_CMD_INFO, 5);
	cpu = agent_cpu_ms(&bed.agent[0]);
	bed_pump(&bed, 300);
	ok(agent_cpu_ms(&bed.agent[0]) - cpu < 100, "which costs nothing");
	is_int(guest_simple(&bed.a, VTOE_CMD_INFO, a.sid, 0), 0,
	       "another guest's commands are answered");
	guest_poll(&c, 0);
	ok(!c.cmd_done, "those of the guest wait for what it sent before");
	ok(read_flood(&l, s.seed, &before), "all of it arrives in order");
	ok(before && before <= FLOOD * (uint64_t)G_LARGE / 2,
	   "another guest's message before the half of it");
	for (int i = 0; i < 100 && !c.cmd_done; i++)
		guest_poll(&c, 10);
	ok(c.cmd_done && c.cmd_len == sizeof(struct vtoe_reply),
	   "the command is answered");
	is_int(agent_vm_counter(&bed.agent[0], "c", "tx_queued"), 0,
	       "and nothing is left");
	stream_close(&a, 0);
	guest_stop(&c);
	lane_end(&l);
	streams_reset();
}

/* The same, but the guest leaves, or says BYE, or the lane ends. */
static void test_throttle_ends(void)
{
	static const struct guest_options opt = {
		.swq_num = FLOOD_RING, .rwq_num = { 256, 64 }, .eq_buffers = 64,
		.rwq_posted = { 16, 4 },
	};
	struct vtoe_credit grant = credit_of(0, 1 << 20, 10, 4);
	struct vtoe_credit ours = credit_of(0, 100 << 20, 1000, 1000);
	struct vtoe_addr any = { .family = 4, .port = htons(BED_PORT) };
	struct lane_by_hand l;
	static struct guest c;
	struct stream s;

	is_int(guest_start(&c, bed.agent[0].socket, "c", BED_TENANT, 3, &opt), 0,
	       "the guest again");
	guest_listen(&c, 1, &any);
	for (int round = 0; round < 3; round++) {
		streams_reset();
		stream_init(&s, &c, 5 + (uint32_t)round, &s);
		small_buffer = true;
		ok(open_conn(&l, &c, s.sid, &grant, &ours) != 0, "a lane");
		small_buffer = false;
		s.tx_limit = 100 << 20;
		s.tx_msg_limit[1] = 1000;
		for (int i = 0; i < FLOOD; i++)
			stream_send(&s, G_LARGE);
		guest_kick(&c, G_SWQ);
		ok(queue_fills(), "that is full");
		if (round == 2) {
			guest_stop(&c); /* before the lane: with all of it */
			lane_end(&l);
			break;
		}
		if (round == 1)
			is_int(guest_queue_stop(&c, G_SWQ) |
			       guest_queue_start(&c, G_SWQ, c.q[G_SWQ].kick_fd,
						 c.q[G_SWQ].call_fd), 0,
			       "its queue stops and starts");
		lane_end(&l);
		for (int i = 0; i < 400 && !s.broken; i++)
			streams_pump(&c, 5);
		ok(s.broken, "its end is told");
		for (int i = 0; i < 100; i++)
			streams_pump(&c, 1);
		is_int(agent_vm_counter(&bed.agent[0], "c", "tx_queued"), 0,
		       "nothing is counted any more");
		is_int(guest_simple(&c, VTOE_CMD_CLOSE, s.sid, 0), 0,
		       "and commands are served");
	}
	streams_reset();
}

/*
 * Somebody cuts the file short that is a guest's memory, with data in it on its
 * way: that guest loses its session, the lane is good for the others.
 */
static void test_memory_gone(void)
{
	static struct guest g;
	struct vtoe_msg_hdr hdr;
	struct stream a, b, c, d;
	struct gbuf *buf;

	is_int(bed_open(&bed, &a, &b), 0, "a connection");
	is_int(guest_start(&g, bed.agent[0].socket, "g", BED_TENANT, 69, NULL), 0,
	       "another guest");
	g.route = bed.a.route;
	g.route_reason = 0;
	stream_init(&c, &g, 5, &d);
	stream_init(&d, &bed.b, bed.next_sid++, &c);
	d.unchecked = true;
	is_int(stream_open(&c, &d, BED_LISTENER, BED_PORT, 8), 0,
	       "has one on the same lane");
	buf = guest_send_buffer(&g);
	stream_header(&c, &hdr, VTOE_MSG_DATA, G_LARGE);
	guest_queue(&g, buf, &hdr, sizeof(hdr) + G_LARGE);
	if (ftruncate(g.mem.fd, (off_t)((buf->gpa - g.mem.gpa + 8192) & ~4095ull)))
		bail_out("ftruncate");
	stream_send(&a, 5000);
	guest_kick(&bed.a, G_SWQ);
	guest_kick(&g, G_SWQ);
	for (int i = 0; i < 300 && !g.eof; i++)
		guest_poll(&g, 10);
	ok(g.eof, "whose memory has gone, and its session with it");
	ok(stream_wait_broken(&d) && d.reason == VTOE_REASON_PEER_GONE,
	   "its peer is told");
	stream_close(&d, 0);
	ok(stream_exchange(&a, &b, 1 << 20, G_LARGE), "the lane is in step");
	guest_stop(&g);
	is_int(stream_close(&a, 0), 0, "close");
	ok(stream_wait_broken(&b), "reset");
	is_int(stream_close(&b, 0), 0, "close");
	streams_reset();
}

static int listen_as_agent(struct vtoe_addr *addr)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval tv = { .tv_sec = 3 };
	socklen_t len = sizeof(sin);

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	sin.sin_addr.s_addr = htonl(0x7f000003);
	if (bind(fd, (struct sockaddr *)&sin, sizeof(sin)) || listen(fd, 5) ||
	    getsockname(fd, (struct sockaddr *)&sin, &len))
		bail_out("listen");
	*addr = (struct vtoe_addr){ .family = 4, .port = sin.sin_port,
				    .addr = { 127, 0, 0, 3 } };
	return fd;
}

/* Takes the lane that agent 0 makes to an agent played here; the CID of the REQ
 * on it, 0: none came. */
static uint32_t take_lane(struct lane_by_hand *l, int control, int data,
			  unsigned int version, uint32_t status)
{
	struct vnet_lane_hello_reply reply = {
		.magic = htole32(VNET_PEER_MAGIC),
		.version = htole16((uint16_t)version),
		.status = htole32(status),
	};
	struct vnet_peer_lane_ask ask;
	struct vnet_lane_hello hello;
	struct vnet_peer_hdr peer;
	struct vtoe_msg_hdr hdr;
	struct vnet_lane_req req;

	l->control.fd = accept(control, NULL, NULL);
	l->control.ctx = iba_tls_ctx_create(hand_key);
	l->control.tls = iba_tls_create(l->control.ctx, l->control.fd, true);
	l->fd = -1;
	if (iba_tls_handshake(l->control.tls) != 1 ||
	    !hand_hello(&l->control, "h9", VNET_PEER_VERSION) ||
	    !hand_read(&l->control, &peer, sizeof(peer)) ||
	    !hand_read(&l->control, &ask, sizeof(ask)))
		return 0;
	peer.type = htole16(VNET_PEER_LANE_ANSWER);
	peer.len = htole32(sizeof(l->answer));
	iba_tls_write(l->control.tls, &peer, sizeof(peer));
	iba_tls_write(l->control.tls, &l->answer, sizeof(l->answer));
	l->fd = accept(data, NULL, NULL);
	if (!lane_read(l, &hello, sizeof(hello)))
		return 0;
	send(l->fd, &reply, sizeof(reply), MSG_NOSIGNAL);
	if (!lane_read(l, &hdr, sizeof(hdr)) || hdr.type != VTOE_MSG_REQ ||
	    !lane_read(l, &req, sizeof(req)))
		return 0;
	return le32toh(req.cid);
}

/* Data for a connection that its guest has given up, and the guest has left. */
static void test_orphan(void)
{
	struct vtoe_addr local = addr4(1, 35000), remote = addr4(9, 1);
	struct vtoe_credit grant = credit_of(0, 100000, 10, 10);
	struct vtoe_msg_hdr hdr = { .type = VTOE_MSG_DATA,
				    .len = htole32(10) };
	struct lane_by_hand l = { .fd = -1 };
	static struct guest g;
	struct vtoe_addr agent;
	int control, data;

	control = listen_as_agent(&agent);
	data = listen_as_agent(&l.answer.addr);
	is_int(guest_start(&g, bed.agent[0].socket, "o", BED_TENANT, 70, NULL), 0,
	       "a guest");
	g.route = agent;
	g.route_reason = 0;
	is_int(guest_connect(&g, 5, &local, &remote, 71, &grant), 0,
	       "connects to a host that is played here");
	for (int i = 0; i < 10; i++) /* the shim's answer */
		guest_poll(&g, 5);
	hdr.id = htole32(take_lane(&l, control, data, VNET_PEER_VERSION, 0));
	ok(hdr.id != 0, "which gets its REQ");
	is_int(guest_simple(&g, VTOE_CMD_CLOSE, 5, 0), 0, "it gives up");
	guest_stop(&g);
	usleep(50000);
	lane_send(&l, &hdr, "0123456789", 10);
	hdr.type = VTOE_MSG_FIN;
	hdr.len = 0;
	lane_send(&l, &hdr, "", 0);
	hdr.type = 200;
	lane_send(&l, &hdr, "", 0);
	ok(ends(l.fd), "data for it goes nowhere");
	is_int(guest_simple(&bed.a, VTOE_CMD_INFO, 12345, 0),
	       VTOE_REASON_PROTOCOL, "others do not notice");
	lane_end(&l);
	close(control);
	close(data);
}

/* The passive side of a lane is of another version: it says so, or just replies. */
static void test_reply_version(unsigned int version, uint32_t status)
{
	struct vtoe_addr local = addr4(1, 35001), remote = addr4(9, 1);
	struct vtoe_credit grant = credit_of(0, 100000, 10, 10);
	struct lane_by_hand l = { .fd = -1 };
	static struct guest g;
	struct vtoe_addr agent;
	struct stream s;
	char text[64];
	int control, data;

	control = listen_as_agent(&agent);
	data = listen_as_agent(&l.answer.addr);
	is_int(guest_start(&g, bed.agent[0].socket, "o", BED_TENANT, 70, NULL), 0,
	       "a guest");
	g.route = agent;
	g.route_reason = 0;
	stream_init(&s, &g, 5, &s);
	is_int(guest_connect(&g, 5, &local, &remote, 71, &grant), 0,
	       "connects to a host of another version");
	for (int i = 0; i < 10; i++) /* the shim's answer */
		guest_poll(&g, 5);
	is_int(take_lane(&l, control, data, version, status), 0,
	       "which gets no REQ");
	ok(stream_wait_broken(&s) && s.reason == VTOE_REASON_VERSION,
	   "the guest is told the reason");
	snprintf(text, sizeof(text), "it speaks version %u, we speak %u (version)",
		 version, VNET_PEER_VERSION);
	ok(agent_logged(&bed.agent[0], text), "the log has both numbers");
	guest_stop(&g);
	lane_end(&l);
	close(control);
	close(data);
	streams_reset();
}

/* A lane has no say about connections that are not on it. */
static void test_other_lanes_cid(void)
{
	struct vtoe_msg_hdr hdr = { .type = VTOE_MSG_RST };
	struct vnet_lane_rej rej = { .reason = htole32(VTOE_REASON_RESET) };
	struct lane_by_hand l;
	struct stream a, b;

	is_int(bed_open(&bed, &a, &b), 0, "a connection on a lane of its own");
	open_lane(&l);
	hdr.id = htole32(a.cid);
	hdr.len = htole32(sizeof(rej));
	lane_send(&l, &hdr, &rej, sizeof(rej));
	hdr.type = VTOE_MSG_DATA;
	lane_send(&l, &hdr, &rej, sizeof(rej));
	hdr.type = 200;
	lane_send(&l, &hdr, &rej, 0);
	ok(ends(l.fd), "another lane has spoken of it");
	ok(stream_exchange(&a, &b, 100000, G_LARGE) && !a.broken,
	   "and is not listened to");
	lane_end(&l);
	is_int(stream_close(&a, 0), 0, "close");
	ok(stream_wait_broken(&b), "reset");
	is_int(stream_close(&b, 0), 0, "close");
	streams_reset();
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	hand_init(&bed);
	if (!ok(bed_make(&bed, 2, NULL, ""), "two hosts"))
		return tap_done();
	test_lane_hello();
	test_lane_requests();
	test_deaf();
	for (int breach = 0; breach < BREACHES; breach++)
		test_peer_breach(breach);
	test_greeting_full();
	test_torn();
	test_memory_gone();
	test_orphan();
	test_reply_version(VNET_PEER_VERSION + 3, VTOE_REASON_VERSION);
	test_reply_version(0, 0);
	test_other_lanes_cid();
	test_random();
	test_vm_gone_in_between();
	test_throttle();
	test_throttle_ends();
	for (unsigned int i = 0; i < 2; i++)
		is_int(bed_end(&bed, i), 0, "agent ends cleanly");
	return tap_done();
}
