// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The agent's data path, over both fabrics: connections open as they should,
 * every byte arrives where it belongs, both orders of closing, and nothing is
 * left when it is over.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <unistd.h>

#include "bed.h"
#include "tap.h"

static void close_pair(struct stream *a, struct stream *b)
{
	bool good = guest_shutdown(a->g, a->sid, a->tx) == 0 &&
		    guest_shutdown(b->g, b->sid, b->tx) == 0 &&
		    stream_wait_fin(a) && stream_wait_fin(b) &&
		    a->final == b->tx && b->final == a->tx &&
		    stream_close(a, 0) == 0 && stream_close(b, 0) == 0;

	ok(good, "both ends close");
}

/* ---- the tests ---- */

static void test_open(struct bed *bed, unsigned int fabric)
{
	struct vtoe_cmd info = { .opcode = htole16(VTOE_CMD_INFO) };
	struct vtoe_addr local = addr4(1, 33333), remote = addr4(2, BED_PORT);
	struct vtoe_credit grant;
	struct vtoe_reply reply;
	struct stream a, b;
	struct vtoe_event ev;

	stream_init(&a, &bed->a, 900, &b);
	stream_init(&b, &bed->b, 901, &a);
	grant = stream_grant(&a);
	is_int(guest_connect(&bed->a, 900, &local, &remote, 2, &grant), 0,
	       "CONNECT is started");
	for (int i = 0; i < 400 && bed->b.ev_in == bed->b.ev_out; i++) {
		guest_poll(&bed->a, 5);
		guest_poll(&bed->b, 5);
	}
	ok(guest_event(&bed->b, &ev) && le16toh(ev.type) == VTOE_EV_CONNECT_REQUEST,
	   "CONNECT_REQUEST comes");
	is_int(le32toh(ev.sid), BED_LISTENER, "for the listener");
	ok(!memcmp(&ev.u.request.local, &remote, sizeof(remote)) &&
	   !memcmp(&ev.u.request.remote, &local, sizeof(local)),
	   "with the right addresses");
	ok(!memcmp(ev.u.request.remote_mac, bed->a.mac, VNET_MAC_LEN),
	   "and the asking VM's MAC");
	ok(le32toh(ev.u.request.rwq_buf_size[0]) == G_SMALL &&
	   le32toh(ev.u.request.rwq_buf_size[1]) == G_LARGE &&
	   !memcmp(&ev.u.request.credit, &grant, sizeof(grant)),
	   "its buffer sizes and its credit");
	grant = credit_of(0, 4711, 5, 6);
	is_int(guest_accept(&bed->b, le32toh(ev.cid), 901, &grant), 0, "ACCEPT");
	ok(guest_event(&bed->a, &ev) &&
	   le16toh(ev.type) == VTOE_EV_CONNECT_ESTABLISHED &&
	   le32toh(ev.sid) == 900, "CONNECT_ESTABLISHED comes");
	ok(!memcmp(&ev.u.established.credit, &grant, sizeof(grant)) &&
	   le16toh(ev.u.established.fabric) == fabric,
	   "with the peer's credit and the fabric");
	info.sid = htole32(900);
	ok(guest_command(&bed->a, &info, &reply) == 0 &&
	   le16toh(reply.u.info.fabric) == fabric, "INFO knows the fabric");
	is_int(stream_close(&a, 0), 0, "CLOSE without FINs");
	ok(stream_wait_broken(&b) && b.reason == VTOE_REASON_RESET,
	   "resets the peer");
	is_int(stream_close(&b, 0), 0, "which closes");
}

static void test_data(struct bed *bed)
{
	struct vtoe_cmd info = { .opcode = htole16(VTOE_CMD_INFO) };
	struct vtoe_reply reply;
	struct stream a, b;

	is_int(bed_open(bed, &a, &b), 0, "connection opens");
	ok(stream_exchange(&a, &b, 4 << 20, G_LARGE), "4 MB each way, all sizes");
	ok(stream_exchange(&a, &b, 200 << 10, G_SMALL), "200 KB each way, small");
	ok(stream_exchange(&a, &b, 500, 1), "500 single bytes each way");
	stream_credit(&a);
	for (int i = 0; i < 200 && b.tx_acked != b.tx; i++) {
		streams_pump(&bed->a, 5);
		streams_pump(&bed->b, 5);
	}
	is_int(b.tx_acked, b.tx, "everything is acknowledged");
	info.sid = htole32(a.sid);
	ok(guest_command(a.g, &info, &reply) == 0 &&
	   le64toh(reply.u.info.tx_bytes) == a.tx &&
	   le64toh(reply.u.info.rx_bytes) == a.rx &&
	   le64toh(reply.u.info.rx_msgs) == a.rx_msgs[0] + a.rx_msgs[1],
	   "INFO counts bytes and messages");
	close_pair(&a, &b);
	is_int(bed->a.rwq_returned + bed->b.rwq_returned, 0,
	       "no buffer came back unused");
}

/* FIN while data of ours is still to come from the ring. */
static void test_fin(struct bed *bed)
{
	struct stream a, b;

	is_int(bed_open(bed, &a, &b), 0, "connection opens");
	is_int(guest_shutdown(a.g, a.sid, 3000), 0, "SHUTDOWN ahead of the data");
	for (int i = 0; i < 20; i++) {
		streams_pump(&bed->a, 1);
		streams_pump(&bed->b, 1);
	}
	ok(!b.fin, "no FIN before the data");
	ok(stream_send(&a, 1000) && stream_send(&a, 2000), "the data goes out");
	guest_kick(a.g, G_SWQ);
	ok(stream_wait_fin(&b) && b.final == 3000 && b.rx == 3000,
	   "FIN behind it, with its offset");
	ok(stream_send(&b, 5000), "the other half is open");
	guest_kick(b.g, G_SWQ);
	for (int i = 0; i < 200 && a.rx < 5000; i++) {
		streams_pump(&bed->a, 5);
		streams_pump(&bed->b, 5);
	}
	ok(a.rx == 5000 && !a.wrong && !a.broken, "and carries data");
	is_int(guest_shutdown(b.g, b.sid, b.tx), 0, "the other FIN");
	ok(stream_wait_fin(&a) && a.final == 5000, "arrives");
	stream_credit(&a); /* acknowledges after both FINs */
	for (int i = 0; i < 100 && b.tx_acked != 5000; i++) {
		streams_pump(&bed->a, 5);
		streams_pump(&bed->b, 5);
	}
	is_int(b.tx_acked, 5000, "acknowledgements pass after both FINs");
	is_int(stream_close(&b, 0), 0, "b closes first");
	stream_credit(&a); /* to nobody */
	streams_pump(&bed->a, 20);
	ok(!a.broken, "the other end is not disturbed");
	is_int(stream_close(&a, 0), 0, "a closes");
}

/* One message of a with these flags: what b is told, -1 for nothing. */
static int flags_told(struct stream *a, struct stream *b, unsigned int type,
		      uint8_t flags)
{
	struct gbuf *buf = guest_send_buffer(a->g);
	uint32_t len = type == VTOE_MSG_DATA ? 10 : 0;
	struct vtoe_msg_hdr hdr;
	struct gmsg msg;
	int told;

	if (!buf)
		return -1;
	stream_header(a, &hdr, type, len);
	hdr.flags = flags;
	guest_queue(a->g, buf, &hdr, (uint32_t)sizeof(hdr) + len);
	a->tx += len;
	guest_kick(a->g, G_SWQ);
	/* of what must not come, no more than that it does not soon */
	if (!guest_message(b->g, &msg, type == VTOE_MSG_DATA ? guest_wait_ms() : 1000))
		return -1;
	told = msg.hdr.flags;
	guest_release(b->g, &msg);
	return told;
}

/* Urgent data: the flag stays with its message. */
static void test_urgent(struct bed *bed)
{
	struct stream a, b;

	ok(le64toh(bed->a.hello_reply.u.hello.features) & VTOE_F_URGENT,
	   "HELLO says that data may be urgent");
	is_int(bed_open(bed, &a, &b), 0, "connection opens");
	is_int(flags_told(&a, &b, VTOE_MSG_DATA, VTOE_MSG_F_URGENT),
	       VTOE_MSG_F_URGENT, "an urgent message arrives as one");
	is_int(flags_told(&a, &b, VTOE_MSG_DATA, 0), 0, "the next does not");
	is_int(flags_told(&a, &b, VTOE_MSG_CREDIT, VTOE_MSG_F_URGENT), -1,
	       "credit cannot be urgent");
	ok(stream_wait_broken(&a) && a.reason == VTOE_REASON_PROTOCOL,
	   "and ends the connection");
	stream_close(&a, 0);
	stream_close(&b, 0);
	streams_reset();
}

/* Who reads everything and leaves at once still acknowledges it. */
static void test_last_ack(struct bed *bed)
{
	struct stream a, b;

	is_int(bed_open(bed, &a, &b), 0, "connection opens");
	ok(stream_send(&a, 1000), "data goes out");
	guest_kick(a.g, G_SWQ);
	for (int i = 0; i < 200 && b.rx < 1000; i++)
		streams_pump(b.g, 5);
	is_int(guest_shutdown(a.g, a.sid, a.tx), 0, "a shuts down");
	ok(stream_wait_fin(&b), "FIN");
	stream_credit(&b);
	ok(guest_shutdown(b.g, b.sid, 0) == 0 && stream_close(&b, 0) == 0,
	   "b acknowledges, shuts down and closes in one go");
	ok(stream_wait_fin(&a) && a.tx_acked == 1000,
	   "its FIN brings the acknowledgement");
	is_int(stream_close(&a, 0), 0, "a closes");
}

static void test_reset(struct bed *bed)
{
	struct stream a, b;

	is_int(bed_open(bed, &a, &b), 0, "connection opens");
	ok(stream_exchange(&a, &b, 100000, G_LARGE), "data passes");
	is_int(stream_close(&b, VTOE_CLOSE_F_ABORT), 0, "abort");
	ok(stream_wait_broken(&a) && a.event == VTOE_EV_DISCONNECTED &&
	   a.reason == VTOE_REASON_RESET, "the peer is told RESET");
	ok(guest_simple(a.g, VTOE_CMD_SHUTDOWN, a.sid, 0) == VTOE_REASON_RESET,
	   "SHUTDOWN on a broken connection says so");
	is_int(stream_close(&a, 0), 0, "and closes");
	is_int(stream_close(&a, 0), VTOE_REASON_PROTOCOL, "only once");
}

#define MANY 150

static void test_many(struct bed *bed)
{
	static struct stream a[MANY], b[MANY];
	unsigned int opened = 0, right = 0, closed = 0;

	/* no buffer is granted twice: a small one for each end */
	bed->msg_window[0] = 1;
	bed->msg_window[1] = 0;
	for (int i = 0; i < MANY; i++)
		opened += bed_open(bed, &a[i], &b[i]) == 0;
	is_int(opened, MANY, "many connections open");
	for (int i = 0; i < MANY; i++) {
		right += stream_exchange(&a[i], &b[i], 20000, G_SMALL);
	}
	is_int(right, MANY, "all of them carry data");
	for (int i = 0; i < MANY; i++)
		closed += stream_close(&a[i], 0) == 0 && stream_wait_broken(&b[i]) &&
			  stream_close(&b[i], 0) == 0;
	is_int(closed, MANY, "all of them close");
	bed->msg_window[0] = 0;
	streams_reset();
}

static void test_leaks(struct bed *bed)
{
	unsigned int before[2] = { 0, 0 }, after;
	bool same = true;

	for (unsigned int i = 0; i < bed->agents; i++)
		agent_processes(&bed->agent[i], &before[i]);
	for (int n = 0; n < 20; n++) {
		struct stream a, b;

		streams_reset();
		if (bed_open(bed, &a, &b) ||
		    !stream_exchange(&a, &b, 5000, 5000) || stream_close(&a, 0) ||
		    !stream_wait_broken(&b) || stream_close(&b, 0))
			same = false;
	}
	streams_reset();
	ok(same, "twenty connections come and go");
	for (unsigned int i = 0; i < bed->agents; i++) {
		agent_processes(&bed->agent[i], &after);
		is_int(after, before[i], "no descriptor is left");
	}
}

/* A connection of a VM with itself. */
static void test_self(struct bed *bed)
{
	struct stream a, b;

	streams_reset();
	stream_init(&a, &bed->a, 700, &b);
	stream_init(&b, &bed->a, 701, &a);
	is_int(stream_open(&a, &b, BED_LISTENER, BED_PORT, 44444), 0,
	       "a VM connects to itself");
	ok(stream_exchange(&a, &b, 1 << 20, G_LARGE), "data passes");
	close_pair(&a, &b);
	streams_reset();
}

static struct vtoe_addr addr_of(const char *text, uint16_t port)
{
	struct vtoe_addr addr = { .family = 4, .port = htons(port) };

	if (inet_pton(AF_INET, text, addr.addr) != 1) {
		addr.family = 6;
		inet_pton(AF_INET6, text, addr.addr);
	}
	return addr;
}

/* b asks a as from, for to: refused, and a does not hear of it. */
static void refused(struct bed *bed, const char *from, const char *to,
		    unsigned int reason)
{
	struct vtoe_addr local = addr_of(from, 33333);
	struct vtoe_addr remote = addr_of(to, BED_PORT);
	uint32_t sid = bed->next_sid++;
	struct stream s;
	struct vtoe_credit grant;
	struct vtoe_event ev;
	bool told = false;

	stream_init(&s, &bed->b, sid, NULL);
	grant = stream_grant(&s);
	if (guest_connect(&bed->b, sid, &local, &remote, 1, &grant) == 0)
		for (int i = 0; i < 400 && !told; i++) {
			guest_poll(&bed->a, 5);
			told = guest_event(&bed->b, &ev);
		}
	ok(told && le16toh(ev.type) == VTOE_EV_CONNECT_REJECTED &&
	   le32toh(ev.sid) == sid && le32toh(ev.reason) == reason &&
	   bed->a.ev_in == bed->a.ev_out, "from %s to another VM's %s: refused",
	   from, to);
	guest_simple(&bed->b, VTOE_CMD_CLOSE, sid, 0);
}

/* A VM's loopback addresses are its own, as are those that nobody can have. */
static void test_martians(struct bed *bed)
{
	struct vtoe_addr any6 = { .family = 6, .port = htons(BED_PORT) };

	streams_reset();
	is_int(guest_listen(&bed->a, 2, &any6), 0, "listening on [::], too");
	refused(bed, "10.0.0.2", "127.0.0.1", VTOE_REASON_NOT_LOCAL);
	refused(bed, "10.0.0.2", "127.255.255.254", VTOE_REASON_NOT_LOCAL);
	refused(bed, "127.0.0.1", "10.0.0.1", VTOE_REASON_NOT_LOCAL);
	refused(bed, "127.0.0.1", "127.0.0.1", VTOE_REASON_NOT_LOCAL);
	refused(bed, "fd00::2", "::1", VTOE_REASON_NOT_LOCAL);
	refused(bed, "::1", "fd00::1", VTOE_REASON_NOT_LOCAL);
	refused(bed, "::ffff:127.0.0.1", "::ffff:10.0.0.1", VTOE_REASON_NOT_LOCAL);
	refused(bed, "0.0.0.0", "10.0.0.1", VTOE_REASON_ADDR_FAMILY);
	refused(bed, "224.0.0.1", "10.0.0.1", VTOE_REASON_ADDR_FAMILY);
	refused(bed, "255.255.255.255", "10.0.0.1", VTOE_REASON_ADDR_FAMILY);
	refused(bed, "::", "fd00::1", VTOE_REASON_ADDR_FAMILY);
	refused(bed, "ff02::1", "fd00::1", VTOE_REASON_ADDR_FAMILY);
	guest_simple(&bed->a, VTOE_CMD_CLOSE, 2, 0);
	streams_reset();
}

/* But a VM reaches its own by them. */
static void test_own_loopback(struct bed *bed)
{
	struct vtoe_addr lo = addr_of("127.0.0.1", 44445);
	struct vtoe_addr to = addr_of("127.0.0.1", BED_PORT);
	struct vtoe_credit grant;
	struct vtoe_event ev;
	struct stream s;

	streams_reset();
	stream_init(&s, &bed->a, 710, NULL);
	grant = stream_grant(&s);
	ok(guest_connect(&bed->a, 710, &lo, &to, 1, &grant) == 0 &&
	   guest_event(&bed->a, &ev) &&
	   le16toh(ev.type) == VTOE_EV_CONNECT_REQUEST &&
	   !memcmp(&ev.u.request.local, &to, sizeof(to)) &&
	   !memcmp(&ev.u.request.remote, &lo, sizeof(lo)) &&
	   !memcmp(ev.u.request.remote_mac, bed->a.mac, VNET_MAC_LEN),
	   "a VM asks itself over 127.0.0.1, by its own MAC");
	guest_simple(&bed->a, VTOE_CMD_CLOSE, 710, 0);
	streams_reset();
}

static void run(unsigned int agents, const struct guest_options *opt,
		const char *extra)
{
	static struct bed bed;

	if (!ok(bed_make(&bed, agents, opt, extra), "two guests listen")) {
		agent_show_log(&bed.agent[0]);
	} else {
		test_open(&bed, agents == 2 ? bed_fabric_id() : VTOE_FABRIC_LOCAL);
		test_data(&bed);
		test_fin(&bed);
		test_urgent(&bed);
		test_last_ack(&bed);
		test_reset(&bed);
		test_many(&bed);
		test_leaks(&bed);
		test_martians(&bed);
		if (agents == 1) {
			test_self(&bed);
			test_own_loopback(&bed);
		}
	}
	for (unsigned int i = 0; i < agents; i++)
		is_int(bed_end(&bed, i), 0, "agent ends cleanly");
}

int main(int argc, char **argv)
{
	const char *only = argc > 1 ? argv[1] : "123456";

	static const struct guest_options pages = {
		.swq_num = 16, .rwq_num = { 256, 64 }, .eq_buffers = 4,
		.rwq_posted = { 256, 64 }, .pages = true,
	};
	static const struct guest_options plain = {
		.swq_num = 8, .rwq_num = { 256, 64 }, .eq_buffers = 64,
		.rwq_posted = { 256, 64 }, .no_event_idx = true,
	};

	if (strchr(only, '1')) {
		note("local");
		run(1, NULL, "");
	}
	if (strchr(only, '2')) {
		note("local, page-wise buffers, adaptive polling");
		run(1, &pages, "poll adaptive 100\n");
	}
	if (strchr(only, '3')) {
		note("%s", bed_fabric());
		run(2, NULL, "");
	}
	if (strchr(only, '4')) {
		note("%s, page-wise buffers", bed_fabric());
		run(2, &pages, "");
	}
	if (strchr(only, '5')) {
		note("%s, no EVENT_IDX, adaptive polling", bed_fabric());
		run(2, &plain, "poll adaptive\n");
	}
	if (strchr(only, '6')) {
		note("%s, busy polling", bed_fabric());
		run(2, NULL, "poll busy\n");
	}
	return tap_done();
}
