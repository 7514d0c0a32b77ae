// SPDX-License-Identifier: GPL-2.0-or-later
/* The agent's configuration: each bad line is refused with file, line and reason. */
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <unistd.h>

#include "config.h"
#include "vnet_vtoe.h"
#include "log.h"
#include "tap.h"

#define GOOD                               \
	"host h1\n"                        \
	"listen 192.0.2.1:7470\n"          \
	"key-file /etc/vnet/cluster.psk\n" \
	"socket /run/vnet/agent.sock\n"    \
	"vm g1 tenant 77 mac 52:54:00:00:00:01\n" /* line 5 */

static int saved_stderr, capture, file;
static char path[32];
static struct iba_config cfg;

static char *captured(void)
{
	static char text[4096];
	ssize_t n = pread(capture, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

static int load(const char *text)
{
	size_t len = strlen(text);
	int err;

	iba_config_free(&cfg);
	if (ftruncate(capture, 0) || ftruncate(file, 0) ||
	    pwrite(file, text, len, 0) != (ssize_t)len)
		bail_out("write");
	lseek(capture, 0, SEEK_SET);
	dup2(capture, STDERR_FILENO);
	err = iba_config_load(path, &cfg);
	dup2(saved_stderr, STDERR_FILENO);
	return err;
}

/* GOOD and one more line, the sixth, is refused with these words. */
static void bad_line(const char *line, const char *words)
{
	char text[1024], want[256];

	snprintf(text, sizeof(text), "%s%s\n", GOOD, line);
	snprintf(want, sizeof(want), "%s:6: %s", path, words);
	if (!ok(load(text) && strstr(captured(), want), "%s", line))
		note("want \"%s\", got \"%s\"", want, captured());
}

static bool vm_ok(const char *vm, uint32_t tenant, uint8_t mac_last)
{
	const uint8_t mac[VNET_MAC_LEN] = { 0x52, 0x54, 0, 0, 0, mac_last };
	char name[VNET_NAME_LEN] = "";

	strcpy(name, vm);
	return iba_config_vm_ok(&cfg, name, tenant, mac);
}

static void test_vms(void)
{
	is_int(load(GOOD "vm g2 tenant 0xffffff mac 52:54:00:00:00:02\n"), 0,
	       "two VMs");
	is_int(cfg.vm_count, 2, "are kept");
	ok(vm_ok("g1", 77, 1) && vm_ok("g2", 0xffffff, 2), "and may attach");
	ok(!vm_ok("g3", 77, 1), "but not by another name");
	ok(!vm_ok("g1", 78, 1), "in another tenant");
	ok(!vm_ok("g1", 77, 2), "with another's MAC address");
	ok(!vm_ok("g", 77, 1) && !vm_ok("g11", 77, 1),
	   "or a name that begins so");
	is_int(load("host h1\nlisten 192.0.2.1\nkey-file /k\nsocket /s\n"), 0,
	       "no VM");
	ok(vm_ok("g3", 5, 7), "is all of them");
}

static void test_vm_errors(void)
{
	bad_line("vm g2", "usage: vm NAME tenant N mac MAC");
	bad_line("vm g2 tenant 5 mac 52:54:00:00:00:02 x", "usage: vm NAME");
	bad_line("vm g2 mac 5 tenant 52:54:00:00:00:02", "expected vm NAME");
	bad_line("vm g/2 tenant 5 mac 52:54:00:00:00:02", "vm: \"g/2\" is no name");
	bad_line("vm g2 tenant 0x1000000 mac 52:54:00:00:00:02",
		 "tenant: \"0x1000000\" is no number from 1 to 16777215");
	bad_line("vm g2 tenant 0 mac 52:54:00:00:00:02", "tenant: \"0\"");
	bad_line("vm g2 tenant 5 mac 52:54:00:00:00", "\"52:54:00:00:00\"");
	bad_line("vm g2 tenant 5 mac 00:00:00:00:00:00",
		 "\"00:00:00:00:00:00\" is no MAC address of a VM");
	bad_line("vm g2 tenant 5 mac 53:54:00:00:00:02",
		 "\"53:54:00:00:00:02\" is no MAC address of a VM");
	bad_line("vm g1 tenant 77 mac 52:54:00:00:00:02", "vm g1 is given twice");
	bad_line("vm g2 tenant 5 mac 52:54:00:00:00:01",
		 "vm g2 has the MAC address of vm g1");
}

static void test_order(void)
{
	struct sockaddr_storage addr;
	const uint16_t *order;
	unsigned int count;

	ok(!load(GOOD "fabric local verbs tcp\nrdma 192.0.2.9 192.0.2.10\n"
		      "peer 192.0.2.2 fabric tcp\npeer 192.0.2.3:99 fabric tcp verbs\n"),
	   "orders of fabrics for two peers");
	is_int(cfg.rdma_count, 2, "two RDMA ports");
	order = iba_config_order(&cfg, NULL, &count);
	ok(count == 3 && order[1] == VTOE_FABRIC_VERBS, "the general one");
	addr = cfg.peer[1].addr;
	order = iba_config_order(&cfg, &addr, &count);
	ok(count == 2 && order[0] == VTOE_FABRIC_TCP &&
	   order[1] == VTOE_FABRIC_VERBS, "one of a peer");
	((struct sockaddr_in *)&addr)->sin_port = 0;
	order = iba_config_order(&cfg, &addr, &count);
	is_int(count, 3, "not of another port's");
}

static void test_others(void)
{
	bad_line("host h2", "host is given twice");
	bad_line("fabric ib", "unknown fabric \"ib\"");
	bad_line("rdma 192.0.2.1:7000", "expected addresses without ports");
	bad_line("rdma 192.0.2.1 192.0.2.1", "192.0.2.1 is named twice");
	bad_line("peer 192.0.2.2 over tcp", "expected peer ADDR");
	bad_line("peer 192.0.2.2 fabric tcp tcp", "fabric tcp is named twice");
	ok(load(GOOD "peer 192.0.2.2 fabric verbs tcp\n") &&
	   strstr(captured(), "peer 192.0.2.2:7470: \"fabric\" does not allow verbs"),
	   "a peer's fabrics are among those that are allowed");
	test_order();
	ok(!load(GOOD) && !cfg.rdma_write, "data is sent");
	ok(!load(GOOD "rdma-transfer send\n") && !cfg.rdma_write, "also by order");
	ok(!load(GOOD "rdma-transfer write\n") && cfg.rdma_write, "or written");
	ok(load(GOOD "rdma-transfer send\nrdma-transfer write\n") &&
	   strstr(captured(), "rdma-transfer is given twice"), "not both");
	ok(!load(GOOD "poll busy\n") && cfg.spin_us == IBA_SPIN_BUSY,
	   "poll busy");
	bad_line("fabric tcp tcp", "fabric tcp is named twice");
	bad_line("poll sometimes", "expected event, adaptive or busy");
	bad_line("poll event 5", "poll event takes no time");
	bad_line("poll busy 5", "poll busy takes no time");
	bad_line("max-connections 0", "max-connections: \"0\"");
	bad_line("rdma-transfer copy", "expected send or write, not \"copy\"");
	bad_line("progress-events maybe", "expected on or off");
	bad_line("data 192.0.2.1:7000", "expected ADDR or ADDR:PORT-PORT");
	bad_line("data 192.0.2.1:7000-6000", "last port: \"6000\"");
	ok(load("listen 192.0.2.1\n") && strstr(captured(), "no \"host\"") &&
	   strstr(captured(), "no \"key-file\"") &&
	   strstr(captured(), "no \"socket\""), "what is missing is named");
}

int main(void)
{
	log_init("config_test", LOG_INFO);
	strcpy(path, "/tmp/agent-conf-XXXXXX");
	file = mkostemp(path, O_CLOEXEC);
	saved_stderr = dup(STDERR_FILENO);
	capture = memfd_create("stderr", MFD_CLOEXEC);
	if (file < 0 || capture < 0)
		bail_out("no file");
	test_vms();
	test_vm_errors();
	test_others();
	iba_config_free(&cfg);
	unlink(path);
	return tap_done();
}
