// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Queue pairs of lanes, as the RDMA connection manager makes and ends them.
 *
 *  active                                            passive
 *  ADDR_RESOLVED, ROUTE_RESOLVED: queue pair INIT
 *  REQ, struct vnet_lane_cm, token ----------------> CONNECT_REQUEST: checked; queue
 *                                                    pair INIT, RTR, RTS
 *  ESTABLISHED: RTR, RTS <-------------------------- REP, struct vnet_lane_cm
 *  RTU --------------------------------------------> ESTABLISHED
 *
 * three times for a lane, in any order. librdmacm makes the transitions (it has the
 * peer's queue pair number from the REP when it moves to RTR). The RTU may be
 * overtaken by what is sent behind it: a message from the peer on a lane whose
 * queue pairs have all been accepted means the same.
 *
 * DISCONNECTED: what has arrived is delivered, then the connections hear of it,
 * then the queue pair goes to ERROR and the request is answered.
 *
 * Threat model. Whoever reaches the network may send requests, with any private
 * data. Before its token is accepted a peer has said 48 bytes, which are compared,
 * never interpreted. A token is 256 random bits, good for one lane and for
 * IBA_TOKEN_LIFE_US, compared in constant time with all that are out, and (unless
 * the operator has a separate network for it) only from the address whose agent
 * was given it. A request that is refused costs an id for as long as it takes to
 * look at it; it is counted, and logged within a rate.
 */
#include "verbs.h"

#include <errno.h>
#include <string.h>

#include <openssl/crypto.h>

#define RESOLVE_MS 2000
/* 4.096 us << 17 is 0.5 s; seven times in vain: the peer is lost after 4 s. */
#define ACK_TIMEOUT 17
#define RETRIES 6 /* 7 is for ever to rxe */
#define RNR_RETRIES 6 /* none is needed: see verbs_mem.c */
#define CM_EVENTS 64 /* before others are looked at */

/* ---- queue pairs ---- */

/* As many as the guest has descriptors, and the early ones that fit besides. */
static uint32_t data_sends(struct iba_vlane *lane)
{
	const struct iba_vdev *dev = lane->dev;
	uint32_t most = (uint32_t)dev->attr.max_qp_wr / iba_vdev_sends(dev, 1);
	uint32_t n = lane->vvm->tx_num;

	lane->early_max = IBA_V_EARLY;
	if (n + IBA_V_EARLY > most)
		lane->early_max = (uint16_t)(most > n ? most - n : 0);
	return iba_vdev_sends(dev, n + lane->early_max);
}

static int create_qp(struct iba_vqp *qp)
{
	struct iba_vlane *lane = qp->lane;
	struct iba_vdev *dev = lane->dev;
	bool control = qp->kind == IBA_V_CONTROL;
	struct ibv_qp_init_attr init = {
		.send_cq = dev->cq,
		.recv_cq = dev->cq,
		.srq = control ? NULL : lane->vvm->srq[qp->kind],
		.qp_type = IBV_QPT_RC,
		.sq_sig_all = 1,
		.cap = {
			.max_send_wr = control ? IBA_V_CTRL_TX : data_sends(lane),
			.max_recv_wr = control ? IBA_V_CTRL_RX : 0,
			.max_send_sge = control ? 1 : iba_verbs_pieces(lane->v->t) + 1u,
			.max_recv_sge = control ? 1 : 0,
			.max_inline_data = IBA_V_INLINE,
		},
	};

	if (rdma_create_qp(qp->id, dev->pd, &init)) {
		init.cap.max_inline_data = 0; /* as much as it has for nothing */
		if (rdma_create_qp(qp->id, dev->pd, &init))
			return -errno;
	}
	qp->number = qp->id->qp->qp_num;
	LIST_INSERT_HEAD(&dev->qp[qp->number % IBA_V_BUCKETS], qp, link);
	qp->hashed = true;
	if (control)
		return iba_vctrl_init(lane);
	lane->inline_max = init.cap.max_inline_data;
	if (!lane->on_srqs)
		lane->vvm->lanes++;
	lane->on_srqs = true;
	iba_wring_create(lane, qp->kind);
	return 0;
}

/* With everything that is known of it; the event of it has been acknowledged. */
void iba_vcm_destroy(struct iba_vqp *qp)
{
	if (!qp->id)
		return;
	if (qp->hashed) {
		LIST_REMOVE(qp, link);
		qp->hashed = false;
	}
	if (qp->id->qp)
		rdma_destroy_qp(qp->id);
	rdma_destroy_id(qp->id);
	qp->id = NULL;
}

/*
 * Over iWARP what connects or accepts sleeps in the kernel, until the peer's TCP has
 * answered. The watchdog would end that with EINTR: it has a second for it, so that
 * a peer that does not answer does not keep us either.
 */
static int undisturbed(int (*call)(struct rdma_cm_id *, struct rdma_conn_param *),
		       struct rdma_cm_id *id, struct rdma_conn_param *param)
{
	iba_tenant_watchdog(true);
	return call(id, param) ? -errno : 0;
}

static void fill_cm(struct vnet_lane_cm *cm, const struct iba_vqp *qp)
{
	memset(cm, 0, sizeof(*cm));
	cm->magic = htole32(VNET_PEER_MAGIC);
	cm->version = htole16(VNET_PEER_VERSION);
	cm->kind = qp->kind;
	if (qp->kind == IBA_V_CONTROL) {
		cm->recv_bufs = htole32(IBA_V_CTRL_RX);
		if (qp->lane->v->t->cfg->rdma_write)
			cm->flags = VNET_LANE_F_RING;
	}
	memcpy(cm->token, qp->lane->token, sizeof(cm->token));
}

static void fill_param(struct rdma_conn_param *param,
		       const struct vnet_lane_cm *cm)
{
	memset(param, 0, sizeof(*param));
	param->private_data = cm;
	param->private_data_len = sizeof(*cm);
	param->flow_control = 1;
	param->retry_count = RETRIES;
	param->rnr_retry_count = RNR_RETRIES;
}

static bool flags_ok(const struct vnet_lane_cm *cm)
{
	return !(cm->flags & ~VNET_LANE_F_RING) &&
	       (!cm->flags || cm->kind == IBA_V_CONTROL);
}

/* What the peer says of its control queue pair. */
static void take_control(struct iba_vlane *lane, const struct vnet_lane_cm *cm)
{
	lane->ctrl_limit = le32toh(cm->recv_bufs);
	lane->ring_due = cm->flags & VNET_LANE_F_RING;
}

static void established(struct iba_vqp *qp)
{
	struct iba_vlane *lane = qp->lane;

	qp->established = true;
	for (unsigned int k = 0; k < IBA_V_KINDS; k++)
		if (!lane->qp[k].established)
			return;
	if (lane->state == IBA_VLANE_CONNECTING ||
	    lane->state == IBA_VLANE_ACCEPTING)
		iba_vlane_up(lane);
}

/* ---- active ---- */

/* From any port of ours. */
static int resolve(struct iba_vqp *qp)
{
	struct iba_vlane *lane = qp->lane;
	struct sockaddr_storage from = lane->port->addr;
	uint8_t ack_timeout = ACK_TIMEOUT;

	if (from.ss_family == AF_INET6)
		((struct sockaddr_in6 *)&from)->sin6_port = 0;
	else
		((struct sockaddr_in *)&from)->sin_port = 0;
	if (rdma_create_id(lane->v->cm, &qp->id, qp, RDMA_PS_TCP))
		return -errno;
	rdma_set_option(qp->id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT,
			&ack_timeout, sizeof(ack_timeout));
	if (rdma_resolve_addr(qp->id, (struct sockaddr *)&from,
			      (struct sockaddr *)&lane->peer, RESOLVE_MS))
		return -errno;
	return 0;
}

int iba_vcm_connect(struct iba_vlane *lane)
{
	int err = 0;

	if (lane->port->addr.ss_family != lane->peer.ss_family)
		return -EAFNOSUPPORT;
	for (unsigned int k = 0; k < IBA_V_KINDS && !err; k++)
		err = resolve(&lane->qp[k]);
	return err;
}

/*
 * The connection manager takes a port of its own port space, and iWARP binds a TCP
 * socket to it, whose port space is another: the number may be taken there. Then
 * with another one; the peer has not heard of this one.
 */
static bool port_taken(struct iba_vqp *qp, int err)
{
	if (err != -EADDRINUSE || ++qp->port_tries >= IBA_V_PORT_TRIES)
		return false;
	iba_vcm_destroy(qp);
	iba_vrx_drain(qp->lane->dev); /* of what was posted on it, if it is flushed */
	if (qp->lane->state != IBA_VLANE_CONNECTING)
		return true;
	err = resolve(qp);
	if (err)
		iba_vlane_end(qp->lane, VTOE_REASON_NO_LANE, strerror(-err));
	return true;
}

static void address_resolved(struct iba_vqp *qp)
{
	struct iba_vlane *lane = qp->lane;

	if (qp->id->verbs != lane->dev->ctx)
		iba_vlane_end(lane, VTOE_REASON_NO_LANE,
			      "our address has moved to another device");
	else if (rdma_resolve_route(qp->id, RESOLVE_MS))
		iba_vlane_end(lane, VTOE_REASON_NO_LANE, strerror(errno));
}

static void route_resolved(struct iba_vqp *qp)
{
	struct rdma_conn_param param;
	struct vnet_lane_cm cm;
	int err = create_qp(qp);

	fill_cm(&cm, qp);
	fill_param(&param, &cm);
	if (!err)
		err = undisturbed(rdma_connect, qp->id, &param);
	OPENSSL_cleanse(&cm, sizeof(cm));
	if (err && !port_taken(qp, err))
		iba_vlane_end(qp->lane, VTOE_REASON_NO_LANE, strerror(-err));
}

/* ---- passive ---- */

static bool same_host(const struct sockaddr_storage *a, const struct sockaddr *b)
{
	if (a->ss_family != b->sa_family)
		return false;
	if (b->sa_family == AF_INET6)
		return !memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr,
			       &((const struct sockaddr_in6 *)b)->sin6_addr,
			       sizeof(struct in6_addr));
	return ((const struct sockaddr_in *)a)->sin_addr.s_addr ==
	       ((const struct sockaddr_in *)b)->sin_addr.s_addr;
}

static struct iba_vlane *find_token(struct iba_verbs *v,
				    const uint8_t token[VNET_TOKEN_LEN])
{
	struct iba_vlane *lane, *found = NULL;

	/* no early way out: the time tells nothing about a token */
	TAILQ_FOREACH(lane, &v->lanes, link)
		if (lane->state == IBA_VLANE_ACCEPTING &&
		    !CRYPTO_memcmp(lane->token, token, VNET_TOKEN_LEN))
			found = lane;
	return found;
}

/* The queue pair that a request is for; NULL, and why it is refused. */
static struct iba_vqp *check_request(struct iba_verbs *v,
				     struct rdma_cm_id *id,
				     const struct vnet_lane_cm *cm,
				     enum vtoe_reason *reason, const char **why)
{
	const struct iba_config *cfg = v->t->cfg;
	struct iba_vlane *lane;

	*reason = VTOE_REASON_PROTOCOL;
	*why = "not one of ours";
	if (le32toh(cm->magic) != VNET_PEER_MAGIC)
		return NULL;
	if (le16toh(cm->version) != VNET_PEER_VERSION) {
		*reason = VTOE_REASON_VERSION;
		*why = "it speaks another version";
		return NULL;
	}
	*why = "bad private data";
	if (cm->kind >= IBA_V_KINDS || !flags_ok(cm) || cm->reserved1 ||
	    le32toh(cm->recv_bufs) > INT32_MAX ||
	    (cm->kind == IBA_V_CONTROL && le32toh(cm->recv_bufs) < 2))
		return NULL;
	*why = "bad token";
	lane = find_token(v, cm->token);
	if (!lane || lane->qp[cm->kind].id || id->verbs != lane->dev->ctx)
		return NULL;
	*why = "a token of another host";
	if (!cfg->data_set && !cfg->rdma_set &&
	    !same_host(&lane->peer, rdma_get_peer_addr(id)))
		return NULL;
	return &lane->qp[cm->kind];
}

static void refuse(struct iba_verbs *v, struct rdma_cm_id *id,
		   enum vtoe_reason reason, const char *why)
{
	struct vnet_lane_hello_reply reply = {
		.magic = htole32(VNET_PEER_MAGIC),
		.version = htole16(VNET_PEER_VERSION),
		.status = htole32(reason),
	};
	struct sockaddr_storage peer = { 0 };
	char name[SOCKADDR_STRLEN];

	v->refused++;
	v->t->drops[IBA_DROP_LANE_REFUSED]++;
	if (log_ratelimited_ok(&v->log, 10, 10)) {
		const struct sockaddr *from = rdma_get_peer_addr(id);

		memcpy(&peer, from, from->sa_family == AF_INET6 ?
					    sizeof(struct sockaddr_in6) :
					    sizeof(struct sockaddr_in));
		log_warn("verbs: tenant %u: a queue pair for %s is refused: %s",
			 v->t->id, sockaddr_format(&peer, name), why);
	}
	rdma_reject(id, &reply, sizeof(reply));
	rdma_destroy_id(id);
}

static void connect_request(struct iba_verbs *v, struct rdma_cm_id *id,
			    const struct vnet_lane_cm *cm)
{
	struct rdma_conn_param param;
	enum vtoe_reason reason;
	struct vnet_lane_cm ours;
	struct iba_vqp *qp;
	uint8_t ack_timeout = ACK_TIMEOUT;
	const char *why;
	int err;

	id->context = NULL; /* the listener's */
	qp = check_request(v, id, cm, &reason, &why);
	if (!qp) {
		refuse(v, id, reason, why);
		return;
	}
	qp->id = id;
	id->context = qp;
	rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT,
			&ack_timeout, sizeof(ack_timeout));
	err = create_qp(qp);
	if (cm->kind == IBA_V_CONTROL)
		take_control(qp->lane, cm);
	fill_cm(&ours, qp);
	fill_param(&param, &ours);
	if (!err)
		err = undisturbed(rdma_accept, id, &param);
	OPENSSL_cleanse(&ours, sizeof(ours));
	if (err)
		iba_vlane_end(qp->lane, VTOE_REASON_LIMIT, strerror(-err));
}

/* ---- events ---- */

/* Active: what the peer's REP says. */
static bool check_reply(struct iba_vqp *qp, const struct vnet_lane_cm *cm)
{
	if (!qp->lane->active)
		return true;
	if (le32toh(cm->magic) != VNET_PEER_MAGIC ||
	    le16toh(cm->version) != VNET_PEER_VERSION || cm->kind != qp->kind ||
	    !flags_ok(cm) || cm->reserved1 ||
	    le32toh(cm->recv_bufs) > INT32_MAX ||
	    CRYPTO_memcmp(cm->token, qp->lane->token, VNET_TOKEN_LEN))
		return false;
	if (qp->kind == IBA_V_CONTROL)
		take_control(qp->lane, cm);
	return true;
}

static void rejected(struct iba_vqp *qp, const void *data, int status)
{
	struct vnet_lane_hello_reply reply;
	uint32_t reason = VTOE_REASON_NO_LANE;

	memcpy(&reply, data, sizeof(reply));
	if (le32toh(reply.magic) == VNET_PEER_MAGIC &&
	    le32toh(reply.status) < VTOE_REASON_COUNT && reply.status)
		reason = le32toh(reply.status);
	log_debug("lane %s: refused, status %d", qp->lane->name, status);
	iba_vlane_end(qp->lane, reason, "refused by the peer");
}

/* What has arrived goes first: behind the end nothing is delivered. */
static void disconnected(struct iba_vqp *qp)
{
	struct iba_vlane *lane = qp->lane;

	iba_vrx_drain(lane->dev);
	if (lane->state < IBA_VLANE_DRAINING)
		iba_vlane_end(lane, VTOE_REASON_LANE_LOST,
			      "closed by the peer");
	else if (qp->id)
		rdma_disconnect(qp->id); /* the answer, if that is missing */
}

static void qp_event(struct iba_vqp *qp, enum rdma_cm_event_type event,
		     int status, const void *data)
{
	switch (event) {
	case RDMA_CM_EVENT_ADDR_RESOLVED:
		address_resolved(qp);
		break;
	case RDMA_CM_EVENT_ROUTE_RESOLVED:
		route_resolved(qp);
		break;
	case RDMA_CM_EVENT_ESTABLISHED:
		if (check_reply(qp, data))
			established(qp);
		else
			iba_vlane_end(qp->lane, VTOE_REASON_PROTOCOL,
				      "bad private data in the reply");
		break;
	case RDMA_CM_EVENT_REJECTED:
		rejected(qp, data, status);
		break;
	case RDMA_CM_EVENT_DISCONNECTED:
		disconnected(qp);
		break;
	case RDMA_CM_EVENT_TIMEWAIT_EXIT:
		break;
	case RDMA_CM_EVENT_DEVICE_REMOVAL:
		iba_vdev_dead(qp->lane->dev, rdma_event_str(event));
		break;
	default: /* ADDR_, ROUTE_, CONNECT_ERROR, UNREACHABLE, ADDR_CHANGE */
		iba_vlane_end(qp->lane, VTOE_REASON_NO_LANE,
			      rdma_event_str(event));
		break;
	}
}

static void listener_event(struct iba_verbs *v, struct rdma_cm_id *id,
			   enum rdma_cm_event_type event)
{
	for (unsigned int i = 0; i < v->port_count; i++) {
		struct iba_vport *port = &v->port[i];

		if (port->listen != id)
			continue;
		if (event == RDMA_CM_EVENT_DEVICE_REMOVAL)
			iba_vdev_dead(port->dev, rdma_event_str(event));
		else
			log_warn("verbs: listener: %s", rdma_event_str(event));
		return;
	}
}

void iba_vcm_event(int fd, uint32_t events, void *ctx)
{
	struct iba_verbs *v = ctx;
	struct rdma_cm_event *ev;

	(void)fd;
	(void)events;
	for (unsigned int i = 0; i < CM_EVENTS && !rdma_get_cm_event(v->cm, &ev);
	     i++) {
		/* padded: its length is the transport's, not the sender's */
		union {
			struct vnet_lane_cm cm;
			struct vnet_lane_hello_reply reply;
		} data = { 0 };
		enum rdma_cm_event_type type = ev->event;
		struct rdma_cm_id *id = ev->id;
		int status = ev->status;

		if (ev->param.conn.private_data &&
		    (type == RDMA_CM_EVENT_CONNECT_REQUEST ||
		     type == RDMA_CM_EVENT_ESTABLISHED ||
		     type == RDMA_CM_EVENT_REJECTED))
			memcpy(&data, ev->param.conn.private_data,
			       ev->param.conn.private_data_len < sizeof(data) ?
				       ev->param.conn.private_data_len :
				       sizeof(data));
		/* an id waits, when it is destroyed, for what is not */
		rdma_ack_cm_event(ev);
		if (type == RDMA_CM_EVENT_CONNECT_REQUEST)
			connect_request(v, id, &data.cm);
		else if (id->context)
			qp_event(id->context, type, status, &data);
		else
			listener_event(v, id, type);
		OPENSSL_cleanse(&data, sizeof(data));
	}
}
