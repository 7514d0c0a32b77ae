// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * BPF programs that a cgroup has for socket(), bind(), connect() and setsockopt(): they are asked, may refuse, and may change
 * the address and what a new socket has. An accepted socket is of its listener's cgroup.
 */
#include <linux/bpf.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "sock_common.h"

#define GROUP "/tmp/sock_cgroup"

#define MOV(dst, value) ((struct bpf_insn){ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = (dst), .imm = (value) })
#define STORE(dst, offset, src) \
	((struct bpf_insn){ .code = BPF_STX | BPF_MEM | BPF_W, .dst_reg = (dst), .src_reg = (src), .off = (offset) })
#define EXIT() ((struct bpf_insn){ .code = BPF_JMP | BPF_EXIT })

static int bpf(int cmd, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

/* Lets pass (allow) or not, with another port if there is one. -1: this kernel has no such programs. */
static int load(enum bpf_attach_type type, bool allow, int port)
{
	struct bpf_insn insns[4];
	union bpf_attr attr = {
		.prog_type = type == BPF_CGROUP_SETSOCKOPT ? BPF_PROG_TYPE_CGROUP_SOCKOPT : BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
		.expected_attach_type = type,
		.insns = (uintptr_t)insns,
		.license = (uintptr_t)"GPL",
	};
	unsigned int n = 0;

	if (port) {
		insns[n++] = MOV(2, htons((uint16_t)port));
		insns[n++] = STORE(1, offsetof(struct bpf_sock_addr, user_port), 2);
	}
	insns[n++] = MOV(0, allow);
	insns[n++] = EXIT();
	attr.insn_cnt = n;
	return bpf(BPF_PROG_LOAD, &attr);
}

static void attach(int group, int prog, enum bpf_attach_type type, bool on)
{
	union bpf_attr attr = { .target_fd = (uint32_t)group, .attach_bpf_fd = (uint32_t)prog,
				.attach_type = type };

	check(bpf(on ? BPF_PROG_ATTACH : BPF_PROG_DETACH, &attr) == 0);
}

/* For new sockets: lets them be made (allow) or not, with a field of theirs set if there is one. */
static int load_create(bool allow, int16_t field, int value)
{
	struct bpf_insn insns[4];
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_CGROUP_SOCK,
		.expected_attach_type = BPF_CGROUP_INET_SOCK_CREATE,
		.insns = (uintptr_t)insns,
		.license = (uintptr_t)"GPL",
	};
	unsigned int n = 0;

	if (value) {
		insns[n++] = MOV(2, value);
		insns[n++] = STORE(1, field, 2);
	}
	insns[n++] = MOV(0, allow);
	insns[n++] = EXIT();
	attr.insn_cnt = n;
	return bpf(BPF_PROG_LOAD, &attr);
}

/* The group that this process is in from now on; -1: there are none. */
static int join_group(void)
{
	int fd;

	mkdir(GROUP, 0755);
	if (mount("none", GROUP, "cgroup2", 0, NULL) && errno != EBUSY)
		return -1;
	mkdir(GROUP "/test", 0755);
	fd = open(GROUP "/test/cgroup.procs", O_WRONLY);
	check(fd >= 0 && write(fd, "0", 1) == 1);
	close(fd);
	return open(GROUP "/test", O_RDONLY | O_DIRECTORY);
}

static void leave_group(int group)
{
	int fd = open(GROUP "/cgroup.procs", O_WRONLY);

	check(fd >= 0 && write(fd, "0", 1) == 1);
	close(fd);
	close(group);
	rmdir(GROUP "/test");
	umount2(GROUP, MNT_DETACH);
}

/* What the group of a listener may not do, a socket that it has accepted may not, whoever accepts it. */
static void accepted(int group)
{
	int no = load(BPF_CGROUP_SETSOCKOPT, false, 0), listener, fd, child, on = 1;
	struct addr own;

	check(no >= 0);
	check(own_addr(&own, peer.v6));
	set_port(&own, 7097);
	listener = vnet_socket(peer.v6);
	check(bind(listener, sa(&own), own.len) == 0 && listen(listener, 1) == 0);
	fd = vnet_socket(peer.v6);
	check(connect(fd, sa(&own), own.len) == 0);
	child = accept(listener, NULL, NULL);
	check(child >= 0);
	check_offloaded(child);
	attach(group, no, BPF_CGROUP_SETSOCKOPT, true);
	check(setsockopt(listener, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) == -1 && errno == EPERM);
	check(setsockopt(child, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) == -1 && errno == EPERM);
	attach(group, no, BPF_CGROUP_SETSOCKOPT, false);
	check(setsockopt(child, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) == 0);
	close(child);
	close(fd);
	close(listener);
}

/* What is refused is refused; a priority is the socket's; a mark is for TCP to carry. */
static void created(int group)
{
	const enum bpf_attach_type type = BPF_CGROUP_INET_SOCK_CREATE;
	int no = load_create(false, 0, 0), fd;
	int priority = load_create(true, offsetof(struct bpf_sock, priority), 5);
	int mark = load_create(true, offsetof(struct bpf_sock, mark), 7);

	check(no >= 0 && priority >= 0 && mark >= 0);
	attach(group, no, type, true);
	check(try_socket(peer.v6) == -1 && errno == EPERM);
	attach(group, no, type, false);

	attach(group, priority, type, true);
	fd = vnet_socket(peer.v6);
	attach(group, priority, type, false);
	check(get_int(fd, SOL_SOCKET, SO_PRIORITY) == 5);
	check(connect(fd, sa(&peer), peer.len) == 0);
	check_offloaded(fd);
	close(fd);

	attach(group, mark, type, true);
	fd = vnet_socket(peer.v6);
	attach(group, mark, type, false);
	check(get_int(fd, SOL_SOCKET, SO_MARK) == 7);
	check(connect(fd, sa(&peer), peer.len) == 0);
	if (way == OFFLOAD)
		expect_tcp(fd, VTOE_REASON_OPTION);
	close(fd);
}

static void client(void)
{
	enum bpf_attach_type type = peer.v6 ? BPF_CGROUP_INET6_CONNECT : BPF_CGROUP_INET4_CONNECT;
	enum bpf_attach_type bind_type = peer.v6 ? BPF_CGROUP_INET6_BIND : BPF_CGROUP_INET4_BIND;
	struct addr other = peer;
	int group, no, elsewhere, no_bind, fd;
	char c = ECHO;

	no = load(type, false, 0);
	group = no < 0 ? -1 : join_group();
	if (group < 0) {
		puts("no BPF programs for cgroups in this kernel");
		exit(77);
	}
	elsewhere = load(type, true, port_of(&peer));
	no_bind = load(bind_type, false, 0);
	check(elsewhere >= 0 && no_bind >= 0);

	/* refused: nobody hears of it, and the socket is as it was */
	attach(group, no, type, true);
	fd = vnet_socket(peer.v6);
	check(connect(fd, sa(&peer), peer.len) == -1 && errno == EPERM);
	check(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
	check(connect(fd, sa(&peer), peer.len) == -1 && errno == EPERM);
	check(fcntl(fd, F_SETFL, 0) == 0);
	attach(group, no, type, false);
	check(connect(fd, sa(&peer), peer.len) == 0);
	check_offloaded(fd);
	close(fd);

	/* sent elsewhere: to the server, not to the port that nobody listens on */
	attach(group, elsewhere, type, true);
	set_port(&other, 7099);
	fd = vnet_socket(peer.v6);
	check(connect(fd, sa(&other), other.len) == 0);
	check_offloaded(fd);
	write_all(fd, &c, 1);
	write_all(fd, "x", 1);
	check(recv(fd, &c, 1, MSG_WAITALL) == 1 && c == 'x');
	close(fd);
	attach(group, elsewhere, type, false);

	attach(group, no_bind, bind_type, true);
	check(own_addr(&other, peer.v6));
	set_port(&other, 7098);
	fd = vnet_socket(peer.v6);
	check(bind(fd, sa(&other), other.len) == -1 && errno == EPERM);
	attach(group, no_bind, bind_type, false);
	check(bind(fd, sa(&other), other.len) == 0);
	close(fd);

	accepted(group);
	created(group);
	leave_group(group);
}
