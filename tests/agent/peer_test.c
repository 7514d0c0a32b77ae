// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What an agent does with its peers, good and bad: control channels with
 * another key, version, name, or garbage; lanes with a bad token, tenant,
 * version or message; an agent that is killed and comes back; the program itself
 * in its sandbox.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "bed.h"
#include "tap.h"
#include "tls.h"

static struct bed bed;

/* ---- a peer made by hand ---- */

static uint8_t hex_key[IBA_KEY_LEN];

static bool small_buffer; /* of the next sockets: they are full soon */

static int tcp_connect(unsigned int host, uint16_t port, unsigned int from)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	struct timeval tv = { .tv_sec = 3 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (small_buffer)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){ 8192 }, sizeof(int));
	addr.sin_addr.s_addr = htonl(0x7f000000 | from);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		perror("bind");
	addr.sin_addr.s_addr = htonl(0x7f000000 | host);
	addr.sin_port = htons(port);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		perror("connect");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	return fd;
}

/* True: the other side ends the connection within 3 s. */
static bool ends(int fd)
{
	char byte[256];
	ssize_t n;

	do {
		n = recv(fd, byte, sizeof(byte), 0);
	} while (n > 0);
	return n == 0 || errno == ECONNRESET;
}

struct by_hand {
	int fd;
	struct iba_tls_ctx *ctx;
	struct iba_tls *tls;
};

static bool hand_shake(struct by_hand *p, const uint8_t key[IBA_KEY_LEN])
{
	p->fd = tcp_connect(1, bed.agent[0].port, 3);
	p->ctx = iba_tls_ctx_create(key);
	p->tls = iba_tls_create(p->ctx, p->fd, false);
	return iba_tls_handshake(p->tls) == 1;
}

static void hand_end(struct by_hand *p)
{
	iba_tls_destroy(p->tls);
	iba_tls_ctx_destroy(p->ctx);
	close(p->fd);
}

static void hand_send(struct by_hand *p, unsigned int type, const void *body,
		      uint32_t len)
{
	struct vnet_peer_hdr hdr = { .magic = htole32(VNET_PEER_MAGIC),
				     .type = htole16((uint16_t)type),
				     .len = htole32(len), .seq = htole32(77) };

	iba_tls_write(p->tls, &hdr, sizeof(hdr));
	if (len)
		iba_tls_write(p->tls, body, len);
}

static bool hand_read(struct by_hand *p, void *buf, size_t len)
{
	size_t got = 0;

	while (got < len) {
		ssize_t n = iba_tls_read(p->tls, (char *)buf + got, len - got);

		if (n <= 0)
			return false;
		got += (size_t)n;
	}
	return true;
}

/* Also false: the channel ends first. */
static bool hand_receive(struct by_hand *p, unsigned int type, void *body,
			 uint32_t len)
{
	struct vnet_peer_hdr hdr;

	return hand_read(p, &hdr, sizeof(hdr)) && le16toh(hdr.type) == type &&
	       le32toh(hdr.len) == len && hand_read(p, body, len);
}

static bool hand_hello(struct by_hand *p, const char *host, unsigned int version)
{
	struct vnet_peer_hello hello = { .version = htole16((uint16_t)version),
					 .fabrics = htole16(4) };
	struct vnet_peer_hello theirs;

	snprintf(hello.host, sizeof(hello.host), "%s", host);
	hand_send(p, VNET_PEER_HELLO, &hello, sizeof(hello));
	return hand_receive(p, VNET_PEER_HELLO, &theirs, sizeof(theirs)) &&
	       le16toh(theirs.version) == VNET_PEER_VERSION &&
	       !strcmp(theirs.host, "h1");
}

static uint32_t hand_ask(struct by_hand *p, uint32_t tenant,
			 struct vnet_peer_lane_answer *answer)
{
	struct vnet_peer_lane_ask ask = { .tenant = htole32(tenant),
					  .fabric = htole16(VTOE_FABRIC_TCP) };

	hand_send(p, VNET_PEER_LANE_ASK, &ask, sizeof(ask));
	if (!hand_receive(p, VNET_PEER_LANE_ANSWER, answer, sizeof(*answer)))
		return 9999;
	return le32toh(answer->status);
}

/* ---- the control channel ---- */

static void test_control(void)
{
	struct vnet_peer_lane_answer answer;
	struct vnet_peer_hdr hdr = { 0 };
	uint8_t other[IBA_KEY_LEN];
	struct by_hand p;
	char junk[600];
	int fd;

	fd = tcp_connect(1, bed.agent[0].port, 3);
	memset(junk, 'x', sizeof(junk));
	send(fd, junk, sizeof(junk), MSG_NOSIGNAL);
	ok(ends(fd), "garbage on the control port");
	close(fd);

	memcpy(other, hex_key, sizeof(other));
	other[0] ^= 0x80;
	ok(!hand_shake(&p, other) || !hand_hello(&p, "h9", 1),
	   "another key does not get in");
	hand_end(&p);

	ok(hand_shake(&p, hex_key), "the key gets in");
	ok(!hand_hello(&p, "h9", 0) || hand_ask(&p, BED_TENANT, &answer) == 9999,
	   "another version does not get on");
	hand_end(&p);
	ok(agent_logged(&bed.agent[0], "older version"), "the log says why");

	hand_shake(&p, hex_key);
	hand_hello(&p, "h1", 1);
	is_int(hand_ask(&p, BED_TENANT, &answer), 9999,
	       "nor does one with the agent's own name");
	hand_end(&p);

	hand_shake(&p, hex_key);
	ok(hand_hello(&p, "h9", 1), "HELLO both ways");
	hand_send(&p, VNET_PEER_PING, NULL, 0);
	ok(hand_receive(&p, VNET_PEER_PONG, NULL, 0), "PING, PONG");
	is_int(hand_ask(&p, 99, &answer), VTOE_REASON_PEER_NO_VTOE,
	       "no lane for a tenant without VM");
	is_int(hand_ask(&p, BED_TENANT, &answer), 0, "a lane for one with");
	iba_tls_write(p.tls, &hdr, sizeof(hdr));
	ok(!hand_receive(&p, VNET_PEER_PONG, NULL, 0),
	   "a malformed message ends the channel");
	hand_end(&p);
}

/* ---- lanes ---- */

struct lane_by_hand {
	struct by_hand control;
	struct vnet_peer_lane_answer answer;
	int fd;
};

static void lane_ask(struct lane_by_hand *l)
{
	hand_shake(&l->control, hex_key);
	hand_hello(&l->control, "h9", 1);
	hand_ask(&l->control, BED_TENANT, &l->answer);
}

/* Greets on the lane; the reply's status, or 9999 if the lane just ends. */
static uint32_t lane_greet(struct lane_by_hand *l, uint32_t tenant,
			   unsigned int version, unsigned int from)
{
	struct vnet_lane_hello hello = {
		.magic = htole32(VNET_PEER_MAGIC),
		.version = htole16((uint16_t)version),
		.tenant = htole32(tenant),
	};
	struct vnet_lane_hello_reply reply;

	memcpy(hello.token, l->answer.token, sizeof(hello.token));
	l->fd = tcp_connect(1, ntohs(l->answer.addr.port), from);
	send(l->fd, &hello, sizeof(hello), MSG_NOSIGNAL);
	if (recv(l->fd, &reply, sizeof(reply), MSG_WAITALL) != sizeof(reply))
		return 9999;
	return le32toh(reply.status);
}

static void lane_end(struct lane_by_hand *l)
{
	hand_end(&l->control);
	close(l->fd);
}

static void test_lane_hello(void)
{
	struct lane_by_hand l;
	char junk[48];
	int fd;

	lane_ask(&l);
	is_int(lane_greet(&l, BED_TENANT, 1, 3), 0, "a good token is taken");
	close(l.fd);
	is_int(lane_greet(&l, BED_TENANT, 1, 3), VTOE_REASON_PROTOCOL,
	       "but once only");
	lane_end(&l);

	lane_ask(&l);
	l.answer.token[31] ^= 1;
	is_int(lane_greet(&l, BED_TENANT, 1, 3), VTOE_REASON_PROTOCOL,
	       "a wrong token");
	ok(ends(l.fd), "ends the lane");
	lane_end(&l);

	lane_ask(&l);
	is_int(lane_greet(&l, BED_TENANT + 1, 1, 3), VTOE_REASON_TENANT,
	       "another tenant");
	lane_end(&l);
	lane_ask(&l);
	is_int(lane_greet(&l, BED_TENANT, 2, 3), VTOE_REASON_VERSION,
	       "another version");
	close(l.fd);
	is_int(lane_greet(&l, BED_TENANT, 1, 3), VTOE_REASON_PROTOCOL,
	       "uses up the token too");
	lane_end(&l);
	lane_ask(&l);
	is_int(lane_greet(&l, BED_TENANT, 1, 4), VTOE_REASON_PROTOCOL,
	       "a token from another host");
	lane_end(&l);

	memset(junk, 'x', sizeof(junk));
	fd = tcp_connect(1, ntohs(l.answer.addr.port), 3);
	send(fd, junk, sizeof(junk), MSG_NOSIGNAL);
	ok(ends(fd), "garbage on the lane port");
	close(fd);
}

static void make_req(struct vtoe_msg_hdr *hdr, struct vnet_lane_req *req)
{
	memset(hdr, 0, sizeof(*hdr));
	memset(req, 0, sizeof(*req));
	hdr->type = VTOE_MSG_REQ;
	hdr->len = htole32(sizeof(*req));
	hdr->credit = credit_of(0, 10000, 10, 10);
	req->cid = htole32(0x1234);
	req->local = addr4(9, 1000);
	req->remote = addr4(1, BED_PORT);
	memcpy(req->local_mac, (uint8_t[]){ 2, 0, 0, 0, 0, 9 }, 6);
	memcpy(req->remote_mac, bed.a.mac, 6);
	req->rwq_buf_size[0] = htole32(2048);
	req->rwq_buf_size[1] = htole32(65536);
}

static void lane_send(struct lane_by_hand *l, const void *hdr, const void *body,
		      size_t len)
{
	send(l->fd, hdr, sizeof(struct vtoe_msg_hdr), MSG_NOSIGNAL | MSG_MORE);
	send(l->fd, body, len, MSG_NOSIGNAL);
}

static uint32_t lane_rejected(struct lane_by_hand *l, unsigned int type)
{
	struct vtoe_msg_hdr hdr;
	struct vnet_lane_rej rej;

	if (recv(l->fd, &hdr, sizeof(hdr), MSG_WAITALL) != sizeof(hdr) ||
	    hdr.type != type || le32toh(hdr.id) != 0x1234 ||
	    recv(l->fd, &rej, sizeof(rej), MSG_WAITALL) != sizeof(rej))
		return 9999;
	return le32toh(rej.reason);
}

static void open_lane(struct lane_by_hand *l)
{
	lane_ask(l);
	if (lane_greet(l, BED_TENANT, 1, 3))
		ok(false, "lane opens");
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
	hdr.len = htole32(79);
	lane_send(&l, &hdr, &req, sizeof(req));
	ok(ends(l.fd), "REQ of another length ends the lane");
	lane_end(&l);
}

/* A connection from the hand-made lane to a guest. Its CID at the agent. */
static uint32_t open_conn(struct lane_by_hand *l, struct guest *g, uint32_t sid,
			  const struct vtoe_credit *grant,
			  const struct vtoe_credit *ours)
{
	struct vtoe_msg_hdr hdr;
	struct vnet_lane_req req;
	struct vnet_lane_rep rep;
	struct vtoe_event ev;

	open_lane(l);
	make_req(&hdr, &req);
	hdr.credit = *ours;
	memcpy(req.remote_mac, g->mac, VNET_MAC_LEN);
	lane_send(l, &hdr, &req, sizeof(req));
	if (!guest_wait_event(g, VTOE_EV_CONNECT_REQUEST, &ev) ||
	    guest_accept(g, le32toh(ev.cid), sid, grant))
		return 0;
	if (recv(l->fd, &hdr, sizeof(hdr), MSG_WAITALL) != sizeof(hdr) ||
	    hdr.type != VTOE_MSG_REP || le32toh(hdr.id) != 0x1234 ||
	    recv(l->fd, &rep, sizeof(rep), MSG_WAITALL) != sizeof(rep))
		return 0;
	return le32toh(rep.cid);
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
	lane_end(&l);
	ok(stream_wait_broken(&a) && a.reason == VTOE_REASON_LANE_LOST,
	   "the lane is lost in the middle of it");
	stream_close(&a, 0);
	streams_reset();
	is_int(bed_open(&bed, &c, &d), 0, "another connection");
	ok(stream_exchange(&c, &d, 1 << 20, G_LARGE), "the buffers are still good");
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

/* Reads len bytes of the lane; false: it ended. */
static bool lane_read(struct lane_by_hand *l, void *buf, size_t len)
{
	return recv(l->fd, buf, len, MSG_WAITALL) == (ssize_t)len;
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

/* ---- death and return ---- */

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void test_kill(void)
{
	struct stream a, b;
	double start;

	is_int(bed_open(&bed, &a, &b), 0, "a connection");
	ok(stream_exchange(&a, &b, 1 << 20, G_LARGE), "under load");
	stream_send(&a, G_LARGE);
	guest_kick(&bed.a, G_SWQ);
	start = now_s();
	agent_kill(&bed.agent[1]);
	for (int i = 0; i < 400 && !(a.broken && bed.b.eof); i++) {
		streams_pump(&bed.a, 5);
		guest_poll(&bed.b, 5);
	}
	ok(a.broken && a.reason == VTOE_REASON_LANE_LOST,
	   "kill -9 of its agent: the peer is told LANE_LOST");
	ok(bed.b.eof, "its own guest's shim sees end of file");
	ok(now_s() - start < 1, "within a second");
	stream_close(&a, 0);
	guest_stop(&bed.b);
	streams_reset();
}

static void test_return(void)
{
	struct vtoe_addr any = { .family = 4, .port = htons(BED_PORT) };
	struct stream a, b;

	is_int(agent_start(&bed.agent[1], 2, TEST_KEY, "fabric tcp\n", NULL), 0,
	       "the agent comes back");
	is_int(guest_start(&bed.b, bed.agent[1].socket, "b", BED_TENANT, 2, NULL),
	       0, "its guest too");
	bed.a.route = bed.agent[1].addr;
	attach_send(bed.a.fd, VNET_ATTACH_ROUTE_CHANGED, 1, NULL, NULL, 0);
	guest_listen(&bed.b, BED_LISTENER, &any);
	is_int(bed_open(&bed, &a, &b), 0, "a new connection");
	ok(stream_exchange(&a, &b, 1 << 20, G_LARGE), "carries data");
	stream_close(&a, 0);
	ok(stream_wait_broken(&b), "reset");
	stream_close(&b, 0);
	streams_reset();
}

/* Two agents that do not share the key; one that is not there. */
static void test_no_lane(void)
{
	struct test_agent other;
	struct stream a;
	struct vtoe_addr local = addr4(1, 1111), remote = addr4(2, BED_PORT);
	struct vtoe_credit grant = credit_of(0, 1, 1, 1);
	struct vtoe_addr route = bed.a.route;
	double start;

	is_int(agent_start(&other, 5, OTHER_KEY, "fabric tcp\n", NULL), 0,
	       "an agent with another key");
	bed.a.route = other.addr;
	stream_init(&a, &bed.a, 970, &a);
	guest_connect(&bed.a, 970, &local, &remote, 55, &grant);
	ok(stream_wait_broken(&a) && a.event == VTOE_EV_ROUTE_ERROR &&
	   a.reason == VTOE_REASON_NO_LANE, "no lane to it");
	stream_close(&a, 0);
	start = now_s();
	streams_reset();
	stream_init(&a, &bed.a, 971, &a);
	guest_connect(&bed.a, 971, &local, &remote, 55, &grant);
	ok(stream_wait_broken(&a) && a.event == VTOE_EV_ROUTE_ERROR &&
	   now_s() - start < 0.5, "the next one is refused at once");
	stream_close(&a, 0);
	is_int(agent_stop(&other), 0, "it ends cleanly");
	streams_reset();
	stream_init(&a, &bed.a, 972, &a);
	guest_connect(&bed.a, 972, &local, &remote, 56, &grant);
	ok(stream_wait_broken(&a) && a.event == VTOE_EV_ROUTE_ERROR,
	   "an agent that is not there");
	stream_close(&a, 0);
	bed.a.route = route;
	streams_reset();
}

/* The program itself, with its sandbox: it would die of a forbidden call. */
static void test_program(void)
{
	const char *program = getenv("VNET_IBAGENT");
	static struct guest g, h;
	struct test_agent agent[2];
	struct vtoe_addr any = { .family = 4, .port = htons(BED_PORT) };
	struct stream a, b;

	if (!program)
		program = "build/host/vnet-ibagent";
	if (access(program, X_OK)) {
		skip("the program in its sandbox", "program not built");
		return;
	}
	streams_reset();
	ok(!agent_start(&agent[0], 11, TEST_KEY, "fabric local tcp\n", program) &&
	   !agent_start(&agent[1], 12, TEST_KEY, "fabric tcp\n", program),
	   "two programs start");
	ok(!guest_start(&g, agent[0].socket, "g", 3, 1, NULL) &&
	   !guest_start(&h, agent[1].socket, "h", 3, 2, NULL) &&
	   !guest_listen(&h, 1, &any), "guests attach");
	g.route = agent[1].addr;
	g.route_reason = 0;
	stream_init(&a, &g, 20, &b);
	stream_init(&b, &h, 21, &a);
	ok(stream_open(&a, &b, 1, BED_PORT, 1000) == 0 &&
	   stream_exchange(&a, &b, 4 << 20, G_LARGE), "data passes");
	kill(agent[0].pid, SIGUSR1);
	ok(agent_logged(&agent[0], "\"tx_bytes\":"), "SIGUSR1 prints counters");
	guest_stop(&g);
	guest_stop(&h);
	is_int(agent_stop(&agent[0]) | agent_stop(&agent[1]), 0, "both end cleanly");
	streams_reset();
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	for (unsigned int i = 0; i < IBA_KEY_LEN; i++)
		hex_key[i] = (uint8_t)i; /* as TEST_KEY */
	if (!ok(bed_make(&bed, 2, NULL, ""), "two hosts"))
		return tap_done();
	test_control();
	test_lane_hello();
	test_lane_requests();
	for (int breach = 0; breach < BREACHES; breach++)
		test_peer_breach(breach);
	test_torn();
	test_random();
	test_vm_gone_in_between();
	test_kill();
	test_return();
	test_no_lane();
	for (unsigned int i = 0; i < 2; i++)
		is_int(bed_end(&bed, i), 0, "agent ends cleanly");
	test_program();
	return tap_done();
}
