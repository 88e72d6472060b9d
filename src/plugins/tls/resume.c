/* SPDX-License-Identifier: MIT
 *
 * Resuming sessions. A client keeps what servers have offered, by server and port; a ticket of TLS 1.3 is used once
 * (RFC 8446, C.4). A server keeps nothing: its tickets are encrypted with keys that are replaced as time passes, or
 * that the script shares among servers. */
#include "plugins/tls/tls.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <string.h>

enum { KEPT_MAX = 128, KEPT_EACH = 4, TICKET_NAME = 16, TICKET_KEY = 32 };
static const uint64_t ticket_period = UINT64_C(12) * 3600 * 1000000000; /* ns that a key encrypts */

/* ---- a client's ----------------------------------------------------------------------------- */

static void resume_drop(struct tls_context *c, struct tls_resumable **at)
{
    struct tls_resumable *r = *at;
    *at = r->next;
    SSL_SESSION_free(r->session);
    asio_tls_core->mem->allocator->free(r);
    c->resumable_count--;
}

void tls_resume_forget(struct tls_context *c)
{
    while (c->resumable)
        resume_drop(c, &c->resumable);
}

/* The oldest go: of this key beyond KEPT_EACH, of all beyond KEPT_MAX. */
static void resume_trim(struct tls_context *c, const char *key)
{
    unsigned same = 0, all = 0;
    struct tls_resumable **at = &c->resumable;
    while (*at) {
        same += strcmp((*at)->key, key) == 0;
        all++;
        if (all > KEPT_MAX || (same > KEPT_EACH && strcmp((*at)->key, key) == 0))
            resume_drop(c, at);
        else
            at = &(*at)->next;
    }
}

/* OpenSSL hands over a reference; 1: it is kept. */
static int resume_on_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls_session *s = SSL_get_app_data(ssl);
    struct tls_context *c = tls_context_of(SSL_get_SSL_CTX(ssl));
    if (!s || !s->name || !SSL_SESSION_is_resumable(session))
        return 0;
    size_t n = strlen(s->name) + 1;
    struct tls_resumable *r = asio_tls_core->mem->allocator->malloc(sizeof *r + n);
    if (!r)
        return 0;
    memcpy(r->key, s->name, n);
    r->session = session;
    r->next = c->resumable;
    c->resumable = r;
    c->resumable_count++;
    resume_trim(c, s->name);
    return 1;
}

/* A server of TLS 1.2 may bring a new ticket for a session that it resumes. OpenSSL does not resume the old one again,
 * and tells of no new one. */
void tls_resume_renewed(SSL *ssl)
{
    struct tls_context *c = tls_context_of(SSL_get_SSL_CTX(ssl));
    if (SSL_version(ssl) >= TLS1_3_VERSION || !SSL_session_reused(ssl))
        return;
    SSL_SESSION *session = SSL_get1_session(ssl);
    const struct tls_resumable *r = c->resumable;
    while (r && r->session != session)
        r = r->next;
    if (r || !session || !resume_on_session(ssl, session))
        SSL_SESSION_free(session);
}

/* With each session that is resumed a server may offer a new one: without end, while the certificate of the first is
 * not looked at again. */
static bool resume_has_expired(SSL_SESSION *session)
{
    X509 *cert = SSL_SESSION_get0_peer(session);
    return cert && X509_cmp_current_time(X509_get0_notAfter(cert)) <= 0;
}

void tls_resume_offer(SSL *ssl, const char *key)
{
    struct tls_context *c = tls_context_of(SSL_get_SSL_CTX(ssl));
    struct tls_resumable **at = &c->resumable;
    while (*at && strcmp((*at)->key, key) != 0)
        at = &(*at)->next;
    if (!*at || (c->verify != SSL_VERIFY_NONE && resume_has_expired((*at)->session)))
        return;
    SSL_set_session(ssl, (*at)->session);
    if (SSL_SESSION_get_protocol_version((*at)->session) >= TLS1_3_VERSION)
        resume_drop(c, at);
}

void tls_resume_set_client(SSL_CTX *ctx)
{
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, resume_on_session);
}

/* ---- a server's ----------------------------------------------------------------------------- */

/* Of the process. OpenSSL 3 would look them up by name for every ticket: a twentieth of a resumed handshake. */
static const EVP_CIPHER *ticket_cipher;
static const EVP_MD *ticket_digest;

int tls_resume_load(void)
{
    if (ticket_cipher)
        return 0;
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
    const EVP_MD *digest = EVP_MD_fetch(NULL, "SHA256", NULL);
    const EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
#else
    const EVP_MD *digest = EVP_sha256();
    const EVP_CIPHER *cipher = EVP_aes_256_cbc();
#endif
    if (!digest || !cipher)
        return UV_ENOMEM;
    ticket_digest = digest;
    ticket_cipher = cipher;
    return 0;
}

/* A fresh key in front; the one before goes on decrypting. False: no random bytes. */
static bool resume_renew(struct tls_ticket_keys *keys)
{
    uint64_t now = asio_tls_core->loop->now();
    if (!keys->own || (keys->count > 0 && now - keys->made < ticket_period))
        return true;
    unsigned char fresh[sizeof keys->bytes[0]];
    if (RAND_bytes(fresh, sizeof fresh) != 1)
        return keys->count > 0;
    memcpy(keys->bytes[1], keys->bytes[0], sizeof fresh);
    memcpy(keys->bytes[0], fresh, sizeof fresh);
    OPENSSL_cleanse(fresh, sizeof fresh);
    keys->count = keys->count > 0 ? 2 : 1;
    keys->made = now;
    return true;
}

/* A key's parts: its name, the key of the HMAC, the key of AES. */
static bool resume_use(
    const unsigned char *key, const unsigned char *iv, EVP_CIPHER_CTX *cipher, HMAC_CTX *mac, bool encrypt)
{
    const unsigned char *mac_key = key + TICKET_NAME, *aes = mac_key + TICKET_KEY;
    return HMAC_Init_ex(mac, mac_key, TICKET_KEY, ticket_digest, NULL) == 1 &&
        EVP_CipherInit_ex(cipher, ticket_cipher, NULL, aes, iv, encrypt) == 1;
}

/* 1: used; 2: used, and a new ticket is to be sent; 0: no such key; negative: failed. */
static int resume_on_ticket(
    SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, HMAC_CTX *mac, int encrypt)
{
    struct tls_ticket_keys *keys = ((struct tls_session *)SSL_get_app_data(ssl))->keys;
    if (!keys || !resume_renew(keys))
        return encrypt ? -1 : 0;
    if (encrypt) {
        memcpy(name, keys->bytes[0], TICKET_NAME);
        if (RAND_bytes(iv, EVP_CIPHER_iv_length(ticket_cipher)) != 1)
            return -1;
        return resume_use(keys->bytes[0], iv, cipher, mac, true) ? 1 : -1;
    }
    unsigned i = 0;
    while (i < keys->count && CRYPTO_memcmp(name, keys->bytes[i], TICKET_NAME) != 0)
        i++;
    if (i == keys->count)
        return 0;
    if (!resume_use(keys->bytes[i], iv, cipher, mac, false))
        return -1;
    return i > 0 || SSL_version(ssl) >= TLS1_3_VERSION ? 2 : 1; /* there a ticket is used once */
}

/* A client whose certificate has expired since has to show another. */
static SSL_TICKET_RETURN resume_on_decrypted(
    SSL *ssl, SSL_SESSION *session, const unsigned char *name, size_t n, SSL_TICKET_STATUS status, void *arg)
{
    (void)ssl, (void)name, (void)n, (void)arg;
    if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    if (resume_has_expired(session))
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

void tls_resume_set_server(SSL_CTX *ctx)
{
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(ctx, 1); /* each costs 5% of a handshake */
    SSL_CTX_set_tlsext_ticket_key_cb(ctx, resume_on_ticket);
    SSL_CTX_set_session_ticket_cb(ctx, NULL, resume_on_decrypted, NULL);
}

static struct tls_ticket_keys *resume_new_keys(lua_State *L)
{
    struct tls_ticket_keys *keys = asio_tls_core->mem->allocator->malloc(sizeof *keys);
    if (!keys)
        luaL_error(L, "not enough memory");
    memset(keys, 0, sizeof *keys);
    keys->references = 1;
    return keys;
}

/* tls.ticket_keys(context[, list]): keys of the script, checked before; without a list, keys of our own. */
int tls_l_ticket_keys(lua_State *L)
{
    struct tls_context *c = tls_context_of(tls_check_context(L, 1));
    struct tls_ticket_keys *keys = resume_new_keys(L);
    keys->own = lua_isnoneornil(L, 2);
    for (int i = 1; !keys->own && i <= (int)lua_objlen(L, 2); i++) {
        lua_rawgeti(L, 2, i);
        memcpy(keys->bytes[keys->count++], lua_tostring(L, -1), sizeof keys->bytes[0]);
    }
    c->keys = keys;
    return 0;
}

/* tls.share_keys(context, from) */
int tls_l_share_keys(lua_State *L)
{
    struct tls_context *c = tls_context_of(tls_check_context(L, 1));
    struct tls_context *from = tls_context_of(tls_check_context(L, 2));
    c->keys = from->keys;
    if (c->keys)
        c->keys->references++;
    return 0;
}
