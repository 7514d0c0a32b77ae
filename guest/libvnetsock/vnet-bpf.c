// SPDX-License-Identifier: MIT
/*
 * vnet-bpf, what vnet-run --bpf becomes: a program of its own, so that vnet-run
 * needs no libbpf.
 *
 *	vnet-bpf [-l] tree PROGRAM [ARGUMENT...]
 *	vnet-bpf [-l] cgroup DIRECTORY
 *	vnet-bpf [-l] netns FILE
 *
 * It attaches the BPF programs of vnet-bpf.bpf.c and stays, for the program's
 * life or until a signal. Nothing is pinned: when it ends, however it ends, the
 * kernel detaches them. Sockets that were moved stay what they are.
 *
 * While it is there it holds a socket of the protocol, for a module that went
 * away would leave the moved processes without any TCP.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include "vnet-bpf.h"
#include "vnet_sock.h"

#define HOOK "update_socket_protocol"

/* As vnet-run. */
enum { EXIT_NOT_FOUND = 127, EXIT_NOT_STARTED = 126, EXIT_USAGE = 125 };

/* The object, as the compiler left it. */
__asm__(".pushsection .rodata\n"
	".balign 8\n"
	"object: .incbin \"" VNET_BPF_OBJECT "\"\n"
	"object_end:\n"
	".popsection\n");
extern const char object[], object_end[];

static char complaint[256]; /* libbpf's first */

__attribute__((noreturn, format(printf, 2, 3)))
static void die(int status, const char *fmt, ...)
{
	va_list ap;

	fputs("vnet-run: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	if (*complaint)
		fprintf(stderr, " (%s)", complaint);
	fputc('\n', stderr);
	exit(status);
}

static int keep_complaint(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	if (level == LIBBPF_WARN && !*complaint) {
		vsnprintf(complaint, sizeof(complaint), fmt, ap);
		complaint[strcspn(complaint, "\n")] = '\0';
	}
	return 0;
}

/* ---- what the kernel must have ---- */

static void hold_protocol(void)
{
	if (socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, VNETPROTO_INET) < 0)
		die(EXIT_USAGE, "no sockets of protocol %d: %s; is the module vtoe_sock loaded?",
		    VNETPROTO_INET, strerror(errno));
}

static void check_hook(void)
{
	struct btf *btf = btf__load_vmlinux_btf();

	if (!btf) {
		*complaint = '\0'; /* about all the places where it looked */
		die(EXIT_USAGE, "--bpf: this kernel has no type information (/sys/kernel/btf/vmlinux)");
	}
	if (btf__find_by_name_kind(btf, HOOK, BTF_KIND_FUNC) < 0)
		die(EXIT_USAGE, "--bpf: this kernel has no hook in socket() (" HOOK
		    ", which came after Linux 6.1); use the preload library");
	btf__free(btf);
}

/* ---- the programs ---- */

static struct bpf_object *load(const struct vnet_bpf_wanted *wanted)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = "vnet");
	struct bpf_object *obj = bpf_object__open_mem(object, (size_t)(object_end - object), &opts);

	if (!obj || bpf_map__set_initial_value(bpf_object__find_map_by_name(obj, ".rodata.wanted"),
					       wanted, sizeof(*wanted)))
		die(EXIT_USAGE, "--bpf: cannot open the BPF object: %s", strerror(errno));
	bpf_program__set_autoload(bpf_object__find_program_by_name(obj, "mark_child"),
				  wanted->scope == VNET_BPF_TREE);
	if (bpf_object__load(obj))
		die(EXIT_USAGE, "--bpf: cannot load the BPF programs: %s", strerror(errno));
	return obj;
}

static int map_fd(struct bpf_object *obj, const char *name)
{
	return bpf_object__find_map_fd_by_name(obj, name);
}

static void attach(struct bpf_object *obj)
{
	struct bpf_program *prog;

	bpf_object__for_each_program(prog, obj)
		if (bpf_program__autoload(prog) && !bpf_program__attach(prog))
			die(EXIT_USAGE, "--bpf: cannot attach to %s: %s",
			    bpf_program__section_name(prog), strerror(errno));
}

/* ---- scopes ---- */

static void mark_self(struct bpf_object *obj, bool on)
{
	int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	__u32 mark = 1;

	if (self < 0 || (on ? bpf_map_update_elem(map_fd(obj, "tree"), &self, &mark, BPF_ANY) :
			      bpf_map_delete_elem(map_fd(obj, "tree"), &self)))
		die(EXIT_USAGE, "--bpf: cannot mark the process: %s", strerror(errno));
	close(self);
}

static void choose_cgroup(struct bpf_object *obj, const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	__u32 zero = 0;

	if (fd < 0)
		die(EXIT_USAGE, "cannot open the cgroup %s: %s", path, strerror(errno));
	if (bpf_map_update_elem(map_fd(obj, "cgroup"), &zero, &fd, BPF_ANY))
		die(EXIT_USAGE, "%s is no directory of a cgroup2 file system: %s", path, strerror(errno));
	close(fd);
}

static __u32 netns_of(const char *path)
{
	struct stat st, own;

	if (stat(path, &st))
		die(EXIT_USAGE, "cannot find the network namespace %s: %s", path, strerror(errno));
	if (stat("/proc/self/ns/net", &own) || st.st_dev != own.st_dev)
		die(EXIT_USAGE, "%s is no network namespace", path);
	return (__u32)st.st_ino;
}

/* ---- until it ends ---- */

static pid_t start(char **argv, const sigset_t *mask)
{
	pid_t pid = fork();

	if (pid < 0)
		die(EXIT_USAGE, "cannot start %s: %s", argv[0], strerror(errno));
	if (pid)
		return pid;
	sigprocmask(SIG_SETMASK, mask, NULL);
	execvp(argv[0], argv);
	die(errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_STARTED, "cannot start %s: %s",
	    argv[0], strerror(errno));
}

/* Its exit status, once child has one. */
static int follow(pid_t child, const sigset_t *signals)
{
	siginfo_t info;
	int status;

	for (;;) {
		if (sigwaitinfo(signals, &info) < 0)
			continue;
		if (info.si_signo != SIGCHLD) {
			/* What the terminal sends, it sends to both. */
			if (info.si_code <= 0)
				kill(child, info.si_signo);
			continue;
		}
		if (waitpid(child, &status, WNOHANG) == child)
			return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	}
}

static void wait_for_end(sigset_t *signals)
{
	int sig;

	sigdelset(signals, SIGCHLD);
	puts("vnet-run: attached");
	fflush(stdout);
	sigwait(signals, &sig);
}

static void report(struct bpf_object *obj)
{
	struct vnet_bpf_told told = { 0 };
	__u32 zero = 0;

	if (!bpf_map_lookup_elem(map_fd(obj, ".bss.told"), &zero, &told))
		fprintf(stderr, "vnet-run: moved %llu sockets\n", told.moved);
}

int main(int argc, char **argv)
{
	static const int forwarded[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGCHLD };
	bool log = argc > 1 && !strcmp(argv[1], "-l");
	char **args = argv + 1 + log;
	struct vnet_bpf_wanted wanted = { 0 };
	sigset_t signals, before;
	struct bpf_object *obj;
	int status = 0;
	size_t i;

	if (argc - (args - argv) < 2)
		die(EXIT_USAGE, "vnet-bpf is for vnet-run --bpf");
	if (!strcmp(args[0], "tree"))
		wanted.scope = VNET_BPF_TREE;
	else if (!strcmp(args[0], "cgroup"))
		wanted.scope = VNET_BPF_CGROUP;
	else if (!strcmp(args[0], "netns"))
		wanted.scope = VNET_BPF_NETNS;
	else
		die(EXIT_USAGE, "vnet-bpf is for vnet-run --bpf");
	if (wanted.scope == VNET_BPF_NETNS)
		wanted.netns = netns_of(args[1]);

	libbpf_set_print(keep_complaint);
	hold_protocol();
	check_hook();
	obj = load(&wanted);
	if (wanted.scope == VNET_BPF_CGROUP)
		choose_cgroup(obj, args[1]);
	sigemptyset(&signals);
	for (i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); i++)
		sigaddset(&signals, forwarded[i]);
	sigprocmask(SIG_BLOCK, &signals, &before);
	attach(obj);

	if (wanted.scope == VNET_BPF_TREE) {
		pid_t child;

		mark_self(obj, true);
		child = start(args + 1, &before);
		mark_self(obj, false);
		status = follow(child, &signals);
	} else {
		wait_for_end(&signals);
	}
	if (log)
		report(obj);
	return status;
}
