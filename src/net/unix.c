/* SPDX-License-Identifier: MIT
 * The transport of Unix sockets over uv_pipe_t; see unix.h. Where the system has Unix sockets they are
 * made by ourselves (sys.h says why) and handed to libuv; else libuv's pipes do it all. */
#include "net/unix.h"

#include "core/address.h"
#include "core/bind.h"
#include "core/park.h"
#include "stream/conn.h"
#include "stream/lifecycle.h"
#include "base/error.h"
#include "net/fd_passing.h"

#include <string.h>

ASIO_UVSTREAM_LAYOUT(struct asio_unix);

static struct asio_unix *pipe_of(struct asio_stream *s)
{
    return (struct asio_unix *)(void *)s;
}

/* ---- transport ---------------------------------------------------------------------------- */

int asio_unix_path_of(struct asio_stream *s, char *path, size_t *size, bool peer)
{
    uv_os_fd_t fd;
    const uv_pipe_t *handle = &pipe_of(s)->handle;
    int status = asio_uvstream_fd(s, &fd);
    if (status == 0)
        status = asio_sys_unix_name(fd, peer, path, size);
    if (status != UV_ENOTSUP)
        return status;
    return peer ? uv_pipe_getpeername(handle, path, size) : uv_pipe_getsockname(handle, path, size);
}

static int unix_name_of(struct asio_stream *s, struct sockaddr_storage *addr, bool peer)
{
    (void)s, (void)addr, (void)peer;
    return UV_EAFNOSUPPORT;
}

static const struct asio_transport pipe_transport = {
    .handle = { asio_stream_teardown },
    .name = "unix",
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
    .name_of = unix_name_of,
    .path_of = asio_unix_path_of,
    .passable = true,
    .bare = true,
};

/* ---- family ------------------------------------------------------------------------------ */

static int unix_init(uv_loop_t *loop, uv_stream_t *handle)
{
    return uv_pipe_init(loop, (uv_pipe_t *)handle, 0);
}

static int unix_open_socket(uv_stream_t *handle, uv_os_sock_t fd)
{
    return uv_pipe_open((uv_pipe_t *)handle, (uv_file)fd);
}

static struct asio_uvstream *unix_make(struct asio_rt *rt, const struct asio_socket_options *options)
{
    const struct asio_transport *transport = options->handles ? &asio_fd_passing_transport : &pipe_transport;
    struct asio_uvstream *u = asio_uvstream_new(rt, sizeof(struct asio_unix), transport);
    if (!u)
        return NULL;
    if (!options->handles)
        pipe_of(&u->stream)->passing = NULL;
    else if (!asio_fd_passing_make(pipe_of(&u->stream))) {
        asio_mem.free(u);
        return NULL;
    }
    unix_init(&rt->loop, &u->handle); /* cannot fail */
    u->stream.linger = (float)options->linger;
    u->handle.data = &u->stream;
    return u;
}

static int unix_connected(struct asio_uvstream *u, const struct asio_socket_options *options)
{
    return options->handles ? asio_fd_passing_begin(pipe_of(&u->stream)) : 0;
}

const struct asio_socket_family asio_unix_family = { "unix", unix_init, unix_open_socket, unix_make,
    unix_connected };

/* ---- connecting --------------------------------------------------------------------------- */

static const char prefix[] = "unix:";

const char *asio_unix_name(lua_State *L, int index, size_t *n)
{
    enum { PREFIX = sizeof prefix - 1 };
    if (lua_type(L, index) != LUA_TSTRING)
        return NULL;
    const char *text = lua_tolstring(L, index, n);
    if (*n < PREFIX || memcmp(text, prefix, PREFIX) != 0)
        return NULL;
    *n -= PREFIX;
    return text + PREFIX;
}

int asio_unix_push_failure(lua_State *L, int status)
{
    if (status == UV_ENOTSOCK)
        return asio_error_push_text(L, status, "there is a file of this name that is not a socket");
    return asio_error_push(L, status);
}

/* Where libuv has to do it. */
static int connect_named(lua_State *L, struct asio_rt *rt, const char *name,
    const struct asio_socket_options *options, double timeout)
{
    if (options->handles)
        return asio_push_fail(L, UV_ENOTSUP);
    struct asio_wait *w = asio_park_claim(L, rt);
    struct asio_uvstream *u = unix_make(rt, options);
    struct asio_connecting *c = u ? asio_connecting_new(u) : NULL;
    if (!c)
        return asio_push_fail(L, UV_ENOMEM);
    uv_pipe_connect(&c->req, &pipe_of(&u->stream)->handle, name, asio_connecting_done);
    return asio_connecting_park(L, w, c, timeout);
}

/* core.connect_pipe(name, timeout, opts). EAGAIN: the backlog is full, which the system has no event for.
 * The userdata exists before the socket does: nothing is left over when memory runs out. */
static int l_unix_connect(lua_State *L)
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
    if (options.missing) {
        asio_socket_options_push_missing(L, &options);
        return asio_push_failed(L);
    }
    struct asio_conn *conn = asio_conn_push(L, rt);
    int status = rt->closed ? UV_EBADF : asio_sys_unix_connect(name, n, &fd);
    if (status == UV_ENOTSUP)
        return connect_named(L, rt, name, &options, timeout);
    struct asio_uvstream *u = NULL;
    if (status == 0)
        u = asio_family_adopt(rt, &asio_unix_family, &options, fd, &status);
    if (!u) {
        asio_unix_push_failure(L, status);
        return asio_push_failed(L);
    }
    asio_stream_attach(&u->stream, conn);
    asio_push_ok(L, rt);
    lua_insert(L, -2);
    return 2;
}

/* ---- credentials -------------------------------------------------------------------------- */

/* conn:credentials() -> { pid =, uid =, gid = } of whoever connected, or listened. */
static int l_credentials(lua_State *L)
{
    struct asio_stream *s = asio_conn_check(L, "credentials")->stream;
    struct asio_sys_credentials found;
    uv_os_fd_t fd;
    int status = s ? s->transport->fd(s, &fd) : UV_EBADF;
    if (status == 0)
        status = asio_sys_credentials(fd, &found);
    if (status < 0)
        return asio_error_push(L, status);
    lua_createtable(L, 0, 3);
    lua_pushnumber(L, (double)found.pid);
    lua_setfield(L, -2, "pid");
    lua_pushnumber(L, (double)found.uid);
    lua_setfield(L, -2, "uid");
    lua_pushnumber(L, (double)found.gid);
    lua_setfield(L, -2, "gid");
    return 1;
}

static void unix_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "connect_pipe", l_unix_connect }, { NULL, NULL } };
    static const luaL_Reg methods[] = { { "credentials", l_credentials }, { NULL, NULL } };
    asio_bind_functions(L, rt, "core", core);
    asio_bind_functions(L, rt, "conn", methods);
}

const struct asio_part asio_part_unix = { "unix", unix_part_open, NULL };
