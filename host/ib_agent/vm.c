// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * An attachment: one VM's memory and VTOE queues, as its shim hands them over.
 *
 * Theory of operation. The main process has read the HELLO and passed the
 * connection on; everything else of vnet_attach.h is served here. Memory comes
 * as file descriptors, is mapped, and a ring is started inside it with its
 * kick and call eventfds and its in-flight record. A queue that stops while the
 * driver is there will go on later, where its record says: the VM rests
 * (hold.c), its connections do not notice. End of file ends the attachment.
 *
 * References: the VM owns its fds, mappings, slots and connections. Fabrics
 * hold slots and receive buffers; pause_vm() or forget_vm() takes them back
 * before a mapping goes.
 *
 * Threat model: the shim may have been taken over by its guest, so a message is
 * checked by attach_recv(), and then here: no two queues of a kind, nothing
 * outside the memory table, sizes bounded. What is wrong closes this attachment
 * and nothing else. A doorbell or interrupt that makes us wait, as its maker can
 * have it do at any time, is interrupted (tenant.c) and ends the session. (A
 * descriptor whose file is truncated later makes an access fault, which ends this
 * tenant's process, and one of a file system that does not answer stops it; other
 * tenants do not share it.)
 */
#include "agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHIM_MESSAGES 64 /* of one, before others are looked at */

/* ---- answers ---- */

static int send_done(struct iba_vm *vm, const struct attach_msg *msg,
		     enum vtoe_reason status)
{
	struct vnet_attach_done done = { .status = htole32(status) };

	return attach_send(vm->fd, VNET_ATTACH_DONE, le32toh(msg->hdr.seq),
			   &done, NULL, 0);
}

static int send_hello_reply(const struct iba_config *cfg, int fd, uint32_t seq,
			    enum vtoe_reason status)
{
	struct vnet_attach_hello_reply reply = {
		.status = htole32(status),
		.version = htole16(VNET_ATTACH_VERSION),
		.fabrics = htole16(iba_config_fabrics(cfg)),
	};

	memcpy(reply.host, cfg->host, sizeof(reply.host));
	return attach_send(fd, VNET_ATTACH_HELLO_REPLY, seq, &reply, NULL, 0);
}

/* ---- queues ---- */

static bool any_running(const struct iba_vm *vm)
{
	for (int i = 0; i < IBA_Q_COUNT; i++)
		if (vm->queue[i].vq.running)
			return true;
	return false;
}

/* It made us wait: once is enough, also while its session ends. */
static void vm_blocks(struct iba_vm *vm)
{
	for (int i = 0; i < IBA_Q_COUNT; i++)
		virtq_set_call(&vm->queue[i].vq, -1);
	iba_vm_fault(vm, "a doorbell or interrupt of it blocks");
}

/* Shows what is used and interrupts the guest. False: see vm_blocks(). */
static bool notify(struct iba_queue *q)
{
	virtq_publish_notify(&q->vq);
	if (q->vq.blocked)
		vm_blocks(q->vm);
	return !q->vq.blocked;
}

static void queue_kicked(int fd, uint32_t events, void *ctx)
{
	struct iba_queue *q = ctx;

	(void)fd;
	if (q->vm->fault)
		return;
	if (!virtq_ack_kick(&q->vq)) {
		iba_vm_fault(q->vm, "a doorbell of it cannot be read");
		return;
	}
	if (q->vq.blocked) {
		vm_blocks(q->vm);
		return;
	}
	/* a pipe that nobody will ring any more would be ready for ever */
	if (events & (EPOLLHUP | EPOLLERR)) {
		loop_remove_fd(q->kick);
		q->kick = NULL;
	}
	iba_tenant_ready(q->vm);
	if (q == &q->vm->queue[IBA_Q_EQ])
		iba_tenant_dirty(q->vm);
}

static void return_kept(struct iba_queue *q)
{
	while (q->kept_count)
		virtq_push(&q->vq, q->kept[--q->kept_count], 0);
}

void iba_vm_keep(struct iba_vm *vm, unsigned int class, uint16_t head)
{
	struct iba_queue *q = &vm->queue[IBA_Q_RWQ + class];

	if (iba_hold_has(head)) {
		iba_hold_give_up(vm, head);
		return;
	}
	if (!q->kept)
		q->kept = calloc(q->vq.num, sizeof(*q->kept));
	/* more than the ring has: the guest gave one of them twice */
	if (q->kept && q->kept_count < q->vq.num) {
		q->kept[q->kept_count++] = head;
		return;
	}
	virtq_push(&q->vq, head, 0);
	iba_tenant_dirty(vm);
}

static void queue_stop(struct iba_queue *q)
{
	loop_remove_fd(q->kick);
	q->kick = NULL;
	if (q->vq.running) {
		if (q->vm->gone)
			return_kept(q);
		notify(q);
	}
	q->vm->cmd_waits = false;
	virtq_stop(&q->vq);
	if (q->inflight)
		munmap(q->inflight, VNET_INFLIGHT_STRIDE);
	q->inflight = NULL;
}

/* Which of our queues a QUEUE_START means; NULL: none. */
static struct iba_queue *queue_for(struct iba_vm *vm,
				   const struct vnet_attach_queue_start *start)
{
	switch (start->kind) {
	case VNET_QUEUE_CR:
		return start->index ? NULL : &vm->queue[IBA_Q_CR];
	case VNET_QUEUE_EQ:
		return start->index ? NULL : &vm->queue[IBA_Q_EQ];
	case VNET_QUEUE_SWQ:
		return start->index ? NULL : &vm->queue[IBA_Q_SWQ];
	case VNET_QUEUE_RWQ:
		return start->index < VNET_RWQ_CLASSES ?
			       &vm->queue[IBA_Q_RWQ + start->index] : NULL;
	default:
		return NULL;
	}
}

static void *map_inflight(int fd, uint64_t offset)
{
	struct stat st;
	void *map;

	if (fstat(fd, &st) < 0 || offset % VNET_INFLIGHT_STRIDE ||
	    offset > INT64_MAX - VNET_INFLIGHT_STRIDE ||
	    (uint64_t)st.st_size < offset + VNET_INFLIGHT_STRIDE)
		return NULL;
	map = mmap(NULL, VNET_INFLIGHT_STRIDE, PROT_READ | PROT_WRITE,
		   MAP_SHARED, fd, (off_t)offset);
	return map == MAP_FAILED ? NULL : map;
}

/*
 * An eventfd or a pipe; user-mode Linux takes its interrupts from a socket.
 * Another file may make us wait and then not say so by EINTR: a socket that is
 * read with a low-water mark, something on a network.
 */
static bool may_ring(int fd, bool socket_too)
{
	struct stat st;

	return fstat(fd, &st) == 0 &&
	       (S_ISFIFO(st.st_mode) || !(st.st_mode & S_IFMT) ||
		(socket_too && S_ISSOCK(st.st_mode)));
}

static int queue_start(struct iba_vm *vm, struct iba_queue *q,
		       const struct vnet_attach_queue_start *start)
{
	uint16_t flags = le16toh(start->flags);
	struct vnet_inflight *record = q->inflight;
	bool watched = q < &vm->queue[IBA_Q_RWQ];
	int ret;

	if (!record->version || le16toh(start->num) != q->vq.num) {
		free(q->kept); /* not the ring that they are of */
		q->kept = NULL;
		q->kept_count = 0;
	}
	ret = virtq_start(&q->vq, &vm->mem, le16toh(start->num),
			  le64toh(start->desc), le64toh(start->avail),
			  le64toh(start->used),
			  record->version ? le16toh(record->last_avail) : 0,
			  flags & VNET_QUEUE_F_EVENT_IDX,
			  flags & VNET_QUEUE_F_INDIRECT, record);
	if (ret < 0)
		return ret;
	q->number = le16toh(start->queue);
	if (q == &vm->queue[IBA_Q_SWQ]) {
		ret = iba_send_slots_create(vm);
		if (ret < 0)
			return ret;
	}
	/* buffers of the EQ and RWQ are taken when they are needed */
	if (q != &vm->queue[IBA_Q_CR] && q != &vm->queue[IBA_Q_SWQ])
		virtq_disable_kicks(&q->vq);
	if (!watched)
		return 0;
	q->kick = loop_add_fd(vm->tenant->loop, q->vq.kick_fd, EPOLLIN,
			      queue_kicked, q);
	if (!q->kick)
		return -errno;
	iba_tenant_ready(vm); /* it may have been kicked before */
	if (q == &vm->queue[IBA_Q_EQ])
		iba_tenant_dirty(vm);
	return 0;
}

static bool data_queues_run(const struct iba_vm *vm)
{
	for (int i = IBA_Q_SWQ; i < IBA_Q_COUNT; i++)
		if (!vm->queue[i].vq.running)
			return false;
	return true;
}

static void go_on(struct iba_vm *vm)
{
	vm->paused = false;
	iba_hold_release(vm);
	iba_tenant_ready(vm);
	iba_tenant_dirty(vm);
}

static int do_queue_start(struct iba_vm *vm, struct attach_msg *msg)
{
	const struct vnet_attach_queue_start *start = &msg->u.queue_start;
	struct iba_queue *q = queue_for(vm, start);

	if (!q || q->vq.running || q->inflight) {
		close_fds(msg->fds, msg->nfds);
		return -EPROTO;
	}
	virtq_set_kick(&q->vq, msg->fds[0]);
	virtq_set_call(&q->vq, msg->fds[1]);
	q->inflight = map_inflight(msg->fds[2], le64toh(start->inflight_offset));
	close(msg->fds[2]);
	if (!q->inflight || !may_ring(q->vq.kick_fd, false) ||
	    !may_ring(q->vq.call_fd, true) || queue_start(vm, q, start) < 0) {
		log_warn("vm %s: queue %u cannot be started", vm->name,
			 le16toh(start->queue));
		queue_stop(q);
		if (q == &vm->queue[IBA_Q_SWQ])
			iba_send_slots_destroy(vm);
		return send_done(vm, msg, VTOE_REASON_PROTOCOL);
	}
	log_debug("vm %s: queue %u started, kind %u, %u entries", vm->name,
		  q->number, start->kind, q->vq.num);
	/* what its other descriptor was told, if it had one, the guest was not:
	 * QEMU looks at its own until it has changed them all */
	virtq_call(&q->vq);
	if (q->vq.blocked)
		vm_blocks(vm);
	if (vm->paused && data_queues_run(vm))
		go_on(vm);
	return send_done(vm, msg, VTOE_REASON_NONE);
}

static const struct iba_fabric *const fabrics[] = {
	&iba_fabric_tcp, &iba_fabric_local, &iba_fabric_verbs,
};
#define FABRICS (sizeof(fabrics) / sizeof(fabrics[0]))

/* After this no fabric refers to the VM's rings. Its connections have ended. */
static void leave_rings(struct iba_vm *vm)
{
	for (unsigned int i = 0; i < FABRICS; i++)
		fabrics[i]->forget_vm(vm);
}

/* The open ones of a fabric fail, the guest will be told; listeners stay. */
static void fail_conns(struct iba_vm *vm, const struct iba_fabric *fabric)
{
	struct iba_conn_set done = LIST_HEAD_INITIALIZER(done);
	struct iba_conn *conn;

	/* one that fails may vanish, and so may its mate in the same VM */
	while ((conn = LIST_FIRST(&vm->conns))) {
		LIST_REMOVE(conn, vm_link);
		LIST_INSERT_HEAD(&done, conn, vm_link);
		if (conn->fabric == fabric)
			iba_conn_fail(conn, VTOE_REASON_REMOVED, true);
	}
	while ((conn = LIST_FIRST(&done))) {
		LIST_REMOVE(conn, vm_link);
		LIST_INSERT_HEAD(&vm->conns, conn, vm_link);
	}
}

/* After this no fabric refers to the VM's memory, but its connections live. */
static void pause_rings(struct iba_vm *vm)
{
	vm->paused = true;
	for (unsigned int i = 0; i < FABRICS; i++) {
		if (fabrics[i]->pause_vm) {
			fabrics[i]->pause_vm(vm);
			continue;
		}
		fail_conns(vm, fabrics[i]);
		fabrics[i]->forget_vm(vm);
	}
}

/*
 * A driver that was reset says HELLO again, or its shim attaches anew; one whose
 * machine was only paused does not, and finds everything as it was.
 */
static void stop_queue(struct iba_vm *vm, struct iba_queue *q)
{
	if (q == &vm->queue[IBA_Q_SWQ] || q >= &vm->queue[IBA_Q_RWQ])
		pause_rings(vm);
	queue_stop(q);
	if (q == &vm->queue[IBA_Q_SWQ])
		iba_send_slots_destroy(vm);
}

static int do_queue_stop(struct iba_vm *vm, struct attach_msg *msg)
{
	uint16_t number = le16toh(msg->u.queue_stop.queue);

	for (int i = 0; i < IBA_Q_COUNT; i++) {
		struct iba_queue *q = &vm->queue[i];

		if (!q->vq.running || q->number != number)
			continue;
		stop_queue(vm, q);
		log_debug("vm %s: queue %u stopped", vm->name, number);
		break;
	}
	/* one that does not run is stopped */
	return send_done(vm, msg, VTOE_REASON_NONE);
}

/* ---- memory ---- */

static int do_mem_table(struct iba_vm *vm, struct attach_msg *msg)
{
	const struct vnet_attach_mem_table *table = &msg->u.mem_table;
	uint32_t count = le32toh(table->count);
	enum vtoe_reason status = VTOE_REASON_NONE;

	if (any_running(vm)) {
		close_fds(msg->fds, msg->nfds);
		return -EPROTO;
	}
	guest_mem_clear(&vm->mem);
	for (uint32_t i = 0; i < count; i++) {
		const struct vnet_attach_region *region = &table->region[i];
		int ret;

		ret = guest_mem_add(&vm->mem, le64toh(region->gpa),
				    le64toh(region->size), 0,
				    le64toh(region->mmap_offset), msg->fds[i]);
		if (ret < 0) {
			log_warn("vm %s: memory region %u: %s", vm->name, i,
				 strerror(-ret));
			close_fds(&msg->fds[i + 1], count - i - 1);
			guest_mem_clear(&vm->mem);
			status = VTOE_REASON_PROTOCOL;
			break;
		}
	}
	return send_done(vm, msg, status);
}

/* ---- routes ---- */

static int do_resolve_reply(struct iba_vm *vm, struct attach_msg *msg)
{
	return iba_route_answer(vm, le32toh(msg->hdr.seq),
				&msg->u.resolve_reply);
}

static int do_route_changed(struct iba_vm *vm, struct attach_msg *msg)
{
	(void)msg;
	iba_routes_changed(vm);
	return 0;
}

/* ---- messages ---- */

/* The handler owns the message's fds. 0, or -errno: close the attachment. */
typedef int attach_fn(struct iba_vm *vm, struct attach_msg *msg);

static attach_fn *const attach_handlers[] = {
	[VNET_ATTACH_MEM_TABLE] = do_mem_table,
	[VNET_ATTACH_QUEUE_START] = do_queue_start,
	[VNET_ATTACH_QUEUE_STOP] = do_queue_stop,
	[VNET_ATTACH_RESOLVE_REPLY] = do_resolve_reply,
	[VNET_ATTACH_ROUTE_CHANGED] = do_route_changed,
};
#define ATTACH_HANDLERS (sizeof(attach_handlers) / sizeof(attach_handlers[0]))

static void shim_readable(int fd, uint32_t events, void *ctx)
{
	struct iba_vm *vm = ctx;
	struct attach_msg msg;
	uint16_t type;
	int ret;

	(void)events;
	for (int i = 0; i < SHIM_MESSAGES && !vm->fault; i++) {
		ret = attach_recv(fd, &msg);
		if (ret == -EAGAIN)
			return;
		if (ret <= 0) {
			if (ret < 0)
				log_warn("vm %s: shim: %s", vm->name,
					 strerror(-ret));
			iba_vm_fault(vm, "detached");
			return;
		}
		type = le16toh(msg.hdr.type);
		if (type >= ATTACH_HANDLERS || !attach_handlers[type]) {
			close_fds(msg.fds, msg.nfds);
			ret = -EPROTO;
		} else {
			ret = attach_handlers[type](vm, &msg);
		}
		if (ret < 0) {
			log_warn("vm %s: attach message %u: %s", vm->name, type,
				 strerror(-ret));
			iba_vm_fault(vm, "bad message from the shim");
		}
	}
}

/* ---- birth and death ---- */

static bool sizes_ok(const struct vnet_attach_hello *hello)
{
	uint32_t small = le32toh(hello->rwq_buf_size[VNET_RWQ_SMALL]);
	uint32_t large = le32toh(hello->rwq_buf_size[VNET_RWQ_LARGE]);

	return small && small <= large && large <= VTOE_MSG_LEN_MAX;
}

static struct iba_vm *vm_create(struct iba_tenant *t, int fd,
				const struct vnet_attach_hello *hello)
{
	struct iba_vm *vm = calloc(1, sizeof(*vm));

	if (!vm)
		return NULL;
	vm->tenant = t;
	vm->fd = fd;
	memcpy(vm->name, hello->vm, sizeof(vm->name));
	memcpy(vm->mac, hello->mac, sizeof(vm->mac));
	for (int i = 0; i < VNET_RWQ_CLASSES; i++)
		vm->rwq_buf_size[i] = le32toh(hello->rwq_buf_size[i]);
	guest_mem_init(&vm->mem);
	for (int i = 0; i < IBA_Q_COUNT; i++) {
		vm->queue[i].vm = vm;
		virtq_init(&vm->queue[i].vq);
	}
	TAILQ_INIT(&vm->events);
	TAILQ_INIT(&vm->held);
	for (int i = 0; i < IBA_LISTEN_HASH; i++)
		TAILQ_INIT(&vm->listen[i]);
	if (iba_routes_init(vm) == 0)
		vm->source = loop_add_fd(t->loop, fd, EPOLLIN, shim_readable,
					 vm);
	if (!vm->source) {
		free(vm);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&t->vms, vm, link);
	if (!t->vm_count++)
		iba_tenant_watchdog(true);
	return vm;
}

/* Takes fd. */
void iba_vm_attach(struct iba_tenant *t, int fd, uint32_t seq,
		   const struct vnet_attach_hello *hello)
{
	struct iba_vm *old = iba_tenant_vm_by_mac(t, hello->mac);
	enum vtoe_reason refuse = VTOE_REASON_NONE;

	if (old) { /* its shim has come again before we saw the end of file */
		log_warn("vm %s: attaches again, the old session ends",
			 old->name);
		iba_vm_fault(old, "replaced");
	}
	if (!sizes_ok(hello))
		refuse = VTOE_REASON_PROTOCOL;
	else if (!vm_create(t, fd, hello))
		refuse = VTOE_REASON_LIMIT;
	send_hello_reply(t->cfg, fd, seq, refuse);
	if (refuse) {
		log_warn("vm %s: refused: %s", hello->vm,
			 vtoe_reason_name(refuse));
		close(fd);
		return;
	}
	log_info("vm %s: attached, tenant %u, mac %02x:%02x:%02x:%02x:%02x:%02x",
		 hello->vm, t->id, hello->mac[0], hello->mac[1], hello->mac[2],
		 hello->mac[3], hello->mac[4], hello->mac[5]);
}

void iba_vm_fault(struct iba_vm *vm, const char *why)
{
	if (vm->fault)
		return;
	vm->fault = true;
	log_info("vm %s: session ends: %s", vm->name, why);
	iba_tenant_dirty(vm);
}

void iba_vm_destroy(struct iba_vm *vm)
{
	struct iba_tenant *t = vm->tenant;
	struct iba_conn *conn;

	vm->gone = true;
	vm->hello = false;
	iba_vm_reset_conns(vm, VTOE_REASON_PEER_GONE);
	leave_rings(vm);
	iba_hold_free(vm);
	TAILQ_FOREACH(conn, &t->orphans, time_link)
		if (conn->vm == vm)
			conn->vm = NULL;
	for (int i = 0; i < IBA_Q_COUNT; i++)
		if (vm->queue[i].vq.blocked) /* found by virtq_pop() */
			vm_blocks(vm);
	for (int i = 0; i < IBA_Q_COUNT; i++)
		queue_stop(&vm->queue[i]);
	for (int i = 0; i < IBA_Q_COUNT; i++)
		free(vm->queue[i].kept);
	iba_send_slots_destroy(vm);
	guest_mem_clear(&vm->mem);
	iba_routes_free(vm);
	for (size_t i = 0; i < sizeof(vm->sid) / sizeof(vm->sid[0]); i++)
		free(vm->sid[i]);
	if (vm->ready)
		TAILQ_REMOVE(&t->ready, vm, ready_link);
	if (vm->dirty)
		TAILQ_REMOVE(&t->dirty, vm, dirty_link);
	TAILQ_REMOVE(&t->vms, vm, link);
	if (!--t->vm_count)
		iba_tenant_watchdog(false);
	loop_remove_fd(vm->source);
	close(vm->fd);
	free(vm);
}

void iba_vm_reset_conns(struct iba_vm *vm, enum vtoe_reason reason)
{
	struct iba_conn *conn;

	while ((conn = LIST_FIRST(&vm->conns)))
		iba_conn_close(conn, reason, true);
}

/* ---- what the guest sees ---- */

static void return_all(struct iba_vm *vm, struct iba_queue *q)
{
	struct virtq_chain *chain = &vm->tenant->chain;
	struct virtq *vq = &q->vq;
	uint16_t mark = virtq_mark(vq);

	if (!vq->running)
		return;
	return_kept(q);
	/* no more than is there now, however fast the guest posts */
	while (virtq_before(vq, mark)) {
		if (virtq_pop(vq, chain) > 0)
			virtq_push(vq, chain->head, 0);
		/* none: it passed malformed ones, which are back as well, or the
		 * guest took its index back */
		else if (!virtq_has_work(vq))
			break;
	}
	notify(q);
}

void iba_vm_return_buffers(struct iba_vm *vm)
{
	leave_rings(vm);
	for (int i = IBA_Q_EQ; i < IBA_Q_COUNT; i++)
		return_all(vm, &vm->queue[i]);
}

/*
 * Data is visible before the events that follow it; the event queue rings
 * first, since a connection's ESTABLISHED is what the data needs.
 */
void iba_vm_publish(struct iba_vm *vm)
{
	for (int i = IBA_Q_RWQ; i < IBA_Q_COUNT; i++)
		if (vm->queue[i].vq.running)
			virtq_publish(&vm->queue[i].vq);
	iba_event_flush(vm);
	for (int i = 0; i < IBA_Q_COUNT; i++)
		if (vm->queue[i].vq.running && !notify(&vm->queue[i]))
			return;
}
