// SPDX-License-Identifier: GPL-2.0-or-later
/* See smc.h. */
#include "smc.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/genetlink.h>
#include <linux/smc.h>
#include <linux/smc_diag.h>
#include <linux/sock_diag.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#define BUF_SIZE 16384 /* bytes of a message, or of one part of a dump */
#define PNETID "VNET"
#define UEID "VNET-BENCH"

/* Sends a request and hands what comes back to fn, until there is no more. -1: errno */
static int ask(int protocol, struct nlmsghdr *h, mnl_cb_t fn, void *ctx)
{
	struct mnl_socket *nl = mnl_socket_open(protocol);
	char buf[BUF_SIZE];
	int ret = -1;

	h->nlmsg_seq = (uint32_t)time(NULL);
	if (!nl)
		return -1;
	if (!mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) &&
	    mnl_socket_sendto(nl, h, h->nlmsg_len) >= 0) {
		do {
			ssize_t n = mnl_socket_recvfrom(nl, buf, sizeof(buf));

			ret = n < 0 ? -1 : mnl_cb_run(buf, (size_t)n, h->nlmsg_seq,
						      mnl_socket_get_portid(nl), fn, ctx);
		} while (ret > 0);
	}
	mnl_socket_close(nl);
	return ret;
}

static struct nlmsghdr *generic(void *buf, uint16_t family, uint8_t cmd)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct genlmsghdr *g;

	h->nlmsg_type = family;
	h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	g = mnl_nlmsg_put_extra_header(h, sizeof(*g));
	g->cmd = cmd;
	g->version = 1;
	return h;
}

/* ---- set-up ---- */

static int take_family(const struct nlmsghdr *h, void *ctx)
{
	struct nlattr *attr;

	mnl_attr_for_each(attr, h, sizeof(struct genlmsghdr))
		if (mnl_attr_get_type(attr) == CTRL_ATTR_FAMILY_ID)
			*(uint16_t *)ctx = mnl_attr_get_u16(attr);
	return MNL_CB_OK;
}

/* 0: there is none, errno. */
static uint16_t family_of(const char *name)
{
	char buf[BUF_SIZE];
	struct nlmsghdr *h = generic(buf, GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
	uint16_t family = 0;

	mnl_attr_put_strz(h, CTRL_ATTR_FAMILY_NAME, name);
	return ask(NETLINK_GENERIC, h, take_family, &family) < 0 ? 0 : family;
}

int smc_setup(const char *netdev, const char *rdma_device)
{
	uint16_t pnet = family_of(SMCR_GENL_FAMILY_NAME), smc = family_of(SMC_GENL_FAMILY_NAME);
	char buf[BUF_SIZE], ueid[SMC_MAX_EID_LEN + 1];
	struct nlmsghdr *h;

	snprintf(ueid, sizeof(ueid), "%-*s", SMC_MAX_EID_LEN, UEID); /* blanks up to its length */
	if (!pnet || !smc) {
		fprintf(stderr, "smc: the kernel has no SMC-Rv2 (modprobe smc): %s\n", strerror(errno));
		return -1;
	}
	h = generic(buf, pnet, SMC_PNETID_ADD);
	mnl_attr_put_strz(h, SMC_PNETID_NAME, PNETID);
	mnl_attr_put_strz(h, SMC_PNETID_ETHNAME, netdev);
	mnl_attr_put_strz(h, SMC_PNETID_IBNAME, rdma_device);
	mnl_attr_put_u8(h, SMC_PNETID_IBPORT, 1);
	if (ask(NETLINK_GENERIC, h, NULL, NULL) < 0 && errno != EEXIST) {
		fprintf(stderr, "smc: network id of %s and %s: %s\n", netdev, rdma_device, strerror(errno));
		return -1;
	}
	h = generic(buf, smc, SMC_NETLINK_ADD_UEID);
	mnl_attr_put_strz(h, SMC_NLA_EID_TABLE_ENTRY, ueid);
	if (ask(NETLINK_GENERIC, h, NULL, NULL) < 0 && errno != EEXIST) {
		fprintf(stderr, "smc: EID " UEID ": %s\n", strerror(errno));
		return -1;
	}
	return 0;
}

/* ---- the path of a connection ---- */

struct sought {
	uint64_t inode;
	const char *path;
};

static int take_socket(const struct nlmsghdr *h, void *ctx)
{
	const struct smc_diag_msg *msg = mnl_nlmsg_get_payload(h);
	struct sought *sought = ctx;

	if (msg->diag_inode == sought->inode)
		sought->path = msg->diag_mode == SMC_DIAG_MODE_SMCR ? "smc-r" : "smc-tcp";
	return MNL_CB_OK;
}

const char *smc_path(int fd)
{
	struct sought sought = { .path = "smc-?" };
	char buf[BUF_SIZE];
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct smc_diag_req *req;
	struct stat st;

	h->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	h->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	req = mnl_nlmsg_put_extra_header(h, sizeof(*req));
	req->diag_family = AF_SMC;
	if (!fstat(fd, &st)) {
		sought.inode = st.st_ino;
		ask(NETLINK_SOCK_DIAG, h, take_socket, &sought);
	}
	return sought.path;
}
