// SPDX-License-Identifier: GPL-2.0-or-later
/* See by_hand.h. */
#include "by_hand.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "tap.h"

static struct bed *hand_bed;
uint8_t hand_key[IBA_KEY_LEN];
bool small_buffer;

void hand_init(struct bed *bed)
{
	hand_bed = bed;
	for (unsigned int i = 0; i < IBA_KEY_LEN; i++)
		hand_key[i] = (uint8_t)i; /* as TEST_KEY */
}

int tcp_connect(unsigned int host, uint16_t port, unsigned int from)
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
bool ends(int fd)
{
	char byte[256];
	ssize_t n;

	do {
		n = recv(fd, byte, sizeof(byte), 0);
	} while (n > 0);
	return n == 0 || errno == ECONNRESET;
}

bool hand_shake(struct by_hand *p, const uint8_t key[IBA_KEY_LEN])
{
	p->fd = tcp_connect(1, hand_bed->agent[0].port, 3);
	p->ctx = iba_tls_ctx_create(key);
	p->tls = iba_tls_create(p->ctx, p->fd, false);
	return iba_tls_handshake(p->tls) == 1;
}

void hand_end(struct by_hand *p)
{
	iba_tls_destroy(p->tls);
	iba_tls_ctx_destroy(p->ctx);
	close(p->fd);
}

void hand_send(struct by_hand *p, unsigned int type, const void *body,
		      uint32_t len)
{
	struct vnet_peer_hdr hdr = { .magic = htole32(VNET_PEER_MAGIC),
				     .type = htole16((uint16_t)type),
				     .len = htole32(len), .seq = htole32(77) };

	iba_tls_write(p->tls, &hdr, sizeof(hdr));
	if (len)
		iba_tls_write(p->tls, body, len);
}

bool hand_read(struct by_hand *p, void *buf, size_t len)
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
bool hand_receive(struct by_hand *p, unsigned int type, void *body,
			 uint32_t len)
{
	struct vnet_peer_hdr hdr;

	return hand_read(p, &hdr, sizeof(hdr)) && le16toh(hdr.type) == type &&
	       le32toh(hdr.len) == len && hand_read(p, body, len);
}

bool hand_hello(struct by_hand *p, const char *host, unsigned int version)
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

uint32_t hand_ask(struct by_hand *p, uint32_t tenant,
			 struct vnet_peer_lane_answer *answer)
{
	struct vnet_peer_lane_ask ask = { .tenant = htole32(tenant),
					  .fabric = htole16(VTOE_FABRIC_TCP) };

	hand_send(p, VNET_PEER_LANE_ASK, &ask, sizeof(ask));
	if (!hand_receive(p, VNET_PEER_LANE_ANSWER, answer, sizeof(*answer)))
		return 9999;
	return le32toh(answer->status);
}

void lane_ask(struct lane_by_hand *l)
{
	hand_shake(&l->control, hand_key);
	hand_hello(&l->control, "h9", VNET_PEER_VERSION);
	hand_ask(&l->control, BED_TENANT, &l->answer);
}

/* Greets on the lane; the reply's status, or 9999 if the lane just ends. */
uint32_t lane_greet(struct lane_by_hand *l, uint32_t tenant,
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

void lane_end(struct lane_by_hand *l)
{
	hand_end(&l->control);
	close(l->fd);
}

void make_req(struct vtoe_msg_hdr *hdr, struct vnet_lane_req *req)
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
	memcpy(req->remote_mac, hand_bed->a.mac, 6);
	req->rwq_buf_size[0] = htole32(2048);
	req->rwq_buf_size[1] = htole32(65536);
}

void lane_send(struct lane_by_hand *l, const void *hdr, const void *body,
		      size_t len)
{
	send(l->fd, hdr, sizeof(struct vtoe_msg_hdr), MSG_NOSIGNAL | MSG_MORE);
	send(l->fd, body, len, MSG_NOSIGNAL);
}

uint32_t lane_rejected(struct lane_by_hand *l, unsigned int type)
{
	struct vtoe_msg_hdr hdr;
	struct vnet_lane_rej rej;

	if (recv(l->fd, &hdr, sizeof(hdr), MSG_WAITALL) != sizeof(hdr) ||
	    hdr.type != type || le32toh(hdr.id) != 0x1234 ||
	    recv(l->fd, &rej, sizeof(rej), MSG_WAITALL) != sizeof(rej))
		return 9999;
	return le32toh(rej.reason);
}

void open_lane(struct lane_by_hand *l)
{
	lane_ask(l);
	if (lane_greet(l, BED_TENANT, VNET_PEER_VERSION, 3))
		ok(false, "lane opens");
}

uint32_t open_conn(struct lane_by_hand *l, struct guest *g, uint32_t sid,
			  const struct vtoe_credit *grant,
			  const struct vtoe_credit *ours)
{
	open_lane(l);
	return open_another(l, g, 0x1234, sid, grant, ours);
}

uint32_t open_another(struct lane_by_hand *l, struct guest *g, uint32_t cid,
		      uint32_t sid, const struct vtoe_credit *grant,
		      const struct vtoe_credit *ours)
{
	struct vtoe_msg_hdr hdr;
	struct vnet_lane_req req;
	struct vnet_lane_rep rep;
	struct vtoe_event ev;

	make_req(&hdr, &req);
	req.cid = htole32(cid);
	hdr.credit = *ours;
	memcpy(req.remote_mac, g->mac, VNET_MAC_LEN);
	lane_send(l, &hdr, &req, sizeof(req));
	if (!guest_wait_event(g, VTOE_EV_CONNECT_REQUEST, &ev) ||
	    guest_accept(g, le32toh(ev.cid), sid, grant))
		return 0;
	if (recv(l->fd, &hdr, sizeof(hdr), MSG_WAITALL) != sizeof(hdr) ||
	    hdr.type != VTOE_MSG_REP || le32toh(hdr.id) != cid ||
	    recv(l->fd, &rep, sizeof(rep), MSG_WAITALL) != sizeof(rep))
		return 0;
	return le32toh(rep.cid);
}

/* Reads len bytes of the lane; false: it ended. */
bool lane_read(struct lane_by_hand *l, void *buf, size_t len)
{
	return recv(l->fd, buf, len, MSG_WAITALL) == (ssize_t)len;
}
