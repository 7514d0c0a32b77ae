// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The in-band carrier: a front end as QEMU's virtio-net, which keeps the control
 * queue to itself, and a driver that says hello, wrongly too; an agent played by
 * this test; devices that are reset, stopped and continued; a shim that finds rings
 * in use.
 */
#include "shim_rig.h"
#include "unix_msg.h"

#define PAIRS 4 /* one for frames, three reserved */
#define DATA_QUEUES 8
#define QEMU_FEATURES                                                           \
	((STOCK_FEATURES & ~(VNET_BIT_MASK(VIRTIO_NET_F_CTRL_VQ) |              \
			     VNET_BIT_MASK(VIRTIO_NET_F_CTRL_RX))) |            \
	 VNET_BIT_MASK(VIRTIO_NET_F_MQ))

struct message {
	struct virtio_net_hdr_v1 virtio;
	uint8_t dst[6], src[6];
	uint8_t type[2];
	struct vnet_hello hello;
} __attribute__((packed));

static struct vm a, b; /* in band; a plain vnet_pv */
static char agent_path[96];
static int listener = -1, agent = -1;
static struct vnet_vendor_block b_block;

static void body(char *text, const char *encap, int me, const char *more)
{
	sprintf(text,
		"tenant 5\nmtu 1450\nencap %s\n%s"
		"link peer udp local 127.0.0.1:%d remote 127.0.0.1:%d\n"
		"route dst any link peer\n",
		encap, more, 21040 + me, 21041 - me);
}

/* ---- messages ---- */

static struct message make(uint8_t type, uint32_t cookie)
{
	struct message m = {
		.dst = VNET_HELLO_DST,
		.type = { VNET_HELLO_ETHERTYPE >> 8, VNET_HELLO_ETHERTYPE & 0xff },
		.hello = {
			.magic = htole32(VNET_HELLO_MAGIC),
			.version = htole16(VNET_HELLO_VERSION),
			.size = htole16(sizeof(m.hello)),
			.type = type,
			.pairs = htole16(type == VNET_HELLO_HELLO ? PAIRS : 0),
			.cookie = htole32(cookie),
		},
	};

	memcpy(m.src, a.mac, 6);
	return m;
}

static bool say(const struct message *m, uint32_t len)
{
	return vm_send(&a, m, len, 4096);
}

static bool say_hello(uint32_t cookie)
{
	const struct message m = make(VNET_HELLO_HELLO, cookie);

	return say(&m, sizeof(m));
}

static bool is_message(const struct message *m)
{
	static const uint8_t dst[6] = VNET_HELLO_DST;

	return !m->virtio.flags && le16toh(m->virtio.num_buffers) == 1 &&
	       !memcmp(m->dst, dst, 6) && !(m->src[0] & 1) &&
	       m->type[0] == 0x88 && m->type[1] == 0xb5 &&
	       le32toh(m->hello.magic) == VNET_HELLO_MAGIC;
}

/* The next buffer must be a message of this type. It is posted again. */
static bool hear(struct message *m, uint8_t type)
{
	struct ring_driver *q = &a.q[0];
	struct ring_piece piece;
	struct buf *buf = NULL;
	uint32_t len;

	memset(m, 0, sizeof(*m));
	if (!wait_until((buf = ring_driver_get_used(q, &len))))
		return false;
	memcpy(m, ring_memory_at(&a.mem, buf->gpa),
	       len < sizeof(*m) ? len : sizeof(*m));
	piece = (struct ring_piece){ buf->gpa, buf->len };
	ring_driver_add(q, &piece, 0, 1, buf, 0);
	ring_driver_kick(q);
	if (len == sizeof(*m) && is_message(m) && m->hello.type == type)
		return true;
	note("%u bytes, type %u, not %u", len, m->hello.type, type);
	return false;
}

static bool heard_refusal(uint8_t reason, uint32_t cookie)
{
	struct message m;

	return hear(&m, VNET_HELLO_REFUSE) && m.hello.reason == reason &&
	       le32toh(m.hello.cookie) == cookie;
}

static bool heard_answer(uint32_t cookie, struct vnet_vendor_block *block)
{
	struct message m;

	if (!hear(&m, VNET_HELLO_ANSWER) || le32toh(m.hello.cookie) != cookie)
		return false;
	*block = m.hello.block;
	return true;
}

/* ---- frames ---- */

static bool stock_out(uint8_t seed)
{
	static uint8_t frame[700], out[800];
	static struct frame got;

	make_frame(frame, b.mac, a.mac, 600, seed);
	return vm_send(&a, out, make_stock(out, frame, 600), 4096) &&
	       vm_receive(&b, &got) && got.len == 600 &&
	       !memcmp(got.data, frame, 600);
}

static bool train_out(const struct vnet_vendor_block *block, uint8_t seed)
{
	static uint8_t frame[700], out[800];
	static struct frame got;

	make_frame(frame, b.mac, a.mac, 600, seed);
	return vm_send(&a, out, make_train(out, block, frame, 600), 4096) &&
	       vm_receive(&b, &got) && got.len == 600 &&
	       !memcmp(got.data, frame, 600);
}

static void send_to_a(uint8_t seed)
{
	static uint8_t frame[700], out[800];

	make_frame(frame, a.mac, b.mac, 500, seed);
	vm_send(&b, out, make_train(out, &b_block, frame, 500), 4096);
}

/* Arrives in the framing that pv says. */
static bool frame_in(bool pv, uint8_t seed)
{
	static uint8_t frame[700];
	static struct frame got;

	send_to_a(seed);
	a.pv = pv;
	make_frame(frame, a.mac, b.mac, 500, seed);
	return vm_receive(&a, &got) && got.len == 500 &&
	       !memcmp(got.data, frame, 500);
}

/* ---- the front end, as QEMU ---- */

/* Rings that begin anew, all set up, the first pair enabled. */
static bool fresh_device(void)
{
	unsigned int i;

	for (i = 0; i < DATA_QUEUES; i++) {
		unsigned int k;

		if (i < a.queues) {
			for (k = 0; k < RIG_RING; k++)
				free(a.q[i].cookie[k]);
			ring_driver_destroy(&a.q[i]);
		}
		if (ring_driver_create(&a.q[i], &a.mem, RIG_RING, true) < 0)
			return false;
	}
	a.queues = DATA_QUEUES;
	for (i = 0; i < DATA_QUEUES; i++) {
		const bool enable = i < 2;

		if (!vm_queue_base(&a, i, 0) ||
		    (!enable && vu_state(a.sock, VU_SET_VRING_ENABLE, i, 0) != 0))
			return false;
	}
	vm_post_rx(&a, 16, 2048);
	return true;
}

static bool enable_all(void)
{
	unsigned int i;

	for (i = 0; i < DATA_QUEUES; i++)
		if (vu_state(a.sock, VU_SET_VRING_ENABLE, i, 1) != 0)
			return false;
	return true;
}

static bool stop_rings(uint16_t base[DATA_QUEUES])
{
	struct vu_vring_state s;
	unsigned int i;

	for (i = 0; i < DATA_QUEUES; i++) {
		s = (struct vu_vring_state){ i, 0 };
		if (vu_send(a.sock, VU_GET_VRING_BASE, VU_VERSION, &s, sizeof(s),
			    NULL, 0) < 0 ||
		    vu_recv(a.sock, VU_GET_VRING_BASE, &s, sizeof(s)) != 8)
			return false;
		base[i] = s.num;
	}
	return true;
}

static bool go_on(const uint16_t base[DATA_QUEUES])
{
	unsigned int i;

	if (vu_u64(a.sock, VU_SET_FEATURES, QEMU_FEATURES |
			VNET_BIT_MASK(VU_F_PROTOCOL_FEATURES_BIT)) != 0)
		return false;
	for (i = 0; i < DATA_QUEUES; i++)
		if (!vm_queue_base(&a, i, base[i]))
			return false;
	return true;
}

/* ---- the agent ---- */

static bool expect(struct attach_msg *msg, unsigned int type)
{
	int ret = -1;

	do {
		if (!wait_until((ret = attach_recv(agent, msg)) != -EAGAIN))
			ret = -ETIMEDOUT;
		/* after each reload */
	} while (ret == 1 && le16toh(msg->hdr.type) == VNET_ATTACH_ROUTE_CHANGED);
	if (ret == 1 && le16toh(msg->hdr.type) == type) {
		close_fds(msg->fds, msg->nfds);
		return true;
	}
	note("agent: expected message %u, got %d", type, ret);
	return false;
}

static bool done(const struct attach_msg *msg)
{
	struct vnet_attach_done d = { 0 };

	return attach_send(agent, VNET_ATTACH_DONE, le32toh(msg->hdr.seq), &d,
			   NULL, 0) == 0;
}

/* Memory, and the queues under the numbers that they have in band. */
static bool take_all(void)
{
	static const struct { uint8_t kind, index, queue; } want[] = {
		{ VNET_QUEUE_CR, 0, 3 },  { VNET_QUEUE_EQ, 0, 2 },
		{ VNET_QUEUE_SWQ, 0, 5 }, { VNET_QUEUE_RWQ, 0, 4 },
		{ VNET_QUEUE_RWQ, 1, 6 },
	};
	struct attach_msg msg;
	const struct vnet_attach_queue_start *s = &msg.u.queue_start;
	unsigned int i;

	if (!expect(&msg, VNET_ATTACH_MEM_TABLE) || !done(&msg))
		return false;
	for (i = 0; i < 5; i++)
		if (!expect(&msg, VNET_ATTACH_QUEUE_START) ||
		    s->kind != want[i].kind || s->index != want[i].index ||
		    le16toh(s->queue) != want[i].queue ||
		    le64toh(s->inflight_offset) != i * VNET_INFLIGHT_STRIDE ||
		    !done(&msg))
			return false;
	return true;
}

static bool attach(void)
{
	struct vnet_attach_hello_reply r = {
		.version = htole16(1), .fabrics = htole16(1 << VTOE_FABRIC_TCP),
		.host = "h1",
	};
	struct attach_msg msg;

	return wait_until((agent = accept4(listener, NULL, NULL,
					   SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) &&
	       expect(&msg, VNET_ATTACH_HELLO) &&
	       attach_send(agent, VNET_ATTACH_HELLO_REPLY,
			   le32toh(msg.hdr.seq), &r, NULL, 0) == 0 &&
	       take_all();
}

static bool give_back(void)
{
	struct attach_msg msg;
	unsigned int i;

	for (i = 0; i < 5; i++)
		if (!expect(&msg, VNET_ATTACH_QUEUE_STOP) || !done(&msg))
			return false;
	return expect(&msg, VNET_ATTACH_MEM_TABLE) && done(&msg);
}

/* In a child: the shim waits for the agent, and the front end for the shim. */
static pid_t giving_back(void)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0)
		_exit(give_back() ? 0 : 1);
	return pid;
}

static bool ended_well(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && status == 0;
}

/* ---- tests ---- */

static void stock_first(void)
{
	const uint64_t all = vu_get(a.sock, VU_GET_PROTOCOL_FEATURES);
	uint8_t buf[sizeof(struct vu_config) + 256] = { 0 };
	const struct vu_config c = { 0, 256, 0 };
	struct vnet_vendor_block zero = { 0 };

	is_int(vu_get(a.sock, VU_GET_QUEUE_NUM), 2 * PAIRS + 1,
	       "a generic front end: four pairs and control");
	vu_u64(a.sock, VU_SET_PROTOCOL_FEATURES,
	       all & ~VNET_BIT_MASK(VU_PROTOCOL_F_CONFIG_BIT));
	is_int(vu_get(a.sock, VU_GET_QUEUE_NUM), PAIRS, "QEMU's: four pairs");
	vu_u64(a.sock, VU_SET_PROTOCOL_FEATURES, all);
	ok(!(vu_get(a.sock, VU_GET_FEATURES) & VNET_BIT_MASK(VNET_F_PARAVIRT_BIT)),
	   "the paravirtual bit is not offered");
	memcpy(buf, &c, sizeof(c));
	vu_send(a.sock, VU_GET_CONFIG, VU_VERSION, buf, sizeof(buf), NULL, 0);
	vu_recv(a.sock, VU_GET_CONFIG, buf, sizeof(buf));
	ok(!memcmp(buf + sizeof(c) + VNET_VENDOR_CONFIG_OFFSET, &zero, sizeof(zero)),
	   "and there is no vendor block");
	ok(stock_out(1) && frame_in(false, 2), "a stock driver's frames, both ways");
	ok(enable_all() && stock_out(3), "and with all pairs in use");
	ok(vm_stat(&a, "hello_asks") == 0, "nobody is asked");
}

/* None of these may change anything. */
static void bad_hellos(void)
{
	struct message m = make(VNET_HELLO_HELLO, 1);

	m.hello.version = htole16(2);
	ok(say(&m, sizeof(m)) && heard_refusal(VNET_HELLO_R_VERSION, 1),
	   "a HELLO of another version is refused");
	ok(say(&m, offsetof(struct message, hello.block)) &&
		   heard_refusal(VNET_HELLO_R_VERSION, 1),
	   "though its block may be missing");
	m = make(VNET_HELLO_HELLO, 2);
	m.hello.pairs = htole16(PAIRS - 1);
	ok(say(&m, sizeof(m)) && heard_refusal(VNET_HELLO_R_PAIRS, 2),
	   "one from a VM with other queues is refused");
	m = make(VNET_HELLO_HELLO, 3);
	m.src[5]++;
	ok(say(&m, sizeof(m)) && heard_refusal(VNET_HELLO_R_MAC, 3),
	   "one with another MAC");
	a.tx_queue = 3;
	ok(say_hello(4) && heard_refusal(VNET_HELLO_R_QUEUE, 4),
	   "one on another queue");
	a.tx_queue = 7;
	ok(say_hello(5) && heard_refusal(VNET_HELLO_R_QUEUE, 5),
	   "one on a queue that would be reserved");
	a.tx_queue = 0;
	is_int(vm_stat(&a, "hello_refusals"), 6, "all are counted");

	m = make(VNET_HELLO_HELLO, 6);
	m.hello.size = htole16(sizeof(m.hello) - 1);
	say(&m, sizeof(m));
	m = make(VNET_HELLO_HELLO, 6);
	say(&m, sizeof(m) - 1);
	say(&m, offsetof(struct message, hello.block) - 1);
	say(&m, offsetof(struct message, hello));
	m.hello.magic = 0;
	say(&m, sizeof(m));
	m = make(VNET_HELLO_HELLO, 6);
	m.hello.reserved = htole16(1);
	say(&m, sizeof(m));
	m = make(VNET_HELLO_GOODBYE, 6);
	say(&m, sizeof(m));
	m = make(VNET_HELLO_ANSWER, 6);
	say(&m, sizeof(m));
	m = make(99, 6);
	say(&m, sizeof(m));
	is_int(vm_stat(&a, "hello_malformed"), 9,
	       "short ones, foreign ones, GOODBYE without HELLO: counted");
	ok(stock_out(4) && frame_in(false, 5), "the stock driver's frames go on");
	is_int(vm_stat(&b, "rx_trains"), vm_stat(&a, "tx_trains"),
	       "no message went out");
}

static void hello(struct vnet_vendor_block *block)
{
	ok(say_hello(0x1234) && heard_answer(0x1234, block), "HELLO is answered");
	ok(le32toh(block->magic) == VNET_VENDOR_MAGIC && le32toh(block->tenant) == 5 &&
		   le16toh(block->vtoe_first_queue) == 2 &&
		   le16toh(block->vtoe_swq_count) == 1 &&
		   le16toh(block->vtoe_rwq_count) == 2,
	   "with the block");
	ok(train_out(block, 6) && frame_in(true, 7), "trains, both ways");
	ok(say_hello(0x1235) && heard_answer(0x1235, block),
	   "a second HELLO is answered like the first");
	ok(train_out(block, 8) && frame_in(true, 9), "and trains go on");
}

static void offload(struct vnet_vendor_block *block)
{
	struct message m;

	ok(attach(), "the agent is given the reserved queues");
	ok(hear(&m, VNET_HELLO_CHANGE) &&
		   m.hello.block.vtoe_state == VNET_VTOE_UP &&
		   le32toh(m.hello.block.vtoe_epoch) == 1,
	   "CHANGE: the offload is up");
	*block = m.hello.block;
	ok(train_out(block, 10) && frame_in(true, 11), "frames go on");
}

/* The block changes; with no buffer to say so only the newest counts. */
static void changes(struct vnet_vendor_block *block)
{
	struct ring_driver *q = &a.q[0];
	struct buf *held[64];
	struct message m;
	char text[1024], more[200];
	unsigned int n = 0, i;
	long long before;
	uint32_t len;

	snprintf(more, sizeof(more), "agent %s\n", agent_path);
	body(text, "vnet-udp", 0, more);
	vm_config(&a, text);
	kill(a.pid, SIGHUP);
	ok(hear(&m, VNET_HELLO_CHANGE) &&
		   m.hello.block.encap_type == VNET_ENCAP_VNET_UDP &&
		   m.hello.block.generation != block->generation,
	   "CHANGE: another encapsulation");
	/* frames fill all buffers; the guest posts no more */
	while (n < 16) {
		send_to_a(n);
		if (!wait_until((held[n] = ring_driver_get_used(q, &len))))
			break;
		n++;
	}
	is_int(n, 16, "all receive buffers are used up");
	before = vm_stat(&a, "hello_changes");
	for (i = 0; i < 3; i++) {
		body(text, i & 1 ? "vnet-udp" : "vxlan", 0, more);
		vm_config(&a, text);
		kill(a.pid, SIGHUP);
		if (!wait_until(vm_stat(&a, "generation") ==
				le32toh(m.hello.block.generation) + 1 + i))
			break;
	}
	ok(i == 3 && vm_stat(&a, "hello_changes") == before,
	   "three changes wait for a buffer");
	for (i = 0; i < n; i++) {
		const struct ring_piece piece = { held[i]->gpa, held[i]->len };

		ring_driver_add(q, &piece, 0, 1, held[i], 0);
	}
	ring_driver_kick(q);
	*block = m.hello.block;
	ok(hear(&m, VNET_HELLO_CHANGE) &&
		   m.hello.block.encap_type == VNET_ENCAP_VXLAN &&
		   le32toh(m.hello.block.generation) ==
			   le32toh(block->generation) + 3,
	   "the newest is told");
	is_int(vm_stat(&a, "hello_changes"), before + 1, "and no other");
	*block = m.hello.block;
	ok(train_out(block, 12) && frame_in(true, 13), "frames go on");
}

/* QEMU's stop and cont: rings that go on where they were. */
static void stop_and_continue(const struct vnet_vendor_block *block)
{
	uint16_t base[DATA_QUEUES];
	pid_t pid = giving_back();

	ok(stop_rings(base) && ended_well(pid),
	   "the VM is stopped: the agent gives the queues back");
	ok(base[0] && base[1] && go_on(base) && take_all(),
	   "it continues: the agent has them again");
	ok(train_out(block, 14) && frame_in(true, 15),
	   "in band as before, without a word");
	ok(vm_stat(&a, "hello_asks") == 0 && vm_stat(&a, "vtoe_epoch") == 1,
	   "nobody was asked, and the offload's epoch is the same");
}

/* A raw socket can say what it likes, as often as it likes. */
static void flood(const struct vnet_vendor_block *block)
{
	struct message m;
	uint32_t seed = 1;
	unsigned int i, k;
	uint64_t used;
	uint32_t len;

	for (i = 0; i < 300; i++) {
		m = make(i % 3 ? VNET_HELLO_HELLO : VNET_HELLO_ASK, i);
		for (k = 0; k < i % 7; k++) {
			seed = seed * 1664525 + 1013904223;
			/* not the addresses: those are checked elsewhere */
			((uint8_t *)&m)[26 + seed % sizeof(m.hello)] ^= seed >> 24;
		}
		m.hello.type = m.hello.type == VNET_HELLO_GOODBYE ?
				       VNET_HELLO_CHANGE : m.hello.type;
		if (!say(&m, sizeof(m)))
			break;
	}
	is_int(i, 300, "300 messages, most of them bent");
	for (used = 0; ; used++) {
		struct ring_piece piece;
		struct buf *buf = ring_driver_get_used(&a.q[0], &len);

		if (!buf)
			break;
		piece = (struct ring_piece){ buf->gpa, buf->len };
		ring_driver_add(&a.q[0], &piece, 0, 1, buf, 0);
	}
	ring_driver_kick(&a.q[0]);
	ok(used <= 16, "no more answers than buffers");
	/* one may have waited for the buffers */
	ok(say_hello(0xffff0001), "a last one");
	do {
		if (!hear(&m, VNET_HELLO_ANSWER) && m.hello.type != VNET_HELLO_REFUSE)
			break;
	} while (le32toh(m.hello.cookie) != 0xffff0001);
	ok(le32toh(m.hello.cookie) == 0xffff0001 && train_out(block, 16) &&
		   frame_in(true, 17),
	   "is answered, and trains go on");
}

static void goodbye(struct vnet_vendor_block *block)
{
	const struct message m = make(VNET_HELLO_GOODBYE, 0);
	pid_t pid = giving_back();
	struct message news;

	ok(say(&m, sizeof(m)) && ended_well(pid),
	   "GOODBYE while the agent serves: it gives the queues back first");
	close(agent);
	ok(stock_out(18) && frame_in(false, 19), "frames are a stock driver's again");
	ok(vm_stat(&a, "hello_goodbyes") == 1 && vm_stat(&a, "vtoe_state") ==
		   VNET_VTOE_DOWN, "the offload is down");
	ok(say_hello(20) && heard_answer(20, block) && attach() &&
		   hear(&news, VNET_HELLO_CHANGE) &&
		   news.hello.block.vtoe_state == VNET_VTOE_UP,
	   "HELLO again, and an agent again");
}

/* What a peer says in the shim's name does not arrive. */
static void from_a_link(void)
{
	const struct message m = make(VNET_HELLO_ASK, 0);
	const long long before = vm_stat(&a, "rx_drop_not_ours");
	uint8_t frame[sizeof(m)], out[sizeof(m) + 64];
	const uint32_t len = sizeof(m) - sizeof(m.virtio);

	memcpy(frame, m.dst, len);
	memcpy(frame + 6, b.mac, 6);
	vm_send(&b, out, make_train(out, &b_block, frame, len), 4096);
	ok(wait_until(vm_stat(&a, "rx_drop_not_ours") == before + 1) &&
		   !ring_driver_get_used(&a.q[0], &(uint32_t){ 0 }),
	   "a message from a link is dropped");
}

/* A driver that begins anew, without goodbye. */
static void reset(void)
{
	struct vnet_vendor_block block;
	uint16_t base[DATA_QUEUES];
	pid_t pid = giving_back();

	ok(stop_rings(base) && ended_well(pid) && fresh_device(),
	   "the device is reset");
	close(agent);
	ok(stock_out(21) && frame_in(false, 22), "its driver is a stock one");
	ok(vm_stat(&a, "hello_asks") == 0, "and was not asked");
	ok(say_hello(23) && heard_answer(23, &block) &&
		   block.vtoe_state == VNET_VTOE_DOWN &&
		   train_out(&block, 24) && frame_in(true, 25),
	   "until it says HELLO");
}

/* A new session finds the rings where the last one left them. */
static bool another_shim(void)
{
	unsigned int i;

	close(a.sock);
	close(a.req);
	if (!wait_until(vm_stat(&a, "hello_answers") >= 0) ||
	    !vm_negotiate(&a, QEMU_FEATURES) || !vm_memory(&a))
		return false;
	/* what QEMU knows then: the used indices */
	for (i = 0; i < DATA_QUEUES; i++)
		if (!vm_queue_base(&a, i, le16toh(a.q[i].used->idx)))
			return false;
	return true;
}

static void asked(void)
{
	struct vnet_vendor_block block;
	static uint8_t frame[700], out[800];
	struct message m;

	ok(another_shim() && hear(&m, VNET_HELLO_ASK), "rings in use: ASK comes");
	ok(vm_stat(&a, "hello_asks") == 1, "once");
	send_to_a(26);
	ok(stock_out(27), "a stock driver's frame goes out");
	a.pv = false;
	{
		static struct frame got;

		make_frame(frame, a.mac, b.mac, 500, 26);
		ok(vm_receive(&a, &got) && !memcmp(got.data, frame, 500),
		   "and tells what it is: what has waited comes in its framing");
	}

	ok(another_shim() && hear(&m, VNET_HELLO_ASK), "ASK again");
	send_to_a(28);
	make_frame(frame, b.mac, a.mac, 600, 29);
	vm_send(&a, out, make_train(out, &b_block, frame, 600), 4096);
	ok(vm_stat(&a, "tx_trains") == vm_stat(&b, "rx_trains"),
	   "a train goes nowhere");
	ok(!ring_driver_get_used(&a.q[0], &(uint32_t){ 0 }), "and nothing comes");
	ok(say_hello(30) && heard_answer(30, &block), "HELLO is answered");
	{
		static struct frame got;

		a.pv = true;
		make_frame(frame, a.mac, b.mac, 500, 28);
		ok(vm_receive(&a, &got) && !memcmp(got.data, frame, 500),
		   "what has waited comes as a train");
	}
	ok(train_out(&block, 31) && frame_in(true, 32), "trains, both ways");

	ok(another_shim() && hear(&m, VNET_HELLO_ASK), "ASK again");
	send_to_a(33);
	{
		static struct frame got;

		a.pv = false;
		make_frame(frame, a.mac, b.mac, 500, 33);
		ok(vm_receive(&a, &got) && !memcmp(got.data, frame, 500),
		   "a driver that is silent is taken for a stock one in the end");
	}
}

/* A shim that is not set up for it says so. */
static void not_in_band(void)
{
	struct message m = make(VNET_HELLO_HELLO, 7), got;
	struct ring_driver *q = &b.q[0];
	struct buf *buf = NULL;
	uint32_t len;

	vm_free_bufs(&b);
	vm_disconnect(&b);
	ok(vm_connect(&b, STOCK_FEATURES, 2), "a stock driver at a shim that is not in-band");
	vm_post_rx(&b, 4, 2048);
	memcpy(m.src, b.mac, 6);
	ok(vm_send(&b, &m, sizeof(m), 4096) &&
		   wait_until((buf = ring_driver_get_used(q, &len))) &&
		   len == sizeof(got),
	   "its HELLO is answered");
	memcpy(&got, ring_memory_at(&b.mem, buf->gpa), sizeof(got));
	ok(is_message(&got) && got.hello.type == VNET_HELLO_REFUSE &&
		   got.hello.reason == VNET_HELLO_R_LAYOUT &&
		   le32toh(got.hello.cookie) == 7,
	   "by a refusal");
	free(buf);
}

int main(void)
{
	struct vnet_vendor_block block;
	char text[1024], more[200];

	rig_init();
	snprintf(agent_path, sizeof(agent_path), "%s/agent.sock", rig_dir);
	listener = unix_listen(agent_path, SOCK_SEQPACKET);
	if (listener < 0)
		bail_out("agent's socket");
	body(text, "vxlan", 1, "");
	vm_start(&b, "b", 2, text);
	rig_door_words = "in-band";
	snprintf(more, sizeof(more), "agent %s\n", agent_path);
	body(text, "vxlan", 0, more);
	vm_start(&a, "a", 1, text);
	ok(vm_connect(&b, PV_FEATURES, 3) && vm_block(&b, &b_block), "a peer");
	vm_post_rx(&b, 16, 2048);
	ok(vm_connect(&a, QEMU_FEATURES, 0) && fresh_device(),
	   "a front end as QEMU's virtio-net");
	stock_first();
	bad_hellos();
	hello(&block);
	offload(&block);
	changes(&block);
	stop_and_continue(&block);
	flood(&block);
	goodbye(&block);
	from_a_link();
	reset();
	asked();
	not_in_band();
	vm_free_bufs(&a);
	vm_free_bufs(&b);
	vm_disconnect(&a);
	vm_disconnect(&b);
	ok(vm_stop(&a) == 0, "shim a ends well");
	ok(vm_stop(&b) == 0, "shim b ends well");
	close(listener);
	rig_done();
	return tap_done();
}
