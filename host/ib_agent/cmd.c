// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * CR: the guest's commands.
 *
 * Theory of operation. Commands are taken in order, each is copied out of the
 * chain once, executed, and answered in the same chain before the next is
 * looked at; what the guest had put on the SWQ before it goes first. That is
 * what stood there when the command was seen, and no more; if it is much, the
 * command goes back to its ring and waits (vm->cmd_mark). What takes time
 * (CONNECT) is started here and ends in an event. Nothing but HELLO, and no
 * other queue, is served before HELLO and after BYE.
 *
 * Threat model: the guest is hostile. A command is a row of the table: what its
 * SID must be, which of its flags exist, and a handler; fields that are not the
 * command's own are not read. A bad command is answered with a reason
 * (VTOE_REASON_PROTOCOL when a correct driver could not have sent it) and changes
 * nothing; a chain without room for the answer goes back with length 0.
 */
#include "agent.h"

#include <errno.h>
#include <string.h>

#define PASS_COMMANDS 256
/* Of the send queue, for all commands of a pass. */
#define PASS_SEND_MESSAGES 512
#define PASS_SEND_BYTES (2u << 20)

typedef enum vtoe_reason cmd_fn(struct iba_vm *vm, struct iba_conn *conn,
				const struct vtoe_cmd *cmd,
				struct vtoe_reply *reply);

enum sid_rule {
	SID_NONE,  /* must be 0 */
	SID_NEW,   /* not 0, no connection has it */
	SID_ANY,   /* not 0 */
	SID_KNOWN, /* conn is it */
};

struct cmd_row {
	uint16_t flags; /* that exist */
	enum sid_rule sid;
	cmd_fn *fn;
};

/* ---- addresses ---- */

/* An IPv4-mapped address is the IPv4 address. False: not one we carry. */
static bool take_addr(const struct vtoe_addr *in, struct vtoe_addr *out)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	static const uint8_t zero[12];

	memset(out, 0, sizeof(*out));
	if ((in->family != 4 && in->family != 6) || in->reserved)
		return false;
	out->family = in->family;
	out->port = in->port;
	if (in->family == 4) {
		if (memcmp(in->addr + 4, zero, sizeof(zero)))
			return false;
		memcpy(out->addr, in->addr, 4);
	} else if (!memcmp(in->addr, mapped, sizeof(mapped))) {
		out->family = 4;
		memcpy(out->addr, in->addr + 12, 4);
	} else {
		out->scope = in->scope;
		memcpy(out->addr, in->addr, 16);
	}
	return true;
}

/* ---- the session ---- */

static enum vtoe_reason do_hello(struct iba_vm *vm, struct iba_conn *conn,
				 const struct vtoe_cmd *cmd,
				 struct vtoe_reply *reply)
{
	const struct iba_config *cfg = vm->tenant->cfg;

	(void)conn;
	/* our version also when we refuse: the driver may come again with it */
	reply->u.hello.version = htole16(VTOE_VERSION);
	if (le16toh(cmd->u.hello.version) != VTOE_VERSION)
		return VTOE_REASON_VERSION;
	if (cmd->u.hello.reserved || cmd->u.hello.reserved1)
		return VTOE_REASON_PROTOCOL;
	/* a new driver, or the same one after an accident: nothing is left */
	iba_vm_reset_conns(vm, VTOE_REASON_PEER_GONE);
	vm->hello = true;
	vm->balloon = le16toh(cmd->flags) & VTOE_HELLO_F_BALLOON;
	if (vm->balloon) /* it may be a second HELLO */
		iba_fabric_verbs.forget_vm(vm);
	iba_tenant_ready(vm);
	iba_verbs_vm_ready(vm);
	reply->u.hello.fabrics = htole16(iba_config_fabrics(cfg));
	reply->u.hello.max_sockets = htole32(cfg->max_connections);
	reply->u.hello.features = htole64(VTOE_F_URGENT);
	reply->u.hello.max_pieces = htole16(iba_verbs_pieces(vm->tenant));
	if (log_ratelimited_ok(&vm->log_limit, 10, 10))
		log_info("vm %s: driver says hello%s", vm->name,
			 vm->balloon ? ", of a VM with a memory balloon" : "");
	return VTOE_REASON_NONE;
}

static enum vtoe_reason do_bye(struct iba_vm *vm, struct iba_conn *conn,
			       const struct vtoe_cmd *cmd,
			       struct vtoe_reply *reply)
{
	(void)conn;
	(void)cmd;
	(void)reply;
	iba_vm_reset_conns(vm, VTOE_REASON_PEER_GONE);
	iba_vm_return_buffers(vm);
	vm->hello = false;
	if (log_ratelimited_ok(&vm->log_limit, 10, 10))
		log_info("vm %s: driver says bye", vm->name);
	return VTOE_REASON_NONE;
}

/* ---- sockets ---- */

static enum vtoe_reason do_socket(struct iba_vm *vm, struct iba_conn *conn,
				  const struct vtoe_cmd *cmd,
				  struct vtoe_reply *reply)
{
	(void)reply;
	conn = iba_conn_create(vm, le32toh(cmd->sid));
	return conn ? VTOE_REASON_NONE : VTOE_REASON_LIMIT;
}

static enum vtoe_reason do_bind(struct iba_vm *vm, struct iba_conn *conn,
				const struct vtoe_cmd *cmd,
				struct vtoe_reply *reply)
{
	struct vtoe_addr local;

	(void)vm;
	(void)reply;
	if (conn->state != VTOE_CONN_IDLE)
		return VTOE_REASON_PROTOCOL;
	if (!take_addr(&cmd->u.bind.local, &local))
		return VTOE_REASON_ADDR_FAMILY;
	if (!local.port)
		return VTOE_REASON_PROTOCOL;
	conn->local = local;
	return VTOE_REASON_NONE;
}

/* Once more on a listener: another backlog. */
static enum vtoe_reason do_listen(struct iba_vm *vm, struct iba_conn *conn,
				  const struct vtoe_cmd *cmd,
				  struct vtoe_reply *reply)
{
	(void)vm;
	(void)reply;
	if (conn->state == VTOE_CONN_IDLE) {
		if (!conn->local.port)
			return VTOE_REASON_PROTOCOL;
		iba_conn_step(conn, VTOE_CONN_T_LISTEN);
		iba_listener_add(conn);
	} else if (conn->state != VTOE_CONN_LISTEN) {
		return VTOE_REASON_PROTOCOL;
	}
	iba_open_set_backlog(conn, le32toh(cmd->u.listen.backlog));
	return VTOE_REASON_NONE;
}

static enum vtoe_reason do_connect(struct iba_vm *vm, struct iba_conn *conn,
				   const struct vtoe_cmd *cmd,
				   struct vtoe_reply *reply)
{
	struct vtoe_addr local, remote;

	(void)vm;
	(void)reply;
	if (conn->state != VTOE_CONN_IDLE)
		return VTOE_REASON_PROTOCOL;
	if (!take_addr(&cmd->u.connect.local, &local) ||
	    !take_addr(&cmd->u.connect.remote, &remote) ||
	    local.family != remote.family)
		return VTOE_REASON_ADDR_FAMILY;
	if (!local.port || !remote.port || cmd->u.connect.reserved[0] ||
	    cmd->u.connect.reserved[1])
		return VTOE_REASON_PROTOCOL;
	conn->local = local;
	conn->remote = remote;
	memcpy(conn->remote_mac, cmd->u.connect.next_hop, VNET_MAC_LEN);
	iba_credit_get(&conn->rx_credit, &cmd->u.connect.credit);
	conn->rx_credit.ack = 0;
	iba_open_start(conn);
	return VTOE_REASON_NONE;
}

static enum vtoe_reason do_accept(struct iba_vm *vm, struct iba_conn *conn,
				  const struct vtoe_cmd *cmd,
				  struct vtoe_reply *reply)
{
	(void)conn;
	(void)reply;
	if (cmd->u.accept.reserved)
		return VTOE_REASON_PROTOCOL;
	return iba_open_accept(vm, le32toh(cmd->u.accept.cid),
			       le32toh(cmd->sid), &cmd->u.accept.credit);
}

static enum vtoe_reason do_reject(struct iba_vm *vm, struct iba_conn *conn,
				  const struct vtoe_cmd *cmd,
				  struct vtoe_reply *reply)
{
	uint32_t reason = le32toh(cmd->u.reject.reason);

	(void)conn;
	(void)reply;
	if (reason == VTOE_REASON_NONE || reason >= VTOE_REASON_COUNT)
		return VTOE_REASON_PROTOCOL;
	return iba_open_reject(vm, le32toh(cmd->u.reject.cid), reason);
}

static enum vtoe_reason do_shutdown(struct iba_vm *vm, struct iba_conn *conn,
				    const struct vtoe_cmd *cmd,
				    struct vtoe_reply *reply)
{
	uint64_t final = le64toh(cmd->u.shutdown.final_offset);

	(void)vm;
	(void)reply;
	if (conn->state == VTOE_CONN_ERROR)
		return VTOE_REASON_RESET; /* the event has crossed this */
	if (conn->state != VTOE_CONN_ESTABLISHED &&
	    conn->state != VTOE_CONN_REMOTE_FIN)
		return VTOE_REASON_PROTOCOL;
	if (final < conn->tx_offset) {
		iba_conn_fail(conn, VTOE_REASON_PROTOCOL, true);
		return VTOE_REASON_PROTOCOL;
	}
	conn->tx_final = final;
	iba_conn_step(conn, VTOE_CONN_T_LOCAL_FIN);
	/* else with the last of the data: send.c */
	if (conn->tx_offset == final) {
		conn->flags |= IBA_CONN_F_FIN_SENT;
		conn->fabric->send_fin(conn);
	}
	return VTOE_REASON_NONE;
}

static enum vtoe_reason do_close(struct iba_vm *vm, struct iba_conn *conn,
				 const struct vtoe_cmd *cmd,
				 struct vtoe_reply *reply)
{
	(void)vm;
	(void)reply;
	iba_conn_close(conn, VTOE_REASON_RESET,
		       le16toh(cmd->flags) & VTOE_CLOSE_F_ABORT);
	return VTOE_REASON_NONE;
}

static enum vtoe_reason do_info(struct iba_vm *vm, struct iba_conn *conn,
				const struct vtoe_cmd *cmd,
				struct vtoe_reply *reply)
{
	(void)vm;
	(void)cmd;
	reply->u.info.cid = htole32(conn->cid);
	reply->u.info.fabric = htole16(conn->fabric ? conn->fabric->id : 0);
	reply->u.info.state = htole16(conn->state);
	reply->u.info.tx_bytes = htole64(conn->tx_offset);
	reply->u.info.rx_bytes = htole64(conn->rx_offset);
	reply->u.info.tx_msgs = htole64(conn->tx_msgs[0] + conn->tx_msgs[1]);
	reply->u.info.rx_msgs = htole64(conn->rx_msgs[0] + conn->rx_msgs[1]);
	return VTOE_REASON_NONE;
}

static const struct cmd_row cmd_rows[] = {
	[VTOE_CMD_HELLO] = { VTOE_HELLO_F_BALLOON, SID_NONE, do_hello },
	[VTOE_CMD_SOCKET] = { 0, SID_NEW, do_socket },
	[VTOE_CMD_BIND] = { 0, SID_KNOWN, do_bind },
	[VTOE_CMD_LISTEN] = { 0, SID_KNOWN, do_listen },
	[VTOE_CMD_CONNECT] = { 0, SID_KNOWN, do_connect },
	[VTOE_CMD_ACCEPT] = { 0, SID_ANY, do_accept },
	[VTOE_CMD_REJECT] = { 0, SID_NONE, do_reject },
	[VTOE_CMD_SHUTDOWN] = { 0, SID_KNOWN, do_shutdown },
	[VTOE_CMD_CLOSE] = { VTOE_CLOSE_F_ABORT, SID_KNOWN, do_close },
	[VTOE_CMD_INFO] = { 0, SID_KNOWN, do_info },
	[VTOE_CMD_BYE] = { 0, SID_NONE, do_bye },
};
#define CMD_ROWS (sizeof(cmd_rows) / sizeof(cmd_rows[0]))

static enum vtoe_reason execute(struct iba_vm *vm, const struct vtoe_cmd *cmd,
				struct vtoe_reply *reply)
{
	uint16_t opcode = le16toh(cmd->opcode);
	uint32_t sid = le32toh(cmd->sid);
	const struct cmd_row *row;
	struct iba_conn *conn = NULL;

	if (opcode >= CMD_ROWS || !cmd_rows[opcode].fn)
		return VTOE_REASON_PROTOCOL;
	row = &cmd_rows[opcode];
	if (!vm->hello && opcode != VTOE_CMD_HELLO)
		return VTOE_REASON_PROTOCOL;
	if (le16toh(cmd->flags) & ~row->flags)
		return VTOE_REASON_PROTOCOL;
	/* REJECT has no use for a SID: whatever stands there is ignored */
	if (sid == 0 && row->sid != SID_NONE)
		return VTOE_REASON_PROTOCOL;
	if (row->sid == SID_KNOWN || row->sid == SID_NEW) {
		conn = iba_conn_by_sid(vm, sid);
		if (!conn != (row->sid == SID_NEW))
			return VTOE_REASON_PROTOCOL;
	}
	return row->fn(vm, conn, cmd, reply);
}

static void run_one(struct iba_vm *vm, const struct virtq_chain *chain)
{
	struct virtq *cr = &vm->queue[IBA_Q_CR].vq;
	struct vtoe_reply reply;
	struct vtoe_cmd cmd;
	uint32_t status;

	if (chain->out_bytes < sizeof(cmd) || chain->in_bytes < sizeof(reply)) {
		iba_vm_drop(vm, IBA_DROP_CMD_MALFORMED);
		virtq_push(cr, chain->head, 0);
		return;
	}
	virtq_copy_out(chain, 0, &cmd, sizeof(cmd));
	memset(&reply, 0, sizeof(reply));
	reply.sid = cmd.sid;
	status = execute(vm, &cmd, &reply);
	reply.status = htole32(status);
	vm->stats.cmds++;
	if (status) {
		vm->stats.cmd_errors++;
		log_debug("vm %s: command %u sid %#x: %s", vm->name,
			  le16toh(cmd.opcode), le32toh(cmd.sid),
			  vtoe_reason_name(status));
	}
	virtq_copy_in(chain, 0, &reply, sizeof(reply));
	virtq_push(cr, chain->head, sizeof(reply));
}

/*
 * The command overtakes nothing that was sent before it (vnet_vtoe.h): looked at
 * after the pop. False: it has to wait.
 */
static bool send_first(struct iba_vm *vm, struct iba_send_budget *budget)
{
	struct virtq *swq = &vm->queue[IBA_Q_SWQ].vq;

	if (!vm->cmd_waits)
		vm->cmd_mark = virtq_mark(swq);
	vm->cmd_waits = !iba_send_until(vm, vm->cmd_mark, budget);
	return !vm->cmd_waits;
}

bool iba_cmd_run(struct iba_vm *vm)
{
	struct iba_send_budget budget = { PASS_SEND_MESSAGES, PASS_SEND_BYTES };
	struct virtq *cr = &vm->queue[IBA_Q_CR].vq;
	/* not the tenant's: a command may use that (BYE) */
	struct virtq_chain *chain = &vm->tenant->chain_cmd;
	unsigned int done = 0;
	int ret = 0;

	if (!cr->running || !virtq_has_work(cr))
		return false;
	if (vm->cmd_waits && vm->tx_throttled)
		return false; /* until iba_slot_done() has made it ready */
	while (done < PASS_COMMANDS && !vm->fault) {
		ret = virtq_pop(cr, chain);
		if (ret <= 0)
			break;
		if (!done++)
			virtq_disable_kicks(cr);
		if (!send_first(vm, &budget)) {
			virtq_unpop(cr, chain);
			break;
		}
		run_one(vm, chain);
	}
	if (ret < 0)
		iba_vm_fault(vm, "command queue broken");
	if (done)
		iba_tenant_dirty(vm);
	return done > 0;
}
