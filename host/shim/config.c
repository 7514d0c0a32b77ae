// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The configuration file. One table of directives; the checks that need the
 * whole file (routes name links, a link carries the guest's MTU) come after
 * the last line and still name the line that is wrong.
 *
 * The file is the operator's and trusted, but it is edited while the VM runs
 * and read again on SIGHUP: a bad one must be refused whole.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf.h"
#include "log.h"
#include "config.h"
#include "encap.h"
#include "vnet_peer.h"
#include "vnet_train.h"
#include "vnet_vtoe.h"

#define UDP_PAYLOAD_MAX 65507
#define PATH_MTU_DEFAULT 1500

/* Bits of shim_config.seen. */
enum {
	SEEN_VM,
	SEEN_TENANT,
	SEEN_MAC,
	SEEN_MTU,
	SEEN_FRONT,
	SEEN_ENCAP,
	SEEN_QUEUES,
	SEEN_AGENT,
	SEEN_RWQ,
	SEEN_POLL,
	SEEN_COUNT,
};

static const struct {
	const char *name;
	bool required;
} once[SEEN_COUNT] = {
	[SEEN_VM] = { "vm", true },	    [SEEN_TENANT] = { "tenant", true },
	[SEEN_MAC] = { "mac", true },	    [SEEN_MTU] = { "mtu", true },
	[SEEN_FRONT] = { "front", true },   [SEEN_ENCAP] = { "encap", true },
	[SEEN_QUEUES] = { "queues", false }, [SEEN_AGENT] = { "agent", false },
	[SEEN_RWQ] = { "rwq", false },	    [SEEN_POLL] = { "poll", false },
};

static int first_time(const struct conf_line *line, struct shim_config *c,
		      unsigned int bit)
{
	if (c->seen & (1u << bit))
		return conf_error(line, "'%s' was given before", once[bit].name);
	c->seen |= 1u << bit;
	return 0;
}

static int parse_vm(const struct conf_line *line, void *ctx)
{
	struct shim_config *c = ctx;

	if (first_time(line, c, SEEN_VM) < 0)
		return -EINVAL;
	return conf_name(line, "name of the VM", line->argv[1], c->vm);
}

static int parse_tenant(const struct conf_line *line, void *ctx)
{
	struct shim_config *c = ctx;

	if (first_time(line, c, SEEN_TENANT) < 0)
		return -EINVAL;
	return conf_u32(line, "tenant", line->argv[1], 1, (1u << 24) - 1,
			&c->tenant);
}

static int parse_mac(const struct conf_line *line, void *ctx)
{
	static const uint8_t zero[VNET_MAC_LEN];
	struct shim_config *c = ctx;

	if (first_time(line, c, SEEN_MAC) < 0 ||
	    conf_mac(line, line->argv[1], c->mac) < 0)
		return -EINVAL;
	if ((c->mac[0] & 1) || !memcmp(c->mac, zero, sizeof(zero)))
		return conf_error(line, "'%s' is not the address of one station",
				  line->argv[1]);
	return 0;
}

static int parse_mtu(const struct conf_line *line, void *ctx)
{
	struct shim_config *c = ctx;
	uint32_t mtu;

	if (first_time(line, c, SEEN_MTU) < 0 ||
	    conf_u32(line, "mtu", line->argv[1], VNET_MTU_MIN, VNET_MTU_MAX,
		     &mtu) < 0)
		return -EINVAL;
	c->mtu = mtu;
	return 0;
}

static int parse_front(const struct conf_line *line, void *ctx)
{
	struct shim_config *c = ctx;

	if (first_time(line, c, SEEN_FRONT) < 0)
		return -EINVAL;
	if (!strcmp(line->argv[1], "vhost-user"))
		c->front_kind = SHIM_FRONT_VHOST_USER;
	else if (!strcmp(line->argv[1], "vfio-user"))
		c->front_kind = SHIM_FRONT_VFIO_USER;
	else
		return conf_error(line, "unknown front door '%s'; there are: vhost-user, vfio-user",
				  line->argv[1]);
	if (line->argc > 3) {
		if (strcmp(line->argv[3], "in-band"))
			return conf_error(line, "unknown word '%s'; there is: in-band",
					  line->argv[3]);
		if (c->front_kind != SHIM_FRONT_VHOST_USER)
			return conf_error(line, "in-band is for vhost-user: a vfio-user device has a vendor block of its own");
		c->in_band = true;
	}
	return conf_path(line, "socket of the front door", line->argv[2],
			 c->front, sizeof(c->front));
}

static int parse_agent(const struct conf_line *line, void *ctx)
{
	struct shim_config *c = ctx;

	if (first_time(line, c, SEEN_AGENT) < 0)
		return -EINVAL;
	return conf_path(line, "socket of the agent", line->argv[1], c->agent,
			 sizeof(c->agent));
}

static int parse_queues(const struct conf_line *line, void *ctx)
{
	struct shim_config *c = ctx;

	if (first_time(line, c, SEEN_QUEUES) < 0)
		return -EINVAL;
	return conf_u32(line, "queues", line->argv[1], 1, SHIM_PAIRS_MAX,
			&c->pairs);
}

static int parse_encap(const struct conf_line *line, void *ctx)
{
	struct shim_config *c = ctx;

	if (first_time(line, c, SEEN_ENCAP) < 0)
		return -EINVAL;
	if (!strcmp(line->argv[1], "vxlan"))
		c->encap = VNET_ENCAP_VXLAN;
	else if (!strcmp(line->argv[1], "vnet-udp"))
		c->encap = VNET_ENCAP_VNET_UDP;
	else
		return conf_error(line, "unknown encapsulation '%s'; there are: vxlan, vnet-udp",
				  line->argv[1]);
	return 0;
}

static int parse_rwq(const struct conf_line *line, void *ctx)
{
	struct shim_config *c = ctx;
	uint32_t *size = c->rwq_buf_size;

	if (first_time(line, c, SEEN_RWQ) < 0 ||
	    conf_u32(line, "size of small buffers", line->argv[1], 64,
		     VTOE_MSG_LEN_MAX, &size[VNET_RWQ_SMALL]) < 0 ||
	    conf_u32(line, "size of large buffers", line->argv[2], 64,
		     VTOE_MSG_LEN_MAX, &size[VNET_RWQ_LARGE]) < 0)
		return -EINVAL;
	if (size[VNET_RWQ_SMALL] >= size[VNET_RWQ_LARGE])
		return conf_error(line, "large buffers must be larger than small ones");
	return 0;
}

static int parse_poll(const struct conf_line *line, void *ctx)
{
	struct shim_config *c = ctx;

	if (first_time(line, c, SEEN_POLL) < 0)
		return -EINVAL;
	return conf_u32(line, "poll", line->argv[1], 0, 1000000, &c->poll_us);
}

/* ---- links ---- */


/* KEY VALUE pairs from word `at` on into the fields that keys[] names. */
static int parse_pairs(const struct conf_line *line, int at,
		       const char *const *keys, const char **values)
{
	int i;

	for (; at < line->argc; at += 2) {
		for (i = 0; keys[i]; i++)
			if (!strcmp(line->argv[at], keys[i]))
				break;
		if (!keys[i])
			return conf_error(line, "unknown word '%s'",
					  line->argv[at]);
		if (at + 1 == line->argc)
			return conf_error(line, "'%s' has no value", keys[i]);
		if (values[i])
			return conf_error(line, "'%s' was given before", keys[i]);
		values[i] = line->argv[at + 1];
	}
	return 0;
}

static int parse_form(const struct conf_line *line, const char *word,
		      uint8_t *form)
{
	if (!strcmp(word, "whole"))
		*form = VNET_TRAIN_WHOLE;
	else if (!strcmp(word, "segmented"))
		*form = VNET_TRAIN_SEGMENTED;
	else
		return conf_error(line, "unknown form '%s'; there are: whole, segmented",
				  word);
	return 0;
}

static void set_port(struct sockaddr_storage *addr, uint16_t port)
{
	if (addr->ss_family == AF_INET6)
		((struct sockaddr_in6 *)addr)->sin6_port = htons(port);
	else
		((struct sockaddr_in *)addr)->sin_port = htons(port);
}

static int parse_link_addrs(const struct conf_line *line,
			    struct shim_link_conf *l, const char *local,
			    const char *remote, const char *agent)
{
	if (!local || !remote)
		return conf_error(line, "a link needs local and remote");
	if (conf_sockaddr(line, local, 0, &l->local) < 0 ||
	    conf_sockaddr(line, remote, 0, &l->remote) < 0)
		return -EINVAL;
	if (l->local.ss_family != l->remote.ss_family)
		return conf_error(line, "local and remote are of different address families");
	if (agent)
		return conf_sockaddr(line, agent, VNET_PEER_PORT, &l->agent);
	l->agent = l->remote;
	set_port(&l->agent, VNET_PEER_PORT);
	return 0;
}

static int check_new_link(const struct conf_line *line,
			  const struct shim_config *c,
			  const struct shim_link_conf *l)
{
	unsigned int i;

	for (i = 0; i < c->link_count; i++) {
		const struct shim_link_conf *o = &c->link[i];

		if (!strcmp(o->name, l->name))
			return conf_error(line, "link %s was given in line %u",
					  l->name, o->line);
		if (sockaddr_equal(&o->local, &l->local) &&
		    sockaddr_equal(&o->remote, &l->remote))
			return conf_error(line, "link %s has these addresses too (line %u)",
					  o->name, o->line);
	}
	return 0;
}

static int parse_link(const struct conf_line *line, void *ctx)
{
	static const char *const keys[] = { "local", "remote", "form",
					    "mtu",   "agent",  NULL };
	const char *value[5] = { NULL };
	struct shim_config *c = ctx;
	struct shim_link_conf *l;
	uint32_t mtu = PATH_MTU_DEFAULT;
	uint32_t headers;

	if (c->link_count == SHIM_LINKS_MAX)
		return conf_error(line, "more than %d links", SHIM_LINKS_MAX);
	l = &c->link[c->link_count];
	memset(l, 0, sizeof(*l));
	l->line = line->number;
	if (conf_name(line, "name of the link", line->argv[1], l->name) < 0)
		return -EINVAL;
	if (strcmp(line->argv[2], "udp"))
		return conf_error(line, "unknown protocol '%s'; there is: udp",
				  line->argv[2]);
	if (parse_pairs(line, 3, keys, value) < 0 ||
	    parse_link_addrs(line, l, value[0], value[1], value[4]) < 0)
		return -EINVAL;
	if (value[2] && parse_form(line, value[2], &l->form) < 0)
		return -EINVAL;
	/* 576: RFC 791's smallest datagram that every host takes */
	if (value[3] && conf_u32(line, "mtu", value[3], 576, 65535, &mtu) < 0)
		return -EINVAL;
	headers = l->local.ss_family == AF_INET6 ? 48 : 28;
	l->payload = mtu - headers < UDP_PAYLOAD_MAX ? mtu - headers :
							UDP_PAYLOAD_MAX;
	if (check_new_link(line, c, l) < 0)
		return -EINVAL;
	c->link_count++;
	return 0;
}

/* ---- routes ---- */

static int parse_match(const struct conf_line *line, const char *word,
		       struct shim_mac_match *m)
{
	if (!strcmp(word, "any")) {
		m->qual = SHIM_MAC_ANY;
		return 0;
	}
	if (!strcmp(word, "none")) {
		m->qual = SHIM_MAC_NONE;
		return 0;
	}
	if (!strncmp(word, "not-", 4)) {
		m->qual = SHIM_MAC_NOT;
		return conf_mac(line, word + 4, m->mac);
	}
	m->qual = SHIM_MAC_EXACT;
	return conf_mac(line, word, m->mac);
}

static bool same_match(const struct shim_mac_match *a,
		       const struct shim_mac_match *b)
{
	return a->qual == b->qual && !memcmp(a->mac, b->mac, VNET_MAC_LEN);
}

static int parse_route(const struct conf_line *line, void *ctx)
{
	static const char *const keys[] = { "src", "dst", "link", NULL };
	const char *value[3] = { NULL };
	struct shim_config *c = ctx;
	struct shim_route_conf *r;
	unsigned int i;

	if (c->route_count == SHIM_ROUTES_MAX)
		return conf_error(line, "more than %d routes", SHIM_ROUTES_MAX);
	r = &c->route[c->route_count];
	memset(r, 0, sizeof(*r));
	r->line = line->number;
	if (parse_pairs(line, 1, keys, value) < 0)
		return -EINVAL;
	if (!value[1] || !value[2])
		return conf_error(line, "a route needs dst and link");
	if ((value[0] && parse_match(line, value[0], &r->src) < 0) ||
	    parse_match(line, value[1], &r->dst) < 0 ||
	    conf_name(line, "name of the link", value[2], r->link_name) < 0)
		return -EINVAL;
	for (i = 0; i < c->route_count; i++)
		if (same_match(&c->route[i].src, &r->src) &&
		    same_match(&c->route[i].dst, &r->dst) &&
		    !strcmp(c->route[i].link_name, r->link_name))
			return conf_error(line, "this route was given in line %u",
					  c->route[i].line);
	c->route_count++;
	return 0;
}

static const struct conf_directive directives[] = {
	{ "vm", 1, 1, "NAME", parse_vm },
	{ "tenant", 1, 1, "NUMBER", parse_tenant },
	{ "mac", 1, 1, "MAC", parse_mac },
	{ "mtu", 1, 1, "BYTES", parse_mtu },
	{ "front", 2, 3, "vhost-user|vfio-user PATH [in-band]", parse_front },
	{ "agent", 1, 1, "PATH", parse_agent },
	{ "queues", 1, 1, "PAIRS", parse_queues },
	{ "encap", 1, 1, "vxlan|vnet-udp", parse_encap },
	{ "rwq", 2, 2, "SMALL LARGE", parse_rwq },
	{ "poll", 1, 1, "MICROSECONDS", parse_poll },
	{ "link", 6, 12,
	  "NAME udp local ADDR:PORT remote ADDR:PORT [form whole|segmented] [mtu BYTES] [agent ADDR[:PORT]]",
	  parse_link },
	{ "route", 4, 6, "dst MAC|not-MAC|any|none [src ...] link NAME",
	  parse_route },
	{ NULL, 0, 0, NULL, NULL },
};

/* ---- what needs the whole file ---- */

static int error_at(const char *file, unsigned int number, const char *fmt,
		    const char *a, unsigned int b, unsigned int c)
{
	struct conf_line line = { .file = file, .number = number };

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	return conf_error(&line, fmt, a, b, c);
#pragma GCC diagnostic pop
}

static int find_link(const struct shim_config *c, const char *name)
{
	unsigned int i;

	for (i = 0; i < c->link_count; i++)
		if (!strcmp(c->link[i].name, name))
			return i;
	return -1;
}

static int check_whole(struct shim_config *c, const char *file)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < SEEN_COUNT; i++) {
		if (!once[i].required || (c->seen & (1u << i)))
			continue;
		log_err("%s: no '%s' in this file", file, once[i].name);
		ret = -EINVAL;
	}
	for (i = 0; i < c->route_count; i++) {
		struct shim_route_conf *r = &c->route[i];
		int link = find_link(c, r->link_name);

		if (link < 0)
			ret = error_at(file, r->line, "there is no link %s",
				       r->link_name, 0, 0);
		else
			r->link = link;
	}
	if (ret)
		return ret;
	for (i = 0; i < c->link_count; i++) {
		const struct shim_link_conf *l = &c->link[i];
		unsigned int need = c->mtu + 14 + shim_encap_len(c->encap);

		if (l->form == VNET_TRAIN_SEGMENTED && need > l->payload)
			ret = error_at(file, l->line,
				       "link %s (segmented) carries %u bytes, frames of this mtu need %u",
				       l->name, l->payload, need);
	}
	return ret;
}

static struct shim_config *config_new(void)
{
	struct shim_config *c = calloc(1, sizeof(*c));

	if (!c) {
		log_err("no memory for the configuration");
		return NULL;
	}
	c->pairs = 1;
	c->rwq_buf_size[VNET_RWQ_SMALL] = 4096;
	c->rwq_buf_size[VNET_RWQ_LARGE] = 65536;
	return c;
}

static struct shim_config *finish(struct shim_config *c, int ret,
				  const char *file)
{
	/* the second only once each line is good by itself */
	if (ret < 0 || check_whole(c, file) < 0) {
		shim_config_free(c);
		return NULL;
	}
	return c;
}

struct shim_config *shim_config_load(const char *path)
{
	struct shim_config *c = config_new();
	int ret;

	if (!c)
		return NULL;
	ret = conf_parse_file(path, directives, c);
	if (ret < 0 && ret != -EINVAL)
		log_err("%s: %s", path, strerror(-ret));
	return finish(c, ret, path);
}

struct shim_config *shim_config_parse(const char *name, const char *text,
				      size_t len)
{
	struct shim_config *c = config_new();

	if (!c)
		return NULL;
	return finish(c, conf_parse_text(name, text, len, directives, c), name);
}

void shim_config_free(struct shim_config *conf)
{
	free(conf);
}

int shim_config_may_replace(const struct shim_config *conf,
			    const struct shim_config *next, const char *path)
{
	const char *what = NULL;

	if (strcmp(conf->vm, next->vm))
		what = "vm";
	else if (conf->tenant != next->tenant)
		what = "tenant";
	else if (memcmp(conf->mac, next->mac, VNET_MAC_LEN))
		what = "mac";
	else if (conf->mtu != next->mtu)
		what = "mtu";
	else if (conf->front_kind != next->front_kind ||
		 conf->in_band != next->in_band ||
		 strcmp(conf->front, next->front))
		what = "front";
	else if (strcmp(conf->agent, next->agent))
		what = "agent";
	else if (conf->pairs != next->pairs)
		what = "queues";
	else if (memcmp(conf->rwq_buf_size, next->rwq_buf_size,
			sizeof(conf->rwq_buf_size)))
		what = "rwq";
	if (!what)
		return 0;
	log_err("%s: '%s' cannot change while the VM runs", path, what);
	return -EINVAL;
}

bool shim_config_has_segmented(const struct shim_config *conf)
{
	unsigned int i;

	for (i = 0; i < conf->link_count; i++)
		if (conf->link[i].form == VNET_TRAIN_SEGMENTED)
			return true;
	return false;
}
