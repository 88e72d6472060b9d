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

static struct asio_tcp *tcp_of(struct asio_stream *s)
{
    return (struct asio_tcp *)(void *)s;
}

/* ---- transport ---------------------------------------------------------------------------- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    struct asio_stream *s = handle->data;
    *buf = asio_rt_scratch(s->rt);
}

static void on_read(uv_stream_t *handle, ssize_t n, const uv_buf_t *buf)
{
    struct asio_stream *s = handle->data;
    if (n > 0)
        asio_stream_received(s, buf->base, (size_t)n);
    else if (n == UV_ENOBUFS) { /* that is libuv's word for an allocation that failed; it would go on */
        uv_read_stop(handle);
        asio_stream_ended(s, UV_ENOMEM);
    } else if (n < 0)
        asio_stream_ended(s, (int)n);
}

static int read_start(struct asio_stream *s)
{
    return uv_read_start((uv_stream_t *)&tcp_of(s)->handle, on_alloc, on_read);
}

static void read_stop(struct asio_stream *s)
{
    uv_read_stop((uv_stream_t *)&tcp_of(s)->handle);
}

static int handle_fd(struct asio_stream *s, uv_os_fd_t *fd)
{
    return uv_fileno((uv_handle_t *)&tcp_of(s)->handle, fd);
}

/* Not libuv's uv_try_write where it can be helped: that raises SIGPIPE. */
static ssize_t try_write(struct asio_stream *s, const uv_buf_t *bufs, unsigned count)
{
    uv_os_fd_t fd;
    int status = handle_fd(s, &fd);
    if (status < 0)
        return status;
    ssize_t n = asio_sys_send(fd, bufs, count);
    return n == UV_ENOTSUP ? uv_try_write((uv_stream_t *)&tcp_of(s)->handle, bufs, count) : n;
}

/* Exists only while the kernel does not take what is to be sent. */
struct write_request {
    uv_write_t req;
    size_t bytes;
};

static void on_write(uv_write_t *req, int status)
{
    struct write_request *w = (struct write_request *)(void *)req;
    struct asio_stream *s = req->handle->data;
    size_t bytes = w->bytes;
    asio_mem.free(w);
    asio_stream_sent(s, bytes, status);
}

static int start_write(struct asio_stream *s, const uv_buf_t *bufs, unsigned count, size_t bytes)
{
    struct write_request *w = asio_mem.malloc(sizeof *w);
    if (!w)
        return UV_ENOMEM;
    w->bytes = bytes;
    int status = uv_write(&w->req, (uv_stream_t *)&tcp_of(s)->handle, bufs, count, on_write);
    if (status < 0)
        asio_mem.free(w);
    return status;
}

static void on_shutdown(uv_shutdown_t *req, int status)
{
    (void)status; /* a peer that has gone shows when reading */
    asio_mem.free(req);
}

static int half_close(struct asio_stream *s)
{
    uv_os_fd_t fd;
    int status = handle_fd(s, &fd);
    if (status == 0)
        status = asio_sys_shutdown(fd);
    if (status != UV_ENOTSUP)
        return status;
    uv_shutdown_t *req = asio_mem.malloc(sizeof *req);
    if (!req)
        return UV_ENOMEM;
    status = uv_shutdown(req, (uv_stream_t *)&tcp_of(s)->handle, on_shutdown);
    if (status < 0)
        asio_mem.free(req);
    return status;
}

static size_t unsent(struct asio_stream *s)
{
    uv_os_fd_t fd;
    return handle_fd(s, &fd) == 0 ? asio_sys_unsent(fd) : 0;
}

static size_t unread(struct asio_stream *s)
{
    uv_os_fd_t fd;
    return handle_fd(s, &fd) == 0 ? asio_sys_unread(fd) : 0;
}

static void on_close(uv_handle_t *handle)
{
    struct asio_stream *s = handle->data;
    asio_stream_free(s);
    asio_mem.free(tcp_of(s));
}

static void close_handle(struct asio_stream *s)
{
    uv_close((uv_handle_t *)&tcp_of(s)->handle, on_close);
}

static int name_of(struct asio_stream *s, struct sockaddr_storage *addr, bool peer)
{
    int length = sizeof *addr;
    const uv_tcp_t *handle = &tcp_of(s)->handle;
    return peer ? uv_tcp_getpeername(handle, (struct sockaddr *)addr, &length)
                : uv_tcp_getsockname(handle, (struct sockaddr *)addr, &length);
}

static const struct asio_transport tcp_transport = {
    .handle = { asio_stream_teardown },
    .name = "tcp",
    .read_start = read_start,
    .read_stop = read_stop,
    .try_write = try_write,
    .write = start_write,
    .shutdown = half_close,
    .unsent = unsent,
    .unread = unread,
    .close = close_handle,
    .fd = handle_fd,
    .name_of = name_of,
};

struct asio_tcp *asio_tcp_new(struct asio_rt *rt, struct asio_tcp_options options)
{
    struct asio_tcp *t = asio_mem.malloc(sizeof *t);
    if (!t)
        return NULL;
    asio_stream_init(&t->stream, rt, &tcp_transport);
    t->stream.linger = (float)options.linger;
    if (uv_tcp_init(&rt->loop, &t->handle) < 0) { /* cannot fail without a family; for the reader's peace */
        asio_mem.free(t);
        return NULL;
    }
    t->handle.data = &t->stream;
    asio_rt_external(rt, 2048); /* with what the kernel keeps for it */
    return t;
}

void asio_tcp_discard(struct asio_tcp *t)
{
    close_handle(&t->stream);
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

/* Lives until libuv calls back, which it does also for a handle that was closed meanwhile. */
struct connect_request {
    uv_connect_t req;
    struct asio_tcp *tcp;
    struct asio_wait *wait; /* NULL: given up */
    struct asio_tcp_options options;
};

/* The connection belongs to the waiter from here on; if it cannot be told, it is closed. */
static int push_connected(lua_State *L, struct asio_wait *w)
{
    struct connect_request *c = w->source;
    if (w->status < 0)
        return asio_push_fail(L, w->status);
    asio_push_ok(L, w->rt);
    asio_stream_attach(&c->tcp->stream, asio_conn_push(L, w->rt));
    return 2;
}

static void on_connect(uv_connect_t *req, int status)
{
    struct connect_request *c = (struct connect_request *)(void *)req;
    if (c->wait) {
        if (status == 0)
            asio_tcp_connected(c->tcp, c->options);
        asio_sched_wake(c->wait, status);
        if (!c->tcp->stream.conn && !c->tcp->stream.closing)
            asio_tcp_discard(c->tcp);
    }
    asio_mem.free(c);
}

static void abort_connect(struct asio_wait *w)
{
    struct connect_request *c = w->source;
    c->wait = NULL;
    asio_tcp_discard(c->tcp);
}

static const struct asio_wait_op connect_op = { "connect", true, abort_connect, push_connected };

static struct connect_request *start_connect(
    struct asio_rt *rt, const struct sockaddr_storage *addr, struct asio_tcp_options options, int *status)
{
    struct connect_request *c = asio_mem.malloc(sizeof *c);
    *status = UV_ENOMEM;
    if (!c)
        return NULL;
    c->options = options;
    c->tcp = asio_tcp_new(rt, options);
    if (!c->tcp) {
        asio_mem.free(c);
        return NULL;
    }
    *status = uv_tcp_connect(&c->req, &c->tcp->handle, (const struct sockaddr *)addr, on_connect);
    if (*status < 0) {
        asio_tcp_discard(c->tcp);
        asio_mem.free(c);
        return NULL;
    }
    return c;
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
    struct connect_request *c = start_connect(rt, &addr, options, &status);
    if (!c)
        return asio_push_fail(L, status);
    c->wait = w;
    w->source = c;
    return asio_sched_park(L, w, &connect_op, timeout);
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
        asio_tcp_discard(t);
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
