/* SPDX-License-Identifier: MIT
 * asio.connect for one numeric address or one Unix socket (names are the business of lua/asio/connect.lua), and
 * asio.socketpair. */
#include "base/error.h"
#include "core/address.h"
#include "core/bind.h"
#include "core/park.h"
#include "core/part.h"
#include "net/fd_passing.h"
#include "net/tcp.h"
#include "net/unix.h"
#include "stream/conn.h"
#include "stream/lifecycle.h"

#include <string.h>

/* ---- a connect on its way ----------------------------------------------------------------- */

/* Created before libuv is asked; owns the stream until the waiter has it; found through the wait
 * record and libuv's request; freed when libuv calls back, which it does also for a handle that was
 * closed meanwhile, so also if the state closes first. */
struct connecting {
    uv_connect_t req; /* first */
    struct asio_uvstream *stream;
    struct asio_wait *wait; /* NULL: given up */
    int port;               /* that it connects to by TCP, else 0 */
    bool taken;             /* a connection has the stream */
};

/* Takes the stream, also when it fails: NULL, out of memory. */
static struct connecting *connecting_new(struct asio_uvstream *u)
{
    struct connecting *c = asio_mem.malloc(sizeof *c);
    if (!c) {
        asio_uvstream_discard(u);
        return NULL;
    }
    c->stream = u;
    c->wait = NULL;
    c->port = 0;
    c->taken = false;
    return c;
}

/* The connection is the waiter's from here on; if memory runs out it is closed in connecting_done. */
static int connecting_push(lua_State *L, struct asio_wait *w)
{
    struct connecting *c = w->source;
    if (w->status < 0)
        return asio_push_fail(L, w->status);
    asio_push_ok(L, w->rt);
    asio_stream_attach(&c->stream->stream, asio_conn_push(L, w->rt));
    c->taken = true;
    return 2;
}

/* TCP allows a socket to connect to itself (simultaneous open). On Linux it happens when no socket listens on a port
 * of the ephemeral range, and the kernel gives the connecting socket that very port. The peer is then our own
 * socket: the port refuses connections, whatever the kernel says. */
static bool connecting_to_itself(const struct connecting *c)
{
    union asio_sockaddr own, peer;
    int size = sizeof own;
    const struct asio_transport *t = c->stream->stream.transport;
    struct sockaddr_storage name;
    if (c->port == 0 || t->name_of(&c->stream->stream, &name, false) < 0)
        return false;
    memcpy(&own, &name, (size_t)size);
    if (asio_address_port(&own.any) != c->port || t->name_of(&c->stream->stream, &name, true) < 0)
        return false;
    memcpy(&peer, &name, (size_t)size);
    if (own.any.sa_family != peer.any.sa_family || asio_address_port(&peer.any) != c->port)
        return false;
    if (own.any.sa_family == AF_INET)
        return memcmp(&own.v4.sin_addr, &peer.v4.sin_addr, sizeof own.v4.sin_addr) == 0;
    return memcmp(&own.v6.sin6_addr, &peer.v6.sin6_addr, sizeof own.v6.sin6_addr) == 0 &&
        own.v6.sin6_scope_id == peer.v6.sin6_scope_id;
}

static void connecting_done(uv_connect_t *req, int status)
{
    struct connecting *c = (struct connecting *)(void *)req;
    if (c->wait) {
        if (status == 0 && connecting_to_itself(c))
            status = UV_ECONNREFUSED;
        asio_sched_wake(c->wait, status);
        if (!c->taken && !c->stream->stream.closing) /* closing: with the state */
            asio_uvstream_discard(c->stream);
    }
    asio_mem.free(c);
}

static void connecting_abort(struct asio_wait *w)
{
    struct connecting *c = w->source;
    c->wait = NULL;
    asio_uvstream_discard(c->stream);
}

static const struct asio_wait_op connecting_op = {
    .name = "connect", .outside = true, .abort = connecting_abort, .push = connecting_push
};

static int connecting_park(lua_State *L, struct asio_wait *w, struct connecting *c, double timeout)
{
    c->wait = w;
    w->source = c;
    return asio_park(L, w, &connecting_op, timeout);
}

/* ---- TCP ---------------------------------------------------------------------------------- */

static struct connecting *connect_start_tcp(struct asio_rt *rt, const struct sockaddr_storage *addr,
    const struct asio_socket_options *options, int *status)
{
    struct asio_uvstream *u = asio_tcp_make_for(rt, options, addr->ss_family, status);
    if (!u)
        return NULL;
    struct connecting *c = connecting_new(u);
    *status = UV_ENOMEM;
    if (!c)
        return NULL;
    uv_tcp_t *handle = (uv_tcp_t *)&u->handle;
    c->port = asio_address_port((const struct sockaddr *)addr);
    *status = options->bound ? asio_tcp_bind(handle, &options->bind, options) : 0;
    if (*status == 0)
        *status = uv_tcp_connect(&c->req, handle, (const struct sockaddr *)addr, connecting_done);
    if (*status == 0) {
        asio_tcp_family.connected(u, options); /* there is a socket, if no connection yet */
        return c;
    }
    asio_uvstream_discard(u);
    asio_mem.free(c);
    return NULL;
}

/* The numeric address that l_connect is given; 0, an error, or UV_EAI_NONAME for what may be a name. */
static int connect_read_address(lua_State *L, struct sockaddr_storage *addr)
{
    if (lua_isnil(L, 2)) {
        if (!asio_address_raw(L, 1, addr))
            asio_error_arg(
                L, 1, "connect", "without a port a raw address is expected, as get_original_dst returns it");
        return 0;
    }
    int status = asio_address_parse(L, 1, (int)lua_tointeger(L, 2), addr);
    return status == UV_EINVAL ? UV_EAI_NONAME : status; /* apart from what the kernel calls EINVAL */
}

/* core.connect(ip, port, timeout, opts) or core.connect(raw, nil, timeout, opts): one numeric
 * address; false for what may be a name. Host and port were checked by the shim. */
static int l_connect(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct sockaddr_storage addr;
    double timeout = asio_check_timeout(L, 3, 3, "connect");
    struct asio_socket_options options = asio_socket_options_check(L, 4, 3, "connect");
    if (options.handles)
        asio_error_arg(L, 3, "connect", "option 'handles' is for Unix sockets alone");
    int status = connect_read_address(L, &addr);
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    if (status == UV_EAI_NONAME) {
        lua_pushnumber(L, rt->token_fail);
        lua_pushboolean(L, 0);
        return 2;
    }
    if (status == 0 && options.bound && options.bind.ss_family != addr.ss_family)
        status = UV_EAFNOSUPPORT;
    if (status < 0)
        return asio_push_fail(L, status);
    struct asio_wait *w = asio_park_claim(L, rt);
    struct connecting *c = connect_start_tcp(rt, &addr, &options, &status);
    return c ? connecting_park(L, w, c, timeout) : asio_push_fail(L, status);
}

/* core.check_port(value, min, arg, fname) */
static int l_check_port(lua_State *L)
{
    int port = asio_check_port(L, 1, (int)lua_tointeger(L, 3), lua_tostring(L, 4), (int)lua_tointeger(L, 2));
    lua_pushinteger(L, port);
    return 1;
}

/* ---- Unix sockets ------------------------------------------------------------------------- */

/* Named pipes of Windows: libuv connects. */
static int connect_pipe_by_libuv(lua_State *L, struct asio_rt *rt, const char *name, size_t n,
    const struct asio_socket_options *options, double timeout)
{
    char pipe[ASIO_SYS_PATH_MAX];
    int status = options->handles ? UV_ENOTSUP : asio_sys_pipe_name(name, n, pipe);
    if (status < 0)
        return asio_push_fail(L, status);
    struct asio_wait *w = asio_park_claim(L, rt);
    struct asio_uvstream *u = asio_unix_family.make(rt, options);
    struct connecting *c = u ? connecting_new(u) : NULL;
    if (!c)
        return asio_push_fail(L, UV_ENOMEM);
    uv_pipe_connect(&c->req, (uv_pipe_t *)&u->handle, pipe, connecting_done);
    return connecting_park(L, w, c, timeout);
}

/* core.connect_pipe(name, timeout, opts). EAGAIN: the backlog is full, which the system has no event for.
 * The userdata exists before the socket does: nothing is left over when memory runs out. */
static int l_connect_pipe(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    size_t n;
    uv_os_sock_t fd;
    const char *name = asio_unix_name(L, 1, &n);
    double timeout = asio_check_timeout(L, 2, 2, "connect");
    struct asio_socket_options options = asio_socket_options_check(L, 3, 2, "connect");
    if (options.bound)
        asio_error_arg(L, 2, "connect", "option 'bind' is for TCP alone");
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    struct asio_conn *conn = asio_conn_push(L, rt);
    int status = asio_bind_is_closed(L, rt, "connect") ? UV_EBADF : asio_sys_unix_connect(name, n, &fd);
    if (status == UV_ENOTSUP)
        return connect_pipe_by_libuv(L, rt, name, n, &options, timeout);
    struct asio_uvstream *u = NULL;
    if (status == 0)
        u = asio_family_adopt(
            rt, options.handles ? &asio_fd_passing_family : &asio_unix_family, &options, fd, &status);
    if (!u) {
        asio_unix_push_failure(L, status);
        return asio_push_failed(L);
    }
    asio_stream_attach(&u->stream, conn);
    asio_push_ok(L, rt);
    lua_insert(L, -2);
    return 2;
}

/* ---- pairs -------------------------------------------------------------------------------- */

/* libuv makes Unix sockets where the system has them, else TCP sockets. */
static const struct asio_socket_family *pair_family(uv_os_sock_t fd)
{
    enum asio_sys_kind kind;
    bool listening;
    bool local = asio_sys_socket_kind(fd, &kind, &listening) == 0 && kind == ASIO_SYS_UNIX;
    return local ? &asio_unix_family : &asio_tcp_family;
}

/* Both userdata exist before either socket does: nothing is left over when memory runs out. */
static int l_socketpair(lua_State *L)
{
    const struct asio_socket_options options = asio_socket_options_default();
    struct asio_rt *rt = asio_rt_of(L);
    struct asio_conn *ends[2] = { asio_conn_push(L, rt), asio_conn_push(L, rt) };
    uv_os_sock_t fds[2];
    if (asio_bind_is_closed(L, rt, "socketpair"))
        return asio_error_push(L, UV_EBADF);
    int status = uv_socketpair(SOCK_STREAM, 0, fds, UV_NONBLOCK_PIPE, UV_NONBLOCK_PIPE);
    if (status < 0)
        return asio_error_push(L, status);
    for (int i = 0; i < 2; i++) {
        struct asio_uvstream *u = asio_family_adopt(rt, pair_family(fds[i]), &options, fds[i], &status);
        if (!u && i == 0)
            asio_sys_close(fds[1]);
        if (!u)
            return asio_error_push(L, status);
        asio_stream_attach(&u->stream, ends[i]);
    }
    return 2;
}

static void connect_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "connect", l_connect }, { "connect_pipe", l_connect_pipe },
        { "check_port", l_check_port }, { NULL, NULL } };
    static const luaL_Reg module[] = { { "socketpair", l_socketpair }, { NULL, NULL } };
    asio_bind_functions(L, rt, "core", core);
    asio_bind_functions(L, rt, "asio", module);
}

const struct asio_part asio_part_connect = { "connect", connect_part_open, NULL };
