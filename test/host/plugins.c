/* SPDX-License-Identifier: MIT
 *
 * What a plugin does with the tables of plugin/plugin.h, for the cases of mode layers: a scan that reads netstrings
 * ("5:hello,"), and a wait of its own, a gate. The functions return tokens, as those under a shim do. */
#include "host.h"

#include "core/runtime.h"
#include "module/plugin_table.h"

#include <stdlib.h>
#include <string.h>

enum { DIGITS = 4 };

struct netstring {
    struct asio_scan scan; /* first */
    size_t head, length;   /* found: bytes before and in it */
};

static ssize_t netstring_look(struct asio_scan *scan, const char *bytes, size_t n, bool ended)
{
    struct netstring *x = (struct netstring *)(void *)scan;
    size_t digits = 0;
    x->length = 0;
    for (; digits < n && bytes[digits] >= '0' && bytes[digits] <= '9'; digits++)
        x->length = 10 * x->length + (size_t)(bytes[digits] - '0');
    if (digits > DIGITS)
        return UV_EMSGSIZE;
    if (digits == n &&
        !(ended && digits > 0)) /* at the end of the stream digits alone are one of no length */
        return 0;
    if (digits == n)
        return (ssize_t)(x->head = n);
    if (bytes[digits] != ':')
        return UV_EPROTO;
    x->head = digits + 1;
    scan->need = x->head + x->length + 1;
    return n < scan->need ? 0 : (ssize_t)scan->need;
}

static int netstring_push(lua_State *L, struct asio_scan *scan, const char *bytes, size_t n)
{
    struct netstring *x = (struct netstring *)(void *)scan;
    lua_pushlstring(L, bytes + x->head, n > x->head ? x->length : 0);
    lua_pushinteger(L, (lua_Integer)n);
    return 2;
}

static int l_netstring(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct asio_stream *s = asio_plugin.stream->stream_at(L, 1);
    int interrupted = asio_plugin.wait->interrupt(L, rt);
    if (interrupted)
        return interrupted;
    if (!s)
        return asio_plugin.wait->push_fail(L, UV_EBADF);
    struct netstring *x = lua_newuserdata(L, sizeof *x);
    memset(x, 0, sizeof *x);
    x->scan = (struct asio_scan){ netstring_look, netstring_push, 0 };
    return asio_plugin.stream->scan(L, s, &x->scan);
}

/* ---- a wait of its own -------------------------------------------------------------------- */

struct gate {
    struct asio_wait *waiter;
    int passed;
};

static void gate_abort(struct asio_wait *w)
{
    struct gate *g = asio_plugin.wait->source(w);
    g->waiter = NULL;
}

static int gate_push(lua_State *L, struct asio_wait *w)
{
    struct gate *g = asio_plugin.wait->source(w);
    int status = asio_plugin.wait->status(w);
    if (status < 0)
        return asio_plugin.wait->push_fail(L, status);
    asio_plugin.wait->push_ok(L, asio_rt_of(L));
    lua_pushinteger(L, ++g->passed);
    return 2;
}

static const struct asio_wait_op gate_op = { .name = "gate", .abort = gate_abort, .push = gate_push };

static int l_gate_new(lua_State *L)
{
    memset(lua_newuserdata(L, sizeof(struct gate)), 0, sizeof(struct gate));
    return 1;
}

/* gate_wait(gate, timeout) */
static int l_gate_wait(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct gate *g = lua_touserdata(L, 1);
    int interrupted = asio_plugin.wait->interrupt(L, rt);
    if (interrupted)
        return interrupted;
    struct asio_wait *w = asio_plugin.wait->claim(L, rt);
    g->waiter = w;
    return asio_plugin.wait->park(L, w, &gate_op, g, luaL_checknumber(L, 2));
}

static int l_gate_open(lua_State *L)
{
    struct gate *g = lua_touserdata(L, 1);
    struct asio_wait *w = g->waiter;
    g->waiter = NULL;
    lua_pushboolean(L, w && asio_plugin.wait->ready(w, 0));
    return 1;
}

static void plugins_body(lua_State *L, void *arg)
{
    (void)arg;
    luaL_error(L, "expected");
}

/* protect() -> whether an error stayed inside */
static int l_protect(lua_State *L)
{
    lua_pushboolean(
        L, asio_plugin.wait->protect(asio_rt_of(L), plugins_body, NULL, "testing the plugin") == LUA_ERRRUN);
    return 1;
}

/* plugin(): a table of the functions above, once asio is there */
int plugins_open(lua_State *L)
{
    static const luaL_Reg functions[] = { { "netstring", l_netstring }, { "gate_new", l_gate_new },
        { "gate_wait", l_gate_wait }, { "gate_open", l_gate_open }, { "protect", l_protect },
        { NULL, NULL } };
    lua_newtable(L);
    for (const luaL_Reg *f = functions; f->name; f++) {
        lua_pushlightuserdata(L, asio_rt_open(L));
        lua_pushcclosure(L, f->func, 1);
        lua_setfield(L, -2, f->name);
    }
    return 1;
}
