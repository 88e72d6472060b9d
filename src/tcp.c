/* SPDX-License-Identifier: MIT
 * The TCP transport over uv_tcp_t; see tcp.h. A pair of sockets is carried by it too, whatever
 * its family: libuv reads and writes them alike. */
#include "tcp.h"

#include "address.h"
#include "conn.h"
#include "error.h"
#include "api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

ASIO_UVSTREAM_LAYOUT(struct asio_tcp);

static int name_of(struct asio_stream *s, struct sockaddr_storage *addr, bool peer)
{
    int length = sizeof *addr;
    const uv_tcp_t *handle = &((struct asio_tcp *)(void *)s)->handle;
    return peer ? uv_tcp_getpeername(handle, (struct sockaddr *)addr, &length)
                : uv_tcp_getsockname(handle, (struct sockaddr *)addr, &length);
}

static const struct asio_transport tcp_transport = {
    .handle = { asio_stream_teardown },
    .name = "tcp",
    .read_start = asio_uvstream_read_start,
    .read_stop = asio_uvstream_read_stop,
    .try_write = asio_uvstream_try_write,
    .write = asio_uvstream_write,
    .shutdown = asio_uvstream_shutdown,
    .unsent = asio_uvstream_unsent,
    .unread = asio_uvstream_unread,
    .close = asio_uvstream_close,
    .fd = asio_uvstream_fd,
    .name_of = name_of,
};

struct asio_tcp *asio_tcp_new(struct asio_rt *rt, struct asio_tcp_options options)
{
    struct asio_tcp *t = (struct asio_tcp *)(void *)asio_uvstream_new(rt, sizeof *t, &tcp_transport);
    if (!t)
        return NULL;
    t->stream.linger = (float)options.linger;
    uv_tcp_init(&rt->loop, &t->handle); /* cannot fail without a family */
    t->handle.data = &t->stream;
    return t;
}

void asio_tcp_connected(struct asio_tcp *t, struct asio_tcp_options options)
{
    if (options.nodelay)
        uv_tcp_nodelay(&t->handle, 1);
}

/* ---- options ---------------------------------------------------------------- */

struct asio_tcp_options asio_tcp_check_options(lua_State *L, int index, int arg, const char *fname)
{
    struct asio_tcp_options options = { .linger = 30, .nodelay = true };
    if (lua_isnoneornil(L, index))
        return options;
    if (!lua_istable(L, index))
        asio_error_type(L, index, arg, fname, "table");
    lua_getfield(L, index, "linger");
    if (!lua_isnil(L, -1)) {
        double linger = asio_check_timeout(L, -1, arg, fname);
        options.linger = linger < 0 ? 1e9 : linger;
    }
    lua_getfield(L, index, "nodelay");
    if (!lua_isnil(L, -1))
        options.nodelay = lua_toboolean(L, -1);
    lua_pop(L, 2);
    return options;
}

/* ---- connecting --------------------------------------------------------------------------- */

static struct asio_connecting *start_connect(
    struct asio_rt *rt, const struct sockaddr_storage *addr, struct asio_tcp_options options, int *status)
{
    struct asio_tcp *t = asio_tcp_new(rt, options);
    struct asio_connecting *c = t ? asio_connecting_new((struct asio_uvstream *)(void *)t) : NULL;
    *status = UV_ENOMEM;
    if (!c)
        return NULL;
    *status = uv_tcp_connect(&c->req, &t->handle, (const struct sockaddr *)addr, asio_connecting_done);
    if (*status == 0) {
        asio_tcp_connected(t, options); /* there is a socket */
        return c;
    }
    asio_connecting_free(c);
    return NULL;
}

/* core.connect(ip, port, timeout, opts) or core.connect(raw, nil, timeout, opts): one numeric
 * address. EINVAL for what is not numeric. Arguments were checked by the shim. */
static int l_connect(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct sockaddr_storage addr;
    double timeout = asio_check_timeout(L, 3, 3, "connect");
    struct asio_tcp_options options = asio_tcp_check_options(L, 4, 3, "connect");
    int status = 0;
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    if (!lua_isnil(L, 2))
        status = asio_address_parse(L, 1, (int)lua_tointeger(L, 2), &addr);
    else if (!asio_address_raw(L, 1, &addr))
        status = UV_EINVAL;
    if (status < 0)
        return asio_push_fail(L, status);
    struct asio_wait *w = asio_sched_claim(L, rt);
    struct asio_connecting *c = start_connect(rt, &addr, options, &status);
    return c ? asio_connecting_park(L, w, c, timeout) : asio_push_fail(L, status);
}

/* core.check_port(value, min, arg, fname) */
static int l_check_port(lua_State *L)
{
    int port = asio_check_port(L, 1, (int)lua_tointeger(L, 3), lua_tostring(L, 4), (int)lua_tointeger(L, 2));
    lua_pushinteger(L, port);
    return 1;
}

/* ---- socketpair --------------------------------------------------------------------------- */

static struct asio_tcp *open_end(struct asio_rt *rt, uv_os_sock_t fd, int *status)
{
    struct asio_tcp *t = asio_tcp_new(rt, (struct asio_tcp_options){ .linger = 30 });
    *status = t ? uv_tcp_open(&t->handle, fd) : UV_ENOMEM;
    if (*status == 0)
        return t;
    asio_sys_close(fd);
    if (t)
        asio_uvstream_close(&t->stream);
    return NULL;
}

/* Both userdata exist before either socket does: nothing is left over when memory runs out. */
static int l_socketpair(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct asio_conn *ends[2] = { asio_conn_push(L, rt), asio_conn_push(L, rt) };
    uv_os_sock_t fds[2];
    if (rt->closed)
        return asio_error_push(L, UV_EBADF);
    int status = uv_socketpair(SOCK_STREAM, 0, fds, UV_NONBLOCK_PIPE, UV_NONBLOCK_PIPE);
    if (status < 0)
        return asio_error_push(L, status);
    for (int i = 0; i < 2; i++) {
        struct asio_tcp *t = open_end(rt, fds[i], &status);
        if (!t && i == 0)
            asio_sys_close(fds[1]);
        if (!t)
            return asio_error_push(L, status);
        asio_stream_attach(&t->stream, ends[i]);
    }
    return 2;
}

void asio_tcp_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "connect", l_connect }, { "check_port", l_check_port },
        { NULL, NULL } };
    static const luaL_Reg module[] = { { "socketpair", l_socketpair }, { NULL, NULL } };
    asio_api_functions(L, rt, "core", core);
    asio_api_functions(L, rt, "asio", module);
}
