/* SPDX-License-Identifier: MIT
 *
 * The transport of the standard streams (asio.stdin, stdout, stderr): terminals, pipes, sockets, files. The
 * description behind their numbers is shared with other processes, so its modes are not changed (see sys.h); what
 * cannot be polled is read and written by libuv's threads. Bytes are read only while a reader waits: others may be
 * meant for a child process, or for the next program in a shell script. Where the system has no descriptors,
 * libuv's terminals and pipes are used.
 *
 * Lifetime of struct asio_stdio: made when a script names the stream, which then is anchored in the module
 * table; its descriptors go with the transport's close, its memory in the close callback of its handle, which
 * comes once no thread works for it; if the state closes first, what was written goes out before, for
 * as long as `linger` says. */
#include "core/bind.h"
#include "stream/conn.h"
#include "stream/lifecycle.h"
#include "stream/read.h"
#include "stream/write.h"
#include "base/error.h"
#include "stream/uvstream.h"

#include <stdio.h>
#include <string.h>

static const uv_os_sock_t none = (uv_os_sock_t)-1;

struct asio_stdio {
    struct asio_stream stream; /* first */
    union {
        uv_handle_t any;
        uv_poll_t poll;
        uv_idle_t idle; /* stdio_of a file: never active, it only stands for it in the loop */
    } handle;
    uv_os_sock_t fd, watch; /* ours; or none */
    uv_file file, number;
    enum asio_sys_stdio how;
    bool reading, writing; /* polled: wanted; file: a thread does it */
    bool drains;           /* the state is closed: what a thread leaves over is written at once */
    char *buffer;          /* file: what a thread reads into */
    uv_fs_t read_req, write_req;
};

static struct asio_stdio *stdio_of(struct asio_stream *s)
{
    return (struct asio_stdio *)(void *)s;
}

static bool is_file(const struct asio_stdio *p)
{
    return p->how == ASIO_SYS_STDIO_FILE;
}

/* ---- the end ------------------------------------------------------------------------------ */

static void stdio_on_close(uv_handle_t *handle)
{
    struct asio_stream *s = handle->data;
    if (s->sending)
        asio_stream_sent(s, 0, UV_ECANCELED);
    asio_stream_free(s);
    asio_mem.free(s);
}

static void close_fd(uv_os_sock_t *fd)
{
    if (*fd != none)
        asio_sys_close(*fd);
    *fd = none;
}

/* A thread that reads or writes uses the descriptor: it is closed when the last of them has returned. */
static void stdio_release(struct asio_stdio *p)
{
    if (is_file(p) && (p->reading || p->writing))
        return;
    uv_close(&p->handle.any, stdio_on_close);
    close_fd(&p->watch);
    close_fd(&p->fd);
}

/* If the script closes it, the number stays taken, by something that swallows everything: a file that is opened later
 * must not get what is printed. The other end of a pipe sees its end. */
static void close_stream(struct asio_stream *s)
{
    if (!s->collected && !s->rt->closed)
        asio_sys_stdio_discard(stdio_of(s)->number);
    stdio_release(stdio_of(s));
}

/* ---- files -------------------------------------------------------------------------------- */

static void on_file_read(uv_fs_t *req);

static int read_file(struct asio_stdio *p)
{
    if (p->reading)
        return 0;
    p->buffer = asio_mem.malloc(ASIO_SCRATCH_SIZE);
    if (!p->buffer)
        return UV_ENOMEM;
    uv_buf_t buf = uv_buf_init(p->buffer, ASIO_SCRATCH_SIZE);
    p->reading = true;
    return uv_fs_read(
        &p->stream.rt->loop, &p->read_req, p->file, &buf, 1, -1, on_file_read); /* cannot fail */
}

/* User code runs inside: afterwards there may be no reader, and the stream may be closed. */
static void serve(struct asio_stdio *p, char *bytes, ssize_t n)
{
    struct asio_stream *s = &p->stream;
    if (n <= 0) {
        asio_stream_ended(s, n == 0 ? UV_EOF : (int)n);
        return;
    }
    asio_stream_received(s, bytes, (size_t)n);
    if (s->gone || !s->reading)
        return;
    s->reading = asio_stream_is_read(s);
    int status = s->reading && is_file(p) ? read_file(p) : 0;
    if (status < 0)
        asio_stream_ended(s, status);
}

static void on_file_read(uv_fs_t *req)
{
    struct asio_stdio *p = ASIO_CONTAINER(req, struct asio_stdio, read_req);
    ssize_t n = req->result;
    char *bytes = p->buffer;
    uv_fs_req_cleanup(req);
    p->reading = false;
    if (p->stream.gone)
        stdio_release(p);
    else
        serve(p, bytes, n);
    asio_mem.free(bytes);
}

static void drain(struct asio_stdio *p);

static void on_file_written(uv_fs_t *req)
{
    struct asio_stdio *p = ASIO_CONTAINER(req, struct asio_stdio, write_req);
    ssize_t n = req->result;
    bool gone = p->stream.gone;
    uv_fs_req_cleanup(req);
    p->writing = false;
    asio_stream_sent(&p->stream, n > 0 ? (size_t)n : 0, n > 0 ? 0 : n < 0 ? (int)n : UV_EIO);
    if (p->drains)
        drain(p);
    if (gone)
        stdio_release(p);
}

static ssize_t write_file(struct asio_stdio *p, const uv_buf_t *bufs, unsigned count)
{
    uv_fs_t req;
    ssize_t n = uv_fs_write(&p->stream.rt->loop, &req, p->file, bufs, count, -1, NULL);
    uv_fs_req_cleanup(&req);
    return n;
}

/* ---- what can be polled ------------------------------------------------------------------- */

static void stdio_on_poll(uv_poll_t *handle, int status, int events);

static int stdio_update(struct asio_stdio *p)
{
    if (uv_is_closing(&p->handle.any))
        return 0;
    int events = (p->reading ? UV_READABLE : 0) | (p->writing ? UV_WRITABLE : 0);
    events = asio_sys_stdio_poll(p->watch, p->fd, events);
    return events ? uv_poll_start(&p->handle.poll, events, stdio_on_poll) : uv_poll_stop(&p->handle.poll);
}

static void stdio_receive(struct asio_stdio *p)
{
    struct asio_stream *s = &p->stream;
    p->reading = s->reading = asio_stream_is_read(s);
    if (!p->reading)
        return;
    uv_buf_t buf = asio_rt_scratch(s->rt);
    ssize_t n = buf.base ? asio_sys_stdio_read(p->fd, p->how, buf) : UV_ENOMEM;
    if (n == UV_EAGAIN)
        return;
    serve(p, buf.base, n);
    p->reading = s->reading;
}

/* Not every system says which event has come: everything that is wanted is tried. */
static void stdio_on_poll(uv_poll_t *handle, int status, int events)
{
    struct asio_stdio *p = handle->data;
    (void)status, (void)events;
    if (p->reading)
        stdio_receive(p);
    if (p->writing && !p->stream.gone) {
        p->writing = false;
        asio_stream_sent(&p->stream, 0, 0); /* which tries again */
    }
    stdio_update(p);
}

/* ---- transport ---------------------------------------------------------------------------- */

static int stdio_read_start(struct asio_stream *s)
{
    struct asio_stdio *p = stdio_of(s);
    if (s->closing) /* what comes is for other processes */
        return s->half_closed ? UV_EOF : 0;
    if (is_file(p))
        return read_file(p);
    p->reading = true;
    return stdio_update(p);
}

static void stdio_read_stop(struct asio_stream *s)
{
    if (is_file(stdio_of(s)))
        return; /* a thread that reads finishes */
    stdio_of(s)->reading = false;
    stdio_update(stdio_of(s));
}

/* It is being closed: nothing is read any more, neither here nor by the caller. */
static void stdio_abort_waits(struct asio_stream *s, int status)
{
    (void)status;
    stdio_read_stop(s);
    s->reading = false;
}

/* What was printed comes before. A file may block, which holds no light thread up while no loop runs. */
static ssize_t try_write(struct asio_stream *s, const uv_buf_t *bufs, unsigned count)
{
    struct asio_stdio *p = stdio_of(s);
    if (p->number == 1)
        fflush(stdout);
    if (!is_file(p))
        return asio_sys_stdio_write(p->fd, p->how, bufs, count);
    return s->rt->looping && !s->rt->closed ? UV_EAGAIN : write_file(p, bufs, count);
}

static int write_later(struct asio_stream *s, const uv_buf_t *bufs, unsigned count, size_t bytes)
{
    struct asio_stdio *p = stdio_of(s);
    (void)bytes;
    p->writing = true;
    if (!is_file(p))
        return stdio_update(p); /* they are gathered again */
    return uv_fs_write(&s->rt->loop, &p->write_req, p->file, bufs, count, -1, on_file_written);
}

/* Anything but a socket is closed by that. Closing alone ends no connection: other processes have it too. */
static int stdio_half_close(struct asio_stream *s)
{
    struct asio_stdio *p = stdio_of(s);
    bool socket = p->how == ASIO_SYS_STDIO_SOCKET;
    if (!s->shut)
        return UV_ENOTSUP;
    if (!socket && p->number == 0)
        return 0; /* nothing can be written to it, and nothing remains to be told */
    if (socket)
        return asio_sys_shutdown((uv_os_fd_t)p->fd);
    asio_sys_stdio_discard(p->number);
    s->read_status = UV_EOF;
    if (!is_file(p))
        close_fd(&p->fd);
    return 0;
}

/* The description of a socket is shared: it takes effect when its last descriptor is closed. */
static void stdio_reset(struct asio_stream *s)
{
    if (stdio_of(s)->how == ASIO_SYS_STDIO_SOCKET && !s->rt->forked)
        asio_sys_reset_on_close((uv_os_fd_t)(intptr_t)stdio_of(s)->number, true);
}

static size_t nothing(struct asio_stream *s)
{
    (void)s;
    return 0;
}

static int fd_of(struct asio_stream *s, uv_os_fd_t *fd)
{
    *fd = (uv_os_fd_t)(intptr_t)stdio_of(s)->number;
    return 0;
}

static int stdio_name_of(struct asio_stream *s, struct sockaddr_storage *addr, bool peer)
{
    return asio_sys_socket_name(stdio_of(s)->fd, addr, peer);
}

static int stdio_ms(uint64_t ns)
{
    enum { AT_MOST = 1000000 };
    return ns / 1000000 < AT_MOST ? (int)(ns / 1000000) + 1 : AT_MOST;
}

/* The state is being closed: no light thread is held up any more, so it waits here, as long as the reader takes
 * something within `linger`. What a thread is at must not be written twice. */
static void drain(struct asio_stdio *p)
{
    enum { BUFS = 4 };
    struct asio_stream *s = &p->stream;
    uint64_t end = s->closing && s->give_up ? s->give_up : asio_rt_deadline(s->linger), now;
    while (s->out.length > 0 && s->write_status == 0) {
        uv_buf_t bufs[BUFS];
        size_t bytes;
        unsigned count = asio_outbuf_gather(&s->out, bufs, BUFS, &bytes);
        ssize_t n = try_write(s, bufs, count);
        now = uv_hrtime();
        if (n > 0) {
            asio_outbuf_skip(&s->out, &s->rt->out_env, (size_t)n);
            end = asio_rt_deadline(s->linger);
        } else if (n != UV_EAGAIN || now >= end) {
            return;
        } else {
            asio_sys_stdio_wait(p->fd, stdio_ms(end - now));
        }
    }
}

static void stdio_teardown(void *owner)
{
    struct asio_stdio *p = stdio_of(owner);
    if (p->stream.gone)
        return; /* a thread still uses it */
    if (p->stream.rt->forked)
        asio_stream_drop_output(&p->stream); /* the parent writes it */
    p->drains = is_file(p) && p->writing;
    if (!p->drains)
        drain(p);
    asio_stream_teardown(owner);
}

static const struct asio_transport stdio_transport = {
    .handle = { stdio_teardown },
    .name = "stdio",
    .read_start = stdio_read_start,
    .read_stop = stdio_read_stop,
    .try_write = try_write,
    .write = write_later,
    .shutdown = stdio_half_close,
    .unsent = nothing,
    .unread = nothing,
    .close = close_stream,
    .reset = stdio_reset,
    .fd = fd_of,
    .name_of = stdio_name_of,
    .abort_waits = stdio_abort_waits,
};

/* ---- where libuv's streams do it ---------------------------------------------------------- */

struct libuv_stdio {
    struct asio_stream stream; /* first */
    union {
        uv_handle_t any;
        uv_tty_t tty;
        uv_pipe_t pipe;
    } handle;
};
ASIO_UVSTREAM_LAYOUT(struct libuv_stdio);

static int libuv_read_start(struct asio_stream *s)
{
    return s->closing ? 0 : asio_uvstream_read_start(s);
}

static int libuv_shutdown(struct asio_stream *s)
{
    return s->shut ? asio_uvstream_shutdown(s) : UV_ENOTSUP;
}

static int libuv_name_of(struct asio_stream *s, struct sockaddr_storage *addr, bool peer)
{
    (void)s, (void)addr, (void)peer;
    return UV_ENOTSOCK;
}

static const struct asio_transport libuv_transport = {
    .handle = { asio_stream_teardown },
    .name = "stdio",
    .read_start = libuv_read_start,
    .read_stop = asio_uvstream_read_stop,
    .try_write = asio_uvstream_try_write,
    .write = asio_uvstream_write,
    .shutdown = libuv_shutdown,
    .unsent = nothing,
    .unread = nothing,
    .close = asio_uvstream_close,
    .fd = asio_uvstream_fd,
    .name_of = libuv_name_of,
};

/* UV_ENOTSUP: it is a file, or a pipe that libuv cannot use: threads read and write it. */
static int open_libuv(struct asio_rt *rt, int number, struct asio_stream **stream)
{
    uv_handle_type type = uv_guess_handle(number);
    if (type != UV_TTY && type != UV_NAMED_PIPE)
        return UV_ENOTSUP;
    struct asio_uvstream *u = asio_uvstream_new(rt, sizeof(struct libuv_stdio), &libuv_transport);
    if (!u)
        return UV_ENOMEM;
    struct libuv_stdio *p = (struct libuv_stdio *)(void *)u;
    int status = type == UV_TTY ? uv_tty_init(&rt->loop, &p->handle.tty, number, 0)
                                : uv_pipe_init(&rt->loop, &p->handle.pipe, 0);
    if (status < 0) {
        asio_mem.free(p);
        return status;
    }
    p->handle.any.data = p;
    if (type == UV_NAMED_PIPE)
        status = uv_pipe_open(&p->handle.pipe, number);
    if (status < 0) {
        asio_uvstream_discard(u);
        return UV_ENOTSUP;
    }
    *stream = &p->stream;
    return 0;
}

/* ---- opening ------------------------------------------------------------------------------ */

/* libuv makes what it polls non-blocking: that is a description of our own, or the mode is put back at once. */
static int stdio_open_handle(struct asio_stdio *p)
{
    uv_loop_t *loop = &p->stream.rt->loop;
    int status = is_file(p) ? UV_EPERM : asio_sys_stdio_watch(p->fd, &p->watch);
    if (status == UV_EPERM) {
        p->how = ASIO_SYS_STDIO_FILE;
        return uv_idle_init(loop, &p->handle.idle);
    }
    if (status < 0)
        return status;
    int flags = asio_sys_file_flags(p->fd);
    status = uv_poll_init_socket(loop, &p->handle.poll, p->watch);
    if (asio_sys_file_flags(p->fd) != flags)
        asio_sys_set_file_flags(p->fd, flags);
    return status;
}

/* Takes the descriptor. */
static int open_stream(struct asio_rt *rt, int number, int how, uv_os_sock_t fd, struct asio_stream **stream)
{
    struct asio_stdio *p = asio_mem.malloc(sizeof *p);
    if (!p) {
        close_fd(&fd);
        return UV_ENOMEM;
    }
    memset(p, 0, sizeof *p);
    asio_stream_init(&p->stream, rt, &stdio_transport);
    p->handle.any.data = p;
    p->number = number;
    p->how = how < 0 ? ASIO_SYS_STDIO_FILE : (enum asio_sys_stdio)how;
    p->file = how < 0 ? number : (uv_file)fd;
    p->fd = fd;
    p->watch = none;
    *stream = &p->stream;
    int status = stdio_open_handle(p);
    if (status == 0)
        return 0;
    close_fd(&p->watch);
    close_fd(&p->fd);
    asio_mem.free(p);
    return status;
}

/* core.open_stdio(number): a closed connection if it is not open. */
static int l_open(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    int number = (int)lua_tointeger(L, 1);
    struct asio_conn *conn = asio_conn_push(L, rt);
    struct asio_stream *s = NULL;
    if (asio_bind_is_closed(L, rt, "stdio") || (rt->stdio_closed >> number & 1))
        return 1;
    uv_os_sock_t fd = none;
    int how = asio_sys_stdio_open(number, &fd);
    int status = how == UV_ENOTSUP ? open_libuv(rt, number, &s) : how;
    if (how >= 0 || status == UV_ENOTSUP)
        status = open_stream(rt, number, how, fd, &s);
    if (status == 0)
        asio_stream_attach(s, conn);
    else if (status != UV_EBADF)
        return asio_error_misuse(L, "asio: standard stream %d: %s", number, uv_strerror(status));
    return 1;
}

static void stdio_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "open_stdio", l_open }, { NULL, NULL } };
    asio_bind_functions(L, rt, "core", core);
}

const struct asio_part asio_part_stdio = { "stdio", stdio_part_open, NULL };
