/* SPDX-License-Identifier: MIT
 * The options of asio.connect and asio.server; see socket_options.h. */
#include "net/socket_options.h"

#include "core/address.h"
#include "core/options.h"
#include "base/error.h"
#include "net/trusted_proxies.h"

#include <math.h>

enum { BACKLOG = 511, KEEPALIVE = 60, KEEPALIVE_MAX = 32767 /* Linux */, LINGER_SECONDS = 30 };

static void socket_options_linger(const struct asio_option_value *v, void *to)
{
    enum { FOREVER = 1000000000 };
    struct asio_socket_options *options = to;
    double n = asio_option_number(v, 0, HUGE_VAL, "seconds, not negative,");
    options->linger = n < FOREVER ? n : FOREVER;
}

/* Fractions are rounded up: the system counts whole seconds. */
static void socket_options_keepalive(const struct asio_option_value *v, void *to)
{
    struct asio_socket_options *options = to;
    if (lua_isboolean(v->L, v->index)) {
        options->keepalive = lua_toboolean(v->L, v->index) ? KEEPALIVE : 0;
        return;
    }
    double n = asio_option_number(v, 1, KEEPALIVE_MAX, "true, false or 1 to 32767 seconds");
    options->keepalive = (int)n + (n > (double)(int)n);
}

/* 'address', or { 'address', port }. */
static void socket_options_bind(const struct asio_option_value *v, void *to)
{
    struct asio_socket_options *options = to;
    lua_State *L = v->L;
    int port = 0, address = v->index;
    if (lua_istable(L, v->index)) {
        lua_rawgeti(L, v->index, 1);
        lua_rawgeti(L, v->index, 2);
        address = lua_gettop(L) - 1;
        if (!lua_isnil(L, -1))
            port = asio_check_port(L, -1, v->arg, v->fname, 0);
    }
    if (lua_type(L, address) != LUA_TSTRING)
        asio_option_bad(v, "an address or { address, port }");
    if (asio_address_parse(L, address, port, &options->bind) < 0)
        asio_error_arg(
            L, v->arg, v->fname, "option 'bind': '%s' is not a numeric address", lua_tostring(L, address));
    options->bound = true;
}

static void socket_options_proxy_protocol(const struct asio_option_value *v, void *to)
{
    struct asio_socket_options *options = to;
    options->proxied = lua_toboolean(v->L, v->index);
    if (options->proxied)
        asio_trusted_proxies_read(v->L, v->index, v->arg, v->fname, NULL);
}

#define FIELD(name) offsetof(struct asio_socket_options, name)
static const struct asio_option socket_options[] = {
    { .name = "timeout", ASIO_OPTION_IGNORED }, /* lua/asio/connect.lua reads it */
    { .name = "servers", ASIO_OPTION_IGNORED }, /* dns/resolve.c, and the next */
    { .name = "cache", ASIO_OPTION_IGNORED },
    { .name = "linger", ASIO_OPTION_READ, .read = socket_options_linger },
    { .name = "nodelay", ASIO_OPTION_FLAG, FIELD(nodelay), .unless = true },
    { .name = "keepalive", ASIO_OPTION_READ, .read = socket_options_keepalive },
    { .name = "bind", ASIO_OPTION_READ, .read = socket_options_bind },
    { .name = "backlog", ASIO_OPTION_INT, FIELD(backlog), .unless = BACKLOG, .min = 1, .max = 65535 },
    { .name = "reuseport", ASIO_OPTION_FLAG, FIELD(reuseport) },
    { .name = "ipv6only", ASIO_OPTION_FLAG, FIELD(ipv6only) },
    { .name = "max_connections", ASIO_OPTION_INT, FIELD(max_connections), .min = 1, .max = 0x7fffffff },
    { .name = "handles", ASIO_OPTION_FLAG, FIELD(handles) },
    { .name = "unlink_stale", ASIO_OPTION_FLAG, FIELD(unlink_stale) },
    { .name = "proxy_protocol", ASIO_OPTION_READ, .read = socket_options_proxy_protocol },
    { .name = "tls", ASIO_OPTION_IGNORED }, /* lua/asio/tls.lua */
    { .name = "on_tls_error", ASIO_OPTION_IGNORED },
    { .name = "threads", ASIO_OPTION_IGNORED }, /* lua/asio/worker.lua */
    { .name = "init", ASIO_OPTION_IGNORED },
    { .name = NULL },
};

struct asio_socket_options asio_socket_options_default(void)
{
    return (struct asio_socket_options){ .linger = LINGER_SECONDS, .backlog = BACKLOG, .nodelay = true };
}

struct asio_socket_options asio_socket_options_check(lua_State *L, int index, int arg, const char *fname)
{
    struct asio_socket_options options = asio_socket_options_default();
    asio_options_read(L, index, arg, fname, socket_options, &options);
    return options;
}
