// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The attachment, with an agent played by this test: hand-over of queues and
 * memory, resolution, loss and recovery, suspension, an agent that hangs or
 * talks nonsense.
 */
#include "shim_rig.h"
#include "unix_msg.h"

#define QUEUES 5 /* CR EQ SWQ RWQ0 RWQ1 */

static struct vm vm;
static char agent_path[96];
static int listener = -1, agent = -1;

static const char body[] =
	"tenant 77\nmtu 9000\nencap vxlan\nagent %s\nrwq 2048 32768\n"
	"link one udp local 127.0.0.1:21020 remote 127.0.0.1:21021 agent 10.1.2.3:4711\n"
	"link two udp local 127.0.0.1:21020 remote 127.0.0.1:21022\n"
	"%s";
static const char routes[] =
	"route dst 52:54:00:4e:50:02 link one\n"
	"route dst 52:54:00:4e:50:03 link two\n"
	"route dst any link one\nroute dst any link two\n";

static void agent_listen(void)
{
	listener = unix_listen(agent_path, SOCK_SEQPACKET);
	if (listener < 0)
		bail_out("agent's socket");
}

static bool agent_accept(void)
{
	return wait_until((agent = accept4(listener, NULL, NULL,
					   SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
}

static void agent_close(void)
{
	close(agent);
	agent = -1;
}

/* The next message, which must be of this type. */
static bool expect(struct attach_msg *msg, unsigned int type)
{
	int ret = -1;

	if (!wait_until((ret = attach_recv(agent, msg)) != -EAGAIN))
		ret = -ETIMEDOUT;
	if (ret == 1 && le16toh(msg->hdr.type) == type)
		return true;
	note("expected message %u, got %d type %u", type, ret,
	     ret == 1 ? le16toh(msg->hdr.type) : 0);
	return false;
}

static bool done(const struct attach_msg *msg, uint32_t status)
{
	struct vnet_attach_done d = { .status = htole32(status) };

	return attach_send(agent, VNET_ATTACH_DONE, le32toh(msg->hdr.seq), &d,
			   NULL, 0) == 0;
}

static bool reply_hello(const struct attach_msg *msg, uint32_t status)
{
	struct vnet_attach_hello_reply r = {
		.status = htole32(status), .version = htole16(1),
		.fabrics = htole16(1 << VTOE_FABRIC_TCP), .host = "h1",
	};

	return attach_send(agent, VNET_ATTACH_HELLO_REPLY, le32toh(msg->hdr.seq),
			   &r, NULL, 0) == 0;
}

/* What the agent was given. */
static struct guest_mem mem;
static struct vnet_inflight *records;
static struct virtq vq[QUEUES];

static bool take_mem(void)
{
	struct attach_msg msg;
	const struct vnet_attach_region *r = msg.u.mem_table.region;

	if (!expect(&msg, VNET_ATTACH_MEM_TABLE) ||
	    le32toh(msg.u.mem_table.count) != 1)
		return false;
	guest_mem_init(&mem);
	return guest_mem_add(&mem, le64toh(r->gpa), le64toh(r->size), 0,
			     le64toh(r->mmap_offset), msg.fds[0]) == 0 &&
	       done(&msg, VTOE_REASON_NONE);
}

static bool take_queue(unsigned int i)
{
	static const struct { uint8_t kind, index; } want[QUEUES] = {
		{ VNET_QUEUE_CR, 0 },  { VNET_QUEUE_EQ, 0 },
		{ VNET_QUEUE_SWQ, 0 }, { VNET_QUEUE_RWQ, 0 },
		{ VNET_QUEUE_RWQ, 1 },
	};
	struct attach_msg msg;
	const struct vnet_attach_queue_start *s = &msg.u.queue_start;
	const size_t size = QUEUES * VNET_INFLIGHT_STRIDE;

	if (!expect(&msg, VNET_ATTACH_QUEUE_START) ||
	    le16toh(s->queue) != 3 + i || s->kind != want[i].kind ||
	    s->index != want[i].index || le16toh(s->num) != RIG_RING ||
	    le16toh(s->flags) != (VNET_QUEUE_F_EVENT_IDX | VNET_QUEUE_F_INDIRECT) ||
	    le64toh(s->inflight_offset) != i * VNET_INFLIGHT_STRIDE)
		return false;
	if (!records)
		records = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
			       msg.fds[2], 0);
	close(msg.fds[2]);
	virtq_init(&vq[i]);
	virtq_set_kick(&vq[i], msg.fds[0]);
	virtq_set_call(&vq[i], msg.fds[1]);
	return virtq_start(&vq[i], &mem, le16toh(s->num), le64toh(s->desc),
			   le64toh(s->avail), le64toh(s->used),
			   le16toh(records[i].last_avail), true, true,
			   &records[i]) == 0 &&
	       done(&msg, VTOE_REASON_NONE);
}

static bool take_all(void)
{
	unsigned int i;

	if (!take_mem())
		return false;
	for (i = 0; i < QUEUES; i++)
		if (!take_queue(i))
			return false;
	return true;
}

static void drop_all(void)
{
	unsigned int i;

	for (i = 0; i < QUEUES; i++)
		virtq_stop(&vq[i]);
	guest_mem_clear(&mem);
	if (records)
		munmap(records, QUEUES * VNET_INFLIGHT_STRIDE);
	records = NULL;
}

static bool give_back(void)
{
	struct attach_msg msg;
	unsigned int i;

	for (i = 0; i < QUEUES; i++)
		if (!expect(&msg, VNET_ATTACH_QUEUE_STOP) ||
		    le16toh(msg.u.queue_stop.queue) != 3 + i ||
		    !done(&msg, VTOE_REASON_NONE))
			return false;
	if (!expect(&msg, VNET_ATTACH_MEM_TABLE) ||
	    le32toh(msg.u.mem_table.count) != 0)
		return false;
	drop_all();
	return done(&msg, VTOE_REASON_NONE);
}

static bool attach(void)
{
	struct attach_msg msg;

	return agent_accept() && expect(&msg, VNET_ATTACH_HELLO) &&
	       reply_hello(&msg, VTOE_REASON_NONE) && take_all();
}

static bool state_is(uint8_t state, uint32_t epoch)
{
	struct vnet_vendor_block b;

	return vm_block(&vm, &b) && b.vtoe_state == state &&
	       le32toh(b.vtoe_epoch) == epoch;
}

/* In a child, since the front end waits for the shim, and the shim for us. */
static pid_t in_background(bool (*fn)(void))
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0)
		_exit(fn() ? 0 : 1);
	return pid;
}

static bool ended_well(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && status == 0;
}

/* ---- tests ---- */

static void hello(void)
{
	struct attach_msg msg;
	const struct vnet_attach_hello *h = &msg.u.hello;
	struct vnet_vendor_block b;

	ok(vm_connect(&vm, PV_FEATURES, 7), "all queues but one");
	vm_block(&vm, &b);
	ok(b.vtoe_state == VNET_VTOE_DOWN && le16toh(b.vtoe_first_queue) == 3 &&
		   le16toh(b.vtoe_swq_count) == 1 && le16toh(b.vtoe_rwq_count) == 2 &&
		   le32toh(b.rwq_buf_size[0]) == 2048 &&
		   le32toh(b.rwq_buf_size[1]) == 32768,
	   "the vendor block shows the queues, and that they are down");
	ok(poll(&(struct pollfd){ .fd = listener, .events = POLLIN }, 1, 150) == 0,
	   "no attachment before the last queue");
	vm.queues = 8;
	ok(ring_driver_create(&vm.q[7], &vm.mem, RIG_RING, true) == 0 &&
		   vm_queue_base(&vm, 7, 0),
	   "the last queue");
	ok(agent_accept() && expect(&msg, VNET_ATTACH_HELLO), "HELLO");
	ok(le16toh(h->version) == 1 && le32toh(h->tenant) == 77 &&
		   !memcmp(h->mac, vm.mac, 6) && !strcmp(h->vm, "vm") &&
		   le32toh(h->rwq_buf_size[0]) == 2048 &&
		   le32toh(h->rwq_buf_size[1]) == 32768,
	   "it says whose it is");
	ok(reply_hello(&msg, VTOE_REASON_NONE) && take_all(),
	   "memory and five queues are handed over");
	ok(wait_until(state_is(VNET_VTOE_UP, 1)), "state up, epoch 1");
	ok(vm_config_changes(&vm) >= 1, "the guest was told");
}

/* The guest rings, the agent answers, the shim sees nothing of it. */
static void commands(void)
{
	struct buf *cmd = buf_new(&vm, 96), *reply = buf_new(&vm, 48);
	const struct ring_piece pieces[] = { { cmd->gpa, 96 }, { reply->gpa, 48 } };
	static struct virtq_chain chain;
	uint32_t len;

	ring_driver_ack_call(&vm.q[3]);
	ring_driver_add(&vm.q[3], pieces, 1, 1, cmd, 0);
	ring_driver_kick(&vm.q[3]);
	ok(wait_until(virtq_pop(&vq[0], &chain) == 1) && chain.out_bytes == 96,
	   "a command reaches the agent");
	virtq_push(&vq[0], chain.head, 48);
	virtq_publish_notify(&vq[0]);
	ok(ring_driver_get_used(&vm.q[3], &len) == cmd && len == 48 &&
		   ring_driver_ack_call(&vm.q[3]) == 1,
	   "and its answer the guest");
	free(cmd);
	free(reply);
}

static void resolve_one(const uint8_t *mac, uint32_t status, const uint8_t *addr,
			uint16_t port, const char *name)
{
	struct vnet_attach_resolve q = { 0 };
	struct attach_msg msg;
	const struct vnet_attach_resolve_reply *r = &msg.u.resolve_reply;

	memcpy(q.mac, mac, 6);
	attach_send(agent, VNET_ATTACH_RESOLVE, 4242, &q, NULL, 0);
	ok(expect(&msg, VNET_ATTACH_RESOLVE_REPLY) &&
		   le32toh(msg.hdr.seq) == 4242 && le32toh(r->status) == status &&
		   (status || (r->agent.family == 4 &&
			       !memcmp(r->agent.addr, addr, 4) &&
			       be16toh(r->agent.port) == port)),
	   "%s", name);
}

static void resolving(void)
{
	static const uint8_t one[] = { 0x52, 0x54, 0, 0x4e, 0x50, 2 };
	static const uint8_t two[] = { 0x52, 0x54, 0, 0x4e, 0x50, 3 };
	static const uint8_t unknown[] = { 0x52, 0x54, 0, 0x4e, 0x50, 4 };
	struct attach_msg msg;
	char text[1024];

	resolve_one(one, VTOE_REASON_NONE, (uint8_t[]){ 10, 1, 2, 3 }, 4711,
		    "the agent that the link names");
	resolve_one(two, VTOE_REASON_NONE, (uint8_t[]){ 127, 0, 0, 1 }, 7470,
		    "the remote's address and the default port");
	resolve_one(unknown, VTOE_REASON_NO_ROUTE, NULL, 0,
		    "a station that several links may lead to");
	snprintf(text, sizeof(text), body, agent_path,
		 "route dst 52:54:00:4e:50:02 link two\n");
	vm_config(&vm, text);
	kill(vm.pid, SIGHUP);
	ok(expect(&msg, VNET_ATTACH_ROUTE_CHANGED), "routes changed");
	resolve_one(one, VTOE_REASON_NONE, (uint8_t[]){ 127, 0, 0, 1 }, 7470,
		    "and so did the answer");
	resolve_one(two, VTOE_REASON_NO_ROUTE, NULL, 0, "a route that is gone");
}

/* Posts n event buffers. */
static void post_events(unsigned int n)
{
	while (n--) {
		struct buf *b = buf_new(&vm, sizeof(struct vtoe_event));
		const struct ring_piece p = { b->gpa, b->len };

		ring_driver_add(&vm.q[4], &p, 0, 1, b, 0);
	}
	ring_driver_kick(&vm.q[4]);
}

/* All buffers of a queue; how many had a DEVICE_REMOVAL. */
static unsigned int returned(unsigned int q, unsigned int *removals)
{
	unsigned int n = 0;
	struct buf *b;
	uint32_t len;

	while ((b = ring_driver_get_used(&vm.q[q], &len))) {
		const struct vtoe_event *ev = ring_memory_at(&vm.mem, b->gpa);

		if (len == sizeof(*ev) &&
		    le16toh(ev->type) == VTOE_EV_DEVICE_REMOVAL)
			++*removals;
		else if (len)
			note("queue %u: a buffer of %u bytes", q, len);
		free(b);
		n++;
	}
	return n;
}

/* The agent dies with buffers taken, one of them half returned. */
static void agent_dies(void)
{
	static struct virtq_chain chain[3];
	struct buf *b = buf_new(&vm, 100);
	const struct ring_piece piece = { b->gpa, 100 };
	unsigned int removals = 0, n = 0, i;

	post_events(5);
	for (i = 0; i < 3; i++)
		virtq_pop(&vq[1], &chain[i]);
	/* visible to the guest, but not yet written down */
	virtq_push(&vq[1], chain[1].head, 0);
	records[1].taken[chain[1].head] = 1;
	__atomic_store_n(&vq[1].used->idx, htole16(vq[1].used_idx),
			 __ATOMIC_RELEASE);
	ring_driver_add(&vm.q[5], &piece, 1, 0, b, 0);
	ring_driver_kick(&vm.q[5]);
	agent_close();
	drop_all();
	ok(wait_until(state_is(VNET_VTOE_DOWN, 1)), "agent dies: state down");
	ok(wait_until((n += returned(4, &removals)) >= 5), "its event buffers are back");
	is_int(n, 5, "each once");
	is_int(removals, 1, "one of them says DEVICE_REMOVAL");
	ok(ring_driver_ack_call(&vm.q[4]) > 0, "with an interrupt");
	n = 0;
	ok(wait_until((n += returned(5, &removals)) >= 1), "a message to be sent is back");
	ok(vm_config_changes(&vm) >= 1, "the guest was told");
	/* what is posted while there is no agent comes back */
	post_events(2);
	n = 0;
	ok(wait_until((n += returned(4, &removals)) >= 2),
	   "buffers posted while it is down come back");
}

static void agent_returns(void)
{
	static struct virtq_chain chain;

	ok(attach(), "a new agent is found and given everything");
	ok(wait_until(state_is(VNET_VTOE_UP, 2)), "state up, epoch 2");
	post_events(1);
	ok(wait_until(virtq_pop(&vq[1], &chain) == 1), "and the rings go on");
	vm_config_changes(&vm);
}

/* As QEMU stops a VM; where its rings stand. */
static bool stop_queues(uint16_t base[QUEUES])
{
	struct vu_vring_state s;
	bool good = true;
	unsigned int i;

	for (i = 0; i < QUEUES; i++) {
		s = (struct vu_vring_state){ 3 + i, 0 };
		good &= vu_send(vm.sock, VU_GET_VRING_BASE, VU_VERSION, &s,
				sizeof(s), NULL, 0) == 0 &&
			vu_recv(vm.sock, VU_GET_VRING_BASE, &s, sizeof(s)) == 8 &&
			s.index == 3 + i;
		base[i] = s.num;
	}
	return good;
}

/* Stop and continue: the guest notices nothing. */
static void suspended(void)
{
	uint16_t base[QUEUES] = { 0 };
	pid_t pid = in_background(give_back);
	bool good = stop_queues(base);
	unsigned int i;

	ok(good && ended_well(pid), "stop: the agent gives all back first");
	is_int(base[1], le16toh(records[1].last_avail),
	       "the front end hears where the ring stands");
	drop_all();
	ok(state_is(VNET_VTOE_UP, 2), "the guest sees nothing");
	for (i = 0; i < QUEUES; i++)
		good &= vm_queue_base(&vm, 3 + i, base[i]);
	ok(good && take_all(), "continue: the same agent gets all again");
	ok(vm_stat(&vm, "agent_attaches") == 3 && state_is(VNET_VTOE_UP, 2) &&
		   vm_config_changes(&vm) == 0,
	   "same epoch, no message to the guest");
}

/* Memory hot-plug, and an interrupt that moves. */
static void replaced(void)
{
	pid_t pid = in_background(give_back);

	ok(vm_memory(&vm) && ended_well(pid),
	   "a new memory table: queues are taken back before");
	drop_all();
	ok(take_all(), "and handed out again");
	ok(wait_until(vm_stat(&vm, "agent_attaches") == 4), "it is up again");
	pid = in_background(give_back);
	ok(vu_fd(vm.sock, VU_SET_VRING_CALL, 4, vm.q[4].call_fd) == 0 &&
		   ended_well(pid),
	   "a new call descriptor: the same");
	drop_all();
	ok(take_all(), "and handed out again");
	ok(wait_until(vm_stat(&vm, "agent_attaches") == 5) &&
		   state_is(VNET_VTOE_UP, 2) && vm_config_changes(&vm) == 0,
	   "the guest saw nothing of either");
}

/* The driver is loaded anew: as virtio_uml, which only disables. */
static void driver_reloads(void)
{
	static struct virtq_chain chain;
	unsigned int i;
	bool good = true;
	pid_t pid = in_background(give_back);

	for (i = 0; i < QUEUES; i++)
		good &= vu_state(vm.sock, VU_SET_VRING_ENABLE, 3 + i, 0) == 0;
	ok(good && ended_well(pid) && state_is(VNET_VTOE_UP, 2), "driver unloads");
	drop_all();
	ok(vu_u64(vm.sock, VU_SET_FEATURES,
		  vm.features | VNET_BIT_MASK(VU_F_PROTOCOL_FEATURES_BIT)) == 0 &&
		   state_is(VNET_VTOE_DOWN, 2),
	   "the next one negotiates: state down before it looks");
	for (i = 0; i < QUEUES; i++) {
		unsigned int k;

		for (k = 0; k < RIG_RING; k++)
			free(vm.q[3 + i].cookie[k]);
		ring_driver_destroy(&vm.q[3 + i]);
		ring_driver_create(&vm.q[3 + i], &vm.mem, RIG_RING, true);
	}
	agent_close();
	for (i = 0; i < QUEUES; i++)
		good &= vm_queue_base(&vm, 3 + i, 0);
	ok(good && attach(), "a new attachment");
	ok(wait_until(state_is(VNET_VTOE_UP, 3)), "of a new epoch");
	post_events(1);
	ok(wait_until(virtq_pop(&vq[1], &chain) == 1), "that works");
}

/* The same under QEMU, which always asks where a ring stands: a ring that then
 * begins elsewhere is a new one. */
static void device_reset(void)
{
	uint16_t base[QUEUES];
	pid_t pid = in_background(give_back);
	bool good = stop_queues(base);
	unsigned int i, k;

	ok(good && ended_well(pid) && vu_u64(vm.sock, VU_SET_FEATURES, vm.features |
			VNET_BIT_MASK(VU_F_PROTOCOL_FEATURES_BIT)) == 0 &&
		   state_is(VNET_VTOE_UP, 3),
	   "stopped, and it may go on");
	drop_all();
	for (i = 0; i < QUEUES; i++) {
		for (k = 0; k < RIG_RING; k++)
			free(vm.q[3 + i].cookie[k]);
		ring_driver_destroy(&vm.q[3 + i]);
		ring_driver_create(&vm.q[3 + i], &vm.mem, RIG_RING, true);
	}
	good = vm_queue_base(&vm, 3, 0) && vm_queue_base(&vm, 4, 0);
	ok(good && state_is(VNET_VTOE_DOWN, 3),
	   "but its rings begin at 0: state down before they run");
	agent_close();
	for (i = 2; i < QUEUES; i++)
		good &= vm_queue_base(&vm, 3 + i, 0);
	ok(good && attach(), "a new attachment");
	ok(wait_until(state_is(VNET_VTOE_UP, 4)), "of a new epoch");
}

static int set_logging(bool on)
{
	return vu_u64(vm.sock, VU_SET_FEATURES,
		      vm.features | VNET_BIT_MASK(VU_F_PROTOCOL_FEATURES_BIT) |
			      (on ? VNET_BIT_MASK(VU_F_LOG_ALL_BIT) : 0));
}

/* The VM migrates, in vain: an agent has no log, so it has no queues either. */
static void migrating(void)
{
	const struct vu_log log = { 1 << 20, 0 };
	unsigned int removals = 0, n = 0;
	uint64_t answer = 1;
	pid_t pid;
	int fd = memfd_create("log", MFD_CLOEXEC);

	ok(fd >= 0 && ftruncate(fd, log.mmap_size) == 0 &&
		   vu_send(vm.sock, VU_SET_LOG_BASE, VU_VERSION, &log,
			   sizeof(log), &fd, 1) == 0 &&
		   vu_recv(vm.sock, VU_SET_LOG_BASE, &answer, 8) == 8 && !answer,
	   "a log of written pages");
	post_events(2);
	pid = in_background(give_back);
	ok(set_logging(true) == 0 && ended_well(pid),
	   "it is on: the agent gives all back first");
	drop_all();
	agent_close();
	ok(state_is(VNET_VTOE_DOWN, 4), "state down");
	ok(wait_until((n += returned(4, &removals)) >= 2) && removals == 1,
	   "the event buffers are back, one says DEVICE_REMOVAL");
	ok(poll(&(struct pollfd){ .fd = listener, .events = POLLIN }, 1, 250) == 0,
	   "no attachment while it is on");
	ok(set_logging(false) == 0 && attach(), "it is off: the agent gets all again");
	ok(wait_until(state_is(VNET_VTOE_UP, 5)), "state up, a new epoch");
	vm_config_changes(&vm);
	close(fd);
}

/* The agent ends while it gets all again. */
static void resumption_fails(void)
{
	static struct virtq_chain chain;
	unsigned int removals = 0, n = 0, i;
	uint16_t base[QUEUES] = { 0 };
	struct attach_msg msg;
	bool good;
	pid_t pid;

	post_events(3);
	ok(wait_until(virtq_pop(&vq[1], &chain) == 1), "the agent has a buffer");
	pid = in_background(give_back);
	good = stop_queues(base);
	ok(good && ended_well(pid), "stop");
	drop_all();
	for (i = 0; i < QUEUES; i++)
		good &= vm_queue_base(&vm, 3 + i, base[i]);
	ok(good && expect(&msg, VNET_ATTACH_MEM_TABLE), "continue");
	close_fds(msg.fds, msg.nfds);
	agent_close();
	ok(wait_until((n += returned(4, &removals)) >= 3) && removals == 1,
	   "it ends then: the event buffers are back, one says DEVICE_REMOVAL");
	ok(state_is(VNET_VTOE_DOWN, 5), "state down");
	ok(attach() && wait_until(state_is(VNET_VTOE_UP, 6)), "a new agent");
}

static bool refused(uint32_t reason)
{
	struct attach_msg msg;
	bool good = agent_accept() && expect(&msg, VNET_ATTACH_HELLO) &&
		    reply_hello(&msg, reason);

	agent_close();
	return good;
}

static void bad_agents(void)
{
	struct vnet_attach_done stray = { 0 };
	struct attach_msg msg;
	unsigned int removals = 0, n = 0;
	static struct virtq_chain chain;
	uint64_t start;

	agent_close();
	drop_all();
	ok(refused(VTOE_REASON_VERSION) &&
		   wait_until(log_has(&vm, "agent refuses: version")),
	   "an agent of another version: logged, tried again");
	ok(agent_accept() && expect(&msg, VNET_ATTACH_HELLO) &&
		   send(agent, "nonsense", 8, 0) == 8,
	   "one that talks nonsense");
	agent_close();
	ok(agent_accept() && expect(&msg, VNET_ATTACH_HELLO) &&
		   attach_send(agent, VNET_ATTACH_DONE, 999, &stray, NULL, 0) == 0,
	   "one that answers what was not asked");
	agent_close();
	ok(agent_accept() && expect(&msg, VNET_ATTACH_HELLO) &&
		   reply_hello(&msg, 0) && take_mem(),
	   "one that takes the memory");
	ok(expect(&msg, VNET_ATTACH_QUEUE_START) && done(&msg, VTOE_REASON_LIMIT),
	   "and refuses a queue");
	close_fds(msg.fds, msg.nfds);
	ok(wait_until(recv(agent, &msg, 1, MSG_PEEK) == 0 || errno == ECONNRESET ||
		      recv(agent, &msg, sizeof(msg), 0) == 0),
	   "is left");
	agent_close();
	guest_mem_clear(&mem);
	ok(attach() && wait_until(state_is(VNET_VTOE_UP, 7)), "a good one at last");
	/* hangs: the front end must not */
	post_events(4);
	ok(wait_until(virtq_pop(&vq[1], &chain) == 1), "it has an event buffer");
	start = now_ms();
	ok(vu_state(vm.sock, VU_SET_VRING_ENABLE, 3, 0) == 0 &&
		   now_ms() - start < 8000, /* busy machines */
	   "one that hangs is waited for two seconds");
	ok(now_ms() - start >= 1900, "and not less");
	ok(log_has(&vm, "it does not give the queues back"), "that is logged");
	ok(state_is(VNET_VTOE_DOWN, 7), "state down");
	ok(vu_state(vm.sock, VU_SET_VRING_ENABLE, 3, 1) == 0 &&
		   poll(&(struct pollfd){ .fd = listener, .events = POLLIN }, 1,
			250) == 0,
	   "no attachment while it has not closed");
	is_int(returned(4, &removals), 0, "its buffers are its own");
	virtq_push(&vq[1], chain.head, 0);
	ok(virtq_pop(&vq[1], &chain) == 1, "it comes to life, and takes another");
	virtq_publish(&vq[1]);
	is_int(returned(4, &removals), 1, "the first one comes from it");
	agent_close();
	ok(wait_until((n += returned(4, &removals)) >= 3), "it closes");
	ok(n == 3 && removals == 1,
	   "the others are back, each once, one says DEVICE_REMOVAL");
	ok(agent_accept(), "and the next agent is looked for");
	agent_close();
	drop_all();
}

int main(void)
{
	char text[1024];

	rig_init();
	snprintf(agent_path, sizeof(agent_path), "%s/agent.sock", rig_dir);
	agent_listen();
	snprintf(text, sizeof(text), body, agent_path, routes);
	vm_start(&vm, "vm", 1, text);
	hello();
	commands();
	resolving();
	agent_dies();
	agent_returns();
	suspended();
	replaced();
	driver_reloads();
	device_reset();
	migrating();
	resumption_fails();
	bad_agents();
	vm_free_bufs(&vm);
	vm_disconnect(&vm);
	ok(wait_until(log_has(&vm, "front end has gone")), "the VM goes");
	ok(vm_stop(&vm) == 0, "the shim ends well");
	close(listener);
	rig_done();
	return tap_done();
}
