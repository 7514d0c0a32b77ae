// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Two tenants on one agent: a process for each, the same MAC address in both, no
 * connection from one to the other, and one that dies leaves the other alone.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "by_hand.h"
#include "tap.h"

#define OTHER (BED_TENANT + 1)

/* a (MAC 1) and b (MAC 2) are of BED_TENANT, these of the other. */
static struct bed bed;
static struct guest y; /* MAC 1 as well */
static struct guest z; /* MAC 3 */

static bool make(void)
{
	struct vtoe_addr any = { .family = 4, .port = htons(BED_PORT) };
	struct guest *all[] = { &bed.a, &bed.b, &y, &z };
	const char *path = bed.agent[0].socket;
	int ret;

	streams_reset();
	bed.agents = 1;
	bed.next_port = 40000;
	bed.next_sid = 10;
	ret = agent_start(&bed.agent[0], 1, TEST_KEY, "fabric local tcp\n", NULL);
	if (ret)
		return false;
	ret = guest_start(&bed.a, path, "a", BED_TENANT, 1, NULL) |
	      guest_start(&bed.b, path, "b", BED_TENANT, 2, NULL) |
	      guest_start(&y, path, "y", OTHER, 1, NULL) |
	      guest_start(&z, path, "z", OTHER, 3, NULL);
	for (unsigned int i = 0; i < 4; i++) {
		all[i]->route = bed.agent[0].addr;
		all[i]->route_reason = VTOE_REASON_NONE;
	}
	return !ret && !guest_listen(&bed.a, BED_LISTENER, &any) &&
	       !guest_listen(&bed.b, BED_LISTENER, &any);
}

/* The reason why z cannot connect to this MAC. */
static int refused(uint32_t sid, uint8_t mac_last)
{
	struct vtoe_addr local = addr4(3, (uint16_t)(30000 + sid));
	struct vtoe_addr remote = addr4(mac_last, BED_PORT);
	struct vtoe_credit grant = credit_of(0, 1000, 1, 1);
	struct stream s;
	int reason = -1;

	stream_init(&s, &z, sid, &s);
	if (guest_connect(&z, sid, &local, &remote, mac_last, &grant) == 0 &&
	    stream_wait_broken(&s))
		reason = (int)s.reason;
	stream_close(&s, 0);
	streams_reset();
	return reason;
}

static void test_apart(void)
{
	struct vtoe_addr any = { .family = 4, .port = htons(BED_PORT) };
	struct vtoe_event ev;
	struct stream s, t;

	is_int(refused(50, 2), VTOE_REASON_PEER_NO_VTOE,
	       "the other tenant's VM is not there for connect");
	is_int(refused(51, 1), VTOE_REASON_NO_LISTENER,
	       "of two with one MAC address it is the own tenant's");
	z.route_reason = VTOE_REASON_NO_ROUTE;
	is_int(refused(52, 9), VTOE_REASON_NO_ROUTE, "no route");
	z.route_reason = VTOE_REASON_NONE;
	for (int i = 0; i < 20; i++) {
		guest_poll(&bed.a, 2);
		guest_poll(&bed.b, 2);
	}
	ok(!guest_event(&bed.a, &ev) && !guest_event(&bed.b, &ev),
	   "the other tenant's VMs have heard nothing of it");
	is_int(guest_listen(&y, BED_LISTENER, &any), 0,
	       "the same address and port can be listened at in both");
	stream_init(&s, &z, 60, &t);
	stream_init(&t, &y, 61, &s);
	is_int(stream_open(&s, &t, BED_LISTENER, BED_PORT, 41000), 0,
	       "a connection within the other tenant");
	ok(stream_exchange(&s, &t, 100000, G_LARGE), "carries data");
	stream_close(&s, 0);
	ok(stream_wait_broken(&t), "reset");
	stream_close(&t, 0);
	streams_reset();
}

/* A lane of one tenant, by hand, for a VM of the other one. */
static void test_lanes(void)
{
	struct vnet_peer_lane_answer first;
	struct vtoe_msg_hdr hdr;
	struct vnet_lane_req req;
	struct lane_by_hand l;

	lane_ask(&l);
	first = l.answer;
	is_int(hand_ask(&l.control, OTHER, &l.answer), 0,
	       "a token for the other tenant");
	ok(l.answer.addr.port != first.addr.port, "each has a port of its own");
	is_int(lane_greet(&l, OTHER, VNET_PEER_VERSION, 3), 0, "its lane");
	make_req(&hdr, &req);
	memcpy(req.remote_mac, bed.b.mac, VNET_MAC_LEN);
	lane_send(&l, &hdr, &req, sizeof(req));
	is_int(lane_rejected(&l, VTOE_MSG_REJ), VTOE_REASON_PEER_NO_VTOE,
	       "REQ on it for the first tenant's VM");
	close(l.fd);
	is_int(hand_ask(&l.control, OTHER, &l.answer), 0, "another token");
	l.answer.addr = first.addr;
	is_int(lane_greet(&l, BED_TENANT, VNET_PEER_VERSION, 3),
	       VTOE_REASON_PROTOCOL, "which is none at the first tenant's port");
	close(l.fd);
	is_int(lane_greet(&l, OTHER, VNET_PEER_VERSION, 3), VTOE_REASON_TENANT,
	       "nor is its tenant there");
	lane_end(&l);
}

static bool has(const pid_t *pid, unsigned int count, pid_t which)
{
	for (unsigned int i = 0; i < count; i++)
		if (pid[i] == which)
			return true;
	return false;
}

/* True: within 3 s the agent sees its shim as gone. */
static bool thrown_out(struct guest *g)
{
	for (int i = 0; i < 300 && !g->eof; i++)
		guest_poll(g, 10);
	return g->eof;
}

static void test_faults(const pid_t before[2])
{
	struct stream a, b;
	pid_t now[4];
	unsigned int count;

	is_int(bed_open(&bed, &a, &b), 0, "a connection of the first tenant");
	__atomic_store_n(&y.q[G_SWQ].avail->idx, 9999, __ATOMIC_RELEASE);
	(void)!write(y.q[G_SWQ].kick_fd, &(uint64_t){ 1 }, 8);
	ok(thrown_out(&y), "a broken ring of the other tenant's VM ends its session");
	count = agent_tenants(&bed.agent[0], now, 4);
	ok(count == 2 && has(now, 2, before[0]) && has(now, 2, before[1]),
	   "and no process");
	is_int(guest_simple(&z, VTOE_CMD_INFO, 12345, 0), VTOE_REASON_PROTOCOL,
	       "the tenant's other VM is served");
	ok(stream_exchange(&a, &b, 1 << 20, G_LARGE), "the first tenant too");
	kill(before[1], SIGKILL);
	ok(thrown_out(&z), "the other tenant's process dies, its VM is told");
	for (int i = 0; i < 300; i++) {
		count = agent_tenants(&bed.agent[0], now, 4);
		if (count == 1)
			break;
		usleep(10000);
	}
	ok(count == 1 && now[0] == before[0], "the first tenant's is the same");
	ok(stream_exchange(&a, &b, 1 << 20, G_LARGE) && !a.broken && !b.broken,
	   "and its connection goes on");
	guest_stop(&y);
	guest_stop(&z);
	is_int(guest_start(&z, bed.agent[0].socket, "z", OTHER, 3, NULL), 0,
	       "the other tenant's VM comes back");
	is_int(agent_tenants(&bed.agent[0], now, 4), 2, "to a new process");
	guest_stop(&z);
	is_int(stream_close(&a, 0), 0, "close");
	ok(stream_wait_broken(&b), "reset");
	is_int(stream_close(&b, 0), 0, "close");
	streams_reset();
}

/* The other tenant's process may not have another descriptor. */
static void test_no_descriptor(const pid_t before[2])
{
	struct rlimit all, few;
	static struct guest g;
	pid_t now[4];

	prlimit(before[1], RLIMIT_NOFILE, NULL, &all);
	few = all;
	few.rlim_cur = 3;
	prlimit(before[1], RLIMIT_NOFILE, &few, NULL);
	is_int(guest_start(&g, bed.agent[0].socket, "g", OTHER, 4, NULL), -EPIPE,
	       "a VM more than its tenant's process has descriptors for");
	guest_stop(&g);
	ok(agent_logged(&bed.agent[0], "an attachment is lost: Too many open files"),
	   "the log says why");
	is_int(guest_simple(&z, VTOE_CMD_INFO, 12345, 0), VTOE_REASON_PROTOCOL,
	       "the tenant's other VMs are served");
	prlimit(before[1], RLIMIT_NOFILE, &all, NULL);
	is_int(guest_start(&g, bed.agent[0].socket, "g", OTHER, 4, NULL), 0,
	       "it comes when there are some again");
	guest_stop(&g);
	ok(agent_tenants(&bed.agent[0], now, 4) == 2 && has(now, 2, before[1]),
	   "to the same process");
}

/* A doorbell that can be watched and not read: an epoll set, always ready. */
static void test_endless_kick(void)
{
	static struct guest g;
	struct epoll_event ev = { .events = EPOLLIN };
	int set = epoll_create1(EPOLL_CLOEXEC);
	int ready = eventfd(1, EFD_CLOEXEC);

	if (set < 0 || ready < 0 || epoll_ctl(set, EPOLL_CTL_ADD, ready, &ev))
		bail_out("epoll");
	is_int(guest_start(&g, bed.agent[0].socket, "j", BED_TENANT, 75, NULL), 0,
	       "a third guest");
	is_int(guest_queue_stop(&g, G_CR) |
	       guest_queue_start(&g, G_CR, set, g.q[G_CR].call_fd), 0,
	       "its doorbell is an epoll set");
	for (int i = 0; i < 300 && !g.eof; i++)
		guest_poll(&g, 10);
	ok(g.eof && agent_logged(&bed.agent[0], "doorbell of it cannot be read"),
	   "which would never end, so its session does");
	is_int(guest_simple(&bed.a, VTOE_CMD_INFO, 12345, 0),
	       VTOE_REASON_PROTOCOL, "others are served");
	guest_stop(&g);
	close(set);
	close(ready);
}

int main(void)
{
	pid_t pid[4] = { 0 };

	signal(SIGPIPE, SIG_IGN);
	hand_init(&bed);
	if (!ok(make(), "two tenants of two VMs, two of them with one MAC address"))
		return tap_done();
	/* in the order in which they came */
	is_int(agent_tenants(&bed.agent[0], pid, 4), 2, "a process for each tenant");
	ok(pid[0] != pid[1] && pid[0] > 0 && pid[1] > 0, "two of them");
	test_apart();
	test_lanes();
	test_no_descriptor(pid);
	test_endless_kick();
	test_faults(pid);
	is_int(bed_end(&bed, 0), 0, "agent ends cleanly");
	return tap_done();
}
