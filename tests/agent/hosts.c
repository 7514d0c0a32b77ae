// SPDX-License-Identifier: GPL-2.0-or-later
/* See hosts.h. */
#include "hosts.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config.h"
#include "control.h"

#define PIDS_MAX 64

uint32_t agent_net(void)
{
	const char *net = getenv("AGENT_NET");

	return net ? ntohl(inet_addr(net)) : 0x7f000000;
}

static void put_file(const char *dir, const char *name, const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	if (!f || fputs(text, f) < 0 || fclose(f)) {
		perror(path);
		exit(1);
	}
	chmod(path, 0600);
}

/* A port that is free now: other tests of this machine have theirs. */
static uint16_t free_port(unsigned int number)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	addr.sin_addr.s_addr = htonl(agent_net() | number);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
		perror("bind");
	close(fd);
	return ntohs(addr.sin_port);
}

static int serve_linked(const char *path)
{
	static struct iba_config cfg;
	static struct iba_control control;
	uint8_t key[IBA_KEY_LEN];
	int err;

	log_init("vnet-ibagent", getenv("AGENT_DEBUG") ? LOG_DEBUG : LOG_INFO);
	if (iba_config_load(path, &cfg) || iba_key_load(cfg.key_file, key))
		return 1;
	err = iba_control_start(&control, &cfg, key);
	if (err)
		return 1;
	err = loop_run(control.loop);
	iba_control_stop(&control);
	return err ? 1 : 0;
}

static bool wait_socket(const struct test_agent *agent)
{
	for (int i = 0; i < 500; i++) {
		if (access(agent->socket, F_OK) == 0)
			return true;
		if (waitpid(agent->pid, NULL, WNOHANG) == agent->pid)
			return false;
		usleep(10000);
	}
	return false;
}

static void child(const struct test_agent *agent, const char *config,
		  const char *program)
{
	int fd = open(agent->log, O_WRONLY | O_CREAT | O_APPEND, 0600);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(fd, STDERR_FILENO);
	dup2(fd, STDOUT_FILENO);
	close_range(3, ~0U, 0);
	if (program) {
		execl(program, program, "--config", config,
		      getenv("AGENT_DEBUG") ? "--verbose" : NULL, NULL);
		_exit(126);
	}
	exit(serve_linked(config));
}

int agent_start(struct test_agent *agent, unsigned int number, const char *key,
		const char *extra, const char *program)
{
	char text[1024], config[128];
	uint32_t net = agent_net();

	memset(agent, 0, sizeof(*agent));
	agent->number = number;
	strcpy(agent->dir, "/tmp/agent-test-XXXXXX");
	if (!mkdtemp(agent->dir))
		return -errno;
	chmod(agent->dir, 0755); /* the agent may become another user */
	agent->port = free_port(number);
	snprintf(agent->socket, sizeof(agent->socket), "%s/socket", agent->dir);
	snprintf(agent->log, sizeof(agent->log), "%s/log", agent->dir);
	snprintf(config, sizeof(config), "%s/conf", agent->dir);
	snprintf(text, sizeof(text),
		 "host h%u\nlisten %u.%u.%u.%u:%u\nkey-file %s/key\nsocket %s\n%s",
		 number, net >> 24, net >> 16 & 255,
		 net >> 8 & 255, number, agent->port, agent->dir,
		 agent->socket, extra);
	for (char *at = text; (at = strchr(at, '@')); )
		*at = (char)('0' + number);
	put_file(agent->dir, "conf", text);
	snprintf(text, sizeof(text), "%s\n", key);
	put_file(agent->dir, "key", text);
	agent->addr.family = 4;
	agent->addr.port = htons(agent->port);
	memcpy(agent->addr.addr, &(uint32_t){ htonl(agent_net() | number) }, 4);
	fflush(NULL);
	agent->pid = fork();
	if (agent->pid == 0)
		child(agent, config, program);
	return wait_socket(agent) ? 0 : -ECHILD;
}

static void remove_dir(const struct test_agent *agent)
{
	static const char *const names[] = { "conf", "key", "socket", "log" };
	char path[128];

	for (unsigned int i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%s/%s", agent->dir, names[i]);
		unlink(path);
	}
	rmdir(agent->dir);
}

static int reap(struct test_agent *agent)
{
	int status = 0;

	if (agent->pid <= 0 || waitpid(agent->pid, &status, 0) != agent->pid)
		return -1;
	agent->pid = 0;
	if (!WIFEXITED(status) || WEXITSTATUS(status) || getenv("AGENT_DEBUG"))
		agent_show_log(agent);
	remove_dir(agent);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int agent_stop(struct test_agent *agent)
{
	kill(agent->pid, SIGTERM);
	return reap(agent);
}

void agent_kill(struct test_agent *agent)
{
	int status;

	kill(agent->pid, SIGKILL);
	waitpid(agent->pid, &status, 0);
	agent->pid = 0;
	remove_dir(agent);
}

void agent_show_log(const struct test_agent *agent)
{
	char line[1024];
	FILE *f = fopen(agent->log, "r");

	while (f && fgets(line, sizeof(line), f))
		printf("# h%u: %s", agent->number, line);
	if (f)
		fclose(f);
}

bool agent_logged(const struct test_agent *agent, const char *text)
{
	char line[1024];

	for (int i = 0; i < 300; i++) {
		FILE *f = fopen(agent->log, "r");
		bool found = false;

		while (f && !found && fgets(line, sizeof(line), f))
			found = strstr(line, text);
		if (f)
			fclose(f);
		if (found)
			return true;
		usleep(10000);
	}
	return false;
}

/* The number behind "key": in the object of VM vm on this line; -1: not there. */
static long long find_counter(const char *line, const char *vm, const char *key)
{
	char text[64];
	const char *at;

	snprintf(text, sizeof(text), "{\"name\":\"%s\",", vm);
	at = strstr(line, text);
	snprintf(text, sizeof(text), "\"%s\":", key);
	at = at ? strstr(at, text) : NULL;
	return at ? atoll(at + strlen(text)) : -1;
}

/* The sum of "key": over the lanes of this fabric that are up; -1: not that line. */
static long long sum_lanes(const char *line, const char *fabric, const char *key)
{
	char of[64], text[64];
	const char *at, *end;
	long long sum = 0;

	line = strstr(line, "\"lanes\":[");
	if (!line)
		return -1;
	snprintf(of, sizeof(of), "\"fabric\":\"%s\"", fabric);
	snprintf(text, sizeof(text), "\"%s\":", key);
	for (at = strstr(line, of); at; at = end) {
		const char *value = strstr(at, text);
		const char *up = strstr(at, "\"state\":\"up\"");

		end = strstr(at + 1, "\"fabric\":");
		if (value && up && (!end || (value < end && up < end)))
			sum += atoll(value + strlen(text));
		if (end)
			end = strstr(end, of);
	}
	return sum;
}

/* A whole line; one that is being written is read later. */
static bool read_line(char *line, int size, FILE *f)
{
	long start = ftell(f);

	if (!fgets(line, size, f))
		return false;
	if (strchr(line, '\n'))
		return true;
	fseek(f, start, SEEK_SET);
	return false;
}

long long agent_lanes_counter(const struct test_agent *agent,
			      const char *fabric, const char *key)
{
	static char line[65536];
	long long value = -1;
	FILE *f = fopen(agent->log, "r");

	if (!f)
		return -1;
	fseek(f, 0, SEEK_END);
	kill(agent->pid, SIGUSR1);
	for (int i = 0; i < 300 && value < 0; i++) {
		usleep(10000);
		clearerr(f);
		while (value < 0 && read_line(line, sizeof(line), f))
			value = sum_lanes(line, fabric, key);
	}
	fclose(f);
	return value;
}

long long agent_vm_counter(const struct test_agent *agent, const char *vm,
			   const char *key)
{
	static char line[65536];
	long long value = -1;
	FILE *f = fopen(agent->log, "r");

	if (!f)
		return -1;
	fseek(f, 0, SEEK_END);
	kill(agent->pid, SIGUSR1);
	for (int i = 0; i < 300 && value < 0; i++) {
		usleep(10000);
		clearerr(f);
		while (value < 0 && read_line(line, sizeof(line), f))
			value = find_counter(line, vm, key);
	}
	fclose(f);
	return value;
}

static unsigned int count_fds_of(pid_t pid)
{
	unsigned int count = 0;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	while (dir && readdir(dir))
		count++;
	if (dir)
		closedir(dir);
	return count;
}

/* Main first, then the tenants'. */
static unsigned int pids_of(const struct test_agent *agent, pid_t pid[PIDS_MAX])
{
	unsigned int count = 1;
	char path[64];
	FILE *f;

	pid[0] = agent->pid;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", agent->pid,
		 agent->pid);
	f = fopen(path, "r");
	while (f && count < PIDS_MAX && fscanf(f, "%d", &pid[count]) == 1)
		count++;
	if (f)
		fclose(f);
	return count;
}

unsigned int agent_processes(const struct test_agent *agent, unsigned int *fds)
{
	pid_t pid[PIDS_MAX];
	unsigned int count = pids_of(agent, pid);

	*fds = 0;
	for (unsigned int i = 0; i < count; i++)
		*fds += count_fds_of(pid[i]);
	return count;
}

unsigned int agent_tenants(const struct test_agent *agent, pid_t *pid,
			   unsigned int max)
{
	pid_t all[PIDS_MAX];
	unsigned int count = pids_of(agent, all) - 1;

	for (unsigned int i = 0; i < count && i < max; i++)
		pid[i] = all[i + 1];
	return count;
}

void agent_limit_files(const struct test_agent *agent, unsigned int max)
{
	pid_t pid[PIDS_MAX];
	unsigned int count = pids_of(agent, pid);
	struct rlimit limit;

	for (unsigned int i = 0; i < count; i++) {
		prlimit(pid[i], RLIMIT_NOFILE, NULL, &limit);
		limit.rlim_cur = max < limit.rlim_max ? max : limit.rlim_max;
		prlimit(pid[i], RLIMIT_NOFILE, &limit, NULL);
	}
}

static unsigned int cpu_ms_of(pid_t pid)
{
	unsigned long user = 0, sys = 0;
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (!f)
		return 0;
	if (fscanf(f, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
		   &user, &sys) != 2)
		user = sys = 0;
	fclose(f);
	return (unsigned int)((user + sys) * 1000 / (unsigned long)sysconf(_SC_CLK_TCK));
}

unsigned int agent_cpu_ms(const struct test_agent *agent)
{
	pid_t pid[PIDS_MAX];
	unsigned int count = pids_of(agent, pid), ms = 0;

	for (unsigned int i = 0; i < count; i++)
		ms += cpu_ms_of(pid[i]);
	return ms;
}
