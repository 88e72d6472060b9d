/* SPDX-License-Identifier: MIT
 *
 * TLS begins on a connection, and a light thread waits for the end of the handshake: the functions that tls.lua
 * makes connect, server and start_tls of. */
#include "plugins/tls/tls.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <string.h>

/* Whom the peer has to be: a numeric address, or a name, which it is told as well. For OpenSSL a name that begins with
 * a dot stands for all names below it. */
static bool start_set_peer(struct tls_session *s, const char *name, size_t length, bool verified)
{
    if (strlen(name) != length || name[0] == '.')
        return false;
    X509_VERIFY_PARAM *param = SSL_get0_param(s->ssl);
    ASN1_OCTET_STRING *address = a2i_IPADDRESS(name);
    bool numeric = address != NULL;
    ASN1_OCTET_STRING_free(address);
    ERR_clear_error();
    if (!numeric && SSL_set_tlsext_host_name(s->ssl, name) != 1)
        return false;
    if (!verified)
        return true;
    if (numeric)
        return X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1;
    X509_VERIFY_PARAM_set_hostflags(
        param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    return X509_VERIFY_PARAM_set1_host(param, name, 0) == 1;
}

static char *start_copy(const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = asio_tls_core->mem->allocator->malloc(n);
    if (copy)
        memcpy(copy, text, n);
    return copy;
}

/* nil, message, code of what is noted, or of the status. */
static int start_push_failure(lua_State *L, const struct tls_session *s)
{
    if (!s->failure)
        return asio_tls_core->error->push(L, s->status < 0 ? s->status : UV_EPROTO);
    lua_pushnil(L);
    lua_pushstring(L, s->failure->text);
    lua_pushstring(L, s->failure->code);
    return 3;
}

int tls_l_start(lua_State *L)
{
    struct asio_rt *rt = lua_touserdata(L, lua_upvalueindex(1));
    SSL_CTX *ctx = tls_check_context(L, 2);
    size_t length;
    const char *key = lua_tostring(L, 3), *name = lua_tolstring(L, 4, &length);
    struct asio_stream *stream = asio_tls_core->stream->stream_at(L, 1);
    if (!stream)
        return asio_tls_core->error->push(L, UV_EBADF);
    struct tls_session *s = tls_session_new(rt, ctx);
    if (!s)
        return asio_tls_core->error->push(L, UV_ENOMEM);
    s->peeked = lua_toboolean(L, 6);
    if (key && !(s->name = start_copy(key))) {
        tls_session_free(s);
        return asio_tls_core->error->push(L, UV_ENOMEM);
    }
    if (name && !start_set_peer(s, name, length, lua_toboolean(L, 5))) {
        ERR_clear_error();
        tls_session_free(s);
        return asio_tls_core->error->push_text(L, UV_EINVAL, "not a server's name: %s", name);
    }
    if (key)
        tls_resume_offer(s->ssl, key);
    s->opening = true;
    int status = asio_tls_core->stream->layer->open(stream, &tls_codec, s, &s->layer);
    if (status < 0) {
        tls_session_free(s);
        return asio_tls_core->error->push(L, status);
    }
    s->opening = false;
    if (s->clear) {
        s->failed = true;
        tls_session_count(s, false);
        return asio_tls_core->error->push_text(L, UV_EPROTO, "bytes have come in clear before the handshake");
    }
    tls_session_go_on(s);
    tls_session_keep(s);
    lua_pushboolean(L, 1);
    return 1;
}

/* ---- waiting for the end of the handshake --------------------------------------------------- */

static void start_abort_wait(struct asio_wait *w)
{
    struct tls_session *s = asio_tls_core->wait->source(w);
    s->waiter = NULL;
}

/* When the light thread runs again the session may have been freed: the state is looked at anew. */
static const struct asio_wait_op handshake_op = {
    .name = "handshake", .outside = true, .abort = start_abort_wait
};

/* Token and results, if there is nothing to wait for; 0: there is. */
static int start_push_state(lua_State *L, struct asio_rt *rt, struct tls_session *s)
{
    if (s->failed && !s->ready) {
        asio_tls_core->wait->push_fail(L, UV_EPROTO);
        lua_pop(L, 3);
        return 1 + start_push_failure(L, s);
    }
    if (!s->ready && !(s->asked && !s->chosen))
        return 0;
    asio_tls_core->wait->push_ok(L, rt);
    if (s->ready)
        lua_pushliteral(L, "done");
    else
        lua_pushboolean(L, 0);
    lua_pushstring(L, s->ready ? NULL : s->name);
    return 3;
}

/* "done"; false, name; true: the state has changed, and is to be asked for again; or nil, message, code. */
int tls_l_handshake(lua_State *L)
{
    struct asio_rt *rt = lua_touserdata(L, lua_upvalueindex(1));
    const struct asio_plugin_wait *wait = asio_tls_core->wait;
    struct tls_session *s = tls_session_at(L, 1);
    double seconds = lua_isnil(L, 2) ? -1 : lua_tonumber(L, 2);
    int n = wait->interrupt(L, rt);
    if (n)
        return n;
    if (!s)
        return wait->push_fail(L, UV_EBADF);
    n = start_push_state(L, rt, s);
    if (n)
        return n;
    if (s->waiter)
        return wait->push_fail(L, UV_EBUSY);
    struct asio_wait *w = wait->claim(L, rt);
    s->waiter = w;
    return wait->park(L, w, &handshake_op, s, seconds);
}

int tls_l_choose(lua_State *L)
{
    struct tls_session *s = tls_session_at(L, 1);
    if (!s || !s->asked || s->chosen)
        return 0;
    s->refused = lua_isboolean(L, 2);
    if (lua_isuserdata(L, 2) && !tls_context_choose(s->ssl, tls_check_context(L, 2))) {
        s->refused = true;
        tls_session_note(s, "ENOMEM", "not enough memory");
    }
    s->chosen = true;
    tls_session_go_on(s);
    tls_session_keep(s);
    return 0;
}
