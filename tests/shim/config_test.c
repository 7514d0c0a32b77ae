// SPDX-License-Identifier: GPL-2.0-or-later
/* The configuration file: each bad line is refused with file, line and reason. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "config.h"
#include "encap.h"
#include "log.h"
#include "routes.h"
#include "tap.h"

#define GOOD_IN_BAND                                                      \
	"vm g1\ntenant 77\nmac 52:54:00:4e:50:01\nmtu 1450\nencap vxlan\n" \
	"front vhost-user /run/g1.sock in-band\n"
#define GOOD                                                              \
	"vm g1\n"                                                         \
	"tenant 77      # a comment\n"                                    \
	"mac 52:54:00:4e:50:01\n"                                         \
	"mtu 1450\n"                                                      \
	"front vhost-user /run/g1.sock\n"                                 \
	"encap vxlan\n"                                                   \
	"link a udp local 10.0.0.1:9001 remote 10.0.0.2:9002\n" /* line 7 */ \
	"route dst any link a\n"

static int saved_stderr, capture;

static char *captured(void)
{
	static char text[4096];
	ssize_t n = pread(capture, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

static struct shim_config *parse(const char *text)
{
	struct shim_config *c;

	if (ftruncate(capture, 0) < 0)
		bail_out("truncate");
	lseek(capture, 0, SEEK_SET);
	dup2(capture, STDERR_FILENO);
	c = shim_config_parse("g1.conf", text, strlen(text));
	dup2(saved_stderr, STDERR_FILENO);
	return c;
}

/* GOOD and one more line, the ninth, is refused with these words. */
static void bad_line(const char *line, const char *words)
{
	char text[4096], want[256];
	struct shim_config *c;

	snprintf(text, sizeof(text), "%s%s\n", GOOD, line);
	snprintf(want, sizeof(want), "g1.conf:9: %s", words);
	c = parse(text);
	if (!ok(!c && strstr(captured(), want), "%s", line))
		note("want \"%s\", got \"%s\"", want, captured());
	shim_config_free(c);
}

/* GOOD with line number n (from 1) replaced is refused with these words. */
static void bad_instead(int n, const char *line, const char *words)
{
	char text[4096] = "", want[256];
	const char *at = GOOD;
	struct shim_config *c;
	int i;

	for (i = 1; *at; i++) {
		size_t len = strchr(at, '\n') - at + 1;

		if (i == n)
			sprintf(text + strlen(text), "%s\n", line);
		else
			strncat(text, at, len);
		at += len;
	}
	if (*line)
		snprintf(want, sizeof(want), "g1.conf:%d: %s", n, words);
	else
		snprintf(want, sizeof(want), "%s", words);
	c = parse(text);
	if (!ok(!c && strstr(captured(), want), "line %d: %s", n,
		*line ? line : words))
		note("want \"%s\", got \"%s\"", want, captured());
	shim_config_free(c);
}

static void good_ones(void)
{
	struct shim_config *c = parse(GOOD);

	ok(c && c->tenant == 77 && c->mtu == 1450 && c->pairs == 1 &&
		   c->encap == VNET_ENCAP_VXLAN && !c->agent[0] &&
		   c->rwq_buf_size[0] == 4096 && c->rwq_buf_size[1] == 65536 &&
		   c->link_count == 1 && c->link[0].form == VNET_TRAIN_WHOLE &&
		   c->link[0].payload == 1472 && c->route_count == 1,
	   "a small file, with its defaults");
	ok(((struct sockaddr_in *)&c->link[0].agent)->sin_port == htons(7470),
	   "a link's agent has the remote's address and port 7470");
	ok(!c->in_band && shim_config_net_pairs(c) == 1, "no pair is reserved");
	shim_config_free(c);
	c = parse(GOOD_IN_BAND);
	ok(c && c->in_band && c->pairs == 1 && shim_config_net_pairs(c) == 4,
	   "in-band: three are");
	shim_config_free(c);
	c = parse(GOOD
		  "agent /run/agent.sock\nqueues 4\npoll 50\nrwq 2048 32768\n"
		  "link b udp remote [fd00::2]:1 form segmented local [fd00::1]:2 mtu 9000 agent [fd00::3]:4\n"
		  "route src 52:54:00:00:00:01 dst not-52:54:00:00:00:02 link b\n"
		  "route link b dst none\n");
	ok(c && c->pairs == 4 && c->poll_us == 50 && c->link[1].payload == 8952 &&
		   c->link[1].form == VNET_TRAIN_SEGMENTED &&
		   c->route[1].dst.qual == SHIM_MAC_NOT &&
		   c->route[1].src.qual == SHIM_MAC_EXACT && c->route[1].link == 1 &&
		   c->route[2].dst.qual == SHIM_MAC_NONE &&
		   shim_config_has_segmented(c),
	   "all there is, words in any order");
	shim_config_free(c);
}

static void bad_ones(void)
{
	bad_line("colour blue", "there is no directive");
	bad_line("vm g2", "'vm' was given before");
	bad_line("mtu 1450", "'mtu' was given before");
	bad_line("queues 0", "queues");
	bad_line("queues 9", "queues");
	bad_line("queues two", "queues");
	bad_line("rwq 4096", "usage: rwq");
	bad_line("rwq 65536 4096", "large buffers must be larger");
	bad_line("rwq 4096 2000000", "size of large buffers");
	bad_line("poll -1", "poll");
	bad_line("agent", "usage: agent");
	bad_line("link b tcp local 1.1.1.1:1 remote 1.1.1.2:2", "unknown protocol");
	bad_line("link b udp local 1.1.1.1:1 form whole", "a link needs local and remote");
	bad_line("link b udp local 1.1.1.1:1 remote 1.1.1.2", "");
	bad_line("link b udp local 1.1.1.1:1 remote [fd00::1]:2", "local and remote are of different");
	bad_line("link b udp local 1.1.1.1:1 remote 1.1.1.2:2 form half", "unknown form");
	bad_line("link b udp local 1.1.1.1:1 remote 1.1.1.2:2 mtu 500", "mtu");
	bad_line("link b udp local 1.1.1.1:1 remote 1.1.1.2:2 mtu", "'mtu' has no value");
	bad_line("link b udp local 1.1.1.1:1 remote 1.1.1.2:2 speed 9", "unknown word 'speed'");
	bad_line("link b udp local 1.1.1.1:1 local 1.1.1.1:2 remote 1.1.1.2:2", "'local' was given before");
	bad_line("link a udp local 1.1.1.1:1 remote 1.1.1.2:2", "link a was given in line 7");
	bad_line("link b udp local 10.0.0.1:9001 remote 10.0.0.2:9002", "link a has these addresses too");
	bad_line("link b udp local 1.1.1.1:1 remote 1.1.1.2:2 form segmented mtu 1400", "link b (segmented) carries 1372 bytes, frames of this mtu need 1472");
	bad_line("route dst any link z", "there is no link z");
	bad_line("route src any link a", "a route needs dst and link");
	bad_line("route dst any link a", "this route was given in line 8");
	bad_line("route dst some link a", "");
	bad_line("route dst not- link a", "");
	bad_line("route dst 52:54:00:4e:50 link a", "");
	bad_line("route dst any via a", "unknown word 'via'");
	bad_instead(1, "", "g1.conf: no 'vm' in this file");
	bad_instead(2, "", "g1.conf: no 'tenant' in this file");
	bad_instead(2, "tenant 0", "tenant");
	bad_instead(2, "tenant 16777216", "tenant");
	bad_instead(3, "mac 53:54:00:4e:50:01", "'53:54:00:4e:50:01' is not the address of one station");
	bad_instead(3, "mac 00:00:00:00:00:00", "");
	bad_instead(4, "mtu 67", "mtu");
	bad_instead(4, "mtu 65001", "mtu");
	bad_instead(5, "front vdpa /run/x", "unknown front door");
	bad_instead(5, "front vfio-user", "usage: front");
	bad_instead(5, "front vhost-user /run/x inband", "unknown word 'inband'");
	bad_instead(5, "front vfio-user /run/x in-band", "in-band is for vhost-user");
	bad_instead(5, "front vhost-user /run/x in-band in-band", "usage: front");
	bad_instead(6, "encap geneve", "unknown encapsulation");
	bad_instead(6, "", "g1.conf: no 'encap' in this file");
}

static void replacing(void)
{
	struct shim_config *c = parse(GOOD), *n;

	n = parse(GOOD "link b udp local 1.1.1.1:1 remote 1.1.1.2:2\nroute dst any link b\npoll 9\n");
	ok(shim_config_may_replace(c, n, "x") == 0, "links and routes may change");
	n->mtu = 1400;
	dup2(capture, STDERR_FILENO);
	ok(shim_config_may_replace(c, n, "g1.conf") < 0, "the mtu may not");
	n->mtu = c->mtu;
	n->front_kind = SHIM_FRONT_VFIO_USER;
	ok(shim_config_may_replace(c, n, "g1.conf") < 0, "nor the front door");
	n->front_kind = SHIM_FRONT_VHOST_USER;
	n->in_band = true;
	ok(shim_config_may_replace(c, n, "g1.conf") < 0, "nor whether pairs are reserved");
	n->in_band = false;
	dup2(saved_stderr, STDERR_FILENO);
	shim_config_free(n);
	shim_config_free(c);
}

/* ---- routes ---- */

static uint64_t lookup(struct shim_routes *r, uint8_t dst, uint8_t src, bool group)
{
	uint8_t eth[14] = { 0x52, 0x54, 0, 0, 0, dst, 0x52, 0x54, 0, 0, 0, src };

	if (group)
		memset(eth, 0xff, 6);
	return shim_routes_lookup(r, eth);
}

static void routing(void)
{
	static struct shim_routes r;
	char text[4096] = GOOD;
	struct shim_config *c;
	unsigned int i;

	for (i = 1; i < 8; i++)
		sprintf(text + strlen(text),
			"link l%u udp local 10.0.0.1:9001 remote 10.0.0.3:%u\n", i, i);
	strcat(text, "route dst 52:54:00:00:00:02 link l1\n"
		     "route dst 52:54:00:00:00:03 src 52:54:00:00:00:09 link l2\n"
		     "route dst 52:54:00:00:00:03 link l3\n"
		     "route dst any link l4\n"
		     "route dst 52:54:00:00:00:04 link l5\n"
		     "route dst 52:54:00:00:00:04 link l6\n"
		     "route dst none link l7\n");
	c = parse(text);
	shim_routes_set(&r, c);
	is_int(lookup(&r, 2, 1, false), 1 << 1, "exact wins over any");
	is_int(lookup(&r, 2, 1, false), 1 << 1, "the same from the cache");
	is_int(lookup(&r, 3, 9, false), 1 << 2, "exact source and destination win");
	is_int(lookup(&r, 3, 1, false), 1 << 3, "of another source");
	is_int(lookup(&r, 4, 1, false), 1 << 5 | 1 << 6, "all of one rank receive");
	is_int(lookup(&r, 7, 1, false), 1 << 0 | 1 << 4, "unknown: all any routes");
	is_int(lookup(&r, 0, 1, true), 1 << 0 | 1 << 4, "broadcast too");
	shim_config_free(c);
	c = parse(GOOD
		  "link l1 udp local 10.0.0.1:9001 remote 10.0.0.3:1\n"
		  "link l2 udp local 10.0.0.1:9001 remote 10.0.0.3:2\n"
		  "route dst not-52:54:00:00:00:05 link l1\n"
		  "route dst not-52:54:00:00:00:05 src 52:54:00:00:00:09 link l2\n");
	shim_routes_set(&r, c);
	is_int(lookup(&r, 5, 1, false), 1 << 0, "not: that one goes elsewhere");
	is_int(lookup(&r, 6, 1, false), 1 << 1, "not wins over any");
	is_int(lookup(&r, 6, 9, false), 1 << 2, "exact with not wins over not");
	is_int(lookup(&r, 0, 9, true), 7, "broadcast goes to whatever matches");
	shim_config_free(c);
}

int main(void)
{
	saved_stderr = dup(STDERR_FILENO);
	capture = memfd_create("log", MFD_CLOEXEC);
	log_init("test", LOG_ERR);
	good_ones();
	bad_ones();
	replacing();
	routing();
	return tap_done();
}
