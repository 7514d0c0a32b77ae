// SPDX-License-Identifier: MIT
/*
 * Lines of text without stdio: safe in signal handlers, and before libc's own
 * streams are set up.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "vns.h"

static void put_bytes(struct vns_text *t, const char *s, size_t len)
{
	size_t room = sizeof(t->buf) - 1 - t->len;

	if (len > room)
		len = room;
	memcpy(t->buf + t->len, s, len);
	t->len += len;
}

void vns_put(struct vns_text *t, const char *s)
{
	put_bytes(t, s, strlen(s));
}

void vns_put_u(struct vns_text *t, unsigned long n)
{
	char digits[24];
	size_t at = sizeof(digits);

	do
		digits[--at] = (char)('0' + n % 10);
	while (n /= 10);
	put_bytes(t, digits + at, sizeof(digits) - at);
}

void vns_put_quoted(struct vns_text *t, const char *s, size_t len)
{
	size_t i;

	vns_put(t, "\"");
	for (i = 0; i < len && i < 64; i++) {
		char ch = s[i] >= ' ' && s[i] < 127 ? s[i] : '?';

		put_bytes(t, &ch, 1);
	}
	vns_put(t, i < len ? "...\"" : "\"");
}

void vns_put_addr(struct vns_text *t, const struct sockaddr *sa, socklen_t len)
{
	char name[INET6_ADDRSTRLEN];

	if (len >= sizeof(struct sockaddr_in) && sa->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)sa;

		inet_ntop(AF_INET, &in->sin_addr, name, sizeof(name));
		vns_put(t, name);
		vns_put(t, ":");
		vns_put_u(t, ntohs(in->sin_port));
	} else if (len >= sizeof(struct sockaddr_in6) &&
		   sa->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const void *)sa;

		inet_ntop(AF_INET6, &in6->sin6_addr, name, sizeof(name));
		vns_put(t, "[");
		vns_put(t, name);
		vns_put(t, "]:");
		vns_put_u(t, ntohs(in6->sin6_port));
	} else {
		vns_put(t, "?");
	}
}

void vns_put_error(struct vns_text *t, int err)
{
	/* strerror() may allocate; this one is a table look-up. */
	const char *words = strerrordesc_np(err);

	if (words) {
		vns_put(t, words);
	} else {
		vns_put(t, "error ");
		vns_put_u(t, (unsigned long)err);
	}
}

const char *vns_text_end(struct vns_text *t)
{
	t->buf[t->len] = '\0';
	return t->buf;
}
