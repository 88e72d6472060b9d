/* SPDX-License-Identifier: MIT
 *
 * What a server agrees to as it looks at a ClientHello: the certificate by its name, a protocol (ALPN), the OCSP
 * response to staple. */
#include "plugins/tls/tls.h"

#include <openssl/err.h>
#include <string.h>

static int hello_on_alpn(SSL *ssl, const unsigned char **out, unsigned char *length,
    const unsigned char *offered, unsigned n, void *arg)
{
    struct tls_context *c = tls_context_of(SSL_get_SSL_CTX(ssl));
    unsigned char *chosen;
    (void)arg;
    if (!c->alpn)
        return SSL_TLSEXT_ERR_NOACK;
    if (SSL_select_next_proto(&chosen, length, c->alpn, c->alpn_length, offered, n) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL; /* RFC 7301: no_application_protocol */
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static int hello_on_status(SSL *ssl, void *arg)
{
    const struct tls_context *c = tls_context_of(SSL_get_SSL_CTX(ssl));
    (void)arg;
    unsigned char *copy = c->ocsp ? OPENSSL_memdup(c->ocsp, (size_t)c->ocsp_length) : NULL;
    if (!copy)
        return SSL_TLSEXT_ERR_NOACK;
    SSL_set_tlsext_status_ocsp_resp(ssl, copy, c->ocsp_length);
    return SSL_TLSEXT_ERR_OK;
}

/* The name in the extension server_name (RFC 6066) of a ClientHello; 0: none, or it is not well formed. */
static size_t hello_name(SSL *ssl, char *name, size_t size)
{
    enum { HEAD = 5, HOST_NAME = 0 };
    const unsigned char *p;
    size_t n;
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &n) != 1 || n <= HEAD)
        return 0;
    size_t list = (size_t)(p[0] << 8 | p[1]), length = (size_t)(p[3] << 8 | p[4]);
    if (list + 2 != n || p[2] != HOST_NAME || length + HEAD != n || length >= size)
        return 0;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = p[HEAD + i];
        if (c <= ' ' || c >= 127)
            return 0;
        name[i] = (char)(c >= 'A' && c <= 'Z' ? c + 'a' - 'A' : c);
    }
    while (length > 0 && name[length - 1] == '.')
        length--;
    name[length] = '\0';
    return length;
}

static SSL_CTX *hello_find_name(const struct tls_context *c, const char *name)
{
    SSL_CTX *wild = NULL;
    const char *dot = strchr(name, '.');
    for (const struct tls_name *n = c->names; n; n = n->next) {
        if (strcmp(n->pattern, name) == 0)
            return n->ctx;
        if (dot && dot > name && n->pattern[0] == '*' && strcmp(n->pattern + 1, dot) == 0)
            wild = n->ctx;
    }
    return wild;
}

/* The certificate is chosen before anything of the hello is used: a ticket must not get round the demands of the
 * name that is asked for. */
static int hello_on_client_hello(SSL *ssl, int *alert, void *arg)
{
    struct tls_session *s = SSL_get_app_data(ssl);
    const struct tls_context *c = tls_context_of(SSL_get_SSL_CTX(ssl));
    char name[256];
    (void)arg;
    if (s->refused)
        *alert = SSL_AD_UNRECOGNIZED_NAME;
    if (s->chosen)
        return s->refused ? SSL_CLIENT_HELLO_ERROR : SSL_CLIENT_HELLO_SUCCESS;
    size_t n = hello_name(ssl, name, sizeof name);
    if (n > 0 && !s->name) {
        s->name = asio_tls_core->mem->allocator->malloc(n + 1);
        if (!s->name) {
            *alert = SSL_AD_INTERNAL_ERROR;
            return SSL_CLIENT_HELLO_ERROR;
        }
        memcpy(s->name, name, n + 1);
    }
    if (n > 0 && c->asks)
        return SSL_CLIENT_HELLO_RETRY;
    SSL_CTX *other = n > 0 ? hello_find_name(c, name) : NULL;
    if (other && !tls_context_choose(ssl, other)) {
        *alert = SSL_AD_INTERNAL_ERROR;
        return SSL_CLIENT_HELLO_ERROR;
    }
    s->chosen = true;
    return SSL_CLIENT_HELLO_SUCCESS;
}

bool tls_context_choose(SSL *ssl, SSL_CTX *ctx)
{
    const struct tls_context *c = tls_context_of(ctx);
    if (!SSL_set_SSL_CTX(ssl, ctx))
        return false;
    SSL_set_verify(ssl, tls_context_verify_mode(c), tls_verify);
    SSL_set_min_proto_version(ssl, (int)SSL_CTX_get_min_proto_version(ctx));
    return true;
}

void tls_hello_set(SSL_CTX *ctx)
{
    SSL_CTX_set_alpn_select_cb(ctx, hello_on_alpn, NULL);
    SSL_CTX_set_tlsext_status_cb(ctx, hello_on_status);
    SSL_CTX_set_client_hello_cb(ctx, hello_on_client_hello, NULL);
}
