/* SPDX-License-Identifier: MIT
 * The TCP transport over uv_tcp_t; see tcp.h. A pair of sockets is carried by it too, whatever
 * its family: libuv reads and writes them alike. */
#include "net/tcp.h"

#include "core/address.h"
#include "stream/conn.h"
#include "stream/lifecycle.h"
#include "base/error.h"
#include "core/bind.h"
#include "core/park.h"

ASIO_UVSTREAM_LAYOUT(struct asio_tcp);

static int tcp_name_of(struct asio_stream *s, struct sockaddr_storage *addr, bool peer)
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
    .reset = asio_uvstream_reset,
    .fd = asio_uvstream_fd,
    .name_of = tcp_name_of,
    .passable = true,
    .bare = true,
};

/* ---- family ------------------------------------------------------------------------------ */

static int tcp_init(uv_loop_t *loop, uv_stream_t *handle)
{
    return uv_tcp_init(loop, (uv_tcp_t *)handle);
}

static int tcp_open_socket(uv_stream_t *handle, uv_os_sock_t fd)
{
    return uv_tcp_open((uv_tcp_t *)handle, fd);
}

/* Sharing a port is asked for before binding, so that there has to be a socket from the start. */
int asio_tcp_init(uv_loop_t *loop, uv_tcp_t *handle, int family, const struct asio_socket_options *options)
{
    return uv_tcp_init_ex(loop, handle, options->reuseport ? (unsigned)family : AF_UNSPEC);
}

static struct asio_uvstream *make_bound(
    struct asio_rt *rt, const struct asio_socket_options *options, int family, int *status)
{
    struct asio_uvstream *u = asio_uvstream_new(rt, sizeof(struct asio_tcp), &tcp_transport);
    *status = u ? asio_tcp_init(&rt->loop, (uv_tcp_t *)&u->handle, family, options) : UV_ENOMEM;
    if (*status < 0) {
        asio_mem.free(u);
        return NULL;
    }
    u->stream.linger = (float)options->linger;
    u->handle.data = &u->stream;
    return u;
}

static struct asio_uvstream *tcp_make(struct asio_rt *rt, const struct asio_socket_options *options)
{
    struct asio_socket_options unbound = { .linger = options->linger };
    int status; /* can only be that of memory */
    return make_bound(rt, &unbound, AF_UNSPEC, &status);
}

static int tcp_connected(struct asio_uvstream *u, const struct asio_socket_options *options)
{
    uv_tcp_t *handle = &((struct asio_tcp *)(void *)u)->handle;
    if (options->nodelay)
        uv_tcp_nodelay(handle, 1);
    if (options->keepalive)
        uv_tcp_keepalive(handle, 1, (unsigned)options->keepalive);
    return 0;
}

const struct asio_socket_family asio_tcp_family = { "tcp", tcp_init, tcp_open_socket, tcp_make,
    tcp_connected };

int asio_tcp_bind(
    uv_tcp_t *handle, const struct sockaddr_storage *addr, const struct asio_socket_options *options)
{
    uv_os_fd_t fd;
    int status = options->reuseport ? uv_fileno((uv_handle_t *)handle, &fd) : 0;
    if (status == 0 && options->reuseport)
        status = asio_sys_reuseport(fd);
    if (status < 0)
        return status;
    bool only = options->ipv6only && addr->ss_family == AF_INET6;
    return uv_tcp_bind(handle, (const struct sockaddr *)addr, only ? UV_TCP_IPV6ONLY : 0);
}

/* ---- connecting --------------------------------------------------------------------------- */

static struct asio_connecting *start_connect(struct asio_rt *rt, const struct sockaddr_storage *addr,
    const struct asio_socket_options *options, int *status)
{
    struct asio_uvstream *u = make_bound(rt, options, addr->ss_family, status);
    if (!u)
        return NULL;
    struct asio_connecting *c = asio_connecting_new(u);
    *status = UV_ENOMEM;
    if (!c)
        return NULL;
    uv_tcp_t *handle = &((struct asio_tcp *)(void *)u)->handle;
    *status = options->bound ? asio_tcp_bind(handle, &options->bind, options) : 0;
    if (*status == 0)
        *status = uv_tcp_connect(&c->req, handle, (const struct sockaddr *)addr, asio_connecting_done);
    if (*status == 0) {
        tcp_connected(u, options); /* there is a socket, if no connection yet */
        return c;
    }
    asio_connecting_free(c);
    return NULL;
}

/* core.connect(ip, port, timeout, opts) or core.connect(raw, nil, timeout, opts): one numeric
 * address; false for what may be a name. Arguments were checked by the shim. */
static int l_tcp_connect(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct sockaddr_storage addr;
    double timeout = asio_check_timeout(L, 3, 3, "connect");
    struct asio_socket_options options = asio_socket_options_check(L, 4, 3, "connect");
    int status = 0;
    if (options.handles)
        asio_error_arg(L, 3, "connect", "option 'handles' is for Unix sockets alone");
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    if (options.missing) {
        asio_socket_options_push_missing(L, &options);
        return asio_push_failed(L);
    }
    if (!lua_isnil(L, 2))
        status = asio_address_parse(L, 1, (int)lua_tointeger(L, 2), &addr);
    else if (!asio_address_raw(L, 1, &addr))
        status = UV_EINVAL;
    if (status == UV_EINVAL && !lua_isnil(L, 2)) { /* apart from what the kernel calls EINVAL */
        lua_pushnumber(L, rt->token_fail);
        lua_pushboolean(L, 0);
        return 2;
    }
    if (status == 0 && options.bound && options.bind.ss_family != addr.ss_family)
        status = UV_EAFNOSUPPORT;
    if (status < 0)
        return asio_push_fail(L, status);
    struct asio_wait *w = asio_park_claim(L, rt);
    struct asio_connecting *c = start_connect(rt, &addr, &options, &status);
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

/* Both userdata exist before either socket does: nothing is left over when memory runs out. */
static int l_socketpair(lua_State *L)
{
    static const struct asio_socket_options options = { .linger = 30 };
    struct asio_rt *rt = asio_rt_of(L);
    struct asio_conn *ends[2] = { asio_conn_push(L, rt), asio_conn_push(L, rt) };
    uv_os_sock_t fds[2];
    if (rt->closed)
        return asio_error_push(L, UV_EBADF);
    int status = uv_socketpair(SOCK_STREAM, 0, fds, UV_NONBLOCK_PIPE, UV_NONBLOCK_PIPE);
    if (status < 0)
        return asio_error_push(L, status);
    for (int i = 0; i < 2; i++) {
        struct asio_uvstream *u = asio_family_adopt(rt, &asio_tcp_family, &options, fds[i], &status);
        if (!u && i == 0)
            asio_sys_close(fds[1]);
        if (!u)
            return asio_error_push(L, status);
        asio_stream_attach(&u->stream, ends[i]);
    }
    return 2;
}

static void tcp_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "connect", l_tcp_connect }, { "check_port", l_check_port },
        { NULL, NULL } };
    static const luaL_Reg module[] = { { "socketpair", l_socketpair }, { NULL, NULL } };
    asio_bind_functions(L, rt, "core", core);
    asio_bind_functions(L, rt, "asio", module);
}

const struct asio_part asio_part_tcp = { "tcp", tcp_part_open, NULL };
