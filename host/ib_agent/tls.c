// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * TLS 1.3 with an external pre-shared key (RFC 8446 section 4.2.11, RFC 9257).
 *
 * Theory of operation. Both sides know one 256-bit key and one identity. The
 * handshake is PSK with (EC)DHE: forward secret, no certificates. The client
 * proves the key by the binder in its ClientHello, the server by its Finished;
 * a server that has no certificate cannot complete any other handshake, and
 * the client accepts none, since it verifies and trusts no authority. To be sure,
 * both sides look afterwards whether the pre-shared key was really used.
 *
 * No tickets, no resumption, no early data: nothing outlives the connection and
 * nothing can be replayed. That one cipher suite's hash belongs to the key is a
 * rule of TLS 1.3; ours is SHA-256.
 *
 * Threat model: everything that comes from the socket goes to OpenSSL alone.
 * What an attacker without the key can do is to make us fail a handshake. A
 * reflection of our own messages (the "Selfie" attack, RFC 9257 section 4.1) is
 * caught by the host name in the peer HELLO (peer.c).
 */
#include "tls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "log.h"
#include "vnet_peer.h"

struct iba_tls_ctx {
	SSL_CTX *ssl;
	uint8_t key[IBA_KEY_LEN];
};

struct iba_tls {
	SSL *ssl;
	bool wants_write;
};

static const unsigned char cipher_id[2] = { 0x13, 0x01 };
static const unsigned char session_context[] = { 'v', 'n', 'e', 't' };
#define CIPHER_NAME "TLS_AES_128_GCM_SHA256"

static SSL_SESSION *make_session(SSL *ssl)
{
	struct iba_tls_ctx *ctx = SSL_get_app_data(ssl);
	const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, cipher_id);
	SSL_SESSION *session = SSL_SESSION_new();

	if (!session || !cipher ||
	    !SSL_SESSION_set1_master_key(session, ctx->key, sizeof(ctx->key)) ||
	    !SSL_SESSION_set_cipher(session, cipher) ||
	    !SSL_SESSION_set1_id_context(session, session_context,
					 sizeof(session_context)) ||
	    !SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION)) {
		SSL_SESSION_free(session);
		return NULL;
	}
	return session;
}

static int client_psk(SSL *ssl, const EVP_MD *md, const unsigned char **id,
		      size_t *id_len, SSL_SESSION **session)
{
	*session = NULL;
	*id = NULL;
	*id_len = 0;
	/* set after a HelloRetryRequest: the hash that the server has chosen */
	if (md && EVP_MD_get_type(md) != NID_sha256)
		return 1;
	*session = make_session(ssl);
	if (!*session)
		return 0;
	*id = (const unsigned char *)VNET_PEER_PSK_IDENTITY;
	*id_len = strlen(VNET_PEER_PSK_IDENTITY);
	return 1;
}

static int server_psk(SSL *ssl, const unsigned char *id, size_t id_len,
		      SSL_SESSION **session)
{
	*session = NULL;
	if (id_len != strlen(VNET_PEER_PSK_IDENTITY) ||
	    memcmp(id, VNET_PEER_PSK_IDENTITY, id_len))
		return 1; /* no such key: the handshake goes on, and fails */
	*session = make_session(ssl);
	return *session != NULL;
}

struct iba_tls_ctx *iba_tls_ctx_create(const uint8_t key[IBA_KEY_LEN])
{
	struct iba_tls_ctx *ctx = calloc(1, sizeof(*ctx));

	if (!ctx)
		return NULL;
	memcpy(ctx->key, key, sizeof(ctx->key));
	ctx->ssl = SSL_CTX_new(TLS_method());
	if (!ctx->ssl ||
	    !SSL_CTX_set_min_proto_version(ctx->ssl, TLS1_3_VERSION) ||
	    !SSL_CTX_set_max_proto_version(ctx->ssl, TLS1_3_VERSION) ||
	    !SSL_CTX_set_ciphersuites(ctx->ssl, CIPHER_NAME) ||
	    !SSL_CTX_set_num_tickets(ctx->ssl, 0) ||
	    /* a server that verifies must name its sessions, though none is kept */
	    !SSL_CTX_set_session_id_context(ctx->ssl, session_context,
					    sizeof(session_context))) {
		iba_tls_ctx_destroy(ctx);
		return NULL;
	}
	SSL_CTX_set_session_cache_mode(ctx->ssl, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_verify(ctx->ssl, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_mode(ctx->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE |
				   SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				   SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_psk_use_session_callback(ctx->ssl, client_psk);
	SSL_CTX_set_psk_find_session_callback(ctx->ssl, server_psk);
	return ctx;
}

void iba_tls_ctx_destroy(struct iba_tls_ctx *ctx)
{
	if (!ctx)
		return;
	SSL_CTX_free(ctx->ssl);
	OPENSSL_cleanse(ctx, sizeof(*ctx));
	free(ctx);
}

struct iba_tls *iba_tls_create(struct iba_tls_ctx *ctx, int fd, bool server)
{
	struct iba_tls *tls = calloc(1, sizeof(*tls));

	if (!tls)
		return NULL;
	tls->ssl = SSL_new(ctx->ssl);
	if (!tls->ssl || !SSL_set_app_data(tls->ssl, ctx) ||
	    !SSL_set_fd(tls->ssl, fd)) {
		iba_tls_destroy(tls);
		return NULL;
	}
	if (server)
		SSL_set_accept_state(tls->ssl);
	else
		SSL_set_connect_state(tls->ssl);
	return tls;
}

void iba_tls_destroy(struct iba_tls *tls)
{
	if (!tls)
		return;
	SSL_free(tls->ssl);
	free(tls);
}

/* -EAGAIN, 0 at the end of file, or -EIO. */
static ssize_t failure(struct iba_tls *tls, int ret)
{
	switch (SSL_get_error(tls->ssl, ret)) {
	case SSL_ERROR_WANT_READ:
		tls->wants_write = false;
		return -EAGAIN;
	case SSL_ERROR_WANT_WRITE:
		tls->wants_write = true;
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	default:
		return -EIO;
	}
}

int iba_tls_handshake(struct iba_tls *tls)
{
	int ret;

	ERR_clear_error();
	ret = SSL_do_handshake(tls->ssl);
	if (ret != 1)
		return failure(tls, ret) == -EAGAIN ? 0 : -EACCES;
	tls->wants_write = false;
	/* an external key counts as a resumed session */
	if (!SSL_session_reused(tls->ssl) ||
	    SSL_version(tls->ssl) != TLS1_3_VERSION)
		return -EACCES;
	return 1;
}

ssize_t iba_tls_read(struct iba_tls *tls, void *buf, size_t len)
{
	size_t n;
	int ret;

	ERR_clear_error();
	ret = SSL_read_ex(tls->ssl, buf, len, &n);
	tls->wants_write = false;
	return ret == 1 ? (ssize_t)n : failure(tls, ret);
}

ssize_t iba_tls_write(struct iba_tls *tls, const void *buf, size_t len)
{
	size_t n;
	int ret;

	ERR_clear_error();
	ret = SSL_write_ex(tls->ssl, buf, len, &n);
	tls->wants_write = false;
	return ret == 1 ? (ssize_t)n : failure(tls, ret);
}

bool iba_tls_pending(const struct iba_tls *tls)
{
	return SSL_has_pending(tls->ssl);
}

bool iba_tls_wants_write(const struct iba_tls *tls)
{
	return tls->wants_write;
}

const char *iba_tls_error(void)
{
	const char *text = ERR_reason_error_string(ERR_peek_last_error());

	return text ? text : "connection lost";
}
