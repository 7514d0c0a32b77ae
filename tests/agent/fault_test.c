// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Opens that fail and guests that break the rules, over both fabrics: each gets
 * the event that the ABI promises, costs nobody else anything, and the agent
 * ends without a leak.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bed.h"
#include "tap.h"

#define HDR sizeof(struct vtoe_msg_hdr)

static struct bed bed;

/* ---- opens that fail ---- */

/* Connects to a MAC and port; the event that ends it and its reason. */
static unsigned int fail_open(uint8_t mac, uint16_t port, uint32_t *reason)
{
	struct vtoe_addr local = addr4(1, bed.next_port++);
	struct vtoe_addr remote = addr4(2, port);
	struct stream s;
	struct vtoe_credit grant;
	unsigned int type = 0;

	stream_init(&s, &bed.a, bed.next_sid++, &s);
	grant = stream_grant(&s);
	*reason = 0;
	if (guest_connect(&bed.a, s.sid, &local, &remote, mac, &grant))
		return 0;
	if (stream_wait_broken(&s)) {
		type = s.event;
		*reason = s.reason;
	}
	is_int(stream_close(&s, 0), 0, "the SID is still there to be closed");
	streams_reset();
	return type;
}

static void test_refused(bool tcp)
{
	struct vtoe_event ev;
	struct vtoe_cmd cmd = { .opcode = htole16(VTOE_CMD_REJECT) };
	struct vtoe_reply reply;
	struct stream a;
	struct vtoe_addr local = addr4(1, 39999), remote = addr4(2, BED_PORT);
	struct vtoe_credit grant;
	uint32_t reason;

	ok(fail_open(2, 9, &reason) == VTOE_EV_CONNECT_REJECTED &&
	   reason == VTOE_REASON_NO_LISTENER, "no listener");
	bed.a.route_reason = VTOE_REASON_NO_ROUTE;
	ok(fail_open(77, BED_PORT, &reason) == VTOE_EV_ADDRESS_ERROR &&
	   reason == VTOE_REASON_NO_ROUTE, "no route");
	bed.a.route_reason = VTOE_REASON_NONE;
	is_int(fail_open(78, BED_PORT, &reason),
	       tcp ? VTOE_EV_CONNECT_REJECTED : VTOE_EV_ROUTE_ERROR,
	       "a VM that is not there");
	is_int(reason, tcp ? VTOE_REASON_PEER_NO_VTOE : VTOE_REASON_NO_LANE,
	       "says why");

	stream_init(&a, &bed.a, 800, &a);
	grant = stream_grant(&a);
	guest_connect(&bed.a, 800, &local, &remote, 2, &grant);
	ok(guest_wait_event(&bed.b, VTOE_EV_CONNECT_REQUEST, &ev), "request");
	cmd.u.reject.cid = ev.cid;
	cmd.u.reject.reason = htole32(VTOE_REASON_NOT_LOCAL);
	is_int(guest_command(&bed.b, &cmd, &reply), 0, "REJECT");
	ok(stream_wait_broken(&a) && a.event == VTOE_EV_CONNECT_REJECTED &&
	   a.reason == VTOE_REASON_NOT_LOCAL, "arrives with its reason");
	is_int(stream_close(&a, 0), 0, "closed");
	grant = credit_of(0, 0, 0, 0);
	is_int(guest_accept(&bed.b, le32toh(ev.cid), 801, &grant),
	       VTOE_REASON_RESET, "ACCEPT of a request that is over");
	is_int(guest_accept(&bed.b, 0x7ffffff, 801, &grant), VTOE_REASON_RESET,
	       "ACCEPT of a CID that never was");
	streams_reset();
}

/* The guest gives up while its peer is being asked, and the peer accepts. */
static void test_give_up(void)
{
	struct vtoe_addr local = addr4(1, 38888), remote = addr4(2, BED_PORT);
	struct vtoe_credit grant = credit_of(0, 1000, 1, 1);
	struct vtoe_event ev;
	struct stream b;
	int ret;

	guest_connect(&bed.a, 810, &local, &remote, 2, &grant);
	ok(guest_wait_event(&bed.b, VTOE_EV_CONNECT_REQUEST, &ev), "request");
	is_int(guest_simple(&bed.a, VTOE_CMD_CLOSE, 810, 0), 0,
	       "CLOSE before the answer");
	stream_init(&b, &bed.b, 811, &b);
	bed_pump(&bed, 50);
	ret = guest_accept(&bed.b, le32toh(ev.cid), 811, &grant);
	ok(ret == VTOE_REASON_RESET || (ret == 0 && stream_wait_broken(&b)),
	   "whoever accepts it learns that it is gone");
	if (ret == 0)
		stream_close(&b, 0);
	/* the listener goes while a request is open */
	guest_connect(&bed.b, 812, &remote, &local, 1, &grant);
	streams_reset();
	stream_init(&b, &bed.b, 812, &b);
	bed_pump(&bed, 20);
	ok(stream_wait_broken(&b), "nobody listens there");
	stream_close(&b, 0);
	streams_reset();
}

static void test_listener_gone(void)
{
	struct vtoe_addr any = { .family = 4, .port = htobe16(6000) };
	struct vtoe_addr local = addr4(1, 37777), remote = addr4(2, 6000);
	struct vtoe_credit grant = credit_of(0, 1000, 1, 1);
	struct vtoe_event ev;
	struct stream a;

	is_int(guest_listen(&bed.b, 820, &any), 0, "another listener");
	stream_init(&a, &bed.a, 821, &a);
	guest_connect(&bed.a, 821, &local, &remote, 2, &grant);
	ok(guest_wait_event(&bed.b, VTOE_EV_CONNECT_REQUEST, &ev) &&
	   le32toh(ev.sid) == 820, "is asked");
	is_int(guest_simple(&bed.b, VTOE_CMD_CLOSE, 820, 0), 0, "and closes");
	ok(stream_wait_broken(&a) && a.event == VTOE_EV_CONNECT_REJECTED &&
	   a.reason == VTOE_REASON_NO_LISTENER, "the request ends");
	is_int(stream_close(&a, 0), 0, "closed");
	is_int(guest_accept(&bed.b, le32toh(ev.cid), 822, &grant),
	       VTOE_REASON_RESET, "a late ACCEPT is told so");
	streams_reset();
}

/* Which of the listeners is asked by the next connect to this port; rejects it. */
static uint32_t who_is_asked(uint16_t port)
{
	struct vtoe_addr local = addr4(1, bed.next_port++);
	struct vtoe_addr remote = addr4(2, port);
	struct vtoe_cmd cmd = { .opcode = htole16(VTOE_CMD_REJECT) };
	struct vtoe_credit grant = credit_of(0, 1000, 1, 1);
	struct vtoe_reply reply;
	struct vtoe_event ev;
	struct stream a;

	stream_init(&a, &bed.a, bed.next_sid++, &a);
	guest_connect(&bed.a, a.sid, &local, &remote, 2, &grant);
	if (!guest_wait_event(&bed.b, VTOE_EV_CONNECT_REQUEST, &ev))
		return 0;
	cmd.u.reject.cid = ev.cid;
	cmd.u.reject.reason = htole32(VTOE_REASON_POLICY);
	guest_command(&bed.b, &cmd, &reply);
	stream_wait_broken(&a);
	stream_close(&a, 0);
	streams_reset();
	return le32toh(ev.sid);
}

/* SO_REUSEPORT: several listeners of one address share what comes. */
static void test_listeners_share(void)
{
	struct vtoe_addr any = { .family = 4, .port = htobe16(6100) };
	struct vtoe_addr one = addr4(2, 6100);
	unsigned int asked[4] = { 0 };

	for (uint32_t i = 0; i < 3; i++)
		is_int(guest_listen(&bed.b, 860 + i, &any), 0,
		       "a listener on the same port");
	for (int i = 0; i < 6; i++)
		asked[(who_is_asked(6100) - 860) % 4]++;
	ok(asked[0] == 2 && asked[1] == 2 && asked[2] == 2,
	   "three listeners are asked in turn");
	is_int(guest_listen(&bed.b, 863, &one), 0, "one on the very address");
	ok(who_is_asked(6100) == 863 && who_is_asked(6100) == 863,
	   "goes before them");
	is_int(guest_simple(&bed.b, VTOE_CMD_CLOSE, 863, 0) |
	       guest_simple(&bed.b, VTOE_CMD_CLOSE, 861, 0), 0, "two close");
	memset(asked, 0, sizeof(asked));
	for (int i = 0; i < 4; i++)
		asked[(who_is_asked(6100) - 860) % 4]++;
	ok(asked[0] == 2 && asked[2] == 2, "the other two are asked in turn");
	is_int(guest_simple(&bed.b, VTOE_CMD_CLOSE, 860, 0) |
	       guest_simple(&bed.b, VTOE_CMD_CLOSE, 862, 0), 0, "they close");
}

/* Nobody answers: the shim does not resolve, the peer's guest does not accept. */
static void test_timeouts(void)
{
	struct vtoe_addr local = addr4(1, 36000), remote = addr4(2, BED_PORT);
	struct vtoe_credit grant = credit_of(0, 1000, 1, 1);
	struct stream mute, late;
	struct vtoe_event ev;

	stream_init(&late, &bed.a, 830, &late);
	stream_init(&mute, &bed.a, 831, &mute);
	guest_connect(&bed.a, 830, &local, &remote, 2, &grant);
	ok(guest_wait_event(&bed.b, VTOE_EV_CONNECT_REQUEST, &ev), "request");
	bed.a.mute = true;
	local = addr4(1, 36001);
	guest_connect(&bed.a, 831, &local, &remote, 99, &grant);
	bed_pump(&bed, 1000);
	ok(!late.broken && !mute.broken, "five seconds are not over");
	ok((bed_pump(&bed, 2000), stream_wait_broken(&mute)) &&
	   mute.event == VTOE_EV_ADDRESS_ERROR &&
	   mute.reason == VTOE_REASON_TIMEOUT, "the address does not resolve");
	ok(stream_wait_broken(&late) && late.reason == VTOE_REASON_TIMEOUT,
	   "the peer does not accept");
	bed.a.mute = false;
	is_int(stream_close(&late, 0) | stream_close(&mute, 0), 0, "closed");
	bed_pump(&bed, 400); /* the other side counts its own five seconds */
	is_int(guest_accept(&bed.b, le32toh(ev.cid), 832, &grant),
	       VTOE_REASON_RESET, "a late ACCEPT is told so");
	streams_reset();
}

/* CONNECT by g to one of 65536 MACs; the stream of it. */
static int connect_far(struct guest *g, struct stream *s, uint16_t number)
{
	struct vtoe_cmd cmd = { .opcode = htole16(VTOE_CMD_CONNECT),
				.sid = htole32(s->sid) };
	struct vtoe_reply reply;
	int ret = guest_simple(g, VTOE_CMD_SOCKET, s->sid, 0);

	cmd.u.connect.local = addr4(1, 1);
	cmd.u.connect.remote = addr4(9, 1);
	memcpy(cmd.u.connect.next_hop, (uint8_t[]){ 2, 1, 0, 0 }, 4);
	cmd.u.connect.next_hop[4] = (uint8_t)(number >> 8);
	cmd.u.connect.next_hop[5] = (uint8_t)number;
	return ret ? ret : guest_command(g, &cmd, &reply);
}

static bool fails_now(struct stream *s)
{
	return stream_wait_broken(s) && s->event == VTOE_EV_ROUTE_ERROR &&
	       stream_close(s, 0) == 0;
}

#define MACS 4200 /* more than the agent keeps */
#define WAITERS 9

/*
 * On one host: what is not here has a route, but no path. Some wait for an
 * answer while others fill the table of the answers.
 */
static void test_routes(void)
{
	struct vnet_attach_resolve_reply answer = { .agent = bed.a.route };
	unsigned int refused = 0, failed = 0, asked;
	struct stream s, waiter[WAITERS];
	static struct guest g;
	uint32_t seq;

	is_int(guest_start(&g, bed.agent[0].socket, "r", BED_TENANT, 73, NULL), 0,
	       "a third guest");
	g.route = bed.a.route;
	g.route_reason = 0;
	g.mute = true;
	for (uint32_t i = 0; i < WAITERS; i++) {
		stream_init(&waiter[i], &g, 2 + i, &waiter[i]);
		refused += connect_far(&g, &waiter[i], 0) != 0;
	}
	is_int(refused, 0, "its connects wait");
	for (int i = 0; i < 10; i++)
		guest_poll(&g, 2);
	is_int(g.resolves, 1, "for one answer");
	seq = g.resolve_seq;
	g.mute = false;
	is_int(guest_simple(&g, VTOE_CMD_CLOSE, 5, 0), 0, "one is closed");
	for (uint16_t i = 1; i <= MACS; i++) {
		s.sid = 20u + i;
		refused += connect_far(&g, &s, i) != 0;
	}
	for (int i = 0; i < 200 && g.resolves < MACS + 1; i++)
		guest_poll(&g, 5);
	ok(!refused && g.resolves == MACS + 1, "each of many others is asked for");
	asked = g.resolves;
	s.sid = 20u + MACS + 1;
	connect_far(&g, &s, MACS);
	for (int i = 0; i < 10; i++)
		guest_poll(&g, 2);
	is_int(g.resolves, asked, "and known then");
	g.ev_out = g.ev_in;
	/* of another number: nobody has asked that */
	attach_send(g.fd, VNET_ATTACH_RESOLVE_REPLY, seq ^ 1 << 20, &answer,
		    NULL, 0);
	attach_send(g.fd, VNET_ATTACH_RESOLVE_REPLY, seq, &answer, NULL, 0);
	for (uint32_t i = 0; i < WAITERS; i++)
		failed += waiter[i].sid != 5 && fails_now(&waiter[i]);
	is_int(failed, WAITERS - 1, "the first answer is still awaited, by all");
	guest_stop(&g);
	streams_reset();
}

/* The shim's routes change while one is asked for. */
static void test_route_changed(void)
{
	unsigned int asked;
	struct stream s;

	stream_init(&s, &bed.a, 880, &s);
	bed.a.mute = true;
	is_int(connect_far(&bed.a, &s, 60000), 0, "a connect that waits");
	bed_pump(&bed, 20);
	bed.a.mute = false;
	asked = bed.a.resolves;
	attach_send(bed.a.fd, VNET_ATTACH_ROUTE_CHANGED, 1, NULL, NULL, 0);
	ok(fails_now(&s), "is asked for again");
	is_int(bed.a.resolves - asked, 1, "and alone");
	streams_reset();
}

/* ---- guests that break the rules ---- */

/* Sends one message as hdr says; a's peer and a itself must be told. */
static void break_rule(const char *what, struct stream *a, struct stream *b,
		       const struct vtoe_msg_hdr *hdr, uint32_t chain,
		       enum vtoe_reason reason)
{
	struct gbuf *buf = guest_send_buffer(a->g);

	guest_queue(a->g, buf, hdr, chain);
	guest_kick(a->g, G_SWQ);
	ok(stream_wait_broken(a) && a->reason == reason &&
	   stream_wait_broken(b) && b->reason == reason, "%s: both sides end", what);
	is_int(stream_close(a, 0) | stream_close(b, 0), 0, "and close");
	streams_reset();
}

enum rule { BYTE_LIMIT, MSG_LIMIT, OFFSET, LENGTH, LONG, ZERO, TYPE, REQ, FLAGS,
	    ACK, BEHIND_FIN, RULES };

static void test_rule(enum rule rule)
{
	static const char *const names[RULES] = {
		"byte limit", "message limit", "offset", "length", "too long",
		"no bytes", "type", "lane message", "flags", "acknowledgement",
		"behind FIN",
	};
	uint32_t len = 100, chain = 0;
	enum vtoe_reason reason = VTOE_REASON_PROTOCOL;
	struct vtoe_msg_hdr hdr;
	struct stream a, b;

	stream_init(&a, &bed.a, bed.next_sid++, &b);
	stream_init(&b, &bed.b, bed.next_sid++, &a);
	b.window = 5000;
	b.msg_window[0] = 2;
	b.hold = true;
	if (stream_open(&a, &b, BED_LISTENER, BED_PORT, bed.next_port++)) {
		ok(false, "%s: opens", names[rule]);
		return;
	}
	if (rule == MSG_LIMIT)
		while (stream_send(&a, 10))
			;
	stream_header(&a, &hdr, VTOE_MSG_DATA, len);
	switch (rule) {
	case BYTE_LIMIT:
		len = 5001;
		hdr.len = htole32(len);
		reason = VTOE_REASON_CREDIT;
		break;
	case MSG_LIMIT:
		reason = VTOE_REASON_CREDIT;
		break;
	case OFFSET:
		hdr.offset = htole64(1);
		break;
	case LENGTH:
		chain = HDR + 101;
		break;
	case LONG:
		hdr.len = htole32(0xffffffff);
		break;
	case ZERO:
		hdr.len = 0;
		chain = HDR;
		break;
	case TYPE:
		hdr.type = 99;
		break;
	case REQ:
		hdr.type = VTOE_MSG_RST;
		break;
	case FLAGS:
		hdr.flags = 0x80;
		break;
	case ACK:
		hdr.credit.ack = htole64(1);
		break;
	case BEHIND_FIN:
		guest_shutdown(a.g, a.sid, 50);
		break;
	default:
		break;
	}
	break_rule(names[rule], &a, &b, &hdr, chain ? chain : (uint32_t)HDR + len,
		   reason);
}

/* Nobody is hurt by what has no connection. */
static void test_strays(void)
{
	struct vtoe_msg_hdr hdr;
	struct stream a, b;
	struct gbuf *buf;

	is_int(bed_open(&bed, &a, &b), 0, "a connection");
	stream_header(&a, &hdr, VTOE_MSG_DATA, 10);
	hdr.id = htole32(a.sid | 1u << VTOE_SID_INDEX_BITS);
	guest_queue(&bed.a, guest_send_buffer(&bed.a), &hdr, HDR + 10);
	hdr.id = htole32(0xfffff);
	guest_queue(&bed.a, guest_send_buffer(&bed.a), &hdr, HDR + 10);
	buf = guest_send_buffer(&bed.a);
	guest_queue(&bed.a, buf, &hdr, HDR - 1);
	guest_kick(&bed.a, G_SWQ);
	for (int i = 0; i < 400 && buf->busy; i++)
		bed_pump(&bed, 10);
	ok(!buf->busy && !bed.a.eof, "messages for nobody come back");
	ok(stream_exchange(&a, &b, 100000, G_LARGE), "the connection goes on");
	is_int(stream_close(&a, 0), 0, "close");
	ok(stream_wait_broken(&b), "reset");
	is_int(stream_close(&b, 0), 0, "close");
	streams_reset();
}

static void test_not_posted(void)
{
	struct stream a, b;

	stream_init(&a, &bed.a, bed.next_sid++, &b);
	stream_init(&b, &bed.b, bed.next_sid++, &a);
	b.msg_window[1] = 100; /* of 64 */
	b.window = 100 << 20;
	is_int(stream_open(&a, &b, BED_LISTENER, BED_PORT, bed.next_port++), 0,
	       "opens");
	for (int i = 0; i < 70; i++) {
		if (!stream_send(&a, G_LARGE))
			break;
		guest_kick(&bed.a, G_SWQ);
		guest_poll(&bed.a, 0);
	}
	for (int i = 0; i < 200 && !a.broken; i++)
		streams_pump(&bed.a, 10);
	ok(a.broken && a.reason == VTOE_REASON_CREDIT,
	   "granted but not posted: the sender is told");
	ok(stream_wait_broken(&b) && b.reason == VTOE_REASON_CREDIT,
	   "and so is the guilty one");
	is_int(b.rx_msgs[1], 64, "which got what it had room for");
	is_int(b.wrong, 0, "unharmed");
	is_int(stream_close(&a, 0) | stream_close(&b, 0), 0, "both close");
	streams_reset();
}

static void test_commands(void)
{
	struct vtoe_addr bad = { .family = 9, .port = htobe16(1) };
	struct vtoe_addr any = { .family = 4 };
	struct vtoe_cmd cmd = { .opcode = htole16(VTOE_CMD_BIND),
				.sid = htole32(850) };
	struct vtoe_reply reply;

	is_int(guest_simple(&bed.a, 99, 0, 0), VTOE_REASON_PROTOCOL, "opcode");
	is_int(guest_simple(&bed.a, 0, 0, 0), VTOE_REASON_PROTOCOL, "opcode 0");
	is_int(guest_simple(&bed.a, VTOE_CMD_SOCKET, 0, 0), VTOE_REASON_PROTOCOL,
	       "SID 0");
	is_int(guest_simple(&bed.a, VTOE_CMD_SOCKET, 850, 0), 0, "SOCKET");
	is_int(guest_simple(&bed.a, VTOE_CMD_SOCKET, 850, 0),
	       VTOE_REASON_PROTOCOL, "twice");
	is_int(guest_simple(&bed.a, VTOE_CMD_SOCKET,
			    850 | 1u << VTOE_SID_INDEX_BITS, 0),
	       VTOE_REASON_LIMIT, "the same index in another generation");
	is_int(guest_simple(&bed.a, VTOE_CMD_LISTEN, 850, 0),
	       VTOE_REASON_PROTOCOL, "LISTEN without BIND");
	is_int(guest_simple(&bed.a, VTOE_CMD_SHUTDOWN, 850, 0),
	       VTOE_REASON_PROTOCOL, "SHUTDOWN of an idle one");
	is_int(guest_simple(&bed.a, VTOE_CMD_CLOSE, 850, 0x80),
	       VTOE_REASON_PROTOCOL, "unknown flag");
	cmd.u.bind.local = bad;
	is_int(guest_command(&bed.a, &cmd, &reply), VTOE_REASON_ADDR_FAMILY,
	       "address family");
	cmd.u.bind.local = any;
	is_int(guest_command(&bed.a, &cmd, &reply), VTOE_REASON_PROTOCOL,
	       "no port");
	is_int(guest_simple(&bed.a, VTOE_CMD_CLOSE, 850, 0), 0, "CLOSE");
	is_int(guest_simple(&bed.a, VTOE_CMD_INFO, 850, 0), VTOE_REASON_PROTOCOL,
	       "and it is gone");
}

/* A SWQ head twice, an avail index out of bounds: the session ends, alone. */
static void test_hostile_rings(void)
{
	static struct guest evil;
	const char *path = bed.agent[0].socket;
	struct vtoe_msg_hdr hdr = { .type = VTOE_MSG_DATA };
	struct stream a, b;

	is_int(guest_start(&evil, path, "evil", BED_TENANT, 66, NULL), 0,
	       "a third guest");
	is_int(bed_open(&bed, &a, &b), 0, "others have a connection");
	evil.q[G_SWQ].avail->idx += 5000;
	guest_queue(&evil, guest_send_buffer(&evil), &hdr, HDR);
	__atomic_store_n(&evil.q[G_SWQ].avail->idx, 9999, __ATOMIC_RELEASE);
	write(evil.q[G_SWQ].kick_fd, &(uint64_t){ 1 }, 8);
	for (int i = 0; i < 300 && !evil.eof; i++)
		guest_poll(&evil, 10);
	ok(evil.eof, "a broken ring ends the session");
	ok(stream_exchange(&a, &b, 100000, G_LARGE), "of nobody else");
	guest_stop(&evil);
	/* attach messages out of order */
	is_int(guest_start(&evil, path, "evil", BED_TENANT, 66, NULL), 0,
	       "it comes again");
	is_int(attach_send(evil.fd, VNET_ATTACH_DONE, 1,
			   &(struct vnet_attach_done){ 0 }, NULL, 0), 0,
	       "says what only an agent says");
	for (int i = 0; i < 300 && !evil.eof; i++)
		guest_poll(&evil, 10);
	ok(evil.eof, "and is thrown out");
	guest_stop(&evil);
	is_int(stream_close(&a, 0), 0, "close");
	ok(stream_wait_broken(&b), "reset");
	is_int(stream_close(&b, 0), 0, "close");
	streams_reset();
}

/*
 * BYE with an index that goes back while the buffers are returned. Made certain
 * by rings that lie in each other: the element that returns the second buffer,
 * head 2, is where the available index is, which was 3.
 */
static void test_index_goes_back(void)
{
	const struct guest_options opt = {
		.swq_num = 64, .rwq_num = { 256, 64 }, .no_hello = true,
		.eq_buffers = 3, .rwq_posted = { 0, 0 },
	};
	struct vtoe_cmd hello = { .opcode = htole16(VTOE_CMD_HELLO) };
	static const uint16_t heads[] = { 0, 2, 1 };
	static struct guest g;
	struct ring_driver *eq = &g.q[G_EQ];
	struct vtoe_reply reply;
	struct vring_avail *avail;
	struct stream s = { .sid = 5 };

	is_int(guest_start(&g, bed.agent[0].socket, "i", BED_TENANT, 74, &opt), 0,
	       "a third guest");
	is_int(guest_queue_stop(&g, G_EQ), 0, "its EQ stops");
	eq->avail_gpa = eq->used_gpa + offsetof(struct vring_used, ring[1]) -
			offsetof(struct vring_avail, idx);
	avail = ring_memory_at(&g.mem, eq->avail_gpa);
	eq->avail = avail;
	is_int(guest_queue_start(&g, G_EQ, eq->kick_fd, eq->call_fd), 0,
	       "its available ring is in its used ring");
	g.leaving = true;
	for (unsigned int i = 0; i < 3; i++)
		ring_driver_add(eq, &(struct ring_piece){
				g.eq_buf[i].gpa, sizeof(struct vtoe_event) },
				0, 1, &g.eq_buf[i], 0);
	for (unsigned int i = 0; i < 3; i++)
		avail->ring[i] = htole16(heads[i]);
	/* two are seen; of them one is taken, by an event */
	__atomic_store_n(&avail->idx, htole16(2), __ATOMIC_RELEASE);
	hello.u.hello.version = htole16(VTOE_VERSION);
	is_int(guest_command(&g, &hello, &reply), 0, "HELLO");
	is_int(connect_far(&g, &s, 1), 0, "a connect that fails");
	for (int i = 0; i < 400 && !(le16toh(eq->used->idx) & 1); i++)
		usleep(10000);
	is_int(le16toh(eq->used->idx), 1, "an event");
	__atomic_store_n(&avail->idx, htole16(3), __ATOMIC_RELEASE);
	is_int(guest_simple(&g, VTOE_CMD_BYE, 0, 0), 0, "BYE is answered");
	is_int(g.eq_returned, 1, "its index has gone back behind the first buffer");
	is_int(guest_simple(&bed.a, VTOE_CMD_INFO, 12345, 0),
	       VTOE_REASON_PROTOCOL, "and others are served");
	guest_stop(&g);
}

/* Descriptors of the shim that are not what they should be. */
static void test_bad_fds(void)
{
	static struct guest g;
	int file = memfd_create("no doorbell", MFD_CLOEXEC);
	unsigned int cpu;
	int kick[2], call[2], pair[2];

	is_int(guest_start(&g, bed.agent[0].socket, "e", BED_TENANT, 67, NULL), 0,
	       "a third guest");
	if (pipe2(kick, O_CLOEXEC) || pipe2(call, O_CLOEXEC))
		bail_out("pipe");
	close(call[0]);
	is_int(guest_queue_stop(&g, G_CR) |
	       guest_queue_start(&g, G_CR, g.q[G_CR].kick_fd, call[1]), 0,
	       "its interrupts go to a pipe that nobody reads");
	is_int(guest_simple(&g, VTOE_CMD_INFO, 5, 0), VTOE_REASON_PROTOCOL,
	       "it is served all the same");
	is_int(guest_queue_stop(&g, G_CR) |
	       guest_queue_start(&g, G_CR, kick[0], call[1]), 0,
	       "its doorbell is a pipe");
	close(kick[1]);
	usleep(20000);
	cpu = agent_cpu_ms(&bed.agent[0]);
	usleep(300000);
	ok(agent_cpu_ms(&bed.agent[0]) - cpu < 150,
	   "which is closed, and costs nothing");
	is_int(guest_queue_stop(&g, G_SWQ), 0, "SWQ stops");
	for (int i = 0; i < 2; i++)
		is_int(guest_queue_start(&g, G_SWQ, file, call[1]),
		       VTOE_REASON_PROTOCOL, "a doorbell that cannot be watched");
	is_int(guest_queue_start(&g, G_SWQ, g.q[G_SWQ].kick_fd,
				 g.q[G_SWQ].call_fd), 0, "it starts with a good one");
	is_int(guest_queue_stop(&g, G_EQ), 0, "EQ stops");
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		bail_out("socketpair");
	is_int(guest_queue_start(&g, G_EQ, pair[0], call[1]),
	       VTOE_REASON_PROTOCOL, "a doorbell that is a socket");
	is_int(guest_queue_start(&g, G_EQ, g.q[G_EQ].kick_fd, file),
	       VTOE_REASON_PROTOCOL, "interrupts into a file");
	close(pair[0]);
	close(pair[1]);
	close(kick[0]);
	close(call[1]);
	close(file);
	is_int(guest_simple(&bed.a, VTOE_CMD_INFO, 12345, 0),
	       VTOE_REASON_PROTOCOL, "others do not notice");
	guest_stop(&g);
}

/*
 * A front end that has made its interrupt wait: for the flags of the eventfd are
 * its own as well, and it is full. The other VMs of the tenant wait a second.
 */
static void test_blocking_call(void)
{
	static struct guest g;
	struct ring_piece piece[2];
	struct ring_driver *cr = &g.q[G_CR];
	const uint64_t most = UINT64_MAX - 1;
	struct stream a, b;
	uint64_t count;

	is_int(guest_start(&g, bed.agent[0].socket, "h", BED_TENANT, 72, NULL), 0,
	       "a third guest");
	is_int(bed_open(&bed, &a, &b), 0, "others have a connection");
	for (int i = 0; i < G_QUEUES; i++) {
		int fd = g.q[i].call_fd;

		(void)!read(fd, &count, sizeof(count));
		if (write(fd, &most, sizeof(most)) != sizeof(most) ||
		    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK))
			bail_out("eventfd");
		ring_driver_enable_calls(&g.q[i]);
	}
	piece[0] = (struct ring_piece){ g.cmd_gpa, sizeof(struct vtoe_cmd) };
	piece[1] = (struct ring_piece){ g.cmd_gpa + sizeof(struct vtoe_cmd),
					sizeof(struct vtoe_reply) };
	ring_driver_add(cr, piece, 1, 1, &g, 0);
	ring_driver_kick(cr);
	usleep(20000);
	ok(stream_exchange(&a, &b, 100000, G_LARGE),
	   "which goes on while an interrupt of the guest is stuck");
	/* without taking from the eventfd, as guest_poll() would if it slept */
	for (int i = 0; i < 300 && !g.eof; i++) {
		guest_poll(&g, 0);
		usleep(10000);
	}
	ok(g.eof, "and its session ends");
	ok(agent_logged(&bed.agent[0], "interrupt of it blocks"),
	   "the log says why");
	guest_stop(&g);
	is_int(stream_close(&a, 0), 0, "close");
	ok(stream_wait_broken(&b), "reset");
	is_int(stream_close(&b, 0), 0, "close");
	streams_reset();
}

/* More on the SWQ than a pass takes, and a command that may not overtake it. */
static void test_command_waits(void)
{
	const struct guest_options opt = { .swq_num = 32, .rwq_num = { 256, 64 },
					   .rwq_posted = { 16, 4 },
					   .eq_buffers = 64, .pages = true };
	struct vtoe_msg_hdr stray = { .type = VTOE_MSG_CREDIT,
				      .id = htole32(0xabcde) }, hdr;
	struct vtoe_cmd cmd = { .opcode = htole16(VTOE_CMD_INFO),
				.sid = htole32(5) };
	struct vtoe_reply reply;
	static struct guest g;
	struct ring_piece p;
	struct stream a, b;
	struct gbuf *buf;

	is_int(guest_start(&g, bed.agent[0].socket, "f", BED_TENANT, 68, &opt), 0,
	       "a third guest");
	g.route = bed.a.route;
	g.route_reason = 0;
	stream_init(&a, &g, 5, &b);
	stream_init(&b, &bed.b, bed.next_sid++, &a);
	is_int(stream_open(&a, &b, BED_LISTENER, BED_PORT, 7), 0, "connects");
	buf = guest_send_buffer(&g);
	memcpy(buf->at, &stray, HDR);
	p = (struct ring_piece){ buf->gpa, HDR };
	for (int i = 0; i < 900; i++)
		ring_driver_add(&g.q[G_SWQ], &p, 1, 0, buf, 0);
	buf->busy = true;
	stream_header(&a, &hdr, VTOE_MSG_DATA, 10);
	guest_queue(&g, guest_send_buffer(&g), &hdr, HDR + 10);
	ring_driver_publish(&g.q[G_SWQ]);
	is_int(guest_command(&g, &cmd, &reply), 0, "a command behind 900 messages");
	is_int(le64toh(reply.u.info.tx_bytes), 10, "overtakes none of them");
	guest_stop(&g);
	for (int i = 0; i < 400 && !b.broken; i++)
		streams_pump(&bed.b, 10);
	ok(b.broken, "it leaves");
	stream_close(&b, 0);
	streams_reset();
}

/* ---- guests that leave ---- */

static void test_bye(void)
{
	static struct guest g;
	struct vtoe_cmd hello = { .opcode = htole16(VTOE_CMD_HELLO) };
	struct vtoe_reply reply;
	struct stream a, b;

	is_int(guest_start(&g, bed.agent[0].socket, "c", BED_TENANT, 3, NULL), 0,
	       "a third guest");
	g.route = bed.a.route;
	g.route_reason = 0;
	stream_init(&a, &g, 5, &b);
	stream_init(&b, &bed.b, bed.next_sid++, &a);
	is_int(stream_open(&a, &b, BED_LISTENER, BED_PORT, 5), 0, "connects");
	ok(stream_exchange(&a, &b, 100000, G_LARGE), "data passes");
	g.leaving = true;
	is_int(guest_simple(&g, VTOE_CMD_BYE, 0, 0), 0, "BYE");
	ok(stream_wait_broken(&b) && b.reason == VTOE_REASON_PEER_GONE,
	   "its peer is told PEER_GONE");
	stream_close(&b, 0);
	guest_poll(&g, 0);
	is_int(guest_busy(&g), 0, "all buffers are back");
	ok(g.eq_returned && g.rwq_returned, "with length 0");
	is_int(guest_simple(&g, VTOE_CMD_SOCKET, 6, 0), VTOE_REASON_PROTOCOL,
	       "no command but HELLO now");
	hello.u.hello.version = htole16(VTOE_VERSION + 1);
	is_int(guest_command(&g, &hello, &reply), VTOE_REASON_VERSION,
	       "another version is refused");
	is_int(le16toh(reply.u.hello.version), VTOE_VERSION, "with ours");
	hello.u.hello.version = htole16(VTOE_VERSION);
	is_int(guest_command(&g, &hello, &reply), 0, "HELLO again");
	guest_stop(&g);
	streams_reset();
}

static void test_vm_gone(void)
{
	static struct guest g;
	struct stream a, b;

	is_int(guest_start(&g, bed.agent[0].socket, "d", BED_TENANT, 4, NULL), 0,
	       "a third guest");
	g.route = bed.a.route;
	g.route_reason = 0;
	stream_init(&a, &g, 5, &b);
	stream_init(&b, &bed.b, bed.next_sid++, &a);
	is_int(stream_open(&a, &b, BED_LISTENER, BED_PORT, 6), 0, "connects");
	for (int i = 0; i < 10; i++)
		stream_send(&a, G_LARGE);
	guest_kick(&g, G_SWQ);
	guest_stop(&g); /* with data on its way */
	for (int i = 0; i < 400 && !b.broken; i++)
		streams_pump(&bed.b, 10);
	ok(b.broken && b.reason == VTOE_REASON_PEER_GONE,
	   "a VM that vanishes: its peer is told PEER_GONE");
	stream_close(&b, 0);
	streams_reset();
}

static void test_refused_hello(void)
{
	struct vnet_attach_hello hello = { .version = htole16(2), .vm = "x" };
	struct attach_msg msg;
	int fd = unix_connect(bed.agent[0].socket, SOCK_SEQPACKET);
	int ret;

	attach_send(fd, VNET_ATTACH_HELLO, 1, &hello, NULL, 0);
	while ((ret = attach_recv(fd, &msg)) == -EAGAIN)
		usleep(1000);
	ok(ret == 1 && le32toh(msg.u.hello_reply.status) == VTOE_REASON_VERSION &&
	   le16toh(msg.u.hello_reply.version) == VNET_ATTACH_VERSION,
	   "a shim of another version is refused, and told ours");
	close(fd);
	fd = unix_connect(bed.agent[0].socket, SOCK_SEQPACKET);
	send(fd, "garbage", 7, 0);
	while ((ret = attach_recv(fd, &msg)) == -EAGAIN)
		usleep(1000);
	is_int(ret, 0, "garbage on the shims' socket");
	close(fd);
}

/* An agent that has a list of VMs. */
static void test_listed(void)
{
	static const struct {
		const char *what, *name;
		uint32_t tenant;
		uint8_t mac;
	} wrong[] = {
		{ "a VM that is in no row", "w", BED_TENANT, 9 },
		{ "one with the MAC address of a row alone", "w", BED_TENANT, 1 },
		{ "one with its name alone", "v", BED_TENANT, 2 },
		{ "one of another tenant", "v", BED_TENANT + 1, 1 },
	};
	static struct guest g;
	struct test_agent agent;

	is_int(agent_start(&agent, 21, TEST_KEY,
			   "fabric local\n"
			   "vm v tenant 7 mac 02:00:00:00:00:01\n", NULL), 0,
	       "an agent with a list of VMs");
	for (unsigned int i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		is_int(guest_start(&g, agent.socket, wrong[i].name,
				   wrong[i].tenant, wrong[i].mac, NULL),
		       VTOE_REASON_TENANT, wrong[i].what);
		guest_stop(&g);
	}
	ok(agent_logged(&agent,
			"vm v: refused: tenant: if it is right, add \"vm v tenant 8 mac 02:00:00:00:00:01\" to /"),
	   "the log says what to do");
	is_int(guest_start(&g, agent.socket, "v", BED_TENANT, 1, NULL), 0,
	       "the one of the list attaches");
	kill(agent.pid, SIGUSR1);
	ok(agent_logged(&agent, "\"shims_refused\":4,"), "refusals are counted");
	guest_stop(&g);
	is_int(agent_stop(&agent), 0, "agent ends cleanly");
}

static void run(unsigned int agents)
{
	unsigned int before, after;

	if (!ok(bed_make(&bed, agents, NULL, ""), "two guests listen"))
		return;
	test_commands();
	test_refused_hello();
	test_refused(agents == 2);
	test_give_up();
	agent_processes(&bed.agent[0], &before); /* lanes both ways are up */
	test_listener_gone();
	test_listeners_share();
	if (agents == 1) {
		test_routes();
		test_route_changed();
	}
	for (int rule = 0; rule < RULES; rule++)
		test_rule(rule);
	test_strays();
	test_not_posted();
	test_hostile_rings();
	test_index_goes_back();
	test_bad_fds();
	test_blocking_call();
	test_command_waits();
	test_bye();
	test_vm_gone();
	test_timeouts();
	agent_processes(&bed.agent[0], &after);
	is_int(after, before, "no descriptor is left");
	for (unsigned int i = 0; i < agents; i++)
		is_int(bed_end(&bed, i), 0, "agent ends cleanly");
}

int main(void)
{
	note("local");
	run(1);
	note("tcp");
	run(2);
	test_listed();
	return tap_done();
}
