// SPDX-License-Identifier: GPL-2.0-or-later
/* See cm_by_hand.h. */
#include "cm_by_hand.h"

#include <arpa/inet.h>
#include <endian.h>
#include <rdma/rdma_cma.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vnet_peer.h"

#define WAIT_MS 5000

uint16_t cm_port_in_log(const struct test_agent *agent)
{
	char line[1024], text[32];
	unsigned int port = 0;
	FILE *f = fopen(agent->log, "r");

	snprintf(text, sizeof(text), ".%u:", agent->number);
	while (f && fgets(line, sizeof(line), f)) {
		const char *at = strstr(line, "verbs: tenant");

		at = at ? strstr(at, text) : NULL;
		if (at)
			port = (unsigned int)atoi(at + strlen(text));
	}
	if (f)
		fclose(f);
	return (uint16_t)port;
}

static struct sockaddr_in address(unsigned int number, uint16_t port)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(agent_net() | number),
	};

	return addr;
}

/* Waits for one event. */
static int expect(struct rdma_event_channel *cm, enum rdma_cm_event_type type)
{
	struct rdma_cm_event *ev;
	int ret = -1;

	if (rdma_get_cm_event(cm, &ev))
		return -1;
	if (ev->event == type) {
		ret = 0;
	} else if (ev->event == RDMA_CM_EVENT_REJECTED &&
		   ev->param.conn.private_data_len >=
			   sizeof(struct vnet_lane_hello_reply)) {
		struct vnet_lane_hello_reply reply;

		memcpy(&reply, ev->param.conn.private_data, sizeof(reply));
		if (le32toh(reply.magic) == VNET_PEER_MAGIC)
			ret = (int)le32toh(reply.status);
	}
	rdma_ack_cm_event(ev);
	return ret;
}

static int request(unsigned int from, unsigned int to, uint16_t port,
		   const void *data, uint8_t len)
{
	struct sockaddr_in local = address(from, 0), remote = address(to, port);
	struct rdma_event_channel *cm = rdma_create_event_channel();
	struct rdma_conn_param param = {
		.private_data = data,
		.private_data_len = len,
		.qp_num = 0x123456, /* refused before anybody uses it */
	};
	struct rdma_cm_id *id = NULL;
	int ret = -1;

	if (!cm)
		return -1;
	if (!rdma_create_id(cm, &id, NULL, RDMA_PS_TCP) &&
	    !rdma_resolve_addr(id, (struct sockaddr *)&local,
			       (struct sockaddr *)&remote, WAIT_MS) &&
	    !expect(cm, RDMA_CM_EVENT_ADDR_RESOLVED) &&
	    !rdma_resolve_route(id, WAIT_MS) &&
	    !expect(cm, RDMA_CM_EVENT_ROUTE_RESOLVED) &&
	    !rdma_connect(id, &param))
		ret = expect(cm, RDMA_CM_EVENT_ESTABLISHED);
	if (id)
		rdma_destroy_id(id);
	rdma_destroy_event_channel(cm);
	return ret;
}

/* In a process of its own: librdmacm keeps the device open as long as one lives. */
int cm_request(unsigned int from, unsigned int to, uint16_t port,
	       const void *data, uint8_t len)
{
	int status = 0;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid)
		_exit(request(from, to, port, data, len) & 0xff);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return (int8_t)WEXITSTATUS(status);
}
