// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What an agent does with its peers, good and bad: control channels with another
 * key, version, name, or garbage; an agent that is killed and comes back; no way
 * to one; the program itself in its sandbox.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "by_hand.h"
#include "tap.h"

static struct bed bed;

/* ---- the control channel ---- */

static void refuse_version(unsigned int version)
{
	struct vnet_peer_lane_answer answer;
	struct by_hand p;
	char text[96];

	ok(hand_shake(&p, hand_key) &&
	   (!hand_hello(&p, version ? "newer" : "older", version) ||
	    hand_ask(&p, BED_TENANT, &answer) == 9999),
	   "version %u does not get on", version);
	hand_end(&p);
	snprintf(text, sizeof(text),
		 " %s: control channel ends: it speaks version %u, we speak %u",
		 version ? "newer" : "older", version, VNET_PEER_VERSION);
	ok(agent_logged(&bed.agent[0], text),
	   "the log has both numbers, and the peer's name");
}

static void test_control(void)
{
	struct vnet_peer_lane_answer answer;
	struct vnet_peer_hdr hdr = { 0 };
	uint8_t other[IBA_KEY_LEN];
	struct by_hand p;
	char junk[600];
	int fd;

	fd = tcp_connect(1, bed.agent[0].port, 3);
	memset(junk, 'x', sizeof(junk));
	send(fd, junk, sizeof(junk), MSG_NOSIGNAL);
	ok(ends(fd), "garbage on the control port");
	close(fd);

	memcpy(other, hand_key, sizeof(other));
	other[0] ^= 0x80;
	ok(!hand_shake(&p, other) || !hand_hello(&p, "h9", VNET_PEER_VERSION),
	   "another key does not get in");
	hand_end(&p);

	ok(hand_shake(&p, hand_key), "the key gets in");
	hand_end(&p);
	refuse_version(0);
	refuse_version(VNET_PEER_VERSION + 1);

	hand_shake(&p, hand_key);
	hand_hello(&p, "h1", VNET_PEER_VERSION);
	is_int(hand_ask(&p, BED_TENANT, &answer), 9999,
	       "nor does one with the agent's own name");
	hand_end(&p);

	hand_shake(&p, hand_key);
	ok(hand_hello(&p, "h9", VNET_PEER_VERSION), "HELLO both ways");
	hand_send(&p, VNET_PEER_PING, NULL, 0);
	ok(hand_receive(&p, VNET_PEER_PONG, NULL, 0), "PING, PONG");
	is_int(hand_ask(&p, 99, &answer), VTOE_REASON_PEER_NO_VTOE,
	       "no lane for a tenant without VM");
	is_int(hand_ask(&p, BED_TENANT, &answer), 0, "a lane for one with");
	iba_tls_write(p.tls, &hdr, sizeof(hdr));
	ok(!hand_receive(&p, VNET_PEER_PONG, NULL, 0),
	   "a malformed message ends the channel");
	hand_end(&p);
}

/* Those that only connect do not keep out the one that knows the key. */
static void test_incoming_full(void)
{
	struct by_hand p;
	int fd[70];

	for (int i = 0; i < 70; i++)
		fd[i] = tcp_connect(1, bed.agent[0].port, 3);
	ok(hand_shake(&p, hand_key) && hand_hello(&p, "h9", VNET_PEER_VERSION),
	   "a peer behind 70 that say nothing");
	ok(ends(fd[0]), "the oldest gave way");
	for (int i = 0; i < 70; i++)
		close(fd[i]);
	for (int i = 0; i < 200; i++) /* more than are taken at a time */
		hand_send(&p, VNET_PEER_PING, NULL, 0);
	for (int i = 0; i < 200; i++)
		if (!hand_receive(&p, VNET_PEER_PONG, NULL, 0)) {
			ok(false, "PONG %d", i);
			break;
		}
	hand_end(&p);
}

/* Who connects when there is no descriptor for it waits, and costs nothing. */
static void test_no_descriptors(void)
{
	const struct test_agent *agent = &bed.agent[0];
	struct vnet_attach_hello hello = { .version = htole16(99), .vm = "x" };
	struct attach_msg msg;
	struct lane_by_hand l;
	unsigned int cpu;
	struct by_hand p;
	int shim, ret, fd[2];

	lane_ask(&l);
	agent_limit_files(agent, 3);
	cpu = agent_cpu_ms(agent);
	shim = unix_connect(agent->socket, SOCK_SEQPACKET);
	fd[0] = tcp_connect(1, agent->port, 3);
	fd[1] = tcp_connect(1, ntohs(l.answer.addr.port), 3);
	attach_send(shim, VNET_ATTACH_HELLO, 1, &hello, NULL, 0);
	usleep(500000);
	ok(agent_cpu_ms(agent) - cpu < 150, "no descriptor, but no busy loop");
	ok(agent_logged(agent, "shims: cannot accept") &&
	   agent_logged(agent, "peers: cannot accept") &&
	   agent_logged(agent, "lanes: cannot accept"), "the log says so");
	is_int(guest_simple(&bed.a, VTOE_CMD_INFO, 12345, 0),
	       VTOE_REASON_PROTOCOL, "guests are served");
	agent_limit_files(agent, UINT_MAX);
	while ((ret = attach_recv(shim, &msg)) == -EAGAIN)
		usleep(1000);
	ok(ret == 1 && le32toh(msg.u.hello_reply.status) == VTOE_REASON_VERSION,
	   "later the shim that waited is answered");
	ok(hand_shake(&p, hand_key) && hand_hello(&p, "h9", VNET_PEER_VERSION), "peers too");
	is_int(lane_greet(&l, BED_TENANT, VNET_PEER_VERSION, 3), 0, "and lanes");
	hand_end(&p);
	lane_end(&l);
	close(shim);
	close(fd[0]);
	close(fd[1]);
}

/* ---- death and return ---- */

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void test_kill(void)
{
	struct stream a, b;

	is_int(bed_open(&bed, &a, &b), 0, "a connection");
	ok(stream_exchange(&a, &b, 1 << 20, G_LARGE), "under load");
	stream_send(&a, G_LARGE);
	guest_kick(&bed.a, G_SWQ);
	agent_kill(&bed.agent[1]);
	for (int i = 0; i < 400 && !(a.broken && bed.b.eof); i++) {
		streams_pump(&bed.a, 5);
		guest_poll(&bed.b, 5);
	}
	ok(a.broken && a.reason == VTOE_REASON_LANE_LOST,
	   "kill -9 of its agent: the peer is told LANE_LOST");
	ok(bed.b.eof, "its own guest's shim sees end of file");
	stream_close(&a, 0);
	guest_stop(&bed.b);
	streams_reset();
}

static void test_return(void)
{
	struct vtoe_addr any = { .family = 4, .port = htons(BED_PORT) };
	struct stream a, b;

	is_int(agent_start(&bed.agent[1], 2, TEST_KEY, "fabric tcp\n", NULL), 0,
	       "the agent comes back");
	is_int(guest_start(&bed.b, bed.agent[1].socket, "b", BED_TENANT, 2, NULL),
	       0, "its guest too");
	bed.a.route = bed.agent[1].addr;
	attach_send(bed.a.fd, VNET_ATTACH_ROUTE_CHANGED, 1, NULL, NULL, 0);
	guest_listen(&bed.b, BED_LISTENER, &any);
	is_int(bed_open(&bed, &a, &b), 0, "a new connection");
	ok(stream_exchange(&a, &b, 1 << 20, G_LARGE), "carries data");
	stream_close(&a, 0);
	ok(stream_wait_broken(&b), "reset");
	stream_close(&b, 0);
	streams_reset();
}

/* An agent's process stands while it waits for an answer: that time does not count. */
static void test_stands_still(void)
{
	struct vnet_attach_resolve_reply answer = { .agent = bed.a.route };
	struct vtoe_addr local = addr4(1, 1112), remote = addr4(2, BED_PORT);
	struct vtoe_credit grant = credit_of(0, 1, 1, 1);
	const uint32_t asked = bed.a.resolves;
	struct vtoe_event ev;
	struct stream a;
	pid_t tenant;

	attach_send(bed.a.fd, VNET_ATTACH_ROUTE_CHANGED, 2, NULL, NULL, 0);
	bed.a.mute = true;
	stream_init(&a, &bed.a, 968, &a);
	guest_connect(&bed.a, 968, &local, &remote, 2, &grant);
	for (int i = 0; i < 400 && bed.a.resolves == asked; i++)
		bed_pump(&bed, 10);
	is_int(bed.a.resolves, asked + 1, "a's shim is asked where b is");
	bed.a.mute = false;
	is_int(agent_tenants(&bed.agent[0], &tenant, 1), 1, "by a tenant's process");
	kill(tenant, SIGSTOP);
	sleep(6); /* an answer has five */
	kill(tenant, SIGCONT);
	bed_pump(&bed, 500);
	ok(!a.broken, "which stood for six seconds, and waits still");
	attach_send(bed.a.fd, VNET_ATTACH_RESOLVE_REPLY, bed.a.resolve_seq,
		    &answer, NULL, 0);
	ok(guest_wait_event(&bed.b, VTOE_EV_CONNECT_REQUEST, &ev),
	   "it hears the answer: b is called");
	stream_close(&a, VTOE_CLOSE_F_ABORT);
	bed_pump(&bed, 100);
	streams_reset();
}

/* Two agents that do not share the key; one that is not there. */
static void test_no_lane(void)
{
	struct test_agent other;
	struct stream a;
	struct vtoe_addr local = addr4(1, 1111), remote = addr4(2, BED_PORT);
	struct vtoe_credit grant = credit_of(0, 1, 1, 1);
	struct vtoe_addr route = bed.a.route;
	double start;

	is_int(agent_start(&other, 5, OTHER_KEY, "fabric tcp\n", NULL), 0,
	       "an agent with another key");
	bed.a.route = other.addr;
	stream_init(&a, &bed.a, 970, &a);
	guest_connect(&bed.a, 970, &local, &remote, 55, &grant);
	ok(stream_wait_broken(&a) && a.event == VTOE_EV_ROUTE_ERROR &&
	   a.reason == VTOE_REASON_NO_LANE, "no lane to it");
	stream_close(&a, 0);
	start = now_s();
	streams_reset();
	stream_init(&a, &bed.a, 971, &a);
	guest_connect(&bed.a, 971, &local, &remote, 55, &grant);
	ok(stream_wait_broken(&a) && a.event == VTOE_EV_ROUTE_ERROR &&
	   now_s() - start < 0.5, "the next one is refused at once");
	stream_close(&a, 0);
	is_int(agent_stop(&other), 0, "it ends cleanly");
	streams_reset();
	stream_init(&a, &bed.a, 972, &a);
	guest_connect(&bed.a, 972, &local, &remote, 56, &grant);
	ok(stream_wait_broken(&a) && a.event == VTOE_EV_ROUTE_ERROR,
	   "an agent that is not there");
	stream_close(&a, 0);
	bed.a.route = route;
	streams_reset();
}

/* The program itself, with its sandbox: it would die of a forbidden call. */
static void test_program(void)
{
	const char *program = getenv("VNET_IBAGENT");
	static struct guest g, h;
	struct test_agent agent[2];
	struct vtoe_addr any = { .family = 4, .port = htons(BED_PORT) };
	struct stream a, b;

	if (!program)
		program = "build/host/vnet-ibagent";
	if (access(program, X_OK)) {
		skip("the program in its sandbox", "program not built");
		return;
	}
	streams_reset();
	ok(!agent_start(&agent[0], 11, TEST_KEY, "fabric local tcp\n", program) &&
	   !agent_start(&agent[1], 12, TEST_KEY, "fabric tcp\n", program),
	   "two programs start");
	ok(!guest_start(&g, agent[0].socket, "g", 3, 1, NULL) &&
	   !guest_start(&h, agent[1].socket, "h", 3, 2, NULL) &&
	   !guest_listen(&h, 1, &any), "guests attach");
	g.route = agent[1].addr;
	g.route_reason = 0;
	stream_init(&a, &g, 20, &b);
	stream_init(&b, &h, 21, &a);
	ok(stream_open(&a, &b, 1, BED_PORT, 1000) == 0 &&
	   stream_exchange(&a, &b, 4 << 20, G_LARGE), "data passes");
	usleep(1200000);
	ok(stream_exchange(&a, &b, 100000, G_LARGE),
	   "also when the watchdog has rung");
	kill(agent[0].pid, SIGUSR1);
	ok(agent_logged(&agent[0], "\"tx_bytes\":"), "SIGUSR1 prints counters");
	guest_stop(&g);
	guest_stop(&h);
	is_int(agent_stop(&agent[0]) | agent_stop(&agent[1]), 0, "both end cleanly");
	streams_reset();
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	hand_init(&bed);
	if (!ok(bed_make(&bed, 2, NULL, ""), "two hosts"))
		return tap_done();
	test_control();
	test_incoming_full();
	test_no_descriptors();
	test_kill();
	test_return();
	test_stands_still();
	test_no_lane();
	for (unsigned int i = 0; i < 2; i++)
		is_int(bed_end(&bed, i), 0, "agent ends cleanly");
	test_program();
	return tap_done();
}
