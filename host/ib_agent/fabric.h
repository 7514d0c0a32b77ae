/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What carries connections between two VMs: one ops table per fabric.
 *
 * A fabric moves messages of one connection to its peer, reliably and in
 * order. Calls go down through struct iba_fabric; what arrives comes up through
 * the functions grouped below it, which are the same for every fabric. A fabric
 * owns conn->lane, conn->mate (its reference to the path), nothing else of the
 * connection.
 *
 * The payload of send_data stays in guest memory: the slot belongs to the
 * fabric until it calls iba_slot_done(), after which the guest may reuse it.
 */
#ifndef IBA_FABRIC_H
#define IBA_FABRIC_H

#include <stdbool.h>
#include <stdint.h>

#include "vnet_peer.h"
#include "vnet_vtoe.h"

struct iba_conn;
struct iba_slot;
struct iba_tenant;
struct iba_vm;
struct virtq_chain;

struct iba_fabric {
	const char *name;
	uint16_t id; /* VTOE_FABRIC_* */
	/*
	 * Finds or makes a path for an active open to conn->remote_mac on the
	 * host of `agent` (NULL: not asked for yet). 0: conn has its path;
	 * -EINPROGRESS: iba_open_path_up() or iba_open_path_failed() follows;
	 * -EHOSTUNREACH: not by this fabric, *reason says why.
	 */
	int (*get_path)(struct iba_conn *conn, const struct vtoe_addr *agent,
			enum vtoe_reason *reason);
	/* The connection leaves its path; what was queued is still sent. */
	void (*put_path)(struct iba_conn *conn);
	void (*send_req)(struct iba_conn *conn);
	void (*send_rep)(struct iba_conn *conn);
	void (*send_rej)(struct iba_conn *conn, enum vtoe_reason reason);
	void (*send_data)(struct iba_conn *conn, uint8_t flags, uint64_t offset,
			  struct iba_slot *slot);
	/* conn->rx_credit, merged with what is waiting. */
	void (*send_credit)(struct iba_conn *conn, uint8_t flags);
	void (*send_fin)(struct iba_conn *conn);
	void (*send_rst)(struct iba_conn *conn, enum vtoe_reason reason);
	/* The VM's memory goes away: give up every slot and buffer of it now. */
	void (*forget_vm)(struct iba_vm *vm);
	/*
	 * The same, but it will be back, and no message may be lost: what is to
	 * be sent is copied, what is coming in goes to iba_hold_move(). NULL:
	 * this fabric cannot do that, its connections fail.
	 */
	void (*pause_vm)(struct iba_vm *vm);
};

extern const struct iba_fabric iba_fabric_tcp;
extern const struct iba_fabric iba_fabric_local;
extern const struct iba_fabric iba_fabric_verbs;
/* NULL for a number without one. */
const struct iba_fabric *iba_fabric_by_id(uint16_t id);

/* ---- open.c: what a fabric reports while a connection opens ---- */

void iba_open_path_up(struct iba_conn *conn);
void iba_open_path_failed(struct iba_conn *conn, enum vtoe_reason reason);
/*
 * A REQ has come for a VM of this tenant. The new connection in *out, for the
 * fabric to tie to its path; or the reason for a REJ.
 */
enum vtoe_reason iba_open_req(struct iba_tenant *t,
			      const struct iba_fabric *fabric,
			      const struct vtoe_msg_hdr *hdr,
			      const struct vnet_lane_req *req,
			      struct iba_conn **out);
void iba_open_rep(struct iba_conn *conn, const struct vtoe_msg_hdr *hdr,
		  const struct vnet_lane_rep *rep);
void iba_open_rej(struct iba_conn *conn, enum vtoe_reason reason);

/* The flags that a message may have. */
static inline uint8_t iba_msg_flags(uint8_t type)
{
	return type == VTOE_MSG_DATA ? VTOE_MSG_F_WANT_CREDIT | VTOE_MSG_F_URGENT :
				       VTOE_MSG_F_WANT_CREDIT;
}

/* ---- deliver.c: what a fabric reports of an open connection ---- */

/*
 * DATA: checks hdr against the connection, takes a receive buffer of its VM
 * and writes the header there. 0: chain->iov[*iov_at..] is room for hdr->len
 * bytes, to be filled and given to iba_deliver_end(). -errno: the connection
 * has been failed or did not want it, the payload is to be thrown away.
 */
int iba_deliver_begin(struct iba_conn *conn, const struct vtoe_msg_hdr *hdr,
		      struct virtq_chain *chain, unsigned int *iov_at);
/*
 * The same where the payload is in guest memory already, in a buffer that the
 * fabric has taken, and messages of the two classes overtake each other. 0: *out
 * is the header to put in front of it, for iba_deliver_end().
 */
int iba_deliver_placed(struct iba_conn *conn, const struct vtoe_msg_hdr *hdr,
		       struct vtoe_msg_hdr *out);
void iba_deliver_end(struct iba_vm *vm, unsigned int class, uint16_t head,
		     uint32_t len);
unsigned int iba_deliver_class(const struct iba_vm *vm, uint32_t len);
/* One that was held, with its header; for a SID that has gone it is dropped. */
void iba_deliver_held(struct iba_vm *vm, unsigned int class, uint32_t sid,
		      const void *msg, uint32_t bytes);

void iba_recv_credit(struct iba_conn *conn, const struct vtoe_msg_hdr *hdr);
void iba_recv_fin(struct iba_conn *conn, const struct vtoe_msg_hdr *hdr);
void iba_recv_rst(struct iba_conn *conn, enum vtoe_reason reason);

/* ---- send.c ---- */

void iba_slot_done(struct iba_slot *slot);
/* An own copy: the VM has nothing to do with it any more. */
void iba_slot_leave(struct iba_slot *slot);

#endif /* IBA_FABRIC_H */
