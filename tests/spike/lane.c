// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Queue pairs of the spike's agent: made and connected by RDMA CM, one id per
 * queue pair, all of a lane with the same token.
 *
 * rnr_retry is 0 on every queue pair: a message that found no receive buffer
 * would break the lane, and so the test.
 */
#include "agent.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_PORT 7471
#define CM_TIMEOUT_MS 5000
#define OWN_MEM (1u << 20)

/* The agents' control channel is not part of this: one token per lane is known. */
static const __u8 good_token[N_LANES][VNET_TOKEN_LEN] = {
	"token of the first lane ........",
	"token of the second lane .......",
};
static const __u8 bad_token[VNET_TOKEN_LEN] = "some other token of that length";

static int set_nonblock(int fd)
{
	return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static struct ibv_context *find_device(const char *name)
{
	struct ibv_context **list, *found = NULL;
	int i, n;

	/* The contexts that librdmacm uses for its ids, so one domain fits all. */
	list = rdma_get_devices(&n);
	for (i = 0; list && i < n; i++)
		if (!strcmp(ibv_get_device_name(list[i]->device), name))
			found = list[i];
	if (list)
		rdma_free_devices(list);
	return found;
}

int lanes_open(struct agent *a)
{
	struct ibv_device_attr attr;
	struct guest_region *region = &a->mem.region[0];
	double start = now_s();
	unsigned int i, k;

	a->verbs = find_device(a->cfg.device);
	if (!a->verbs || ibv_query_device(a->verbs, &attr))
		return -ENODEV;
	a->stats.max_sge = attr.max_sge;
	a->stats.max_srq_sge = attr.max_srq_sge;
	a->pd = ibv_alloc_pd(a->verbs);
	if (!a->pd)
		return -errno;
	a->guest_mr = ibv_reg_mr(a->pd, region->host, region->size, IBV_ACCESS_LOCAL_WRITE);
	a->stats.reg_ms = (now_s() - start) * 1e3;
	a->own = aligned_alloc(4096, OWN_MEM);
	if (!a->own)
		return -ENOMEM;
	memset(a->own, 0, OWN_MEM);
	a->own_mr = ibv_reg_mr(a->pd, a->own, OWN_MEM, IBV_ACCESS_LOCAL_WRITE);
	a->channel = ibv_create_comp_channel(a->verbs);
	if (!a->guest_mr || !a->own_mr || !a->channel)
		return -errno;
	a->cq = ibv_create_cq(a->verbs, 4096, NULL, a->channel, 0);
	if (!a->cq)
		return -errno;
	for (i = 0; i < VNET_RWQ_CLASSES; i++) {
		struct ibv_srq_init_attr init = { .attr = {
			.max_wr = RWQ_NUM_MAX, .max_sge = SEGS_MAX } };

		a->srq[i] = ibv_create_srq(a->pd, &init);
		if (!a->srq[i])
			return -errno;
	}
	for (i = 0; i < N_LANES; i++) {
		struct lane *lane = &a->lane[i];

		lane->number = i;
		lane->ctrl_granted = lane->ctrl_told = CTRL_BUFS;
		lane->ctrl_rx = agent_own_alloc(a, CTRL_BUFS * sizeof(*lane->ctrl_rx));
		for (k = 0; k < KINDS; k++) {
			lane->port[k].lane = lane;
			lane->port[k].kind = k;
		}
	}
	a->cm = rdma_create_event_channel();
	if (!a->cm)
		return -errno;
	set_nonblock(a->cm->fd);
	set_nonblock(a->verbs->async_fd);
	set_nonblock(a->channel->fd);
	return ibv_req_notify_cq(a->cq, 0) ? -errno : 0;
}

static int port_create_qp(struct agent *a, struct lane_port *port)
{
	bool ctrl = port->kind == KIND_CTRL;
	struct ibv_qp_init_attr init = {
		.send_cq = a->cq,
		.recv_cq = a->cq,
		.srq = ctrl ? NULL : a->srq[port->kind],
		.qp_type = IBV_QPT_RC,
		.sq_sig_all = 1,
		.cap = {
			.max_send_wr = ctrl ? 2 * CTRL_BUFS : SWQ_NUM_MAX,
			.max_recv_wr = ctrl ? CTRL_BUFS : 0,
			.max_send_sge = ctrl ? 1 : SEGS_MAX,
			.max_recv_sge = ctrl ? 1 : 0,
			.max_inline_data = ctrl ? sizeof(struct ctrl_msg) : 0,
		},
	};
	unsigned int i;

	if (rdma_create_qp(port->id, a->pd, &init))
		return -errno;
	if (ctrl)
		a->stats.max_inline = init.cap.max_inline_data;
	for (i = 0; ctrl && i < CTRL_BUFS; i++)
		if (lane_post_ctrl_rx(a, port->lane, i))
			return -EIO;
	return 0;
}

static void fill_cm(struct vnet_lane_cm *cm, const struct lane_port *port, const __u8 *token)
{
	*cm = (struct vnet_lane_cm){
		.magic = htole32(VNET_PEER_MAGIC),
		.version = htole16(VNET_PEER_VERSION),
		.kind = port->kind,
		.recv_bufs = htole32(port->kind == KIND_CTRL ? CTRL_BUFS : 0),
	};
	memcpy(cm->token, token, VNET_TOKEN_LEN);
}

static void fill_param(struct rdma_conn_param *param, const struct vnet_lane_cm *cm)
{
	*param = (struct rdma_conn_param){
		.private_data = cm,
		.private_data_len = sizeof(*cm),
		.flow_control = 1,
		.retry_count = 7,
		.rnr_retry_count = 0,
	};
}

/*
 * The port that the peer's private data, which the CM pads to its own maximum,
 * is about; its control queue pair says what the peer can take. NULL: refused.
 */
static struct lane_port *check_cm(struct agent *a, const struct rdma_conn_param *param)
{
	const struct vnet_lane_cm *cm = param->private_data;
	unsigned int i;

	a->stats.cm_private_len = param->private_data_len;
	if (param->private_data_len < sizeof(*cm) || le32toh(cm->magic) != VNET_PEER_MAGIC ||
	    le16toh(cm->version) != VNET_PEER_VERSION || cm->kind >= KINDS || cm->reserved ||
	    cm->reserved1)
		return NULL;
	for (i = 0; i < N_LANES; i++)
		if (!memcmp(cm->token, good_token[i], VNET_TOKEN_LEN))
			break;
	if (i == N_LANES)
		return NULL;
	if (cm->kind == KIND_CTRL)
		a->lane[i].ctrl_limit = le32toh(cm->recv_bufs);
	return &a->lane[i].port[cm->kind];
}

int lanes_connect(struct agent *a)
{
	struct sockaddr_in local = { .sin_family = AF_INET }, remote = { .sin_family = AF_INET };
	unsigned int i, k;

	inet_pton(AF_INET, a->cfg.local, &local.sin_addr);
	inet_pton(AF_INET, a->cfg.remote, &remote.sin_addr);
	if (a->cfg.host == 0) {
		local.sin_port = htons(CM_PORT);
		if (rdma_create_id(a->cm, &a->listen_id, NULL, RDMA_PS_TCP) ||
		    rdma_bind_addr(a->listen_id, (struct sockaddr *)&local) ||
		    rdma_listen(a->listen_id, 2 * N_LANES * KINDS))
			return -errno;
		return 0;
	}
	remote.sin_port = htons(CM_PORT);
	if (rdma_create_id(a->cm, &a->bad_id, &a->lane[0].port[KIND_CTRL], RDMA_PS_TCP) ||
	    rdma_resolve_addr(a->bad_id, (struct sockaddr *)&local, (struct sockaddr *)&remote,
			      CM_TIMEOUT_MS))
		return -errno;
	for (i = 0; i < N_LANES; i++)
		for (k = 0; k < KINDS; k++) {
			struct lane_port *port = &a->lane[i].port[k];

			if (rdma_create_id(a->cm, &port->id, port, RDMA_PS_TCP) ||
			    rdma_resolve_addr(port->id, (struct sockaddr *)&local,
					      (struct sockaddr *)&remote, CM_TIMEOUT_MS))
				return -errno;
		}
	return 0;
}

bool lanes_up(const struct agent *a)
{
	unsigned int i, k;

	for (i = 0; i < N_LANES; i++)
		for (k = 0; k < KINDS; k++)
			if (!a->lane[i].port[k].up)
				return false;
	return a->refused;
}

static void connect_request(struct agent *a, struct rdma_cm_event *event)
{
	struct lane_port *port = check_cm(a, &event->param.conn);
	__le32 reason = htole32(VTOE_REASON_PROTOCOL);
	struct rdma_conn_param param;
	struct vnet_lane_cm mine;

	if (!port || port->id) {
		a->refused = true;
		rdma_reject(event->id, &reason, sizeof(reason));
		rdma_destroy_id(event->id);
		return;
	}
	port->id = event->id;
	port->id->context = port;
	fill_cm(&mine, port, good_token[port->lane->number]);
	fill_param(&param, &mine);
	if (port_create_qp(a, port) || rdma_accept(port->id, &param))
		agent_fail(a, "accepting a queue pair: %s", strerror(errno));
}

/* Active side: addresses and routes resolve, requests go out. */
static void route_resolved(struct agent *a, struct lane_port *port, struct rdma_cm_id *id)
{
	bool bad = id == a->bad_id;
	struct rdma_conn_param param;
	struct vnet_lane_cm cm;

	fill_cm(&cm, port, bad ? bad_token : good_token[port->lane->number]);
	fill_param(&param, &cm);
	if (bad)
		param.qp_num = 0x123456; /* it is refused before anyone uses it */
	else if (port_create_qp(a, port))
		agent_fail(a, "creating a queue pair: %s", strerror(errno));
	if (rdma_connect(id, &param))
		agent_fail(a, "rdma_connect: %s", strerror(errno));
}

static void established(struct agent *a, struct lane_port *port, struct rdma_cm_event *event)
{
	if (a->cfg.host == 1 && check_cm(a, &event->param.conn) != port) {
		agent_fail(a, "the acceptance carries %u bytes of wrong private data",
			   event->param.conn.private_data_len);
		return;
	}
	port->up = true;
}

/* Events that end in rdma_destroy_id() are acknowledged before it. */
void lanes_poll_cm(struct agent *a)
{
	struct rdma_cm_event *event;

	while (!rdma_get_cm_event(a->cm, &event)) {
		struct rdma_cm_event copy = *event;
		struct lane_port *port = event->id->context;
		__u8 private_data[256] = { 0 };

		if (copy.param.conn.private_data_len && copy.event != RDMA_CM_EVENT_ADDR_RESOLVED &&
		    copy.event != RDMA_CM_EVENT_ROUTE_RESOLVED) {
			memcpy(private_data, copy.param.conn.private_data,
			       copy.param.conn.private_data_len);
			copy.param.conn.private_data = private_data;
		}
		rdma_ack_cm_event(event);
		switch (copy.event) {
		case RDMA_CM_EVENT_ADDR_RESOLVED:
			if (rdma_resolve_route(copy.id, CM_TIMEOUT_MS))
				agent_fail(a, "rdma_resolve_route: %s", strerror(errno));
			break;
		case RDMA_CM_EVENT_ROUTE_RESOLVED:
			route_resolved(a, port, copy.id);
			break;
		case RDMA_CM_EVENT_CONNECT_REQUEST:
			connect_request(a, &copy);
			break;
		case RDMA_CM_EVENT_ESTABLISHED:
			established(a, port, &copy);
			break;
		case RDMA_CM_EVENT_REJECTED:
			if (copy.id == a->bad_id && private_data[0] == VTOE_REASON_PROTOCOL)
				a->refused = true;
			else
				agent_fail(a, "a queue pair was refused, status %d", copy.status);
			break;
		case RDMA_CM_EVENT_DISCONNECTED:
			port->down = true;
			break;
		case RDMA_CM_EVENT_TIMEWAIT_EXIT:
			break;
		default:
			agent_fail(a, "%s, status %d", rdma_event_str(copy.event), copy.status);
		}
	}
}

void lanes_poll_async(struct agent *a)
{
	struct ibv_async_event event;
	unsigned int i, k;

	while (!ibv_get_async_event(a->verbs, &event)) {
		for (i = 0; event.event_type == IBV_EVENT_QP_LAST_WQE_REACHED && i < N_LANES; i++)
			for (k = 0; k < KINDS; k++) {
				struct lane_port *port = &a->lane[i].port[k];

				if (port->id && port->id->qp == event.element.qp && !port->last_wqe) {
					port->last_wqe = true;
					a->stats.last_wqe_events++;
				}
			}
		ibv_ack_async_event(&event);
	}
}

int lane_post_ctrl_rx(struct agent *a, struct lane *lane, unsigned int index)
{
	struct ibv_sge sge = { (uintptr_t)&lane->ctrl_rx[index], sizeof(struct ctrl_msg),
			       a->own_mr->lkey };
	struct ibv_recv_wr wr = { .wr_id = WR_ID(WR_CTRL_RX, lane->number, index),
				  .sg_list = &sge, .num_sge = 1 }, *bad;

	return ibv_post_recv(lane->port[KIND_CTRL].id->qp, &wr, &bad);
}

/* Sent inline, so the message may live on the caller's stack. */
int lane_send_ctrl(struct agent *a, struct lane *lane, struct ctrl_msg *msg)
{
	bool nop = msg->hdr.type == VTOE_MSG_NOP;
	struct ibv_sge sge = { (uintptr_t)msg, sizeof(msg->hdr), 0 };
	struct ibv_send_wr wr = { .wr_id = WR_ID(WR_CTRL_TX, lane->number, 0), .sg_list = &sge,
				  .num_sge = 1, .opcode = IBV_WR_SEND,
				  .send_flags = IBV_SEND_INLINE }, *bad;
	uint32_t room = lane->ctrl_limit - lane->ctrl_sent;

	/* The last buffer is for the message that returns buffers. */
	if (room < (nop ? 1 : 2))
		return -EAGAIN;
	if (msg->hdr.type == VTOE_MSG_RST)
		sge.length += sizeof(msg->rst);
	msg->hdr.len = htole32(sge.length - sizeof(msg->hdr));
	msg->hdr.lane_limit = htole32(lane->ctrl_granted);
	if (ibv_post_send(lane->port[KIND_CTRL].id->qp, &wr, &bad)) {
		agent_fail(a, "posting a control message failed");
		return -EIO;
	}
	lane->ctrl_told = lane->ctrl_granted;
	lane->ctrl_sent++;
	a->stats.ctrl_tx++;
	a->stats.nops += nop;
	return 0;
}

void lane_told(struct lane *lane, uint32_t limit)
{
	if ((int32_t)(limit - lane->ctrl_limit) > 0)
		lane->ctrl_limit = limit;
}

void lanes_disconnect(struct agent *a)
{
	unsigned int i, k;

	for (i = 0; i < N_LANES; i++)
		for (k = 0; k < KINDS; k++)
			rdma_disconnect(a->lane[i].port[k].id); /* to ERROR first, then the request */
}

bool lanes_drained(const struct agent *a, bool without_event)
{
	unsigned int i, k;

	for (i = 0; i < N_LANES; i++)
		for (k = 0; k < KINDS; k++) {
			const struct lane_port *port = &a->lane[i].port[k];

			if (!port->down || (k != KIND_CTRL && !port->last_wqe && !without_event))
				return false;
		}
	return true;
}

const char *lanes_close(struct agent *a)
{
	unsigned int i, k;

	for (i = 0; i < N_LANES; i++)
		for (k = 0; k < KINDS; k++) {
			rdma_destroy_qp(a->lane[i].port[k].id);
			if (rdma_destroy_id(a->lane[i].port[k].id))
				return "rdma_destroy_id";
		}
	if (a->listen_id)
		rdma_destroy_id(a->listen_id);
	if (a->bad_id)
		rdma_destroy_id(a->bad_id);
	for (i = 0; i < VNET_RWQ_CLASSES; i++)
		if (ibv_destroy_srq(a->srq[i]))
			return "ibv_destroy_srq: a queue pair still uses it";
	if (ibv_destroy_cq(a->cq) || ibv_destroy_comp_channel(a->channel))
		return "destroying the completion queue";
	if (ibv_dereg_mr(a->guest_mr) || ibv_dereg_mr(a->own_mr) || ibv_dealloc_pd(a->pd))
		return "giving back the guest's memory";
	rdma_destroy_event_channel(a->cm);
	free(a->own);
	a->own = NULL;
	return NULL;
}
