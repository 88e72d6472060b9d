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

static const struct asio_transport unix_transport = {
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

int asio_unix_init(uv_loop_t *loop, uv_stream_t *handle)
{
    return uv_pipe_init(loop, (uv_pipe_t *)handle, 0);
}

int asio_unix_open_socket(uv_stream_t *handle, uv_os_sock_t fd)
{
    return uv_pipe_open((uv_pipe_t *)handle, (uv_file)fd);
}

static struct asio_uvstream *unix_make(struct asio_rt *rt, const struct asio_socket_options *options)
{
    struct asio_uvstream *u = asio_uvstream_new(rt, sizeof(struct asio_unix), &unix_transport);
    if (!u)
        return NULL;
    asio_unix_init(&rt->loop, &u->handle); /* cannot fail */
    u->stream.linger = (float)options->linger;
    u->handle.data = &u->stream;
    return u;
}

static int unix_connected(struct asio_uvstream *u, const struct asio_socket_options *options)
{
    (void)u, (void)options;
    return 0;
}

const struct asio_socket_family asio_unix_family = { true, asio_unix_init, asio_unix_open_socket, unix_make,
    unix_connected };

/* ---- names -------------------------------------------------------------------------------- */

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

/* ---- credentials -------------------------------------------------------------------------- */

/* conn:credentials() -> { pid =, uid =, gid = } of the process that connected, or listened. */
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
    static const luaL_Reg methods[] = { { "credentials", l_credentials }, { NULL, NULL } };
    asio_bind_functions(L, rt, "conn", methods);
}

const struct asio_part asio_part_unix = { "unix", unix_part_open, NULL };
