/* SPDX-License-Identifier: MIT
 *
 * Contexts: what a table of options says, as an SSL_CTX of OpenSSL. lua: tls.lua keeps them, and finds one again by its
 * options.
 *
 * Lifetime of struct tls_context: ex data of its SSL_CTX, and freed with it. */
#include "plugins/tls/tls.h"

#include <openssl/err.h>
#include <string.h>

static const char context_type = 0; /* its address is the metatable's key in the registry */
static int context_index = -1;      /* of the ex data */

/* ---- the struct ---------------------------------------------------------------------------- */

struct tls_context *tls_context_of(const SSL_CTX *ctx)
{
    return SSL_CTX_get_ex_data(ctx, context_index);
}

static void context_free_names(struct tls_context *c)
{
    while (c->names) {
        struct tls_name *n = c->names;
        c->names = n->next;
        SSL_CTX_free(n->ctx);
        asio_tls_core->mem->allocator->free(n);
    }
}

static void context_free_keys(struct tls_context *c)
{
    if (c->keys && --c->keys->references == 0) {
        OPENSSL_cleanse(c->keys, sizeof *c->keys);
        asio_tls_core->mem->allocator->free(c->keys);
    }
    c->keys = NULL;
}

static void context_free(void *parent, void *p, CRYPTO_EX_DATA *ad, int index, long argl, void *argp)
{
    struct tls_context *c = p;
    (void)parent, (void)ad, (void)index, (void)argl, (void)argp;
    if (!c)
        return;
    context_free_names(c);
    context_free_keys(c);
    tls_resume_forget(c);
    asio_tls_core->mem->allocator->free(c->alpn);
    OPENSSL_free(c->ocsp);
    asio_tls_core->mem->allocator->free(c);
}

int tls_contexts_load(void)
{
    if (context_index < 0)
        context_index = CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL_CTX, 0, NULL, NULL, NULL, context_free);
    return context_index < 0 ? UV_ENOMEM : 0;
}

/* ---- the userdata -------------------------------------------------------------------------- */

static int context_gc(lua_State *L)
{
    SSL_CTX **p = lua_touserdata(L, 1);
    SSL_CTX_free(*p);
    *p = NULL;
    return 0;
}

void tls_contexts_open(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&context_type);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, context_gc);
    lua_setfield(L, -2, "__gc");
    lua_rawset(L, LUA_REGISTRYINDEX);
}

/* With the struct; what fails later is collected. */
static SSL_CTX *context_push(lua_State *L, bool server)
{
    const struct asio_allocator *mem = asio_tls_core->mem->allocator;
    SSL_CTX **p = lua_newuserdata(L, sizeof *p);
    *p = NULL;
    lua_pushlightuserdata(L, (void *)&context_type);
    lua_rawget(L, LUA_REGISTRYINDEX);
    lua_setmetatable(L, -2);
    struct tls_context *c = mem->malloc(sizeof *c);
    SSL_CTX *ctx = c ? SSL_CTX_new(server ? TLS_server_method() : TLS_client_method()) : NULL;
    if (!ctx) {
        mem->free(c);
        return NULL;
    }
    memset(c, 0, sizeof *c);
    c->server = server;
    *p = ctx;
    if (SSL_CTX_set_ex_data(ctx, context_index, c) == 1)
        return ctx;
    mem->free(c);
    return NULL;
}

/* Only tls.lua has contexts. At the end of the Lua state one may be finalized before a script's finalizer uses it. */
SSL_CTX *tls_check_context(lua_State *L, int index)
{
    SSL_CTX *ctx = *(SSL_CTX **)lua_touserdata(L, index);
    if (!ctx)
        luaL_error(L, "the Lua state is being closed");
    return ctx;
}

/* ---- reading options ----------------------------------------------------------------------- */

struct context_options {
    lua_State *L;
    const char *fname;
    int arg;
};

static void context_bad(const struct context_options *o, const char *name, const char *expected)
{
    asio_tls_core->error->arg(o->L, o->arg, o->fname, "option 'tls.%s': %s expected, got %s", name, expected,
        luaL_typename(o->L, -1));
}

/* A string, or NULL; it stays on the stack. OpenSSL would see it up to a zero byte only. */
static const char *context_string(const struct context_options *o, const char *name)
{
    size_t n;
    lua_getfield(o->L, 1, name);
    if (lua_isnil(o->L, -1))
        return NULL;
    if (lua_type(o->L, -1) != LUA_TSTRING)
        context_bad(o, name, "string");
    const char *text = lua_tolstring(o->L, -1, &n);
    if (strlen(text) != n)
        context_bad(o, name, "string without zero bytes");
    return text;
}

static int context_refuse(const struct context_options *o, const char *name, const char *why)
{
    ERR_clear_error();
    return asio_tls_core->error->push_text(o->L, UV_EINVAL, "%s: %s", name, why);
}

/* Versions of TLS, also as numbers: 1.2, 1.3. */
static int context_read_version(const struct context_options *o, SSL_CTX *ctx)
{
    int version = TLS1_2_VERSION;
    lua_getfield(o->L, 1, "min_version");
    const char *text = lua_tostring(o->L, -1);
    if (text && strcmp(text, "1.3") == 0)
        version = TLS1_3_VERSION;
    else if (!lua_isnil(o->L, -1) && (!text || strcmp(text, "1.2") != 0))
        asio_tls_core->error->arg(o->L, o->arg, o->fname, "option 'tls.min_version': 1.2 or 1.3 expected");
    return SSL_CTX_set_min_proto_version(ctx, version) == 1
        ? 0
        : context_refuse(o, "min_version", "OpenSSL does not have this version");
}

/* OpenSSL has two lists: names that begin with TLS_ are those of TLS 1.3. */
static int context_read_ciphers(const struct context_options *o, SSL_CTX *ctx)
{
    char lists[2][512] = { "", "" };
    size_t used[2] = { 0, 0 };
    const char *text = context_string(o, "ciphers");
    if (!text)
        return 0;
    while (*text) {
        size_t n = strcspn(text, ":, ");
        unsigned list = strncmp(text, "TLS_", 4) == 0;
        if (n > 0 && used[list] + n + 2 + sizeof ":!aNULL:!eNULL" > sizeof lists[list])
            return context_refuse(o, "ciphers", "too long");
        if (n > 0 && used[list] > 0)
            lists[list][used[list]++] = ':';
        memcpy(lists[list] + used[list], text, n);
        used[list] += n;
        lists[list][used[list]] = '\0';
        text += n + (text[n] != '\0');
    }
    if (used[0] > 0) /* they have no certificates, and so nothing to verify */
        memcpy(lists[0] + used[0], ":!aNULL:!eNULL", sizeof ":!aNULL:!eNULL");
    bool ok = used[0] + used[1] > 0;
    ok = ok && (!used[0] || SSL_CTX_set_cipher_list(ctx, lists[0]) == 1);
    ok = ok && (!used[1] || SSL_CTX_set_ciphersuites(ctx, lists[1]) == 1);
    return ok ? 0 : context_refuse(o, "ciphers", "none that OpenSSL knows");
}

/* A list of names of protocols, the preferred one first, as on the wire: a byte for the length, then the name. */
static int context_read_alpn(const struct context_options *o, SSL_CTX *ctx)
{
    struct tls_context *c = tls_context_of(ctx);
    lua_State *L = o->L;
    luaL_Buffer b;
    size_t n;
    lua_getfield(L, 1, "alpn");
    if (lua_isnil(L, -1))
        return 0;
    if (lua_type(L, -1) == LUA_TSTRING) {
        lua_createtable(L, 1, 0);
        lua_insert(L, -2);
        lua_rawseti(L, -2, 1);
    }
    if (!lua_istable(L, -1))
        context_bad(o, "alpn", "list of strings");
    int list = lua_gettop(L);
    luaL_buffinit(L, &b);
    for (int i = 1; i <= (int)lua_objlen(L, list); i++) {
        lua_rawgeti(L, list, i);
        const char *name = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &n) : NULL;
        if (!name || n == 0 || n > 255)
            asio_tls_core->error->arg(
                L, o->arg, o->fname, "option 'tls.alpn': names of 1 to 255 bytes expected");
        char length = (char)n;
        lua_pushlstring(L, &length, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
        luaL_addvalue(&b);
    }
    luaL_pushresult(&b);
    const char *wire = lua_tolstring(L, -1, &n);
    c->alpn = n > 0 ? asio_tls_core->mem->allocator->malloc(n) : NULL;
    if (!c->alpn)
        return n == 0 ? 0 : asio_tls_core->error->push(L, UV_ENOMEM);
    memcpy(c->alpn, wire, n);
    c->alpn_length = (unsigned)n;
    if (!c->server && SSL_CTX_set_alpn_protos(ctx, c->alpn, c->alpn_length) != 0)
        return asio_tls_core->error->push(L, UV_ENOMEM);
    return 0;
}

/* With pins alone the peer's key is looked at, and has to be there; tls_verify lets the rest pass. */
int tls_context_verify_mode(const struct tls_context *c)
{
    bool pins_alone = c->pins > 0 && c->verify == SSL_VERIFY_NONE;
    return pins_alone ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT : c->verify;
}

/* verify: on a client true (the default) or false; on a server false (the default), 'optional' or 'require'. */
static void context_read_verify(const struct context_options *o, SSL_CTX *ctx)
{
    struct tls_context *c = tls_context_of(ctx);
    lua_getfield(o->L, 1, "verify");
    const char *text = lua_type(o->L, -1) == LUA_TSTRING ? lua_tostring(o->L, -1) : NULL;
    bool plain = lua_isnil(o->L, -1) || lua_isboolean(o->L, -1);
    if (text && c->server && strcmp(text, "optional") == 0)
        c->verify = SSL_VERIFY_PEER;
    else if (text && c->server && strcmp(text, "require") == 0)
        c->verify = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    else if (plain && c->server && lua_toboolean(o->L, -1))
        c->verify = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    else if (plain && !c->server)
        c->verify = lua_isnil(o->L, -1) || lua_toboolean(o->L, -1) ? SSL_VERIFY_PEER : SSL_VERIFY_NONE;
    else if (!plain)
        context_bad(o, "verify", c->server ? "'optional', 'require' or false" : "true or false");
    SSL_CTX_set_verify(ctx, tls_context_verify_mode(c), tls_verify);
}

/* SHA-256 of public keys, as hexadecimal digits or in base64, as curl --pinnedpubkey has it. */
static bool context_read_pin(const char *text, unsigned char *pin)
{
    size_t n = strlen(text);
    if (strncmp(text, "sha256//", 8) == 0)
        text += 8, n -= 8;
    if (n == 44) {
        unsigned char bytes[33];
        if (EVP_DecodeBlock(bytes, (const unsigned char *)text, 44) != 33)
            return false;
        memcpy(pin, bytes, TLS_PIN);
        return true;
    }
    for (size_t i = 0; i < n && n == 64; i++) {
        int digit = OPENSSL_hexchar2int((unsigned char)text[i]);
        if (digit < 0)
            return false;
        pin[i / 2] = (unsigned char)(i % 2 ? pin[i / 2] | digit : digit << 4);
    }
    return n == 64;
}

static void context_read_pins(const struct context_options *o, SSL_CTX *ctx)
{
    struct tls_context *c = tls_context_of(ctx);
    lua_State *L = o->L;
    lua_getfield(L, 1, "pin");
    if (lua_isnil(L, -1))
        return;
    int list = lua_gettop(L), count = lua_istable(L, -1) ? (int)lua_objlen(L, -1) : 1;
    for (int i = 1; i <= count || i == 1; i++) { /* an empty list is a mistake: it would pin nothing */
        if (lua_istable(L, list))
            lua_rawgeti(L, list, i);
        else
            lua_pushvalue(L, list);
        if (lua_type(L, -1) != LUA_TSTRING || c->pins == TLS_PINS ||
            !context_read_pin(lua_tostring(L, -1), c->pin[c->pins++]))
            asio_tls_core->error->arg(L, o->arg, o->fname,
                "option 'tls.pin': at most %d SHA-256 in hexadecimal digits or base64 expected", TLS_PINS);
    }
}

/* ---- what sessions are of ------------------------------------------------------------------- */

/* The certificates and the lists of revoked ones that are trusted, in whatever order. Those in a directory are read
 * when they are needed: then its name counts. */
static bool context_digest_trusted(SSL_CTX *ctx, const char *ca, EVP_MD_CTX *md)
{
    STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(SSL_CTX_get_cert_store(ctx));
    unsigned char all[EVP_MAX_MD_SIZE] = { 0 }, one[EVP_MAX_MD_SIZE];
    bool certs = false, ok = true;
    for (int i = 0; i < sk_X509_OBJECT_num(objects) && ok; i++) {
        X509_OBJECT *object = sk_X509_OBJECT_value(objects, i);
        X509 *cert = X509_OBJECT_get0_X509(object);
        X509_CRL *crl = X509_OBJECT_get0_X509_CRL(object);
        unsigned n = 0;
        if (cert)
            ok = certs = X509_digest(cert, EVP_sha256(), one, &n) == 1;
        else if (crl)
            ok = X509_CRL_digest(crl, EVP_sha256(), one, &n) == 1;
        for (unsigned k = 0; k < n; k++)
            all[k] ^= one[k];
    }
    ok = ok && EVP_DigestUpdate(md, all, sizeof all) == 1;
    return ok && (certs || !ca || EVP_DigestUpdate(md, ca, strlen(ca)) == 1);
}

/* A session is resumed only where the same is asked of the client: CVE-2025-23419 is of a server that let a ticket of
 * one name pass at another. A client that has been revoked since does not get in by its ticket. */
static int context_set_identity(const struct context_options *o, SSL_CTX *ctx, const char *ca)
{
    const struct tls_context *c = tls_context_of(ctx);
    unsigned char id[EVP_MAX_MD_SIZE];
    unsigned n;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1;
    ok = ok && EVP_DigestUpdate(md, &c->verify, sizeof c->verify) == 1;
    ok = ok && (!c->verify || context_digest_trusted(ctx, ca, md));
    for (unsigned i = 0; i < c->pins && ok; i++)
        ok = EVP_DigestUpdate(md, c->pin[i], TLS_PIN) == 1;
    ok = ok && EVP_DigestFinal_ex(md, id, &n) == 1;
    ok = ok && SSL_CTX_set_session_id_context(ctx, id, SSL_MAX_SID_CTX_LENGTH) == 1;
    EVP_MD_CTX_free(md);
    return ok ? 0 : asio_tls_core->error->push(o->L, UV_ENOMEM);
}

/* ---- the context --------------------------------------------------------------------------- */

static void context_set_general(SSL_CTX *ctx, bool server)
{
    SSL_CTX_set_read_ahead(ctx, 1); /* head and body of a record by one call of our BIO */
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
#ifdef SSL_OP_IGNORE_UNEXPECTED_EOF
    SSL_CTX_clear_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF);
#endif
    if (!server) {
        tls_resume_set_client(ctx);
        return;
    }
    SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    tls_hello_set(ctx);
    tls_resume_set_server(ctx);
}

/* 0, or the results of a failure. */
static int context_fill(const struct context_options *o, SSL_CTX *ctx)
{
    struct tls_context *c = tls_context_of(ctx);
    const char *cert = context_string(o, "cert"), *key = context_string(o, "key");
    const char *password = context_string(o, "password"), *ca = context_string(o, "ca");
    const char *crl = context_string(o, "crl"), *ocsp = context_string(o, "ocsp");
    int n = context_read_version(o, ctx);
    context_read_pins(o, ctx);
    context_read_verify(o, ctx);
    if (!n)
        n = context_read_ciphers(o, ctx);
    if (!n)
        n = context_read_alpn(o, ctx);
    if (!n && (cert || key))
        n = tls_read_identity(o->L, ctx, cert, key, password);
    if (!n && c->server && c->verify && !ca)
        n = context_refuse(o, "ca", "is needed: the authorities of the clients' certificates");
    if (!n && (ca || c->verify))
        n = tls_read_authorities(o->L, ctx, ca, crl != NULL, c->server && c->verify);
    if (!n && crl)
        n = tls_read_revoked(o->L, ctx, crl);
    if (!n && ocsp)
        n = tls_read_staple(o->L, c, ocsp);
    return n || !c->server ? n : context_set_identity(o, ctx, ca);
}

int tls_l_context(lua_State *L)
{
    const struct context_options o = { L, lua_tostring(L, 3), (int)lua_tonumber(L, 4) };
    bool server = lua_toboolean(L, 2);
    SSL_CTX *ctx = context_push(L, server);
    int context = lua_gettop(L);
    if (!ctx)
        return asio_tls_core->error->push(L, UV_ENOMEM);
    luaL_checkstack(L, 20, NULL);
    ERR_clear_error();
    context_set_general(ctx, server);
    int n = context_fill(&o, ctx);
    ERR_clear_error();
    if (n)
        return n;
    lua_pushvalue(L, context);
    return 1;
}

int tls_l_name(lua_State *L)
{
    struct tls_context *c = tls_context_of(tls_check_context(L, 1));
    SSL_CTX *other = tls_check_context(L, 3);
    size_t length;
    const char *pattern = lua_tolstring(L, 2, &length);
    struct tls_name *n = asio_tls_core->mem->allocator->malloc(sizeof *n + length + 1);
    if (!n)
        return luaL_error(L, "not enough memory");
    memcpy(n->pattern, pattern, length + 1);
    SSL_CTX_up_ref(other);
    n->ctx = other;
    n->next = c->names;
    c->names = n;
    return 0;
}

int tls_l_asks(lua_State *L)
{
    tls_context_of(tls_check_context(L, 1))->asks = true;
    return 0;
}
