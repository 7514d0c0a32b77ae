// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The configuration file of vnet-ibagent, and its pre-shared key.
 *
 * Both are the operator's, so this parser guards against mistakes, not attacks:
 * every error names file and line, and nothing is guessed.
 */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "conf.h"
#include "log.h"
#include "vnet_peer.h"
#include "vnet_vtoe.h"

#define SPIN_US_DEFAULT 50
#define SPIN_US_MAX 100000
#define MAX_CONNECTIONS_DEFAULT 65536
#define TENANT_MAX 0xffffffu
#define PEER_USAGE "ADDR[:PORT] fabric local|verbs|tcp..."
#define VM_USAGE "NAME tenant N mac MAC"

struct parse {
	struct iba_config *cfg;
	bool poll_seen, max_seen, progress_seen, transfer_seen;
};

static const char *const fabric_names[] = {
	[VTOE_FABRIC_LOCAL] = "local",
	[VTOE_FABRIC_TCP] = "tcp",
	[VTOE_FABRIC_VERBS] = "verbs",
};

#define FABRIC_NAMES (sizeof(fabric_names) / sizeof(fabric_names[0]))

bool iba_config_allows(const struct iba_config *cfg, uint16_t fabric)
{
	for (unsigned int i = 0; i < cfg->fabric_count; i++)
		if (cfg->fabric[i] == fabric)
			return true;
	return false;
}

uint16_t iba_config_fabrics(const struct iba_config *cfg)
{
	uint16_t mask = 0;

	for (unsigned int i = 0; i < cfg->fabric_count; i++)
		mask |= (uint16_t)(1u << cfg->fabric[i]);
	return mask;
}

const uint16_t *iba_config_order(const struct iba_config *cfg,
				 const struct sockaddr_storage *agent,
				 unsigned int *count)
{
	for (unsigned int i = 0; agent && i < cfg->peer_count; i++) {
		const struct iba_config_peer *peer = &cfg->peer[i];

		if (!sockaddr_equal(&peer->addr, agent))
			continue;
		*count = peer->fabric_count;
		return peer->fabric;
	}
	*count = cfg->fabric_count;
	return cfg->fabric;
}

bool iba_config_vm_ok(const struct iba_config *cfg,
		      const char name[VNET_NAME_LEN], uint32_t tenant,
		      const uint8_t mac[VNET_MAC_LEN])
{
	for (unsigned int i = 0; i < cfg->vm_count; i++) {
		const struct iba_config_vm *vm = &cfg->vm[i];

		if (!strncmp(vm->name, name, VNET_NAME_LEN))
			return vm->tenant == tenant &&
			       !memcmp(vm->mac, mac, VNET_MAC_LEN);
	}
	return !cfg->vm_count;
}

static int twice(const struct conf_line *line)
{
	return conf_error(line, "%s is given twice", line->argv[0]);
}

static int parse_host(const struct conf_line *line, void *ctx)
{
	struct iba_config *cfg = ((struct parse *)ctx)->cfg;

	if (cfg->host[0])
		return twice(line);
	return conf_name(line, "host", line->argv[1], cfg->host);
}

static int parse_listen(const struct conf_line *line, void *ctx)
{
	struct iba_config *cfg = ((struct parse *)ctx)->cfg;

	if (cfg->listen.ss_family)
		return twice(line);
	return conf_sockaddr(line, line->argv[1], VNET_PEER_PORT, &cfg->listen);
}

static bool has_port(const char *word)
{
	const char *colon = strrchr(word, ':');

	/* an IPv6 address has colons of its own and stands in brackets */
	return colon && (*word == '[' ? colon[-1] == ']' :
					strchr(word, ':') == colon);
}

/* ADDR, ADDR:PORT-PORT, [ADDR6]:PORT-PORT */
static int parse_data(const struct conf_line *line, void *ctx)
{
	struct iba_config *cfg = ((struct parse *)ctx)->cfg;
	char word[SOCKADDR_STRLEN];
	uint32_t first, last;
	char *dash, *colon;
	int err;

	if (cfg->data_set)
		return twice(line);
	if (strlen(line->argv[1]) >= sizeof(word))
		return conf_error(line, "address too long");
	strcpy(word, line->argv[1]);
	dash = strrchr(word, '-');
	if (dash) {
		*dash++ = '\0';
		colon = strrchr(word, ':');
		if (!colon)
			return conf_error(line, "expected ADDR:PORT-PORT");
		err = conf_u32(line, "first port", colon + 1, 1, 65535, &first);
		if (!err)
			err = conf_u32(line, "last port", dash, first, 65535,
				       &last);
		if (err)
			return err;
		cfg->data_port_first = (uint16_t)first;
		cfg->data_port_last = (uint16_t)last;
	}
	if (!dash && has_port(word))
		return conf_error(line, "expected ADDR or ADDR:PORT-PORT, a port for each tenant");
	cfg->data_set = true;
	return conf_sockaddr(line, word, VNET_PEER_PORT, &cfg->data);
}

/* A port for each tenant is taken by the RDMA connection manager. */
static int parse_rdma(const struct conf_line *line, void *ctx)
{
	struct iba_config *cfg = ((struct parse *)ctx)->cfg;

	if (cfg->rdma_set)
		return twice(line);
	cfg->rdma_set = true;
	for (int i = 1; i < line->argc; i++) {
		struct sockaddr_storage *addr = &cfg->rdma[cfg->rdma_count];

		if (has_port(line->argv[i]))
			return conf_error(line, "expected addresses without ports");
		if (conf_sockaddr(line, line->argv[i], VNET_PEER_PORT, addr))
			return -EINVAL;
		for (unsigned int j = 0; j < cfg->rdma_count; j++)
			if (sockaddr_equal(addr, &cfg->rdma[j]))
				return conf_error(line, "%s is named twice",
						  line->argv[i]);
		cfg->rdma_count++;
	}
	return 0;
}

static int parse_rdma_transfer(const struct conf_line *line, void *ctx)
{
	struct parse *p = ctx;

	if (p->transfer_seen)
		return twice(line);
	p->transfer_seen = true;
	if (!strcmp(line->argv[1], "write"))
		p->cfg->rdma_write = true;
	else if (strcmp(line->argv[1], "send"))
		return conf_error(line, "expected send or write, not \"%s\"",
				  line->argv[1]);
	return 0;
}

static int parse_key_file(const struct conf_line *line, void *ctx)
{
	struct iba_config *cfg = ((struct parse *)ctx)->cfg;

	if (cfg->key_file[0])
		return twice(line);
	return conf_path(line, "key-file", line->argv[1], cfg->key_file,
			 sizeof(cfg->key_file));
}

static int parse_socket(const struct conf_line *line, void *ctx)
{
	struct iba_config *cfg = ((struct parse *)ctx)->cfg;

	if (cfg->socket_path[0])
		return twice(line);
	return conf_path(line, "socket", line->argv[1], cfg->socket_path,
			 sizeof(cfg->socket_path));
}

/* The words from i on. */
static int parse_order(const struct conf_line *line, int i,
		       uint16_t fabric[IBA_FABRICS_MAX], unsigned int *count)
{
	for (*count = 0; i < line->argc; i++) {
		uint16_t f;

		for (f = 1; f < FABRIC_NAMES; f++)
			if (!strcmp(line->argv[i], fabric_names[f]))
				break;
		if (f == FABRIC_NAMES)
			return conf_error(line, "unknown fabric \"%s\" (local, tcp, verbs)",
					  line->argv[i]);
		for (unsigned int j = 0; j < *count; j++)
			if (fabric[j] == f)
				return conf_error(line, "fabric %s is named twice",
						  line->argv[i]);
		fabric[(*count)++] = f;
	}
	return 0;
}

static int parse_fabric(const struct conf_line *line, void *ctx)
{
	struct iba_config *cfg = ((struct parse *)ctx)->cfg;

	if (cfg->fabric_count)
		return twice(line);
	return parse_order(line, 1, cfg->fabric, &cfg->fabric_count);
}

static int parse_peer(const struct conf_line *line, void *ctx)
{
	struct iba_config *cfg = ((struct parse *)ctx)->cfg;
	struct iba_config_peer peer, *all;

	memset(&peer, 0, sizeof(peer));
	if (strcmp(line->argv[2], "fabric"))
		return conf_error(line, "expected peer " PEER_USAGE);
	if (conf_sockaddr(line, line->argv[1], VNET_PEER_PORT, &peer.addr) ||
	    parse_order(line, 3, peer.fabric, &peer.fabric_count))
		return -EINVAL;
	for (unsigned int i = 0; i < cfg->peer_count; i++)
		if (sockaddr_equal(&cfg->peer[i].addr, &peer.addr))
			return conf_error(line, "peer %s is given twice",
					  line->argv[1]);
	all = reallocarray(cfg->peer, cfg->peer_count + 1, sizeof(*all));
	if (!all)
		return conf_error(line, "out of memory");
	cfg->peer = all;
	cfg->peer[cfg->peer_count++] = peer;
	return 0;
}

static int parse_poll(const struct conf_line *line, void *ctx)
{
	struct parse *p = ctx;

	if (p->poll_seen)
		return twice(line);
	p->poll_seen = true;
	if (!strcmp(line->argv[1], "event")) {
		if (line->argc > 2)
			return conf_error(line, "poll event takes no time");
		p->cfg->spin_us = 0;
		return 0;
	}
	if (!strcmp(line->argv[1], "busy")) {
		if (line->argc > 2)
			return conf_error(line, "poll busy takes no time");
		p->cfg->spin_us = IBA_SPIN_BUSY;
		return 0;
	}
	if (strcmp(line->argv[1], "adaptive"))
		return conf_error(line, "expected event, adaptive or busy, not \"%s\"",
				  line->argv[1]);
	p->cfg->spin_us = SPIN_US_DEFAULT;
	if (line->argc == 2)
		return 0;
	return conf_u32(line, "microseconds", line->argv[2], 1, SPIN_US_MAX,
			&p->cfg->spin_us);
}

static int parse_max_connections(const struct conf_line *line, void *ctx)
{
	struct parse *p = ctx;

	if (p->max_seen)
		return twice(line);
	p->max_seen = true;
	return conf_u32(line, "max-connections", line->argv[1], 1,
			VTOE_SID_INDEX_MASK, &p->cfg->max_connections);
}

static int parse_progress(const struct conf_line *line, void *ctx)
{
	struct parse *p = ctx;

	if (p->progress_seen)
		return twice(line);
	p->progress_seen = true;
	if (!strcmp(line->argv[1], "on"))
		p->cfg->progress_events = true;
	else if (strcmp(line->argv[1], "off"))
		return conf_error(line, "expected on or off, not \"%s\"",
				  line->argv[1]);
	return 0;
}

static int parse_user(const struct conf_line *line, void *ctx)
{
	struct iba_config *cfg = ((struct parse *)ctx)->cfg;

	if (cfg->user[0])
		return twice(line);
	if (strlen(line->argv[1]) >= sizeof(cfg->user))
		return conf_error(line, "user name too long");
	if (!getpwnam(line->argv[1]))
		return conf_error(line, "there is no user \"%s\"",
				  line->argv[1]);
	strcpy(cfg->user, line->argv[1]);
	return 0;
}

/* NAME tenant N mac MAC: the values. */
static int parse_vm_words(const struct conf_line *line, struct iba_config_vm *vm)
{
	static const uint8_t zero[VNET_MAC_LEN];

	if (strcmp(line->argv[2], "tenant") || strcmp(line->argv[4], "mac"))
		return conf_error(line, "expected vm " VM_USAGE);
	if (conf_name(line, "vm", line->argv[1], vm->name) ||
	    conf_u32(line, "tenant", line->argv[3], 1, TENANT_MAX,
		     &vm->tenant) ||
	    conf_mac(line, line->argv[5], vm->mac))
		return -EINVAL;
	if ((vm->mac[0] & 1) || !memcmp(vm->mac, zero, sizeof(zero)))
		return conf_error(line, "\"%s\" is no MAC address of a VM",
				  line->argv[5]);
	return 0;
}

static int parse_vm(const struct conf_line *line, void *ctx)
{
	struct iba_config *cfg = ((struct parse *)ctx)->cfg;
	struct iba_config_vm vm, *all;
	int err = parse_vm_words(line, &vm);

	if (err)
		return err;
	for (unsigned int i = 0; i < cfg->vm_count; i++) {
		if (!strcmp(cfg->vm[i].name, vm.name))
			return conf_error(line, "vm %s is given twice", vm.name);
		if (!memcmp(cfg->vm[i].mac, vm.mac, sizeof(vm.mac)))
			return conf_error(line, "vm %s has the MAC address of vm %s",
					  vm.name, cfg->vm[i].name);
	}
	all = reallocarray(cfg->vm, cfg->vm_count + 1, sizeof(*all));
	if (!all)
		return conf_error(line, "out of memory");
	cfg->vm = all;
	cfg->vm[cfg->vm_count++] = vm;
	return 0;
}

static const struct conf_directive directives[] = {
	{ "host", 1, 1, "NAME", parse_host },
	{ "listen", 1, 1, "ADDR[:PORT]", parse_listen },
	{ "data", 1, 1, "ADDR[:PORT-PORT]", parse_data },
	{ "rdma", 1, IBA_RDMA_MAX, "ADDR...", parse_rdma },
	{ "rdma-transfer", 1, 1, "send|write", parse_rdma_transfer },
	{ "key-file", 1, 1, "PATH", parse_key_file },
	{ "socket", 1, 1, "PATH", parse_socket },
	{ "fabric", 1, IBA_FABRICS_MAX, "local|verbs|tcp...", parse_fabric },
	{ "peer", 3, 2 + IBA_FABRICS_MAX, PEER_USAGE, parse_peer },
	{ "poll", 1, 2, "event | adaptive [USEC] | busy", parse_poll },
	{ "max-connections", 1, 1, "N", parse_max_connections },
	{ "progress-events", 1, 1, "on|off", parse_progress },
	{ "user", 1, 1, "NAME", parse_user },
	{ "vm", 5, 5, VM_USAGE, parse_vm },
	{ NULL, 0, 0, NULL, NULL },
};

static int missing(const char *path, const char *directive)
{
	log_err("%s: no \"%s\" directive", path, directive);
	return -EINVAL;
}

static bool order_allowed(const struct iba_config *cfg,
			  const struct iba_config_peer *peer)
{
	char name[SOCKADDR_STRLEN];

	for (unsigned int i = 0; i < peer->fabric_count; i++) {
		if (iba_config_allows(cfg, peer->fabric[i]))
			continue;
		log_err("%s: peer %s: \"fabric\" does not allow %s", cfg->file,
			sockaddr_format(&peer->addr, name),
			fabric_names[peer->fabric[i]]);
		return false;
	}
	return true;
}

int iba_config_load(const char *path, struct iba_config *cfg)
{
	struct parse p = { .cfg = cfg };
	int err;

	memset(cfg, 0, sizeof(*cfg));
	cfg->file = path;
	cfg->max_connections = MAX_CONNECTIONS_DEFAULT;
	err = conf_parse_file(path, directives, &p);
	if (err)
		return err;
	if (!cfg->host[0])
		err = missing(path, "host");
	if (!cfg->listen.ss_family)
		err = missing(path, "listen");
	if (!cfg->key_file[0])
		err = missing(path, "key-file");
	if (!cfg->socket_path[0])
		err = missing(path, "socket");
	if (!cfg->fabric_count) {
		cfg->fabric[cfg->fabric_count++] = VTOE_FABRIC_LOCAL;
		cfg->fabric[cfg->fabric_count++] = VTOE_FABRIC_TCP;
	}
	for (unsigned int i = 0; i < cfg->peer_count; i++)
		if (!order_allowed(cfg, &cfg->peer[i]))
			err = -EINVAL;
	if (!cfg->data_set)
		cfg->data = cfg->listen;
	if (!cfg->rdma_count)
		cfg->rdma[cfg->rdma_count++] = cfg->data;
	return err;
}

void iba_config_free(struct iba_config *cfg)
{
	free(cfg->vm);
	cfg->vm = NULL;
	cfg->vm_count = 0;
	free(cfg->peer);
	cfg->peer = NULL;
	cfg->peer_count = 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int iba_key_load(const char *path, uint8_t key[IBA_KEY_LEN])
{
	char text[2 * IBA_KEY_LEN + 2];
	struct stat st;
	ssize_t n;
	int fd, err = 0;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0) {
		err = -errno;
		log_err("%s: %s", path, strerror(-err));
		goto out;
	}
	if (!S_ISREG(st.st_mode) || (st.st_mode & (S_IRWXG | S_IRWXO))) {
		log_err("%s: the key must be a file that only its owner may use (chmod 600)",
			path);
		err = -EPERM;
		goto out;
	}
	n = read(fd, text, sizeof(text));
	/* exactly the digits and perhaps the end of the line */
	if (n == 2 * IBA_KEY_LEN + 1 && text[n - 1] == '\n')
		n--;
	if (n != 2 * IBA_KEY_LEN)
		err = -EINVAL;
	for (unsigned int i = 0; !err && i < IBA_KEY_LEN; i++) {
		int hi = hex_digit(text[2 * i]), lo = hex_digit(text[2 * i + 1]);

		if (hi < 0 || lo < 0)
			err = -EINVAL;
		else
			key[i] = (uint8_t)(hi << 4 | lo);
	}
	OPENSSL_cleanse(text, sizeof(text));
	if (err)
		log_err("%s: the key must be %d hexadecimal digits on one line",
			path, 2 * IBA_KEY_LEN);
out:
	if (fd >= 0)
		close(fd);
	return err;
}
