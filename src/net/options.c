/* SPDX-License-Identifier: MIT
 * The options of asio.connect and asio.server; see options.h. */
#include "net/options.h"

#include "core/address.h"
#include "base/error.h"
#include "net/trusted_proxies.h"

#include <math.h>
#include <string.h>

enum { BACKLOG = 511, KEEPALIVE = 60, KEEPALIVE_MAX = 32767 /* Linux */, LINGER_SECONDS = 30 };

/* An option being read; its value is at `index`. */
struct reading {
    lua_State *L;
    struct asio_options *to;
    const char *name, *fname;
    int index, arg;
};

static void bad(const struct reading *r, const char *expected)
{
    lua_State *L = r->L;
    if (lua_type(L, r->index) == LUA_TNUMBER)
        asio_error_arg(L, r->arg, r->fname, "option '%s': %s expected, got %s", r->name, expected,
            lua_tostring(L, r->index));
    asio_error_arg(L, r->arg, r->fname, "option '%s': %s expected, got %s", r->name, expected,
        luaL_typename(L, r->index));
}

static double options_number(const struct reading *r, double min, double max, const char *expected)
{
    double n = lua_tonumber(r->L, r->index);
    if (lua_type(r->L, r->index) != LUA_TNUMBER || !(n >= min && n <= max)) /* NaN fails */
        bad(r, expected);
    return n;
}

static int whole(const struct reading *r, int max, const char *expected)
{
    double n = options_number(r, 1, max, expected);
    if (n != (double)(int)n)
        bad(r, expected);
    return (int)n;
}

static bool flag(const struct reading *r)
{
    if (!lua_isboolean(r->L, r->index))
        bad(r, "true or false");
    return lua_toboolean(r->L, r->index);
}

static void read_linger(const struct reading *r)
{
    enum { FOREVER = 1000000000 };
    double n = options_number(r, 0, HUGE_VAL, "seconds, not negative,");
    r->to->linger = n < FOREVER ? n : FOREVER;
}

/* Fractions are rounded up: the system counts whole seconds. */
static void read_keepalive(const struct reading *r)
{
    if (lua_isboolean(r->L, r->index)) {
        r->to->keepalive = lua_toboolean(r->L, r->index) ? KEEPALIVE : 0;
        return;
    }
    double n = options_number(r, 1, KEEPALIVE_MAX, "true, false or 1 to 32767 seconds");
    r->to->keepalive = (int)n + (n > (double)(int)n);
}

static void read_backlog(const struct reading *r)
{
    r->to->backlog = whole(r, 65535, "whole number from 1 to 65535");
}

static void read_max_connections(const struct reading *r)
{
    r->to->max_connections = (unsigned)whole(r, 0x7fffffff, "whole number of at least 1");
}

static void read_nodelay(const struct reading *r)
{
    r->to->nodelay = flag(r);
}

static void read_reuseport(const struct reading *r)
{
    r->to->reuseport = flag(r);
}

static void read_ipv6only(const struct reading *r)
{
    r->to->ipv6only = flag(r);
}

static void read_handles(const struct reading *r)
{
    r->to->handles = flag(r);
}

static void read_unlink_stale(const struct reading *r)
{
    r->to->unlink_stale = flag(r);
}

/* 'address', or { 'address', port }. */
static void read_bind(const struct reading *r)
{
    static const char expected[] = "an address or { address, port }";
    lua_State *L = r->L;
    int port = 0, address = r->index;
    if (lua_istable(L, r->index)) {
        lua_rawgeti(L, r->index, 1);
        lua_rawgeti(L, r->index, 2);
        address = lua_gettop(L) - 1;
        if (!lua_isnil(L, -1))
            port = asio_check_port(L, -1, r->arg, r->fname, 0);
    }
    if (lua_type(L, address) != LUA_TSTRING)
        bad(r, expected);
    if (asio_address_parse(L, address, port, &r->to->bind) < 0)
        asio_error_arg(
            L, r->arg, r->fname, "option 'bind': '%s' is not a numeric address", lua_tostring(L, address));
    r->to->bound = true;
}

static void read_proxy_protocol(const struct reading *r)
{
    r->to->proxied = lua_toboolean(r->L, r->index);
    if (r->to->proxied)
        asio_trusted_proxies_read(r->L, r->index, r->arg, r->fname, NULL);
}

/* Whoever asks for encryption must not get a connection without. */
static void read_missing(const struct reading *r)
{
    if (lua_toboolean(r->L, r->index))
        r->to->missing = r->name;
}

static void read_elsewhere(const struct reading *r)
{
    (void)r;
}

static const struct option {
    const char *name;
    void (*read)(const struct reading *r);
} known[] = {
    { "timeout", read_elsewhere }, /* lua/asio/connect.lua */
    { "servers", read_elsewhere }, /* resolve.c, and the next */
    { "cache", read_elsewhere },
    { "linger", read_linger },
    { "nodelay", read_nodelay },
    { "keepalive", read_keepalive },
    { "bind", read_bind },
    { "backlog", read_backlog },
    { "reuseport", read_reuseport },
    { "ipv6only", read_ipv6only },
    { "max_connections", read_max_connections },
    { "handles", read_handles },
    { "unlink_stale", read_unlink_stale },
    { "proxy_protocol", read_proxy_protocol },
    { "tls", read_missing },
    { "threads", read_missing },
};

static void options_read_option(struct reading *r)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(r->name, known[i].name) != 0)
            continue;
        r->name = known[i].name; /* the table's may be gone later */
        known[i].read(r);
        return;
    }
    asio_error_arg(r->L, r->arg, r->fname, "unknown option '%s'", r->name);
}

struct asio_options asio_options_default(void)
{
    return (struct asio_options){ .linger = LINGER_SECONDS, .backlog = BACKLOG, .nodelay = true };
}

struct asio_options asio_options_check(lua_State *L, int index, int arg, const char *fname)
{
    struct asio_options options = asio_options_default();
    if (lua_isnoneornil(L, index))
        return options;
    if (!lua_istable(L, index))
        asio_error_type(L, index, arg, fname, "table");
    luaL_checkstack(L, 8, "too many arguments");
    for (lua_pushnil(L); lua_next(L, index);) {
        int value = lua_gettop(L);
        if (lua_type(L, value - 1) != LUA_TSTRING)
            asio_error_arg(L, arg, fname, "names of options are strings");
        struct reading r = { L, &options, lua_tostring(L, value - 1), fname, value, arg };
        options_read_option(&r);
        lua_settop(L, value - 1);
    }
    return options;
}

int asio_options_push_missing(lua_State *L, const struct asio_options *options)
{
    return asio_error_push_text(L, UV_ENOTSUP, "option '%s' is not supported yet", options->missing);
}
