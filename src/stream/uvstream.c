/* SPDX-License-Identifier: MIT
 * What every stream of libuv does for a transport; see uvstream.h. */
#include "stream/uvstream.h"

#include "stream/lifecycle.h"
#include "stream/read.h"
#include "stream/write.h"

static uv_stream_t *handle_of(struct asio_stream *s)
{
    return &asio_uvstream_of(s)->handle;
}

struct asio_uvstream *asio_uvstream_new(
    struct asio_rt *rt, size_t size, const struct asio_transport *transport)
{
    struct asio_uvstream *u = asio_mem.malloc(size);
    if (!u)
        return NULL;
    asio_stream_init(&u->stream, rt, transport);
    asio_rt_external(rt, 2048); /* with what the kernel keeps for it */
    return u;
}

/* ---- reading ------------------------------------------------------------------------------ */

/* libuv takes no room for none at all, reads nothing, and calls again in the next turn: so that the tap is told
 * as long as there is something to read. */
static bool is_bare(const struct asio_stream *s)
{
    return s->tap && s->tap->bare;
}

static void uvstream_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    struct asio_stream *s = handle->data;
    *buf = is_bare(s) ? uv_buf_init(NULL, 0) : asio_rt_scratch(s->rt);
}

/* libuv takes a hang-up behind a read that did not fill its buffer for the end; it passes no buffer then, and the
 * socket is asked why. An end that was read, with a buffer, is one. */
static int uvstream_end(struct asio_stream *s, const uv_buf_t *buf)
{
    uv_os_fd_t fd;
    int status = buf->base || s->closing || asio_uvstream_fd(s, &fd) < 0 ? 0 : asio_sys_end_reason(fd);
    return status < 0 ? status : UV_EOF;
}

static void on_read(uv_stream_t *handle, ssize_t n, const uv_buf_t *buf)
{
    struct asio_stream *s = handle->data;
    if (n > 0)
        asio_stream_received(s, buf->base, (size_t)n);
    else if (n == UV_ENOBUFS && is_bare(s))
        s->tap->received(s->tap, NULL, 0);
    else if (n == UV_ENOBUFS) { /* that is libuv's word for an allocation that failed; it would go on */
        uv_read_stop(handle);
        asio_stream_ended(s, UV_ENOMEM);
    } else if (n < 0)
        asio_stream_ended(s, n == UV_EOF ? uvstream_end(s, buf) : (int)n);
}

int asio_uvstream_read_start(struct asio_stream *s)
{
    return uv_read_start(handle_of(s), uvstream_on_alloc, on_read);
}

void asio_uvstream_read_stop(struct asio_stream *s)
{
    uv_read_stop(handle_of(s));
}

/* ---- writing ------------------------------------------------------------------------------ */

int asio_uvstream_fd(struct asio_stream *s, uv_os_fd_t *fd)
{
    return uv_fileno((uv_handle_t *)handle_of(s), fd);
}

/* Not libuv's uv_try_write where it can be helped: that raises SIGPIPE. */
ssize_t asio_uvstream_try_write(struct asio_stream *s, const uv_buf_t *bufs, unsigned count)
{
    uv_os_fd_t fd;
    int status = asio_uvstream_fd(s, &fd);
    if (status < 0)
        return status;
    ssize_t n = asio_sys_send(fd, bufs, count);
    return n == UV_ENOTSUP ? uv_try_write(handle_of(s), bufs, count) : n;
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

int asio_uvstream_write(struct asio_stream *s, const uv_buf_t *bufs, unsigned count, size_t bytes)
{
    struct write_request *w = asio_mem.malloc(sizeof *w);
    if (!w)
        return UV_ENOMEM;
    w->bytes = bytes;
    int status = uv_write(&w->req, handle_of(s), bufs, count, on_write);
    if (status < 0)
        asio_mem.free(w);
    return status;
}

static void on_shutdown(uv_shutdown_t *req, int status)
{
    (void)status; /* a peer that has gone shows when reading */
    asio_mem.free(req);
}

int asio_uvstream_shutdown(struct asio_stream *s)
{
    uv_os_fd_t fd;
    int status = asio_uvstream_fd(s, &fd);
    if (status == 0)
        status = asio_sys_shutdown(fd);
    if (status != UV_ENOTSUP)
        return status;
    uv_shutdown_t *req = asio_mem.malloc(sizeof *req);
    if (!req)
        return UV_ENOMEM;
    status = uv_shutdown(req, handle_of(s), on_shutdown);
    if (status < 0)
        asio_mem.free(req);
    return status;
}

size_t asio_uvstream_unsent(struct asio_stream *s)
{
    uv_os_fd_t fd;
    return asio_uvstream_fd(s, &fd) == 0 ? asio_sys_unsent(fd) : 0;
}

size_t asio_uvstream_unread(struct asio_stream *s)
{
    uv_os_fd_t fd;
    return asio_uvstream_fd(s, &fd) == 0 ? asio_sys_unread(fd) : 0;
}

/* ---- the end ------------------------------------------------------------------------------ */

static void uvstream_on_close(uv_handle_t *handle)
{
    struct asio_stream *s = handle->data;
    asio_stream_free(s);
    asio_mem.free(s);
}

/* A TCP connection. A Unix socket has no reset: its peer sees an error if bytes that it has sent were not read. */
void asio_uvstream_reset(struct asio_stream *s)
{
    uv_os_fd_t fd;
    if (asio_uvstream_fd(s, &fd) == 0)
        asio_sys_reset_on_close(fd, true);
}

void asio_uvstream_guard(struct asio_stream *s, bool on)
{
    uv_os_fd_t fd;
    if (asio_uvstream_fd(s, &fd) == 0)
        asio_sys_reset_on_close(fd, on);
}

void asio_uvstream_close(struct asio_stream *s)
{
    uv_close((uv_handle_t *)handle_of(s), uvstream_on_close);
}
