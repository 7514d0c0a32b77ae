// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a front end, a guest and a network may not do to a shim: malformed
 * vhost-user messages, bad trains, bad datagrams. After each the shim serves the
 * next one, and nothing is left open.
 */
#include "shim_rig.h"

static struct vm a, b;

static const char body_a[] =
	"tenant 77\nmtu 9000\nencap vxlan\n"
	"link peer udp local 127.0.0.1:21010 remote 127.0.0.1:21011 mtu 1500\n"
	"link other udp local 127.0.0.1:21010 remote 127.0.0.1:21012 form whole\n"
	"route dst 52:54:00:4e:50:02 link peer\nroute dst any link peer\n"
	"route dst 52:54:00:4e:50:07 link other\n";
static const char body_b[] =
	"tenant 77\nmtu 9000\nencap vxlan\n"
	"link peer udp local 127.0.0.1:21011 remote 127.0.0.1:21010\n"
	"route dst any link peer\n";

static unsigned int open_fds(pid_t pid)
{
	char path[64];
	unsigned int n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

/* ---- front end ---- */

/* Sends bytes in a session of its own; true if the shim ended it. */
static bool ends_session(const void *bytes, size_t len, const int *fds,
			 unsigned int nfds)
{
	static const uint64_t reply_ack = VNET_BIT_MASK(VU_PROTOCOL_F_REPLY_ACK_BIT) |
					  VNET_BIT_MASK(VU_PROTOCOL_F_CONFIG_BIT);
	int fd = front_connect(&a);
	uint8_t byte[64];
	ssize_t n;

	if (vu_u64(fd, VU_SET_PROTOCOL_FEATURES, reply_ack) != 0 ||
	    send_raw(fd, bytes, len, fds, nfds) < 0)
		bail_out("cannot send");
	do {
		n = recv(fd, byte, sizeof(byte), 0);
	} while (n > 0);
	close(fd);
	return n == 0 || (n < 0 && errno == ECONNRESET);
}

struct raw {
	uint32_t request, flags, size;
	uint8_t payload[600];
};

static bool ends(uint32_t request, uint32_t flags, uint32_t size,
		 const void *payload, uint32_t len, unsigned int nfds)
{
	struct raw m = { request, flags, size, { 0 } };
	int fds[20], i;
	bool result;

	if (len)
		memcpy(m.payload, payload, len);
	for (i = 0; i < (int)nfds; i++)
		fds[i] = eventfd(0, EFD_CLOEXEC);
	result = ends_session(&m, 12 + len, fds, nfds);
	for (i = 0; i < (int)nfds; i++)
		close(fds[i]);
	return result;
}

static void malformed_messages(void)
{
	const struct vu_vring_state bad_queue = { 99, 1 };
	const struct vu_vring_state vtoe_queue = { 3, 1 }; /* no agent: none */
	const struct vu_vring_state num0 = { 0, 0 }, num3 = { 0, 3 },
				    num_big = { 0, 8192 };
	const struct vu_vring_state base_big = { 0, 0x10000 }, enable2 = { 0, 2 };
	struct vu_mem_table t = { .count = 2 };
	struct vu_config c = { 0, 256, 0 };
	struct vu_vring_addr addr = { .index = 0, .flags = 2 };
	const struct vu_log log = { 4096, 0 };
	uint64_t v = 0x1000000;
	uint8_t junk[600] = { 0 };
	const unsigned int fds = open_fds(a.pid);

	ok(ends(VU_SET_VRING_NUM, 1, 8, &bad_queue, 8, 0), "no such queue");
	ok(ends(VU_SET_VRING_ENABLE, 1, 8, &vtoe_queue, 8, 0),
	   "an offload queue where there is no agent");
	ok(ends(VU_SET_VRING_NUM, 1, 8, &num0, 8, 0), "ring of size 0");
	ok(ends(VU_SET_VRING_NUM, 1, 8, &num3, 8, 0), "ring of size 3");
	ok(ends(VU_SET_VRING_NUM, 1, 8, &num_big, 8, 0), "ring of size 8192");
	ok(ends(VU_SET_VRING_BASE, 1, 8, &base_big, 8, 0), "base of 17 bits");
	ok(ends(VU_SET_VRING_ENABLE, 1, 8, &enable2, 8, 0), "enable 2");
	ok(ends(VU_SET_VRING_ADDR, 1, sizeof(addr), &addr, sizeof(addr), 0),
	   "ring with unknown flags");
	ok(ends(VU_SET_LOG_BASE, 1, sizeof(log), &log, sizeof(log), 1),
	   "a log, not negotiated");
	ok(ends(VU_SET_VRING_NUM, 1, 4, &num3, 4, 0), "too short");
	ok(ends(VU_SET_VRING_NUM, 1, 12, junk, 12, 0), "too long");
	ok(ends(VU_SET_VRING_NUM, 1, 8, &num3, 8, 1), "unexpected descriptor");
	ok(ends(VU_SET_FEATURES, 2, 8, &v, 8, 0), "version 2");
	ok(ends(VU_SET_FEATURES, 1, 8, &v, 8, 0), "features not offered");
	ok(ends(999, 1, 0, NULL, 0, 0), "unknown request");
	ok(ends(0, 1, 0, NULL, 0, 0), "request 0");
	ok(ends(6, 1, 0, NULL, 0, 0), "a request that is not supported");
	ok(ends(VU_GET_FEATURES, 1, 0xffffffff, NULL, 0, 0), "payload of 4 GB");
	ok(ends(VU_GET_QUEUE_NUM, 1, 0, NULL, 0, 0),
	   "a request whose feature was not negotiated");
	ok(ends(VU_SET_BACKEND_REQ_FD, 1, 0, NULL, 0, 0), "a missing descriptor");
	v = 0;
	ok(ends(VU_SET_VRING_KICK, 1, 8, &v, 8, 0), "kick without descriptor");
	v = 0x100;
	ok(ends(VU_SET_VRING_KICK, 1, 8, &v, 8, 1), "kick that says it has none");
	ok(ends(VU_SET_VRING_KICK, 1, 8, &v, 8, 0), "kick by polling");
	v = 0x200;
	ok(ends(VU_SET_VRING_CALL, 1, 8, &v, 8, 1), "call with unknown bits");
	v = 0;
	ok(ends(VU_SET_VRING_CALL, 1, 8, &v, 8, 16), "call with 16 descriptors");
	ok(ends(VU_SET_MEM_TABLE, 1, 72, &t, 72, 1), "two regions, one descriptor");
	ok(ends(VU_SET_MEM_TABLE, 1, 8, &t, 8, 2), "two regions, none told");
	t.count = 9;
	ok(ends(VU_SET_MEM_TABLE, 1, 264, &t, 264, 9), "nine regions");
	t.count = 1;
	t.region[0] = (struct vu_mem_region){ 0, UINT64_MAX, 0, 0 };
	ok(ends(VU_SET_MEM_TABLE, 1, 72, &t, 72, 1), "a region as long as all");
	c.offset = 1;
	ok(ends(VU_GET_CONFIG, 1, 12 + 256, memcpy(junk, &c, 12), 268, 0),
	   "config space past its end");
	c.offset = 0xffffffff;
	c.size = 2;
	ok(ends(VU_GET_CONFIG, 1, 14, memcpy(junk, &c, 12), 14, 0),
	   "config offset that overflows");
	c.offset = 0;
	c.size = 100;
	ok(ends(VU_GET_CONFIG, 1, 14, memcpy(junk, &c, 12), 14, 0),
	   "config payload shorter than it says");
	ok(vm_stat(&a, "front_errors") >= 31, "each was counted");
	is_int(open_fds(a.pid), fds, "no descriptor is left open");
}

/* A message in single bytes is a message; half of one and silence is none. */
static void slow_front_end(void)
{
	const uint32_t get[3] = { VU_GET_FEATURES, VU_VERSION, 0 };
	uint8_t answer[20];
	int fd = front_connect(&a);
	unsigned int i;

	for (i = 0; i < sizeof(get); i++)
		send_raw(fd, (const uint8_t *)get + i, 1, NULL, 0);
	is_int(recv(fd, answer, sizeof(answer), MSG_WAITALL), 20,
	       "a message in 12 pieces is answered");
	send_raw(fd, get, 7, NULL, 0);
	close(fd);
	fd = front_connect(&a);
	ok(vu_get(fd, VU_GET_FEATURES) != UINT64_MAX,
	   "half a message and the end, then the next front end");
	close(fd);
}

/* Errors that the front end asks about are answered, not punished. */
static void soft_errors(void)
{
	struct vu_mem_table t = { .count = 1 };
	int fd = front_connect(&a), mem = memfd_create("short", MFD_CLOEXEC);

	t.region[0] = (struct vu_mem_region){ 0, 1 << 20, 0x1000, 0 };
	vu_u64(fd, VU_SET_PROTOCOL_FEATURES,
	       VNET_BIT_MASK(VU_PROTOCOL_F_REPLY_ACK_BIT));
	is_int(vu_call(fd, VU_SET_MEM_TABLE, &t, 40, &mem, 1), 1,
	       "memory whose file is too short is refused");
	ok(vu_get(fd, VU_GET_FEATURES) != UINT64_MAX, "and the session goes on");
	close(fd);
	close(mem);
}

/* ---- guest ---- */

static struct vnet_vendor_block block;

/* One bad train: counted under that name, returned, not forwarded. */
static void bad_train(const char *counter, const char *name,
		      void (*spoil)(uint8_t *train, uint32_t *len))
{
	static uint8_t train[70000], frame[3000];
	const long long before = vm_stat(&a, counter);
	const long long sent = vm_stat(&a, "tx_trains");
	uint32_t len = make_train(train, &block, frame,
				  make_frame(frame, b.mac, a.mac, 2000, 1));

	spoil(train, &len);
	ok(vm_send(&a, train, len, 700) && vm_stat(&a, counter) == before + 1 &&
		   vm_stat(&a, "tx_trains") == sent,
	   "%s: %s", counter, name);
}

#define HDR(t) ((struct vnet_train_hdr *)(t))
#define SPOIL(fn, stmt)                              \
	static void fn(uint8_t *t, uint32_t *len)    \
	{                                            \
		struct vnet_train_hdr *h = HDR(t);   \
		(void)h;                             \
		(void)len;                           \
		stmt;                                \
	}

SPOIL(version, h->version = 2)
SPOIL(form, h->form = 2)
SPOIL(link_set, h->link = htole32(1))
SPOIL(reserved, h->reserved = htole16(1))
SPOIL(buffers, h->num_buffers = htole16(1))
SPOIL(longer, h->train_len = htole32(3000))
SPOIL(shorter, h->train_len = htole32(100))
SPOIL(huge, h->train_len = htole32(0xffffffff))
SPOIL(empty, *len = 0; *len = sizeof(*h); h->train_len = 0)
SPOIL(cut_header, *len = 20)
SPOIL(cut_frame, *len = sizeof(*h) + 8 + 13; h->train_len = htole32(21))
SPOIL(seg_in_whole, h->seg_size = htole16(100))
SPOIL(gso_0, h->gso_type = VNET_GSO_TCPV4; h->flags = 1; h->csum_start = htole16(34))
SPOIL(gso_no_csum, h->gso_type = VNET_GSO_TCPV4; h->gso_size = htole16(1000))
SPOIL(gso_type, h->gso_type = 3; h->gso_size = htole16(1000); h->flags = 1)
SPOIL(ecn_only, h->gso_type = VNET_GSO_ECN)
SPOIL(csum_outside, h->flags = 1; h->csum_start = htole16(1990); h->csum_offset = htole16(9))
SPOIL(csum_wraps, h->flags = 1; h->csum_start = htole16(65535); h->csum_offset = htole16(65535))
SPOIL(csum_in_eth, h->flags = 1; h->csum_start = htole16(2))
SPOIL(hdr_len, h->hdr_len = htole16(2001))
SPOIL(flags, h->flags = 0x80)
SPOIL(encap_len, h->encap_len = htole16(4))
SPOIL(encap_gone, h->encap_len = 0)
SPOIL(encap_long, h->encap_len = htole16(0xffff); h->train_len = htole32(2008))
SPOIL(vni, t[32 + 6] ^= 1)
SPOIL(vx_flags, t[32] = 0)
SPOIL(vx_reserved, t[32 + 7] = 1)
SPOIL(source, t[32 + 8 + 11] ^= 1)
SPOIL(self, memcpy(t + 32 + 8, a.mac, 6))
SPOIL(seg_tiny, h->form = VNET_TRAIN_SEGMENTED; h->seg_size = htole16(21))
SPOIL(seg_zero, h->form = VNET_TRAIN_SEGMENTED)
SPOIL(seg_many, h->form = VNET_TRAIN_SEGMENTED; h->seg_size = htole16(22);
      *len = 32 + 22 * 200; h->train_len = htole32(22 * 200))
SPOIL(seg_gso, h->form = VNET_TRAIN_SEGMENTED; h->seg_size = htole16(1004);
      h->gso_type = VNET_GSO_TCPV4; h->gso_size = htole16(900); h->flags = 1)
/* the second segment's header is payload */
SPOIL(seg_second, h->form = VNET_TRAIN_SEGMENTED; h->seg_size = htole16(1004))
SPOIL(seg_other_dst, h->form = VNET_TRAIN_SEGMENTED; h->seg_size = htole16(1004);
      memcpy(t + 32 + 1004, t + 32, 22); t[32 + 1004 + 13] ^= 1)
SPOIL(seg_last_short, h->form = VNET_TRAIN_SEGMENTED; h->seg_size = htole16(1000))

static void bad_trains(void)
{
	ok(vm_block(&a, &block), "vendor block");
	bad_train("tx_drop_malformed", "version", version);
	bad_train("tx_drop_malformed", "form", form);
	bad_train("tx_drop_malformed", "link", link_set);
	bad_train("tx_drop_malformed", "reserved field", reserved);
	bad_train("tx_drop_malformed", "num_buffers", buffers);
	bad_train("tx_drop_malformed", "longer than its chain", longer);
	bad_train("tx_drop_malformed", "shorter than its chain", shorter);
	bad_train("tx_drop_malformed", "4 GB", huge);
	bad_train("tx_drop_malformed", "no frame", empty);
	bad_train("tx_drop_malformed", "half a header", cut_header);
	bad_train("tx_drop_malformed", "half an Ethernet header", cut_frame);
	bad_train("tx_drop_malformed", "whole with a segment size", seg_in_whole);
	bad_train("tx_drop_malformed", "gso_size 0", gso_0);
	bad_train("tx_drop_malformed", "gso without checksum", gso_no_csum);
	bad_train("tx_drop_malformed", "unknown gso_type", gso_type);
	bad_train("tx_drop_malformed", "ECN alone", ecn_only);
	bad_train("tx_drop_malformed", "checksum behind the end", csum_outside);
	bad_train("tx_drop_malformed", "checksum offset that wraps", csum_wraps);
	bad_train("tx_drop_malformed", "checksum in the Ethernet header", csum_in_eth);
	bad_train("tx_drop_malformed", "hdr_len behind the end", hdr_len);
	bad_train("tx_drop_malformed", "unknown flag", flags);
	bad_train("tx_drop_encap", "encap_len 4", encap_len);
	bad_train("tx_drop_encap", "encap_len 0", encap_gone);
	bad_train("tx_drop_malformed", "encap_len 65535", encap_long);
	bad_train("tx_drop_encap", "another tenant's VNI", vni);
	bad_train("tx_drop_encap", "VXLAN flags", vx_flags);
	bad_train("tx_drop_encap", "VXLAN reserved byte", vx_reserved);
	bad_train("tx_drop_source", "another VM's MAC", source);
	bad_train("tx_drop_self", "to itself", self);
	bad_train("tx_drop_malformed", "segments too small for headers", seg_tiny);
	bad_train("tx_drop_malformed", "segments of size 0", seg_zero);
	bad_train("tx_drop_malformed", "200 segments", seg_many);
	bad_train("tx_drop_malformed", "segmented with gso", seg_gso);
	bad_train("tx_drop_encap", "second segment without encapsulation",
		  seg_second);
	bad_train("tx_drop_malformed", "second segment to somebody else",
		  seg_other_dst);
	bad_train("tx_drop_malformed", "last segment too short", seg_last_short);
}

/* A ring that makes no sense ends that queue, not the shim. */
static void bad_ring(void)
{
	struct ring_driver *q = &a.q[1];

	q->avail_idx += 1000;
	ring_driver_publish(q);
	eventfd_write(q->kick_fd, 1);
	ok(wait_until(vm_stat(&a, "queues_broken") == 1),
	   "an available index too far ahead breaks the queue");
	ok(vu_get(a.sock, VU_GET_QUEUE_NUM) == 3, "the session goes on");
}

/* ---- network ---- */

static int net_socket(uint16_t port)
{
	struct sockaddr_in me = { .sin_family = AF_INET, .sin_port = htons(port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in to = me;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	to.sin_port = htons(21010);
	if (bind(fd, (struct sockaddr *)&me, sizeof(me)) < 0 ||
	    connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		bail_out("socket");
	return fd;
}

/* A datagram of one part; returns its length. */
static uint32_t make_datagram(uint8_t *out, const uint8_t *dst,
			      const uint8_t *src, uint32_t len)
{
	static uint8_t frame[2000];
	struct vnet_seg_hdr seg = { .version = 1, .train_id = htobe32(7),
				    .train_len = htobe32(16 + 8 + len),
				    .part_len = htobe16(1456) };
	struct vnet_wire_meta meta = { .version = 1, .encap_type = 1,
				       .encap_len = htobe16(8) };
	struct vnet_vxlan_hdr vx = { htobe32(0x08000000), htobe32(77 << 8) };

	make_frame(frame, dst, src, len, 5);
	memcpy(out, &seg, 16);
	memcpy(out + 16, &meta, 16);
	memcpy(out + 32, &vx, 8);
	memcpy(out + 40, frame, len);
	return 40 + len;
}

static void bad_datagram(int fd, const char *counter, const char *name,
			 unsigned int at, uint8_t byte, uint32_t len)
{
	static const uint8_t from[6] = { 0x52, 0x54, 0, 0x4e, 0x50, 7 };
	uint8_t d[2000];
	const long long before = vm_stat(&a, counter);
	uint32_t n = make_datagram(d, a.mac, from, 200);

	d[at] = byte;
	if (send(fd, d, len ? len : n, 0) < 0)
		bail_out("send");
	ok(wait_until(vm_stat(&a, counter) == before + 1), "%s: %s", counter, name);
}

static void bad_datagrams(void)
{
	static const uint8_t from[6] = { 0x52, 0x54, 0, 0x4e, 0x50, 7 };
	int peer = net_socket(21012), stranger = net_socket(21019);
	static struct frame got;
	uint8_t d[2000];
	uint32_t n = make_datagram(d, a.mac, from, 200);

	send(peer, d, n, 0);
	ok(vm_receive(&a, &got) && got.len == 200 && le32toh(got.train.link) == 2,
	   "a good datagram arrives, with the number of its link");
	bad_datagram(stranger, "rx_drop_unknown_source", "stranger", 0, 1, 0);
	bad_datagram(peer, "rx_drop_malformed", "segment version", 0, 2, 0);
	bad_datagram(peer, "rx_drop_malformed", "segment reserved", 1, 2, 0);
	bad_datagram(peer, "rx_drop_malformed", "segment reserved1", 15, 2, 0);
	bad_datagram(peer, "rx_drop_malformed", "index beyond its train", 3, 2, 0);
	bad_datagram(peer, "rx_drop_malformed", "train of 16 MB", 8, 1, 0);
	bad_datagram(peer, "rx_drop_malformed", "parts of 176 bytes", 12, 0, 0);
	bad_datagram(peer, "rx_drop_malformed", "length not as told", 11, 9, 0);
	bad_datagram(peer, "rx_drop_malformed", "three bytes", 0, 1, 3);
	bad_datagram(peer, "rx_drop_malformed", "a header alone", 0, 1, 16);
	bad_datagram(peer, "rx_drop_malformed", "meta version", 16, 2, 0);
	bad_datagram(peer, "rx_drop_malformed", "meta reserved", 31, 2, 0);
	bad_datagram(peer, "rx_drop_malformed", "meta flags", 17, 2, 0);
	bad_datagram(peer, "rx_drop_malformed", "gso_type without size", 18, 1, 0);
	bad_datagram(peer, "rx_drop_malformed", "encap_len beyond the frame", 20, 9,
		     0);
	bad_datagram(peer, "rx_drop_encap", "encap_len 9", 21, 9, 0);
	bad_datagram(peer, "rx_drop_encap", "unknown encapsulation", 19, 9, 0);
	bad_datagram(peer, "rx_drop_encap", "VXLAN without VNI", 32, 0, 0);
	bad_datagram(peer, "rx_drop_tenant", "another tenant", 38, 78, 0);
	bad_datagram(peer, "rx_drop_not_ours", "another VM", 45, 9, 0);
	bad_datagram(peer, "rx_drop_source", "our own MAC", 51, 1, 0);
	if (send(peer, d, 0, 0) < 0)
		bail_out("send");
	send(peer, d, n, 0);
	ok(vm_receive(&a, &got) && got.len == 200, "and after all that a good one");
	close(peer);
	close(stranger);
}

/*
 * A reload between the parts of a train: true if it becomes a frame. A shim that
 * is kept waiting drops the train for its age; then once more.
 */
static bool across_reload(int peer, uint8_t part[3][3000], const uint32_t n[3])
{
	long long trains, late;
	int i;

	for (i = 0; i < 20; i++) {
		trains = vm_stat(&a, "rx_trains");
		late = vm_stat(&a, "rx_drop_timeout");
		send(peer, part[0], n[0], 0);
		send(peer, part[2], n[2], 0);
		kill(a.pid, SIGHUP); /* is taken before the signal of vm_stat() */
		if (vm_stat(&a, "rx_trains") != trains)
			return false;
		send(peer, part[1], n[1], 0);
		wait_until(vm_stat(&a, "rx_trains") > trains ||
			   vm_stat(&a, "rx_drop_timeout") > late);
		if (vm_stat(&a, "rx_trains") > trains)
			return true;
		usleep(300000); /* until nothing is left of it */
	}
	return false;
}

/* Parts out of order, twice, interleaved, and one that never comes. */
static void reassembly(void)
{
	static uint8_t part[3][3000], whole[6000], frame[4000];
	static const uint8_t from[6] = { 0x52, 0x54, 0, 0x4e, 0x50, 7 };
	static struct frame got;
	const long long timeouts = vm_stat(&a, "rx_drop_timeout");
	int peer = net_socket(21012);
	struct vnet_wire_meta meta = { .version = 1, .encap_type = 1,
				       .encap_len = htobe16(8) };
	struct vnet_vxlan_hdr vx = { htobe32(0x08000000), htobe32(77 << 8) };
	uint32_t len = make_frame(frame, a.mac, from, 3000, 5), total = 24 + len;
	uint32_t n[3];
	int i, id;

	memcpy(whole, &meta, 16);
	memcpy(whole + 16, &vx, 8);
	memcpy(whole + 24, frame, len);
	for (id = 100; id < 102; id++) {
		for (i = 0; i < 3; i++) {
			struct vnet_seg_hdr seg = {
				.version = 1, .index = htobe16(i),
				.train_id = htobe32(id),
				.train_len = htobe32(total),
				.part_len = htobe16(1400),
			};
			uint32_t bytes = i < 2 ? 1400 : total - 2800;

			memcpy(part[i], &seg, 16);
			memcpy(part[i] + 16, whole + 1400 * i, bytes);
			n[i] = 16 + bytes;
		}
		if (id == 101)
			break;
		send(peer, part[2], n[2], 0);
		send(peer, part[0], n[0], 0);
		send(peer, part[0], n[0], 0);
		send(peer, part[1], n[1], 0);
		ok(vm_receive(&a, &got) && got.len == len &&
			   !memcmp(got.data, frame, len),
		   "parts out of order and twice make one frame");
		send(peer, part[2], n[2], 0); /* late: begins a train anew */
	}
	send(peer, part[0], n[0], 0);
	send(peer, part[1], n[1], 0); /* part 2 never comes */
	ok(wait_until(vm_stat(&a, "rx_drop_timeout") == timeouts + 2),
	   "incomplete trains are dropped after their time");
	/* in order, a datagram each: the direct path keeps the train open */
	for (i = 0; i < 3; i++)
		send(peer, part[i], n[i], 0);
	ok(vm_receive(&a, &got) && got.len == len && !memcmp(got.data, frame, len),
	   "one part a datagram, in order");
	/* another train in between */
	{
		uint8_t d[400];
		uint32_t m = make_datagram(d, a.mac, from, 100);

		send(peer, part[0], n[0], 0);
		send(peer, d, m, 0);
		ok(vm_receive(&a, &got) && got.len == 100,
		   "another frame passes an open train");
		send(peer, part[1], n[1], 0);
		send(peer, part[2], n[2], 0);
		ok(vm_receive(&a, &got) && got.len == len &&
			   !memcmp(got.data, frame, len),
		   "which is completed after it");
	}
	ok(across_reload(peer, part, n), "a reload with the same links loses no part of a train");
	ok(vm_receive(&a, &got) && got.len == len && !memcmp(got.data, frame, len),
	   "and the frame is right");
	close(peer);
}

/* No buffers: nothing is lost, nothing spins. */
static void starved(void)
{
	static uint8_t frame[3000], train[3100];
	static struct frame got;
	struct vnet_vendor_block bb;
	unsigned int i, arrived = 0;
	long long sleeps;

	ok(vm_connect(&b, PV_FEATURES, 3), "a second VM, without rx buffers");
	vm_block(&b, &bb);
	for (i = 0; i < 50; i++) {
		uint32_t n = make_train(train, &block, frame,
					make_frame(frame, b.mac, a.mac, 1000, i));

		if (!vm_send(&a, train, n, 4096))
			break;
	}
	ok(wait_until(vm_stat(&b, "rx_starved") >= 1), "its shim waits for buffers");
	sleeps = vm_stat(&b, "loop_sleeps");
	usleep(100000);
	ok(vm_stat(&b, "loop_sleeps") - sleeps < 20, "and does not spin");
	vm_post_rx(&b, 4, 2048);
	for (i = 0; i < 50; i++) {
		make_frame(frame, b.mac, a.mac, 1000, i);
		if (!vm_receive(&b, &got) || got.len != 1000 ||
		    memcmp(got.data, frame, 1000))
			break;
		arrived++;
	}
	is_int(arrived, 50, "every frame arrives once there are");
	/* a train that four buffers never hold */
	{
		static uint8_t big[20000], bigtrain[20100];
		uint32_t n = make_train(bigtrain, &block, big,
					make_frame(big, b.mac, a.mac, 20000, 1));

		vm_send(&a, bigtrain, n, 4096);
		ok(wait_until(vm_stat(&b, "rx_drop_no_buffer") == 1),
		   "a train larger than all buffers is dropped");
		n = make_train(train, &block, frame,
			       make_frame(frame, b.mac, a.mac, 1000, 77));
		vm_send(&a, train, n, 4096);
		ok(vm_receive(&b, &got) && got.len == 1000, "the next one arrives");
	}
}

int main(void)
{
	rig_init();
	vm_start(&a, "a", 1, body_a);
	vm_start(&b, "b", 2, body_b);
	malformed_messages();
	slow_front_end();
	soft_errors();
	ok(vm_connect(&a, PV_FEATURES, 3), "a good front end after all those");
	vm_post_rx(&a, 64, 4096);
	bad_datagrams();
	reassembly();
	bad_trains();
	starved();
	bad_ring();
	vm_free_bufs(&a);
	vm_free_bufs(&b);
	vm_disconnect(&a);
	vm_disconnect(&b);
	ok(wait_until(log_has(&a, "front end has gone")), "the end is logged");
	ok(vm_stop(&a) == 0, "shim a ends well");
	ok(vm_stop(&b) == 0, "shim b ends well");
	rig_done();
	return tap_done();
}
