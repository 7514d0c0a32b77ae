// SPDX-License-Identifier: MIT
/*
 * vnet-ss: the guest's sockets of AF_INET_VNET, as ss(8) lists those of TCP, and
 * which way each goes. By sock_diag; see proto/vnet_sock.h and vnet-ss(8).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>

#include "vnet_sock.h"
#include "vnet_vtoe.h"
#include "vtoe_states.h"

#define ALL_STATES ((1u << (VTOE_SOCK_CLOSING + 1)) - 1)
#define LISTENING (1u << VTOE_SOCK_LISTEN)
#define UNCONNECTED (LISTENING | 1u << VTOE_SOCK_CLOSE)

struct options {
	unsigned int states;
	bool extended, tcp;
	int family; /* AF_UNSPEC: both */
};

static const char *fabric_name(unsigned int fabric)
{
	switch (fabric) {
	case VTOE_FABRIC_LOCAL:
		return "local";
	case VTOE_FABRIC_TCP:
		return "tcp";
	case VTOE_FABRIC_VERBS:
		return "verbs";
	}
	return "-";
}

static void print_addr(int family, const void *ip, uint16_t port)
{
	static const uint8_t any[16];
	char text[INET6_ADDRSTRLEN + 10], addr[INET6_ADDRSTRLEN];

	if (!memcmp(ip, any, family == AF_INET6 ? 16 : 4))
		strcpy(addr, "*");
	else
		inet_ntop(family, ip, addr, sizeof(addr));
	if (port)
		snprintf(text, sizeof(text), strchr(addr, ':') ? "[%s]:%u" : "%s:%u", addr, ntohs(port));
	else
		snprintf(text, sizeof(text), strchr(addr, ':') ? "[%s]:*" : "%s:*", addr);
	printf(" %-25s", text);
}

/* What does not say enough is passed over. */
static int print_sock(const struct nlmsghdr *nlh, void *data)
{
	static const char *const paths[] = { "-", "vtoe", "tcp" };
	const struct inet_diag_msg *msg = mnl_nlmsg_get_payload(nlh);
	const struct options *opt = data;
	struct vnet_so_path path;
	const struct nlattr *attr;
	bool found = false;

	if (mnl_nlmsg_get_payload_len(nlh) < sizeof(*msg))
		return MNL_CB_OK;
	mnl_attr_for_each(attr, nlh, sizeof(*msg))
		if (mnl_attr_get_type(attr) == VNET_DIAG_PATH &&
		    mnl_attr_get_payload_len(attr) >= sizeof(path)) {
			memcpy(&path, mnl_attr_get_payload(attr), sizeof(path));
			found = path.path < sizeof(paths) / sizeof(paths[0]);
		}
	if (!found || (opt->family && opt->family != msg->idiag_family))
		return MNL_CB_OK;
	/* The state of one over TCP is in TCP's list: here it is closed. */
	if (path.path == VNET_PATH_TCP ? !opt->tcp : !(opt->states & 1u << msg->idiag_state))
		return MNL_CB_OK;
	path.reason_name[sizeof(path.reason_name) - 1] = '\0';
	printf("%-11s %6u %6u",
	       path.path == VNET_PATH_TCP ? "TCP" : vtoe_sock_state_name(msg->idiag_state),
	       msg->idiag_rqueue, msg->idiag_wqueue);
	print_addr(msg->idiag_family, msg->id.idiag_src, msg->id.idiag_sport);
	print_addr(msg->idiag_family, msg->id.idiag_dst, msg->id.idiag_dport);
	printf(" %-4s %-6s %s", paths[path.path], fabric_name(path.fabric), path.reason_name);
	if (opt->extended)
		printf(" uid:%u ino:%u sid:%#x", msg->idiag_uid, msg->idiag_inode, path.sid);
	putchar('\n');
	return MNL_CB_OK;
}

static int dump(struct mnl_socket *nl, unsigned int family, struct options *opt)
{
	unsigned int seq = (unsigned int)time(NULL), portid = mnl_socket_get_portid(nl);
	_Alignas(struct nlmsghdr) char buf[65536];
	struct inet_diag_req_v2 *req;
	struct nlmsghdr *nlh;
	ssize_t n;
	int ret;

	nlh = mnl_nlmsg_put_header(buf);
	nlh->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	nlh->nlmsg_seq = seq;
	req = mnl_nlmsg_put_extra_header(nlh, sizeof(*req));
	req->sdiag_family = (uint8_t)family;
	req->sdiag_protocol = IPPROTO_TCP;
	req->idiag_states = opt->states | (opt->tcp ? 1u << VTOE_SOCK_CLOSE : 0);
	if (mnl_socket_sendto(nl, nlh, nlh->nlmsg_len) < 0)
		return -1;
	do {
		n = mnl_socket_recvfrom(nl, buf, sizeof(buf));
		if (n < 0)
			return -1;
		ret = mnl_cb_run(buf, (size_t)n, seq, portid, print_sock, opt);
	} while (ret > 0);
	return ret;
}

static int list(unsigned int family, struct options *opt)
{
	struct mnl_socket *nl = mnl_socket_open(NETLINK_SOCK_DIAG);
	int ret = -1;

	if (nl && !mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID))
		ret = dump(nl, family, opt);
	if (ret < 0 && errno == ENOENT)
		fprintf(stderr, "vnet-ss: no sockets of family %u here: modprobe vtoe_sock\n", family);
	else if (ret < 0)
		fprintf(stderr, "vnet-ss: sock_diag: %s\n", strerror(errno));
	if (nl)
		mnl_socket_close(nl);
	return ret < 0 || fflush(stdout) ? 1 : 0;
}

static void usage(FILE *out)
{
	fputs("usage: vnet-ss [-a | -l] [-4 | -6] [-t] [-e] [-H]\n"
	      "  -a, --all        listeners and unconnected sockets, too\n"
	      "  -l, --listening  listeners only\n"
	      "  -4, --ipv4       IPv4 only; -6, --ipv6: IPv6 only\n"
	      "  -t, --tcp        those that run over TCP, too, with the reason\n"
	      "  -e, --extended   user, inode, and the connection's number in the guest\n"
	      "  -H, --no-header\n", out);
}

/* $VNET_FAMILY, as for libvnetsock; 0: no number of a family. */
static unsigned int family_number(void)
{
	const char *text = getenv("VNET_FAMILY");
	unsigned long number;
	char *end;

	if (!text || !*text)
		return AF_INET_VNET_DEFAULT;
	number = strtoul(text, &end, 10);
	return *end || number > UINT8_MAX ? 0 : (unsigned int)number;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "all", no_argument, NULL, 'a' },
		{ "listening", no_argument, NULL, 'l' },
		{ "ipv4", no_argument, NULL, '4' },
		{ "ipv6", no_argument, NULL, '6' },
		{ "tcp", no_argument, NULL, 't' },
		{ "extended", no_argument, NULL, 'e' },
		{ "no-header", no_argument, NULL, 'H' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct options opt = { .states = ALL_STATES & ~UNCONNECTED, .family = AF_UNSPEC };
	unsigned int family = family_number();
	bool header = true;
	int c;

	while ((c = getopt_long(argc, argv, "al46teHh", longs, NULL)) != -1) {
		switch (c) {
		case 'a':
			opt.states = ALL_STATES;
			break;
		case 'l':
			opt.states = LISTENING;
			break;
		case '4':
			opt.family = AF_INET;
			break;
		case '6':
			opt.family = AF_INET6;
			break;
		case 't':
			opt.tcp = true;
			break;
		case 'e':
			opt.extended = true;
			break;
		case 'H':
			header = false;
			break;
		case 'h':
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "vnet-ss: %s: it takes options only\n", argv[optind]);
		usage(stderr);
		return 2;
	}
	if (!family) {
		fprintf(stderr, "vnet-ss: VNET_FAMILY=%s: not the number of a family\n",
			getenv("VNET_FAMILY"));
		return 2;
	}
	if (header)
		printf("%-11s %6s %6s %-25s %-25s %-4s %-6s %s\n", "State", "Recv-Q", "Send-Q",
		       "Local", "Peer", "Path", "Fabric", "Reason");
	return list(family, &opt);
}
