// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What agents say to each other on a control channel.
 *
 * Theory of operation. Each side says HELLO first; a version that is not ours is
 * refused by whoever hears it, with both numbers in its log: there is no other
 * that we could speak. On a channel that we made we ask (LANE_ASK, LANE_ANSWER), on one that
 * the peer made it asks. Questions wait on the channel until it is up; its end,
 * or five seconds, answer them with a refusal.
 *
 * Threat model. The peer knows the key, so it is an agent, but perhaps a broken
 * one: a message is a row of the table with its exact length, its state and its
 * direction; reserved fields are zero; what may be asked at once is bounded. A
 * peer whose HELLO bears our own name is our reflection (tls.c), or a copied
 * configuration: refused.
 */
#include "peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PEERS_MAX 4096
#define QUESTIONS_MAX 256 /* not answered yet, of one peer, either direction */
#define QUESTION_TIMEOUT_US (5 * 1000000ull)

/* ---- to the peer ---- */

void iba_peer_hello(struct iba_peer *peer)
{
	struct vnet_peer_hello hello = {
		.version = htole16(VNET_PEER_VERSION),
		.fabrics = htole16(iba_config_fabrics(peer->c->cfg) &
				   (uint16_t)~(1u << VTOE_FABRIC_LOCAL)),
	};

	memcpy(hello.host, peer->c->cfg->host, sizeof(hello.host));
	iba_peer_send(peer, VNET_PEER_HELLO, ++peer->seq, &hello, sizeof(hello));
}

static void send_question(struct iba_peer *peer, struct iba_question *q)
{
	struct vnet_peer_lane_ask ask = {
		.tenant = htole32(q->ask.tenant),
		.fabric = htole16(q->ask.want.fabric),
		.from = q->ask.want.from,
	};

	memcpy(ask.local_mac, q->ask.want.local_mac, VNET_MAC_LEN);
	memcpy(ask.remote_mac, q->ask.want.remote_mac, VNET_MAC_LEN);
	q->sent = true;
	q->seq = ++peer->seq;
	iba_peer_send(peer, VNET_PEER_LANE_ASK, q->seq, &ask, sizeof(ask));
}

void iba_peer_answer_question(struct iba_peer *peer, struct iba_question *q,
			      const struct vnet_peer_lane_answer *answer)
{
	TAILQ_REMOVE(&peer->questions, q, link);
	peer->question_count--;
	iba_control_lane_answer(peer->c, &q->ask, answer);
	free(q);
}

/* ---- from the peer ---- */

static bool name_ok(const char name[VNET_NAME_LEN])
{
	size_t len = strnlen(name, VNET_NAME_LEN);

	if (!len || len == VNET_NAME_LEN)
		return false;
	for (size_t i = 0; i < VNET_NAME_LEN; i++)
		if (i < len ? name[i] <= ' ' || name[i] > '~' : name[i] != 0)
			return false;
	return true;
}

static void do_hello(struct iba_peer *peer, uint32_t seq, const void *body)
{
	struct vnet_peer_hello hello;
	struct iba_question *q, *next;
	char why[64];
	size_t len;

	(void)seq;
	memcpy(&hello, body, sizeof(hello));
	if (name_ok(hello.host)) {
		len = strlen(peer->name);
		snprintf(peer->name + len, sizeof(peer->name) - len, " %s",
			 hello.host);
	}
	/* first: what is reserved to us may be used in another version */
	if (le16toh(hello.version) != VNET_PEER_VERSION) {
		snprintf(why, sizeof(why), "it speaks version %u, we speak %u",
			 le16toh(hello.version), VNET_PEER_VERSION);
		iba_peer_end(peer, VTOE_REASON_VERSION, why);
		return;
	}
	if (hello.reserved || hello.features || !name_ok(hello.host)) {
		iba_peer_end(peer, VTOE_REASON_PROTOCOL, "bad HELLO");
		return;
	}
	if (!strcmp(hello.host, peer->c->cfg->host)) {
		iba_peer_end(peer, VTOE_REASON_PROTOCOL,
			 "it has our own host name");
		return;
	}
	peer->state = PEER_UP;
	if (!peer->ours)
		peer->c->incoming--;
	log_info("peer %s: control channel up, %s", peer->name,
		 peer->ours ? "ours" : "theirs");
	for (q = TAILQ_FIRST(&peer->questions); q && !peer->dead; q = next) {
		next = TAILQ_NEXT(q, link);
		send_question(peer, q);
	}
}

static void do_lane_ask(struct iba_peer *peer, uint32_t seq, const void *body)
{
	struct vnet_peer_lane_answer answer = { 0 };
	static const uint8_t zero[sizeof(((struct vnet_peer_lane_ask *)0)->reserved1)];
	struct vnet_peer_lane_ask ask;
	struct iba_lane_want want = { 0 };
	enum vtoe_reason reason;

	memcpy(&ask, body, sizeof(ask));
	if (ask.reserved || memcmp(ask.reserved1, zero, sizeof(zero)) ||
	    ask.from.reserved) {
		iba_peer_end(peer, VTOE_REASON_PROTOCOL, "bad LANE_ASK");
		return;
	}
	want.fabric = le16toh(ask.fabric);
	memcpy(want.local_mac, ask.local_mac, VNET_MAC_LEN);
	memcpy(want.remote_mac, ask.remote_mac, VNET_MAC_LEN);
	want.from = ask.from;
	if (peer->asked >= QUESTIONS_MAX)
		reason = VTOE_REASON_LIMIT;
	else if (want.fabric == VTOE_FABRIC_LOCAL ||
		 !iba_config_allows(peer->c->cfg, want.fabric))
		reason = VTOE_REASON_NO_LANE;
	else
		reason = iba_control_token_ask(peer->c, le32toh(ask.tenant),
					       &want, &peer->addr, peer->id,
					       seq);
	if (!reason) {
		peer->asked++;
		return;
	}
	answer.status = htole32(reason);
	iba_peer_send(peer, VNET_PEER_LANE_ANSWER, seq, &answer, sizeof(answer));
}

static void do_lane_answer(struct iba_peer *peer, uint32_t seq, const void *body)
{
	struct vnet_peer_lane_answer answer;
	struct iba_question *q;

	memcpy(&answer, body, sizeof(answer));
	if (answer.reserved || answer.addr.reserved) {
		iba_peer_end(peer, VTOE_REASON_PROTOCOL, "bad LANE_ANSWER");
		return;
	}
	TAILQ_FOREACH(q, &peer->questions, link)
		if (q->sent && q->seq == seq)
			break;
	if (q) /* else it was given up */
		iba_peer_answer_question(peer, q, &answer);
	explicit_bzero(&answer, sizeof(answer));
}

static void do_ping(struct iba_peer *peer, uint32_t seq, const void *body)
{
	(void)body;
	iba_peer_send(peer, VNET_PEER_PONG, seq, NULL, 0);
}

static void do_pong(struct iba_peer *peer, uint32_t seq, const void *body)
{
	(void)peer;
	(void)seq;
	(void)body;
}

static const struct iba_peer_row peer_rows[] = {
	[VNET_PEER_HELLO] = { sizeof(struct vnet_peer_hello), PEER_HELLO,
			      FROM_EITHER, do_hello },
	[VNET_PEER_LANE_ASK] = { sizeof(struct vnet_peer_lane_ask), PEER_UP,
				 FROM_ASKER, do_lane_ask },
	[VNET_PEER_LANE_ANSWER] = { sizeof(struct vnet_peer_lane_answer),
				    PEER_UP, FROM_ANSWERER, do_lane_answer },
	[VNET_PEER_PING] = { 0, PEER_UP, FROM_EITHER, do_ping },
	[VNET_PEER_PONG] = { 0, PEER_UP, FROM_EITHER, do_pong },
};
#define PEER_ROWS (sizeof(peer_rows) / sizeof(peer_rows[0]))

/* NULL: this header may not come now. */
const struct iba_peer_row *iba_peer_row(const struct iba_peer *peer,
				       const struct vnet_peer_hdr *hdr)
{
	uint16_t type = le16toh(hdr->type);
	const struct iba_peer_row *row;

	if (le32toh(hdr->magic) != VNET_PEER_MAGIC || hdr->reserved ||
	    type >= PEER_ROWS || !peer_rows[type].fn)
		return NULL;
	row = &peer_rows[type];
	if (le32toh(hdr->len) != row->len || row->state != peer->state ||
	    (row->from == FROM_ASKER && peer->ours) ||
	    (row->from == FROM_ANSWERER && !peer->ours))
		return NULL;
	return row;
}

/* ---- from control.c ---- */

static void refuse(struct iba_control *c, const struct iba_ask *ask,
		   enum vtoe_reason reason)
{
	struct vnet_peer_lane_answer answer = { .status = htole32(reason) };

	iba_control_lane_answer(c, ask, &answer);
}

static struct iba_peer *find_ours(struct iba_control *c,
				  const struct sockaddr_storage *addr,
				  unsigned int *count)
{
	struct iba_peer *peer;

	*count = 0;
	TAILQ_FOREACH(peer, &c->peers, link) {
		if (peer->dead) /* freed with the next tick */
			continue;
		if (peer->ours && sockaddr_equal(&peer->addr, addr))
			return peer;
		++*count;
	}
	return NULL;
}

void iba_peer_lane_ask(struct iba_control *c, const struct vtoe_addr *agent,
		       const struct iba_ask *ask)
{
	struct sockaddr_storage addr;
	struct iba_peer *peer = NULL;
	unsigned int count;
	struct iba_question *q;

	if (sockaddr_from_vtoe(agent, &addr) == 0) {
		peer = find_ours(c, &addr, &count);
		if (!peer && count < PEERS_MAX)
			peer = iba_peer_connect(c, &addr);
	}
	q = peer && peer->question_count < QUESTIONS_MAX ? calloc(1, sizeof(*q)) :
							   NULL;
	if (!q) {
		refuse(c, ask, VTOE_REASON_NO_LANE);
		return;
	}
	q->ask = *ask;
	q->deadline_us = loop_now_us() + QUESTION_TIMEOUT_US;
	TAILQ_INSERT_TAIL(&peer->questions, q, link);
	peer->question_count++;
	if (peer->state == PEER_UP)
		send_question(peer, q);
}

void iba_peer_token_answer(struct iba_control *c, uint64_t id,
			   uint32_t peer_seq,
			   const struct vnet_peer_lane_answer *answer)
{
	struct iba_peer *peer;

	TAILQ_FOREACH(peer, &c->peers, link)
		if (peer->id == id && !peer->dead)
			break;
	if (!peer) /* it has gone meanwhile */
		return;
	peer->asked--;
	iba_peer_send(peer, VNET_PEER_LANE_ANSWER, peer_seq, answer,
		  sizeof(*answer));
}
