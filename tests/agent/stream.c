// SPDX-License-Identifier: GPL-2.0-or-later
/* See stream.h. */
#include "stream.h"

#include <arpa/inet.h>
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HDR sizeof(struct vtoe_msg_hdr)
#define STREAMS_MAX 8192

static struct stream *streams[STREAMS_MAX];
static unsigned int stream_count;

void streams_reset(void)
{
	stream_count = 0;
}

static struct stream *find(const struct guest *g, uint32_t sid)
{
	for (unsigned int i = 0; i < stream_count; i++)
		if (streams[i]->g == g && streams[i]->sid == sid)
			return streams[i];
	return NULL;
}

uint8_t pattern(uint32_t seed, uint64_t offset)
{
	uint64_t x = (offset >> 3) * 0x9e3779b97f4a7c15ull + seed;

	x ^= x >> 29;
	return (uint8_t)(x >> (8 * (offset & 7)));
}

static void fill(uint8_t *at, uint32_t seed, uint64_t offset, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		at[i] = pattern(seed, offset + i);
}

static unsigned int count_wrong(const uint8_t *at, uint32_t seed,
				uint64_t offset, uint32_t len)
{
	unsigned int wrong = 0;

	for (uint32_t i = 0; i < len; i++)
		wrong += at[i] != pattern(seed, offset + i);
	return wrong;
}

/* ---- credit ---- */

struct vtoe_credit stream_grant(const struct stream *s)
{
	return credit_of(s->rx, s->rx + s->window,
			 s->rx_msgs[0] + s->msg_window[0],
			 s->rx_msgs[1] + s->msg_window[1]);
}

static void take_credit(struct stream *s, const struct vtoe_credit *credit)
{
	if (le64toh(credit->ack) > s->tx_acked)
		s->tx_acked = le64toh(credit->ack);
	if (s->tx_acked > s->tx)
		s->wrong++;
	if (le64toh(credit->byte_limit) > s->tx_limit)
		s->tx_limit = le64toh(credit->byte_limit);
	for (int i = 0; i < VNET_RWQ_CLASSES; i++)
		if ((int32_t)(le32toh(credit->msg_limit[i]) -
			      s->tx_msg_limit[i]) > 0)
			s->tx_msg_limit[i] = le32toh(credit->msg_limit[i]);
}

void stream_header(const struct stream *s, struct vtoe_msg_hdr *hdr,
		   unsigned int type, uint32_t len)
{
	memset(hdr, 0, sizeof(*hdr));
	hdr->type = (uint8_t)type;
	hdr->len = htole32(len);
	hdr->id = htole32(s->sid);
	hdr->offset = htole64(type == VTOE_MSG_DATA ? s->tx : 0);
	hdr->credit = stream_grant(s);
	if (s->hold) /* what was granted at first */
		hdr->credit = credit_of(s->rx, s->window, s->msg_window[0],
					s->msg_window[1]);
}

void stream_credit(struct stream *s)
{
	struct gbuf *buf = guest_send_buffer(s->g);
	struct vtoe_msg_hdr hdr;

	if (!buf)
		return;
	stream_header(s, &hdr, VTOE_MSG_CREDIT, 0);
	guest_queue(s->g, buf, &hdr, HDR);
	guest_kick(s->g, G_SWQ);
	s->credited = s->rx;
	s->credited_msgs = s->rx_msgs[0] + s->rx_msgs[1];
}

static void maybe_credit(struct stream *s)
{
	uint32_t msgs = s->rx_msgs[0] + s->rx_msgs[1];

	if (s->broken || s->hold)
		return;
	if (s->rx - s->credited >= s->window / 4 ||
	    msgs - s->credited_msgs >= (s->msg_window[0] + 3) / 4 ||
	    msgs - s->credited_msgs >= LARGE_WINDOW / 4)
		stream_credit(s);
}

/* ---- what comes ---- */

/* [offset, offset + len) has come: each byte once, in the end without a gap. */
static void arrived(struct stream *s, uint64_t offset, uint32_t len)
{
	unsigned int i;

	if (offset < s->rx || s->early_count == 64) {
		s->wrong++;
		return;
	}
	s->early[s->early_count].offset = offset;
	s->early[s->early_count++].len = len;
	for (i = 0; i < s->early_count; i++) {
		if (s->early[i].offset != s->rx)
			continue;
		s->rx += s->early[i].len;
		s->early[i] = s->early[--s->early_count];
		i = (unsigned int)-1; /* from the start */
	}
}

static void take_message(struct guest *g, const struct gmsg *msg)
{
	struct stream *s = find(g, le32toh(msg->hdr.id));
	uint32_t len = le32toh(msg->hdr.len);

	if (s) {
		uint64_t offset = le64toh(msg->hdr.offset);

		if (!s->unchecked)
			s->wrong += count_wrong(msg->buf->at + HDR, s->peer->seed,
						offset, len);
		if ((len > G_SMALL) != (msg->buf->class == VNET_RWQ_LARGE))
			s->wrong++;
		arrived(s, offset, len);
		s->rx_msgs[msg->buf->class]++;
		take_credit(s, &msg->hdr.credit);
	}
	guest_release(g, msg);
	if (s)
		maybe_credit(s);
}

/* False: it is not for a stream that is open. */
static bool take_event(struct guest *g, const struct vtoe_event *ev)
{
	struct stream *s = find(g, le32toh(ev->sid));

	if (!s || !le32toh(ev->sid))
		return false;
	switch (le16toh(ev->type)) {
	case VTOE_EV_CREDIT:
		take_credit(s, &ev->u.credit.credit);
		return true;
	case VTOE_EV_DISCONNECTED:
		if (le16toh(ev->flags) & VTOE_DISC_F_FIN) {
			s->fin = true;
			s->final = le64toh(ev->u.disconnected.final_offset);
			take_credit(s, &ev->u.disconnected.credit);
			return true;
		}
		break;
	case VTOE_EV_ADDRESS_ERROR:
	case VTOE_EV_ROUTE_ERROR:
	case VTOE_EV_CONNECT_ERROR:
	case VTOE_EV_UNREACHABLE:
	case VTOE_EV_CONNECT_REJECTED:
		break;
	default:
		return false;
	}
	s->broken = true;
	s->reason = le32toh(ev->reason);
	s->event = le16toh(ev->type);
	return true;
}

bool streams_pump(struct guest *g, int ms)
{
	bool any = guest_poll(g, g->msg_in == g->msg_out && g->ev_in == g->ev_out ?
					 ms : 0);

	while (g->ev_out != g->ev_in &&
	       take_event(g, &g->events[g->ev_out % 4096])) {
		g->ev_out++;
		any = true;
	}
	while (g->msg_out != g->msg_in) {
		struct gmsg msg = g->msgs[g->msg_out++ % 4096];

		take_message(g, &msg);
		any = true;
	}
	return any;
}

/* ---- opening ---- */

void stream_init(struct stream *s, struct guest *g, uint32_t sid,
		 struct stream *peer)
{
	memset(s, 0, sizeof(*s));
	s->g = g;
	s->sid = sid;
	s->peer = peer;
	s->seed = sid * 2654435761u + g->mac[5];
	s->window = WINDOW;
	s->msg_window[0] = SMALL_WINDOW;
	s->msg_window[1] = LARGE_WINDOW;
	if (stream_count == STREAMS_MAX)
		abort();
	streams[stream_count++] = s;
}

int stream_open(struct stream *a, struct stream *b, uint32_t listener,
		uint16_t port, uint16_t from_port)
{
	struct vtoe_addr local = addr4(a->g->mac[5], from_port);
	struct vtoe_addr remote = addr4(b->g->mac[5], port);
	struct vtoe_credit grant = stream_grant(a);
	int64_t end = guest_clock_ms() + guest_wait_ms();
	struct vtoe_event ev;

	if (guest_connect(a->g, a->sid, &local, &remote, b->g->mac[5], &grant))
		return -1;
	/* the shim of a has to answer RESOLVE meanwhile */
	while (b->g->ev_in == b->g->ev_out && guest_clock_ms() < end) {
		guest_poll(a->g, 1);
		guest_poll(b->g, 1);
		if (a->g != b->g && a->g->ev_in != a->g->ev_out)
			return le16toh(a->g->events[a->g->ev_out % 4096].type);
	}
	if (!guest_wait_event(b->g, VTOE_EV_CONNECT_REQUEST, &ev) ||
	    le32toh(ev.sid) != listener)
		return -1;
	b->cid = le32toh(ev.cid);
	take_credit(b, &ev.u.request.credit);
	grant = stream_grant(b);
	if (guest_accept(b->g, b->cid, b->sid, &grant))
		return -1;
	if (!guest_wait_event(a->g, VTOE_EV_CONNECT_ESTABLISHED, &ev) ||
	    le32toh(ev.sid) != a->sid)
		return -1;
	a->cid = le32toh(ev.cid);
	take_credit(a, &ev.u.established.credit);
	return 0;
}

/* ---- sending ---- */

bool stream_may_send(const struct stream *s, uint32_t len)
{
	unsigned int class = len > G_SMALL;

	return s->tx + len <= s->tx_limit &&
	       (int32_t)(s->tx_msg_limit[class] - s->tx_msgs[class]) > 0;
}

bool stream_send(struct stream *s, uint32_t len)
{
	struct vtoe_msg_hdr hdr;
	struct gbuf *buf;

	if (!stream_may_send(s, len))
		return false;
	buf = guest_send_buffer(s->g);
	if (!buf)
		return false;
	if (!s->unchecked)
		fill(buf->at + HDR, s->seed, s->tx, len);
	stream_header(s, &hdr, VTOE_MSG_DATA, len);
	guest_queue(s->g, buf, &hdr, (uint32_t)HDR + len);
	s->tx += len;
	s->tx_msgs[len > G_SMALL]++;
	s->credited = s->rx;
	s->credited_msgs = s->rx_msgs[0] + s->rx_msgs[1];
	return true;
}

static uint32_t some_length(uint32_t max, uint64_t left)
{
	static const uint32_t edges[] = { 1, 2, 47, 48, 49, G_SMALL - 1, G_SMALL,
					  G_SMALL + 1, 16384, G_LARGE - 1,
					  G_LARGE };
	uint32_t len = random() % 2 ?
			       edges[(unsigned long)random() %
				     (sizeof(edges) / sizeof(edges[0]))] :
			       (uint32_t)random() % max + 1;

	if (len > max)
		len = max;
	return len < left ? len : (uint32_t)left;
}

static bool push_some(struct stream *s, uint64_t total, uint32_t max)
{
	bool any = false;

	for (int i = 0; i < 8 && s->tx < total; i++) {
		if (!stream_send(s, some_length(max, total - s->tx)))
			break;
		any = true;
	}
	if (any)
		guest_kick(s->g, G_SWQ);
	return any;
}

bool stream_exchange(struct stream *a, struct stream *b, uint64_t total,
		     uint32_t max)
{
	int64_t end = guest_clock_ms() + 5 * guest_wait_ms();
	uint64_t to_a = b->tx + total, to_b = a->tx + total;

	while (a->rx < to_a || b->rx < to_b) {
		bool any = push_some(a, to_b, max) | push_some(b, to_a, max);

		any |= streams_pump(a->g, 0) | streams_pump(b->g, 0);
		if (!any) {
			streams_pump(a->g, 1);
			streams_pump(b->g, 1);
		}
		if (guest_clock_ms() > end || a->broken || b->broken) {
			printf("# stalled: a tx %llu rx %llu limit %llu %s, b tx %llu rx %llu limit %llu %s\n",
			       (unsigned long long)a->tx, (unsigned long long)a->rx,
			       (unsigned long long)a->tx_limit,
			       vtoe_reason_name(a->reason),
			       (unsigned long long)b->tx, (unsigned long long)b->rx,
			       (unsigned long long)b->tx_limit,
			       vtoe_reason_name(b->reason));
			return false;
		}
	}
	return !a->wrong && !b->wrong;
}

static bool wait_flag(struct stream *s, const bool *flag)
{
	int64_t end = guest_clock_ms() + guest_wait_ms();

	while (!*flag && guest_clock_ms() < end) {
		streams_pump(s->g, 5);
		streams_pump(s->peer->g, 5);
	}
	return *flag;
}

bool stream_wait_fin(struct stream *s)
{
	return wait_flag(s, &s->fin);
}

bool stream_wait_broken(struct stream *s)
{
	return wait_flag(s, &s->broken);
}
