/* SPDX-License-Identifier: MIT
 *
 * Passing connections to other processes; see fd_passing.h. libuv's pipe writes and closes, as for other Unix
 * sockets. Reading does not use libuv: it tells neither with which byte a descriptor came, nor that some were
 * lost. A poller on a duplicate of the socket (libuv takes a descriptor only once) tells when to read, and when a
 * descriptor can be sent.
 *
 * Lifetime of struct asio_fd_passing: made with the pipe, and owned by it; its poller and the
 * duplicate come with the socket and go with the pipe's handle, its memory in the poller's close callback; if the state
 * closes first, the same. It owns the descriptors in the queue, and closes those that recv_handle has not taken. */
#include "net/fd_passing.h"

#include "core/bind.h"
#include "core/park.h"
#include "stream/conn.h"
#include "stream/lifecycle.h"
#include "stream/read.h"
#include "stream/write.h"
#include "base/error.h"
#include "net/tcp.h"
#include "net/unix.h"

#include <string.h>

enum {
    QUEUE_MAX = ASIO_SYS_HANDLES_MAX, /* with so many waiting nothing is read */
    READS = 16                        /* in a row, at most */
};
static const uv_os_sock_t lost = (uv_os_sock_t)-1; /* in the queue: this process had no room for it */

struct fd_passing_pipe {
    struct asio_stream stream;       /* first */
    uv_pipe_t handle;                /* right behind it, see uvstream.h */
    struct asio_fd_passing *passing; /* never NULL */
};
ASIO_UVSTREAM_LAYOUT(struct fd_passing_pipe);

struct asio_fd_passing {
    const struct asio_handle_ops *ops; /* first: see runtime.h */
    struct fd_passing_pipe *pipe;
    uv_poll_t poll;
    uv_os_sock_t fd;                   /* the duplicate */
    struct asio_wait *receiver;        /* in recv_handle */
    struct asio_wait_list senders;     /* in send_handle: until the socket takes more */
    uv_os_sock_t queue[2 * QUEUE_MAX]; /* a message can bring several */
    unsigned count;
    bool reading;
    bool begun; /* there is a poller, and the duplicate */
};

static struct asio_fd_passing *fd_passing_of(struct asio_stream *s)
{
    return ((struct fd_passing_pipe *)(void *)s)->passing;
}

/* ---- the queue ---------------------------------------------------------------------------- */

static void close_queue(struct asio_fd_passing *p)
{
    for (unsigned i = 0; i < p->count; i++)
        if (p->queue[i] != lost)
            asio_sys_close(p->queue[i]);
    p->count = 0;
}

static void enqueue(struct asio_fd_passing *p, const struct asio_sys_arrival *a)
{
    for (unsigned i = 0; i < a->count; i++)
        p->queue[p->count++] = a->handles[i];
    if (a->lost)
        p->queue[p->count++] = lost;
    if (p->pipe->stream.closing)
        close_queue(p);
}

static void dequeue(struct asio_fd_passing *p)
{
    p->count--;
    memmove(p->queue, p->queue + 1, p->count * sizeof *p->queue);
}

/* ---- polling ------------------------------------------------------------------------------ */

static void fd_passing_on_poll(uv_poll_t *handle, int status, int events);

static void fd_passing_update(struct asio_fd_passing *p)
{
    int events = p->senders.first ? UV_WRITABLE : 0;
    if (uv_is_closing((uv_handle_t *)&p->poll))
        return;
    if (p->reading && p->count < QUEUE_MAX)
        events |= UV_READABLE;
    if (events)
        uv_poll_start(&p->poll, events, fd_passing_on_poll);
    else
        uv_poll_stop(&p->poll);
}

static void wake_receiver(struct asio_fd_passing *p, int status)
{
    struct asio_wait *w = p->receiver;
    p->receiver = NULL;
    asio_sched_wake(w, status);
}

static void fd_passing_ended(struct asio_fd_passing *p, int status)
{
    p->reading = false;
    asio_stream_ended(&p->pipe->stream, status);
    if (p->receiver)
        wake_receiver(p, status);
}

/* Bytes that the script does not read hold up the descriptors behind them. */
static void received(struct asio_fd_passing *p, const struct asio_sys_arrival *a)
{
    enqueue(p, a);
    if (a->n > 0)
        asio_stream_received(&p->pipe->stream, a->bytes, a->n);
    if (p->receiver && (p->count > 0 || !p->reading))
        wake_receiver(p, p->count > 0 ? 0 : UV_ENOBUFS);
}

/* User code runs in between: it may stop reading, and close. */
static void fd_passing_receive(struct asio_fd_passing *p)
{
    for (int i = 0; i < READS && p->reading && p->count < QUEUE_MAX; i++) {
        struct asio_sys_arrival a;
        uv_buf_t buf = asio_rt_scratch(p->pipe->stream.rt);
        ssize_t n = buf.base ? asio_sys_recv_handles((uv_os_fd_t)(intptr_t)p->fd, buf, &a) : UV_ENOMEM;
        if (n == UV_EAGAIN)
            return;
        if (n <= 0) {
            fd_passing_ended(p, n == 0 ? UV_EOF : (int)n);
            return;
        }
        received(p, &a);
    }
}

static void wake_senders(struct asio_fd_passing *p)
{
    while (p->senders.first) {
        struct asio_wait *w = p->senders.first;
        asio_wait_list_remove(&p->senders, w);
        asio_sched_ready(w, 0);
    }
}

/* Polling has failed: reading and sending are tried, and find the error. */
static void fd_passing_on_poll(uv_poll_t *handle, int status, int events)
{
    struct asio_fd_passing *p = handle->data;
    if (status < 0 || (events & UV_READABLE))
        fd_passing_receive(p);
    if (status < 0 || (events & UV_WRITABLE))
        wake_senders(p);
    fd_passing_update(p);
}

/* ---- transport ---------------------------------------------------------------------------- */

static int fd_passing_read_start(struct asio_stream *s)
{
    fd_passing_of(s)->reading = true;
    fd_passing_update(fd_passing_of(s));
    return 0;
}

static void fd_passing_read_stop(struct asio_stream *s)
{
    fd_passing_of(s)->reading = false;
    fd_passing_update(fd_passing_of(s));
}

static void fd_passing_abort_waits(struct asio_stream *s, int status)
{
    struct asio_fd_passing *p = fd_passing_of(s);
    if (p->receiver)
        asio_sched_abort(p->receiver, status);
    while (p->senders.first)
        asio_sched_abort(p->senders.first, status);
    close_queue(p);
    fd_passing_update(p); /* it was full: what still comes is read and discarded */
}

static void on_poll_close(uv_handle_t *handle)
{
    asio_mem.free(handle->data);
}

static void close_both(struct asio_stream *s)
{
    struct asio_fd_passing *p = fd_passing_of(s);
    p->reading = false;
    close_queue(p);
    if (p->begun) {
        uv_close((uv_handle_t *)&p->poll, on_poll_close);
        asio_sys_close(p->fd);
    } else {
        asio_mem.free(p);
    }
    asio_uvstream_close(s);
}

static int fd_passing_name_of(struct asio_stream *s, struct sockaddr_storage *addr, bool peer)
{
    (void)s, (void)addr, (void)peer;
    return UV_EAFNOSUPPORT;
}

static const struct asio_transport fd_passing_transport = {
    .handle = { asio_stream_teardown },
    .name = "unix",
    .read_start = fd_passing_read_start,
    .read_stop = fd_passing_read_stop,
    .try_write = asio_uvstream_try_write,
    .write = asio_uvstream_write,
    .shutdown = asio_uvstream_shutdown,
    .unsent = asio_uvstream_unsent,
    .unread = asio_uvstream_unread,
    .close = close_both,
    .reset = asio_uvstream_reset,
    .fd = asio_uvstream_fd,
    .name_of = fd_passing_name_of,
    .path_of = asio_unix_path_of,
    .abort_waits = fd_passing_abort_waits,
};

static void fd_passing_teardown(void *owner)
{
    asio_stream_teardown(&((struct asio_fd_passing *)owner)->pipe->stream);
}

static const struct asio_handle_ops fd_passing_ops = { fd_passing_teardown };

/* ---- family ------------------------------------------------------------------------------ */

static struct asio_uvstream *fd_passing_make(struct asio_rt *rt, const struct asio_socket_options *options)
{
    struct asio_fd_passing *p = asio_mem.malloc(sizeof *p);
    struct asio_uvstream *u =
        p ? asio_uvstream_new(rt, sizeof(struct fd_passing_pipe), &fd_passing_transport) : NULL;
    if (!u) {
        asio_mem.free(p);
        return NULL;
    }
    memset(p, 0, sizeof *p);
    p->ops = &fd_passing_ops;
    p->pipe = (struct fd_passing_pipe *)(void *)u;
    p->pipe->passing = p;
    asio_unix_init(&rt->loop, &u->handle); /* cannot fail */
    u->stream.linger = (float)options->linger;
    u->handle.data = &u->stream;
    return u;
}

/* It has its socket. */
static int fd_passing_connected(struct asio_uvstream *u, const struct asio_socket_options *options)
{
    struct asio_fd_passing *p = fd_passing_of(&u->stream);
    uv_os_fd_t fd;
    (void)options;
    int status = asio_uvstream_fd(&u->stream, &fd);
    if (status == 0)
        status = asio_sys_dup(fd, &p->fd);
    if (status < 0)
        return status;
    status = uv_poll_init_socket(&u->stream.rt->loop, &p->poll, p->fd);
    p->begun = status == 0;
    p->poll.data = p;
    if (status < 0)
        asio_sys_close(p->fd);
    return status;
}

const struct asio_socket_family asio_fd_passing_family = { true, asio_unix_init, asio_unix_open_socket,
    fd_passing_make, fd_passing_connected };

/* ---- sending ------------------------------------------------------------------------------ */

static void fd_passing_abort_send(struct asio_wait *w)
{
    struct asio_fd_passing *p = w->source;
    asio_wait_list_remove(&p->senders, w);
    fd_passing_update(p);
}

/* The shim tries again; until then the script still has the connection to be passed. */
static int push_again(lua_State *L, struct asio_wait *w)
{
    if (w->status < 0)
        return asio_push_fail(L, w->status);
    asio_push_ok(L, w->rt);
    lua_pushboolean(L, 0);
    return 2;
}

static const struct asio_wait_op send_op = {
    .name = "send_handle", .outside = true, .abort = fd_passing_abort_send, .push = push_again
};

/* Why a connection cannot change its owner now; NULL: it can. What the other process would lack is
 * what has come here already, or has not left yet. */
static const char *fd_passing_obstacle(struct asio_stream *o)
{
    if (asio_inbuf_length(&o->in) > 0)
        return "the connection to be passed has bytes that the script has not read";
    if (asio_stream_is_read(o) || o->writers.first)
        return "a light thread waits on the connection to be passed";
    asio_stream_flush(o);
    if (o->out.length > 0 || o->sending)
        return "the connection to be passed has bytes that are not sent yet";
    return NULL;
}

static struct asio_stream *check_carrier(lua_State *L, const char *fname)
{
    struct asio_stream *s = asio_conn_check(L, fname)->stream;
    if (s && s->transport != &fd_passing_transport)
        asio_error_misuse(L, "%s: this connection was not made with { handles = true }", fname);
    return s;
}

static struct asio_stream *check_passed(lua_State *L, const struct asio_stream *s)
{
    struct asio_conn *other = asio_conn_to(L, 2);
    if (!other)
        asio_error_type(L, 2, 1, "send_handle", "connection");
    struct asio_stream *o = other->stream;
    if (o && o == s)
        asio_error_arg(L, 1, "send_handle", "a connection cannot be passed over itself");
    if (o && !o->transport->passable)
        asio_error_arg(L, 1, "send_handle", "a connection of this kind cannot be passed");
    return o;
}

static int fd_passing_refuse(lua_State *L, int status, const char *why)
{
    asio_error_push_text(L, status, "%s", why);
    return asio_push_failed(L);
}

/* What is left of the time-out, which is for all tries together; negative: there is none. */
static double time_left(lua_State *L, const struct asio_stream *s)
{
    double left = s->write_timeout - ((double)uv_hrtime() * 1e-9 - lua_tonumber(L, 3));
    return s->write_timeout < 0 || left > 0 ? left : 0;
}

/* Once the kernel has it, the connection is the other process's alone: closed here without a word to the
 * peer. */
static int send_now(lua_State *L, struct asio_stream *s, struct asio_stream *o)
{
    uv_os_fd_t fd, handle;
    int status = s->transport->fd(s, &fd);
    if (status == 0)
        status = o->transport->fd(o, &handle);
    if (status == 0)
        status = asio_sys_send_handle(fd, handle);
    if (status == 0) {
        asio_stream_drop(o);
        return asio_push_true(L);
    }
    if (status != UV_EAGAIN)
        return asio_push_fail(L, status);
    struct asio_wait *w = asio_park_claim(L, s->rt);
    struct asio_fd_passing *p = fd_passing_of(s);
    w->source = p;
    asio_wait_list_add(&p->senders, w);
    fd_passing_update(p);
    return asio_park(L, w, &send_op, time_left(L, s));
}

/* core.send_handle(conn, passed, since): true; or false, then what is queued has to be flushed first. */
static int l_fd_passing_send(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct asio_stream *s = check_carrier(L, "send_handle");
    struct asio_stream *o = check_passed(L, s);
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    if (!s)
        return asio_push_fail(L, UV_EBADF);
    if (!o)
        return fd_passing_refuse(L, UV_EBADF, "the connection to be passed is closed");
    const char *why = fd_passing_obstacle(o);
    if (why)
        return fd_passing_refuse(L, UV_EBUSY, why);
    asio_stream_flush(s);
    if (s->write_status < 0)
        return asio_push_fail(L, s->write_status);
    if (s->out.length == 0)
        return send_now(L, s, o);
    if (s->write_timeout > 0 && time_left(L, s) == 0)
        return asio_push_fail(L, UV_ETIMEDOUT);
    asio_push_ok(L, rt);
    lua_pushboolean(L, 0);
    return 2;
}

/* ---- receiving ---------------------------------------------------------------------------- */

static void fd_passing_abort_receive(struct asio_wait *w)
{
    struct asio_fd_passing *p = w->source;
    p->receiver = NULL;
}

const struct asio_socket_family *asio_fd_passing_family_of(uv_os_sock_t fd)
{
    enum asio_sys_kind kind;
    bool listening;
    if (asio_sys_socket_kind(fd, &kind, &listening) < 0 || listening || kind == ASIO_SYS_OTHER)
        return NULL;
    return kind == ASIO_SYS_TCP ? &asio_tcp_family : &asio_unix_family;
}

static int fd_passing_open_handle(lua_State *L, struct asio_fd_passing *p, struct asio_conn *conn)
{
    struct asio_rt *rt = p->pipe->stream.rt;
    struct asio_socket_options options = asio_socket_options_default();
    const struct asio_socket_family *family = asio_fd_passing_family_of(p->queue[0]);
    struct asio_uvstream *u = family ? family->make(rt, &options) : NULL;
    if (family && !u)
        return asio_push_fail(L, UV_ENOMEM); /* it stays in the queue */
    uv_os_sock_t fd = p->queue[0];
    dequeue(p);
    fd_passing_update(p);
    int status = u ? family->open(&u->handle, fd) : UV_ENOTSUP;
    if (status == 0) {
        asio_stream_attach(&u->stream, conn);
        asio_push_ok(L, rt);
        lua_insert(L, -2);
        return 2;
    }
    asio_sys_close(fd);
    if (!u)
        return fd_passing_refuse(L, status, "what was passed is not a connection");
    asio_uvstream_discard(u);
    return asio_push_fail(L, status);
}

/* Another light thread may have taken it by now. Making the userdata may run finalizers, which may take it too, or
 * close. */
static int fd_passing_push_first(lua_State *L, struct asio_fd_passing *p)
{
    struct asio_stream *s = &p->pipe->stream;
    struct asio_conn *conn = p->count > 0 ? asio_conn_push(L, s->rt) : NULL;
    if (p->count == 0)
        return asio_push_fail(L, s->closing ? UV_ECANCELED : UV_EBUSY);
    if (p->queue[0] != lost)
        return fd_passing_open_handle(L, p, conn);
    dequeue(p);
    fd_passing_update(p);
    return fd_passing_refuse(
        L, UV_EMFILE, "a connection was passed for which this process had no descriptor left");
}

static int push_failure(lua_State *L, int status)
{
    if (status == UV_ENOBUFS)
        return fd_passing_refuse(L, status, "too many bytes that the script has not read are in front of it");
    return asio_push_fail(L, status);
}

static int fd_passing_push_received(lua_State *L, struct asio_wait *w)
{
    return w->status < 0 ? push_failure(L, w->status) : fd_passing_push_first(L, w->source);
}

static const struct asio_wait_op receive_op = { .name = "recv_handle",
    .outside = true,
    .abort = fd_passing_abort_receive,
    .push = fd_passing_push_received };

/* core.recv_handle(conn) */
static int l_fd_passing_receive(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct asio_stream *s = check_carrier(L, "recv_handle");
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    struct asio_fd_passing *p = s ? fd_passing_of(s) : NULL;
    if (!p)
        return asio_push_fail(L, UV_EBADF);
    if (p->receiver)
        return asio_push_fail(L, UV_EBUSY);
    if (p->count > 0)
        return fd_passing_push_first(L, p);
    if (s->read_status < 0)
        return asio_push_fail(L, s->read_status);
    if (asio_inbuf_length(&s->in) > ASIO_READ_AHEAD)
        return push_failure(L, UV_ENOBUFS);
    struct asio_wait *w = asio_park_claim(L, rt);
    if (!asio_stream_start_reading(s))
        return asio_push_fail(L, s->read_status);
    w->source = p;
    p->receiver = w;
    return asio_park(L, w, &receive_op, s->read_timeout);
}

static void fd_passing_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "send_handle", l_fd_passing_send },
        { "recv_handle", l_fd_passing_receive }, { NULL, NULL } };
    asio_bind_functions(L, rt, "core", core);
}

const struct asio_part asio_part_fd_passing = { "fd_passing", fd_passing_part_open, NULL };
