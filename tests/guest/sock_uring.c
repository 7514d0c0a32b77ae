// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * io_uring: accept, connect, send and receive, all without blocking a thread; receiving many times by one request into
 * buffers of a group; sending without a copy, with its notification; a request that is cancelled, and one whose time is
 * over. The ring is used by its system calls: one request at a time is submitted, and what completes is told apart by its
 * number.
 */
#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "sock_common.h"

#define ENTRIES 16
#define GROUP 7
#define BUFFERS 8
#define BUFFER_SIZE 1000
#define BYTES 300000

static struct ring {
	int fd;
	uint32_t *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
} ring;

struct completion {
	uint64_t number;
	int32_t res;
	uint32_t flags;
};

static void open_ring(void)
{
	struct io_uring_params p = { 0 };
	size_t sq_size, cq_size, size;
	uint8_t *map;

	ring.fd = (int)syscall(__NR_io_uring_setup, ENTRIES, &p);
	if (ring.fd < 0 && (errno == ENOSYS || errno == EPERM)) {
		puts("this kernel has no io_uring");
		_exit(77);
	}
	check(ring.fd >= 0 && p.features & IORING_FEAT_SINGLE_MMAP);
	sq_size = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
	cq_size = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	size = sq_size > cq_size ? sq_size : cq_size;
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, IORING_OFF_SQ_RING);
	ring.sqes = mmap(NULL, p.sq_entries * sizeof(*ring.sqes), PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd,
			 IORING_OFF_SQES);
	check(map != MAP_FAILED && (void *)ring.sqes != MAP_FAILED);
	ring.sq_tail = (uint32_t *)(void *)(map + p.sq_off.tail);
	ring.sq_mask = (uint32_t *)(void *)(map + p.sq_off.ring_mask);
	ring.sq_array = (uint32_t *)(void *)(map + p.sq_off.array);
	ring.cq_head = (uint32_t *)(void *)(map + p.cq_off.head);
	ring.cq_tail = (uint32_t *)(void *)(map + p.cq_off.tail);
	ring.cq_mask = (uint32_t *)(void *)(map + p.cq_off.ring_mask);
	ring.cqes = (void *)(map + p.cq_off.cqes);
}

/* The next entry; it goes with submit(). */
static struct io_uring_sqe *prepare(uint8_t op, int fd, const void *addr, size_t len, uint64_t number)
{
	uint32_t at = *ring.sq_tail & *ring.sq_mask;
	struct io_uring_sqe *sqe = &ring.sqes[at];

	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = op;
	sqe->fd = fd;
	sqe->addr = (uint64_t)(uintptr_t)addr;
	sqe->len = (uint32_t)len;
	sqe->user_data = number;
	ring.sq_array[at] = at;
	__atomic_store_n(ring.sq_tail, *ring.sq_tail + 1, __ATOMIC_RELEASE);
	return sqe;
}

static void submit(int n)
{
	check(syscall(__NR_io_uring_enter, ring.fd, n, 0, 0, NULL, 0) == n);
}

/* The next completion; waits for it. */
static struct completion reap(void)
{
	uint32_t head = *ring.cq_head;
	const struct io_uring_cqe *cqe;
	struct completion c;

	if (__atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE) == head)
		check(syscall(__NR_io_uring_enter, ring.fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 0);
	check(__atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE) != head);
	cqe = &ring.cqes[head & *ring.cq_mask];
	c = (struct completion){ cqe->user_data, cqe->res, cqe->flags };
	__atomic_store_n(ring.cq_head, head + 1, __ATOMIC_RELEASE);
	return c;
}

/* One request from its beginning to its end. */
static int32_t done(uint64_t number)
{
	struct completion c;

	submit(1);
	c = reap();
	check(c.number == number && !(c.flags & IORING_CQE_F_MORE));
	return c.res;
}

static int32_t transfer(uint8_t op, int fd, const void *data, size_t len, int flags)
{
	prepare(op, fd, data, len, op)->msg_flags = (uint32_t)flags;
	return done(op);
}

/* connect() by the ring, and the verb. */
static int ring_call(enum verb verb)
{
	int fd = vnet_socket(peer.v6);
	char c = (char)verb;

	prepare(IORING_OP_CONNECT, fd, sa(&peer), 0, 1)->off = peer.len;
	check(done(1) == 0);
	check_offloaded(fd);
	check(transfer(IORING_OP_SEND, fd, &c, 1, MSG_NOSIGNAL) == 1);
	return fd;
}

static void bytes(void)
{
	static uint8_t out[BYTES], back[BYTES];
	int fd = ring_call(ECHO);
	size_t sent = 0, got = 0;
	int32_t n;

	fill(out, sizeof(out), 11, 0);
	while (got < sizeof(back)) {
		if (sent < sizeof(out)) {
			n = transfer(IORING_OP_SEND, fd, out + sent, sizeof(out) - sent < 50000 ? sizeof(out) - sent : 50000,
				     MSG_NOSIGNAL);
			check(n > 0);
			sent += (size_t)n;
		}
		n = transfer(IORING_OP_RECV, fd, back + got, sent - got, sent < sizeof(out) ? 0 : MSG_WAITALL);
		check(n > 0);
		got += (size_t)n;
	}
	check(!memcmp(out, back, sizeof(out)));

	/* the end of the stream */
	prepare(IORING_OP_SHUTDOWN, fd, NULL, SHUT_WR, 2);
	check(done(2) == 0);
	check(transfer(IORING_OP_RECV, fd, back, 1, 0) == 0);
	check(transfer(IORING_OP_SEND, fd, out, 1, MSG_NOSIGNAL) == -EPIPE);
	close(fd);
}

/* A receive that waits, and is ended: by a cancel, by its time, by the peer's reset; and poll. */
static void waiting(void)
{
	struct __kernel_timespec soon = { .tv_nsec = 50 * 1000 * 1000 };
	int fd = ring_call(ECHO), i;
	struct completion c;
	char byte;

	prepare(IORING_OP_RECV, fd, &byte, 1, 20);
	submit(1);
	prepare(IORING_OP_ASYNC_CANCEL, -1, (void *)20, 0, 21);
	submit(1);
	for (i = 0; i < 2; i++) {
		c = reap();
		check(c.number == 20 ? c.res == -ECANCELED : c.res == 0);
	}
	prepare(IORING_OP_RECV, fd, &byte, 1, 22)->flags = IOSQE_IO_LINK;
	prepare(IORING_OP_LINK_TIMEOUT, -1, &soon, 1, 23);
	submit(2);
	for (i = 0; i < 2; i++) {
		c = reap();
		check(c.number == 22 ? c.res == -ECANCELED : c.res == -ETIME);
	}

	/* neither took a byte */
	prepare(IORING_OP_POLL_ADD, fd, NULL, 0, 24)->poll32_events = POLLIN | POLLRDHUP;
	submit(1);
	write_all(fd, "x", 1);
	c = reap();
	check(c.number == 24 && c.res == POLLIN);
	check(transfer(IORING_OP_RECV, fd, &byte, 1, 0) == 1 && byte == 'x');
	close(fd);

	fd = ring_call(RESET);
	check(transfer(IORING_OP_RECV, fd, &byte, 1, 0) == -ECONNRESET);
	close(fd);
}

/* One request, many messages, each into the next buffer of a group. */
static void many_times(void)
{
	static uint8_t pool[BUFFERS][BUFFER_SIZE];
	struct completion c;
	struct io_uring_sqe *sqe;
	int fd = ring_call(ECHO), i;
	uint32_t buffer;

	sqe = prepare(IORING_OP_PROVIDE_BUFFERS, BUFFERS, pool, BUFFER_SIZE, 30);
	sqe->buf_group = GROUP;
	check(done(30) >= 0);
	sqe = prepare(IORING_OP_RECV, fd, NULL, 0, 31);
	sqe->ioprio = IORING_RECV_MULTISHOT;
	sqe->flags = IOSQE_BUFFER_SELECT;
	sqe->buf_group = GROUP;
	submit(1);
	for (i = 0; i < BUFFERS; i++) {
		char word[16];
		int len = snprintf(word, sizeof(word), "word %d", i);

		write_all(fd, word, (size_t)len);
		c = reap();
		buffer = c.flags >> IORING_CQE_BUFFER_SHIFT;
		check(c.number == 31 && c.res == len && c.flags & IORING_CQE_F_BUFFER && buffer < BUFFERS);
		check(!memcmp(pool[buffer], word, (size_t)len));
	}
	/* no buffer is left */
	write_all(fd, "more", 4);
	do
		c = reap();
	while (c.flags & IORING_CQE_F_MORE);
	check(c.number == 31 && c.res == -ENOBUFS);
	close(fd);
}

/* The pages are the program's until the second completion. */
static void zerocopy(void)
{
	static uint8_t out[50000], back[50000];
	struct completion c;
	int fd = ring_call(ECHO), i;

	fill(out, sizeof(out), 12, 0);
	prepare(IORING_OP_SEND_ZC, fd, out, sizeof(out), 40)->msg_flags = MSG_WAITALL | MSG_NOSIGNAL;
	submit(1);
	c = reap();
	check(c.number == 40 && c.res == sizeof(out) && c.flags & IORING_CQE_F_MORE);
	/* ours are copied, so it is told at once; TCP's when the peer has them */
	prepare(IORING_OP_RECV, fd, back, sizeof(back), 41)->msg_flags = MSG_WAITALL;
	submit(1);
	for (i = 0; i < 2; i++) {
		c = reap();
		check(c.number == 41 ? c.res == sizeof(back) : c.number == 40 && c.flags & IORING_CQE_F_NOTIF);
	}
	check(!memcmp(out, back, sizeof(out)));
	close(fd);
}

/* A listener whose accept() is there before anybody calls; it stays for the next. */
static void accepting(void)
{
	struct addr at;
	int listener, fd, served, i;
	struct completion c;
	char byte = 0;

	check(own_addr(&at, peer.v6));
	set_port(&at, 0);
	listener = listener_on(&at, 8);
	at = name_of(listener);
	at.v6 = peer.v6;
	prepare(IORING_OP_ACCEPT, listener, NULL, 0, 50)->ioprio = IORING_ACCEPT_MULTISHOT;
	submit(1);
	for (i = 0; i < 3; i++) {
		fd = dial(&at);
		c = reap();
		served = c.res;
		check(c.number == 50 && served >= 0 && c.flags & IORING_CQE_F_MORE);
		write_all(fd, "a", 1);
		check(transfer(IORING_OP_READ, served, &byte, 1, 0) == 1 && byte == 'a');
		check(transfer(IORING_OP_WRITE, served, "b", 1, 0) == 1);
		check(read_full(fd, &byte, 1) == 1 && byte == 'b');
		close(fd);
		close(served);
	}
	close(listener);
}

static void client(void)
{
	open_ring();
	bytes();
	waiting();
	many_times();
	zerocopy();
	accepting();
}
