/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A VM without a VM: a shim in a child process, a vhost-user front end for it,
 * and the guest's side of its rings. Everything waits for an event with a
 * deadline; nothing sleeps to let time pass.
 */
#ifndef SHIM_RIG_H
#define SHIM_RIG_H

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "ring_driver.h"
#include "shim.h"
#include "tap.h"
#include "vhost_user_proto.h"

#define UNUSED __attribute__((unused))
#define DEADLINE_MS 10000
#define RIG_QUEUES 8 /* rx tx ctrl cr eq swq rwq0 rwq1 */
#define RIG_RING 256
#define RIG_GPA 0x40000000ull
#define RIG_USER 0x7f0000000000ull /* the front end's view of the memory */
#define RIG_MEM (32u << 20)
#define STOCK_FEATURES                                                          \
	(VNET_BIT_MASK(VIRTIO_F_VERSION_1) |                                   \
	 VNET_BIT_MASK(VIRTIO_RING_F_EVENT_IDX) |                              \
	 VNET_BIT_MASK(VIRTIO_RING_F_INDIRECT_DESC) |                          \
	 VNET_BIT_MASK(VIRTIO_NET_F_MAC) | VNET_BIT_MASK(VIRTIO_NET_F_CTRL_VQ) | \
	 VNET_BIT_MASK(VIRTIO_NET_F_CTRL_RX) |                                 \
	 VNET_BIT_MASK(VIRTIO_NET_F_MRG_RXBUF))
#define OFFLOADS                                                                \
	(VNET_BIT_MASK(VIRTIO_NET_F_GUEST_CSUM) |                              \
	 VNET_BIT_MASK(VIRTIO_NET_F_GUEST_TSO4) |                              \
	 VNET_BIT_MASK(VIRTIO_NET_F_GUEST_TSO6))
#define PV_FEATURES (STOCK_FEATURES | VNET_BIT_MASK(VNET_F_PARAVIRT_BIT))

struct vm {
	char name[16];
	char conf[128], front[96], log[128];
	uint8_t mac[6];
	pid_t pid;
	int log_fd;
	long stats_seen; /* offset in the log behind the last one read */
	char *stats;
	/* the session */
	int sock, req;
	uint64_t features;
	bool pv;
	struct ring_memory mem;
	struct ring_driver q[RIG_QUEUES];
	unsigned int queues; /* set up */
	unsigned int tx_queue; /* that vm_send() uses; 0: the first */
	uint64_t tx_gpa; /* where frames to be sent are built */
};

static char rig_dir[64];
static const char *rig_door = "vhost-user"; /* of shims started from now on */
static const char *rig_door_words = "";	    /* behind its path */

UNUSED static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

/* Evaluates cond until it holds; false after the deadline. */
#define wait_until(cond)                                              \
	({                                                            \
		const uint64_t end_ = now_ms() + DEADLINE_MS;         \
		bool good_;                                           \
		while (!(good_ = (cond)) && now_ms() < end_)          \
			usleep(200);                                  \
		good_;                                                \
	})

/* A network of the test's own, so that its ports are free. */
static void own_network(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd;

	if (unshare(CLONE_NEWNET) < 0 &&
	    unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) {
		note("no network namespace: %s", strerror(errno));
		return;
	}
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (ioctl(fd, SIOCSIFFLAGS, &lo) < 0)
		bail_out("no loopback interface");
	close(fd);
}

UNUSED static void rig_init(void)
{
	own_network();
	snprintf(rig_dir, sizeof(rig_dir), "/tmp/shim-test.XXXXXX");
	if (!mkdtemp(rig_dir))
		bail_out("no directory");
	signal(SIGPIPE, SIG_IGN);
}

UNUSED static void rig_done(void)
{
	DIR *dir = opendir(rig_dir);
	struct dirent *e;

	while (dir && (e = readdir(dir)))
		if (e->d_name[0] != '.')
			unlinkat(dirfd(dir), e->d_name, 0);
	if (dir)
		closedir(dir);
	rmdir(rig_dir);
}

/* ---- the shim's process ---- */

UNUSED static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	if (!f || fputs(text, f) < 0 || fclose(f) != 0)
		bail_out("cannot write a file");
}

/* body: directives besides vm, mac, front. */
UNUSED static void vm_config(struct vm *vm, const char *body)
{
	char text[8192];

	snprintf(text, sizeof(text),
		 "vm %s\nmac %02x:%02x:%02x:%02x:%02x:%02x\n"
		 "front %s %s %s\n%s",
		 vm->name, vm->mac[0], vm->mac[1], vm->mac[2], vm->mac[3],
		 vm->mac[4], vm->mac[5], rig_door, vm->front, rig_door_words, body);
	write_file(vm->conf, text);
}

static char *log_text(const struct vm *vm)
{
	struct stat st;
	char *text;

	if (fstat(vm->log_fd, &st) < 0)
		bail_out("log");
	text = malloc(st.st_size + 1);
	if (!text || pread(vm->log_fd, text, st.st_size, 0) != st.st_size)
		bail_out("log");
	text[st.st_size] = '\0';
	return text;
}

UNUSED static bool log_has(const struct vm *vm, const char *words)
{
	char *text = log_text(vm);
	bool found = strstr(text, words);

	free(text);
	return found;
}

UNUSED static void vm_start(struct vm *vm, const char *name, uint8_t last,
			    const char *body)
{
	memset(vm, 0, sizeof(*vm));
	snprintf(vm->name, sizeof(vm->name), "%s", name);
	memcpy(vm->mac, (const uint8_t[6]){ 0x52, 0x54, 0, 0x4e, 0x50, last }, 6);
	snprintf(vm->conf, sizeof(vm->conf), "%s/%s.conf", rig_dir, name);
	snprintf(vm->front, sizeof(vm->front), "%s/%s.sock", rig_dir, name);
	snprintf(vm->log, sizeof(vm->log), "%s/%s.log", rig_dir, name);
	vm->sock = -1;
	vm->req = -1;
	vm_config(vm, body);
	vm->log_fd = open(vm->log, O_CREAT | O_TRUNC | O_RDWR | O_APPEND | O_CLOEXEC,
			  0600);
	fflush(stdout);
	vm->pid = fork();
	if (vm->pid == 0) {
		struct shim_config *conf;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(vm->log_fd, STDERR_FILENO);
		dup2(vm->log_fd, STDOUT_FILENO);
		log_init("vnet-shim", LOG_DEBUG);
		conf = shim_config_load(vm->conf);
		exit(conf && shim_run(vm->conf, conf, false) == 0 ? 0 : 1);
	}
	if (!wait_until(log_has(vm, "listening at")))
		bail_out("the shim does not start");
}

/* Its exit status: 0 only if it ended well and leaked nothing. */
UNUSED static int vm_stop(struct vm *vm)
{
	int status = -1;

	kill(vm->pid, SIGTERM);
	waitpid(vm->pid, &status, 0);
	if (status) {
		char *text = log_text(vm);

		note("log of %s: %s", vm->name, text);
		free(text);
	}
	close(vm->log_fd);
	free(vm->stats);
	return status;
}

/* A counter, by SIGUSR1. */
UNUSED static long long vm_stat(struct vm *vm, const char *name)
{
	char key[64], *text = NULL, *at = NULL;

	kill(vm->pid, SIGUSR1);
	if (!wait_until((free(text), text = log_text(vm),
			 at = strstr(text + vm->stats_seen, "stats {"),
			 at && strchr(at, '\n')))) {
		free(text);
		return -1;
	}
	vm->stats_seen = strchr(at, '\n') - text;
	snprintf(key, sizeof(key), "\"%s\":", name);
	at = strstr(at, key);
	long long value = at ? atoll(at + strlen(key)) : -1;
	free(text);
	return value;
}

/* ---- front end ---- */

UNUSED static int front_connect(const struct vm *vm)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval limit = { .tv_sec = DEADLINE_MS / 1000 };

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", vm->front);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		bail_out("cannot connect to the front door");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

UNUSED static int send_raw(int fd, const void *bytes, size_t len, const int *fds,
			   unsigned int nfds)
{
	union {
		char buf[CMSG_SPACE(20 * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)bytes, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (nfds) {
		struct cmsghdr *c = &control.align;

		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	return sendmsg(fd, &msg, MSG_NOSIGNAL) == (ssize_t)len ? 0 : -1;
}

UNUSED static int vu_send(int fd, uint32_t request, uint32_t flags,
			  const void *payload, uint32_t size, const int *fds,
			  unsigned int nfds)
{
	struct {
		uint32_t request, flags, size;
		uint8_t payload[600];
	} m = { request, flags, size, { 0 } };

	if (size)
		memcpy(m.payload, payload, size);
	return send_raw(fd, &m, 12 + size, fds, nfds);
}

/* Payload length, or -1: no good answer to this request. */
UNUSED static int vu_recv(int fd, uint32_t request, void *payload, uint32_t max)
{
	uint32_t hdr[3];

	if (recv(fd, hdr, sizeof(hdr), MSG_WAITALL) != sizeof(hdr) ||
	    hdr[0] != request || hdr[1] != (VU_VERSION | VU_FLAG_REPLY) ||
	    hdr[2] > max)
		return -1;
	if (hdr[2] && recv(fd, payload, hdr[2], MSG_WAITALL) != (ssize_t)hdr[2])
		return -1;
	return hdr[2];
}

UNUSED static uint64_t vu_get(int fd, uint32_t request)
{
	uint64_t value = UINT64_MAX;

	if (vu_send(fd, request, VU_VERSION, NULL, 0, NULL, 0) < 0 ||
	    vu_recv(fd, request, &value, sizeof(value)) != sizeof(value))
		return UINT64_MAX;
	return value;
}

/* Sends and asks for an answer: 0, or what it says; -1: none. */
UNUSED static int vu_call(int fd, uint32_t request, const void *payload,
			  uint32_t size, const int *fds, unsigned int nfds)
{
	uint64_t value;

	if (vu_send(fd, request, VU_VERSION | VU_FLAG_NEED_REPLY, payload, size,
		    fds, nfds) < 0 ||
	    vu_recv(fd, request, &value, sizeof(value)) != sizeof(value))
		return -1;
	return (int)value;
}

UNUSED static int vu_u64(int fd, uint32_t request, uint64_t value)
{
	return vu_call(fd, request, &value, sizeof(value), NULL, 0);
}

UNUSED static int vu_state(int fd, uint32_t request, uint32_t index, uint32_t num)
{
	const struct vu_vring_state s = { index, num };

	return vu_call(fd, request, &s, sizeof(s), NULL, 0);
}

UNUSED static int vu_fd(int fd, uint32_t request, uint64_t value, int pass)
{
	return vu_call(fd, request, &value, sizeof(value), &pass, 1);
}

/* Negotiation, up to SET_FEATURES. */
UNUSED static bool vm_negotiate(struct vm *vm, uint64_t features)
{
	uint64_t pf, offer;
	int pair[2];

	vm->sock = front_connect(vm);
	vm->features = features;
	vm->pv = features & VNET_BIT_MASK(VNET_F_PARAVIRT_BIT);
	if (vu_send(vm->sock, VU_SET_OWNER, VU_VERSION, NULL, 0, NULL, 0) < 0)
		return false;
	offer = vu_get(vm->sock, VU_GET_FEATURES);
	pf = vu_get(vm->sock, VU_GET_PROTOCOL_FEATURES);
	if (offer == UINT64_MAX || pf == UINT64_MAX ||
	    vu_u64(vm->sock, VU_SET_PROTOCOL_FEATURES, pf) != 0)
		return false;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ||
	    vu_call(vm->sock, VU_SET_BACKEND_REQ_FD, NULL, 0, &pair[1], 1) != 0)
		return false;
	vm->req = pair[0];
	close(pair[1]);
	fcntl(vm->req, F_SETFL, O_NONBLOCK);
	return vu_u64(vm->sock, VU_SET_FEATURES,
		      (features & offer) |
			      VNET_BIT_MASK(VU_F_PROTOCOL_FEATURES_BIT)) == 0;
}

UNUSED static bool vm_memory(struct vm *vm)
{
	struct vu_mem_table t = { .count = 1 };

	t.region[0] = (struct vu_mem_region){ RIG_GPA, RIG_MEM, RIG_USER, 0 };
	/* with room for two, as user-mode Linux sends it */
	return vu_call(vm->sock, VU_SET_MEM_TABLE, &t, 8 + 2 * 32, &vm->mem.fd,
		       1) == 0;
}

UNUSED static uint64_t user_of(uint64_t gpa)
{
	return gpa - RIG_GPA + RIG_USER;
}

UNUSED static bool vm_queue_base(struct vm *vm, unsigned int i, uint16_t base)
{
	struct ring_driver *d = &vm->q[i];
	const struct vu_vring_addr addr = {
		.index = i,
		.desc = user_of(d->desc_gpa),
		.used = user_of(d->used_gpa),
		.avail = user_of(d->avail_gpa),
		.log = UINT64_MAX,
	};

	return vu_state(vm->sock, VU_SET_VRING_NUM, i, d->num) == 0 &&
	       vu_state(vm->sock, VU_SET_VRING_BASE, i, base) == 0 &&
	       vu_call(vm->sock, VU_SET_VRING_ADDR, &addr, sizeof(addr), NULL,
		       0) == 0 &&
	       vu_fd(vm->sock, VU_SET_VRING_CALL, i, d->call_fd) == 0 &&
	       vu_fd(vm->sock, VU_SET_VRING_KICK, i, d->kick_fd) == 0 &&
	       vu_state(vm->sock, VU_SET_VRING_ENABLE, i, 1) == 0;
}

/* A session with the first n queues in use. */
UNUSED static bool vm_connect(struct vm *vm, uint64_t features, unsigned int n)
{
	unsigned int i;

	if (ring_memory_create(&vm->mem, RIG_GPA, RIG_MEM) < 0 ||
	    !vm_negotiate(vm, features) || !vm_memory(vm))
		return false;
	vm->queues = n;
	vm->tx_gpa = 0;
	for (i = 0; i < n; i++)
		if (ring_driver_create(&vm->q[i], &vm->mem, RIG_RING,
				       features & VNET_BIT_MASK(
						VIRTIO_RING_F_EVENT_IDX)) < 0 ||
		    !vm_queue_base(vm, i, 0))
			return false;
	return true;
}

UNUSED static void vm_disconnect(struct vm *vm)
{
	unsigned int i;

	if (vm->sock >= 0)
		close(vm->sock);
	if (vm->req >= 0)
		close(vm->req);
	vm->sock = -1;
	vm->req = -1;
	for (i = 0; i < vm->queues; i++)
		ring_driver_destroy(&vm->q[i]);
	vm->queues = 0;
	ring_memory_destroy(&vm->mem);
}

UNUSED static bool vm_block(struct vm *vm, struct vnet_vendor_block *b)
{
	uint8_t buf[sizeof(struct vu_config) + 256] = { 0 };
	const struct vu_config c = { 0, VNET_VENDOR_CONFIG_OFFSET + sizeof(*b), 0 };
	const uint32_t size = sizeof(c) + c.size;

	memcpy(buf, &c, sizeof(c));
	if (vu_send(vm->sock, VU_GET_CONFIG, VU_VERSION, buf, size, NULL, 0) < 0 ||
	    vu_recv(vm->sock, VU_GET_CONFIG, buf, sizeof(buf)) != (int)size)
		return false;
	memcpy(b, buf + sizeof(c) + VNET_VENDOR_CONFIG_OFFSET, sizeof(*b));
	return true;
}

/* Configuration change messages since the last time. */
UNUSED static int vm_config_changes(struct vm *vm)
{
	uint32_t hdr[3];
	int n = 0;

	while (recv(vm->req, hdr, sizeof(hdr), 0) == sizeof(hdr))
		n += hdr[0] == VU_BACKEND_CONFIG_CHANGE_MSG && hdr[2] == 0;
	return n;
}

/* ---- the guest ---- */

/* A piece of guest memory and what the test wants to know of it. */
struct buf {
	uint64_t gpa;
	uint32_t len;
};

UNUSED static struct buf *buf_new(struct vm *vm, uint32_t len)
{
	struct buf *b = malloc(sizeof(*b));

	*b = (struct buf){ ring_memory_alloc(&vm->mem, len, 64), len };
	return b;
}

UNUSED static void vm_post_rx(struct vm *vm, unsigned int count, uint32_t len)
{
	unsigned int i;

	for (i = 0; i < count; i++) {
		struct buf *b = buf_new(vm, len);
		const struct ring_piece piece = { b->gpa, b->len };

		if (ring_driver_add(&vm->q[0], &piece, 0, 1, b, 0) < 0)
			bail_out("rx ring full");
	}
	ring_driver_kick(&vm->q[0]);
}

UNUSED static void vm_free_bufs(struct vm *vm)
{
	unsigned int i, k;

	for (i = 0; i < vm->queues; i++)
		for (k = 0; k < vm->q[i].num; k++)
			free(vm->q[i].cookie[k]);
}

/* What came out of the rx ring. */
struct frame {
	struct vnet_train_hdr train;
	struct virtio_net_hdr_v1 virtio;
	uint8_t encap[8];
	uint16_t encap_len;
	uint8_t data[70000];
	uint32_t len;
	unsigned int buffers;
};

/* The next frame, or false after the deadline. Buffers are posted again. */
UNUSED static bool vm_receive(struct vm *vm, struct frame *f)
{
	static uint8_t all[80000];
	struct ring_driver *q = &vm->q[0];
	unsigned int left = 1, got = 0;
	uint32_t total = 0, skip;

	memset(f, 0, offsetof(struct frame, data));
	f->len = 0;
	while (left--) {
		struct ring_piece piece;
		struct buf *b = NULL;
		uint32_t n;

		if (!wait_until((b = ring_driver_get_used(q, &n))))
			return false;
		if (total + n > sizeof(all))
			bail_out("frame too long");
		memcpy(all + total, ring_memory_at(&vm->mem, b->gpa), n);
		total += n;
		if (got++ == 0) {
			memcpy(&f->train, all, sizeof(f->train));
			memcpy(&f->virtio, all, sizeof(f->virtio));
			f->buffers = vm->pv ? le16toh(f->train.num_buffers) :
					      le16toh(f->virtio.num_buffers);
			left = f->buffers - 1;
		}
		piece = (struct ring_piece){ b->gpa, b->len };
		ring_driver_add(q, &piece, 0, 1, b, 0);
	}
	ring_driver_kick(q);
	skip = sizeof(f->virtio);
	if (vm->pv) {
		f->encap_len = le16toh(f->train.encap_len);
		skip = sizeof(f->train) + f->encap_len;
		memcpy(f->encap, all + sizeof(f->train),
		       f->encap_len < 8 ? f->encap_len : 8);
	}
	if (total < skip)
		return false;
	f->len = total - skip;
	memcpy(f->data, all + skip, f->len);
	return true;
}

/* Sends bytes as one chain of pieces of at most piece_len bytes; waits until it
 * comes back. */
UNUSED static bool vm_send(struct vm *vm, const void *bytes, uint32_t len,
			   uint32_t piece_len)
{
	struct ring_piece pieces[128];
	struct ring_driver *q = &vm->q[vm->tx_queue ? vm->tx_queue : 1];
	unsigned int n = 0;
	uint32_t at = 0, used;
	uint64_t gpa, table;

	if (!vm->tx_gpa)
		vm->tx_gpa = ring_memory_alloc(&vm->mem, 256 * 1024, 4096);
	gpa = vm->tx_gpa;
	table = gpa + 200 * 1024;
	memcpy(ring_memory_at(&vm->mem, gpa), bytes, len);
	while (at < len) {
		pieces[n].gpa = gpa + at;
		pieces[n].len = len - at < piece_len ? len - at : piece_len;
		at += pieces[n++].len;
	}
	if (ring_driver_add(q, pieces, n, 0, (void *)bytes, n > 1 ? table : 0) < 0)
		return false;
	ring_driver_kick(q);
	return wait_until(ring_driver_get_used(q, &used));
}

/* An Ethernet frame with a pattern. */
UNUSED static uint32_t make_frame(uint8_t *f, const uint8_t *dst,
				  const uint8_t *src, uint32_t len, uint8_t seed)
{
	uint32_t i;

	memcpy(f, dst, 6);
	memcpy(f + 6, src, 6);
	f[12] = 0x88;
	f[13] = 0xb5; /* local experimental */
	for (i = 14; i < len; i++)
		f[i] = (uint8_t)(seed + i * 7 + (i >> 8));
	return len;
}

/* Header and encapsulation of a vnet_pv guest in front of a frame. */
UNUSED static uint32_t make_train(uint8_t *out, const struct vnet_vendor_block *b,
				  const uint8_t *frame, uint32_t len)
{
	const uint16_t encap_len = le16toh(b->encap_len);
	struct vnet_train_hdr h = {
		.version = VNET_TRAIN_VERSION,
		.form = VNET_TRAIN_WHOLE,
		.encap_len = b->encap_len,
		.generation = b->generation,
		.train_len = htole32(encap_len + len),
	};
	struct vnet_vxlan_hdr vx = { htobe32(VNET_VXLAN_FLAG_VNI),
				     htobe32(le32toh(b->tenant) << 8) };

	memcpy(out, &h, sizeof(h));
	memcpy(out + sizeof(h), &vx, encap_len);
	memcpy(out + sizeof(h) + encap_len, frame, len);
	return sizeof(h) + encap_len + len;
}

UNUSED static uint32_t make_stock(uint8_t *out, const uint8_t *frame, uint32_t len)
{
	memset(out, 0, sizeof(struct virtio_net_hdr_v1));
	memcpy(out + sizeof(struct virtio_net_hdr_v1), frame, len);
	return sizeof(struct virtio_net_hdr_v1) + len;
}

#endif /* SHIM_RIG_H */
