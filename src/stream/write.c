/* SPDX-License-Identifier: MIT
 *
 * Writing. Small writes are copied to the queue, which goes to the kernel in one call when the
 * light thread parks or ends. Large strings go at once, together with what is queued, without
 * being copied; what the kernel does not take is anchored until it does. Above the high-water
 * mark writers wait: their bytes are queued already, so every write is contiguous and first come,
 * first served. */
#include "stream/write.h"

#include "base/error.h"
#include "core/park.h"
#include "core/poll.h"

#include <assert.h>

enum { BUFS_MAX = 32 };

void asio_stream_drop_output(struct asio_stream *s)
{
    s->queued -= s->out.length;
    asio_outbuf_skip(&s->out, &s->rt->out_env, s->out.length);
}

static void stream_write_drop_sent(struct asio_stream *s, size_t n)
{
    s->rt->stats.bytes_out += n;
    asio_outbuf_skip(&s->out, &s->rt->out_env, n);
}

/* Wakes the writers whose target has been reached. */
static void stream_write_wake_writers(struct asio_stream *s)
{
    uint64_t sent = s->queued - s->out.length;
    struct asio_wait *w = s->writers.first;
    while (w) {
        if (w->u.out.target > sent) {
            w = w->next;
            continue;
        }
        asio_wait_list_remove(&s->writers, w);
        asio_sched_ready(w, 0);
        w = s->writers.first; /* making the main chunk's results may have run finalizers */
    }
}

void asio_stream_write_abort(struct asio_stream *s, int status)
{
    while (s->writers.first)
        asio_sched_abort(s->writers.first, status);
}

/* The first error stays. What is on its way in the transport is dropped by its completion. */
void asio_stream_write_fail(struct asio_stream *s, int status)
{
    if (s->write_status == 0)
        s->write_status = status;
    if (!s->sending)
        asio_stream_drop_output(s);
    asio_stream_write_abort(s, status);
    if (s->tap)
        s->tap->changed(s->tap);
    asio_stream_continue_close(s);
}

/* Cuts buffers that hold more to a piece; returns its size. */
static size_t stream_write_piece(uv_buf_t *bufs, unsigned *count, size_t piece)
{
    size_t n = 0;
    for (*count = 0; n < piece; ++*count) {
        if (bufs[*count].len > piece - n)
            bufs[*count].len = (unsigned)(piece - n);
        n += bufs[*count].len;
    }
    return n;
}

/* At most four buffers: uv_write allocates for more, and if that fails libuv 1.44 counts a request
 * for ever that was never made. */
static void stream_write_hand_over(struct asio_stream *s)
{
    enum { UV_WRITE_BUFS = 4 };
    assert(!s->sending && s->out.length > 0);
    uv_buf_t bufs[UV_WRITE_BUFS];
    size_t bytes;
    unsigned count = asio_outbuf_gather(&s->out, bufs, UV_WRITE_BUFS, &bytes);
    if (ASIO_SYS_PIECE && bytes > ASIO_SYS_PIECE)
        bytes = stream_write_piece(bufs, &count, ASIO_SYS_PIECE);
    asio_poll_sending_begins(s->rt);
    int status = s->transport->write(s, bufs, count, bytes);
    asio_poll_sending_began(s->rt);
    if (status < 0) {
        asio_poll_sending_ends(s->rt);
        asio_stream_write_fail(s, status);
        return;
    }
    s->sending = s->out.lent = true;
}

/* A queue that our system does not take at once is lost if the process ends meanwhile. Off before the half-close: a
 * socket that is closed while guarded loses what our system has, too. */
static void stream_write_guard(struct asio_stream *s, bool on)
{
    if (s->guarded == on || !s->transport->guard)
        return;
    s->guarded = on;
    s->transport->guard(s, on);
}

/* Everything is sent. */
static void stream_write_half_close(struct asio_stream *s)
{
    int status = s->transport->shutdown(s);
    s->half_closed = status == 0;
    if (status < 0 && status != UV_EAGAIN) /* of a layer: it comes back to it */
        asio_stream_write_fail(s, status == UV_ENOTCONN ? UV_EPIPE : status); /* the peer has gone */
}

void asio_stream_flush(struct asio_stream *s)
{
    while (s->out.length > 0 && !s->sending && s->write_status == 0 && !s->gone) {
        uv_buf_t bufs[BUFS_MAX];
        size_t bytes;
        unsigned count = asio_outbuf_gather(&s->out, bufs, BUFS_MAX, &bytes);
        ssize_t n = s->transport->try_write(s, bufs, count);
        if (n < 0 && n != UV_EAGAIN) {
            asio_stream_write_fail(s, (int)n);
            return;
        }
        if (n > 0)
            stream_write_drop_sent(s, (size_t)n);
        if (n < (ssize_t)bytes)
            stream_write_hand_over(s);
    }
    if (s->sending != s->guarded)
        stream_write_guard(s, s->sending);
    if (s->writers.first)
        stream_write_wake_writers(s);
    if (s->shut && !s->half_closed && s->out.length == 0 && s->write_status == 0 && !s->gone)
        stream_write_half_close(s);
    if (s->tap)
        s->tap->changed(s->tap);
    if (s->closing)
        asio_stream_continue_close(s);
}

void asio_stream_sent(struct asio_stream *s, size_t bytes, int status)
{
    assert(s->sending && bytes <= s->out.length);
    s->sending = s->out.lent = false;
    asio_poll_sending_ends(s->rt);
    if (status < 0) {
        asio_stream_write_fail(s, status);
        return;
    }
    stream_write_drop_sent(s, bytes);
    asio_stream_flush(s);
}

/* Sends the queue and the string behind it at once, if the kernel takes it. Returns how many bytes
 * of the string went, or an error. */
static ssize_t send_large(struct asio_stream *s, const char *bytes, size_t n)
{
    uv_buf_t bufs[BUFS_MAX];
    size_t before;
    unsigned count = asio_outbuf_gather(&s->out, bufs, BUFS_MAX - 1, &before);
    if (s->sending || before != s->out.length || n > 0x40000000)
        return 0; /* not now, or not in one go: it is queued */
    bufs[count++] = uv_buf_init((char *)bytes, (unsigned)n);
    ssize_t sent = s->transport->try_write(s, bufs, count);
    if (sent < 0)
        return sent == UV_EAGAIN ? 0 : sent;
    size_t queued = (size_t)sent < before ? (size_t)sent : before;
    s->rt->stats.bytes_out += (size_t)sent - queued;
    stream_write_drop_sent(s, queued);
    return sent - (ssize_t)queued;
}

static int queue_large(lua_State *L, struct asio_stream *s, int index, const char *bytes, size_t n)
{
    ssize_t sent = send_large(s, bytes, n);
    if (sent < 0) {
        asio_stream_write_fail(s, (int)sent);
        return (int)sent;
    }
    s->queued += n;
    if ((size_t)sent == n)
        return 0;
    int ref = asio_rt_anchor(s->rt, L, index);
    int status = ref == LUA_NOREF
        ? UV_ENOMEM
        : asio_outbuf_refer(&s->out, &s->rt->out_env, bytes + sent, n - (size_t)sent, ref);
    if (status == 0)
        return 0;
    if (ref != LUA_NOREF)
        asio_rt_release(s->rt, ref);
    asio_stream_write_fail(s, status);
    return status;
}

int asio_stream_queue(lua_State *L, struct asio_stream *s, int index, const char *bytes, size_t n)
{
    if (s->closing)
        return UV_ECANCELED; /* a finalizer did it, run by the making of a string */
    if (s->shut || s->tap)
        return s->tap ? UV_EBUSY : UV_EPIPE;
    bool fits = (uint64_t)s->out.length + n <= ASIO_OUTBUF_MAX;
    if (fits && n >= ASIO_LARGE)
        return queue_large(L, s, index, bytes, n);
    int status = fits ? asio_outbuf_copy(&s->out, &s->rt->out_env, bytes, n) : UV_ENOBUFS;
    if (status < 0)
        asio_stream_write_fail(s, status); /* other parts of the same write may be out: nothing can follow */
    else
        s->queued += n;
    return status;
}

static void abort_write(struct asio_wait *w)
{
    struct asio_stream *s = w->source;
    w->u.out.unsent = s->out.length;
    asio_wait_list_remove(&s->writers, w);
}

/* A time-out says how many bytes are still on their way: they will be sent, so do not resend. */
static int push_write(lua_State *L, struct asio_wait *w)
{
    if (w->status == 0)
        return asio_push_true(L);
    int n = asio_push_fail(L, w->status);
    if (w->status != UV_ETIMEDOUT)
        return n;
    lua_pushnumber(L, (double)w->u.out.unsent);
    return n + 1;
}

static const struct asio_wait_op write_op = {
    .name = "write", .outside = true, .abort = abort_write, .push = push_write
};
static const struct asio_wait_op flush_op = {
    .name = "flush", .outside = true, .abort = abort_write, .push = push_write
};

static int stream_write_park(
    lua_State *L, struct asio_stream *s, const struct asio_wait_op *op, uint64_t target)
{
    if (asio_sched_interrupted(s->rt))
        return asio_push_interrupt(L, s->rt);
    struct asio_wait *w = asio_park_claim(L, s->rt);
    w->source = s;
    w->u.out.target = target;
    asio_wait_list_add(&s->writers, w);
    return asio_park(L, w, op, s->write_timeout);
}

int asio_stream_write_end(lua_State *L, struct asio_stream *s)
{
    struct asio_rt *rt = s->rt;
    if (s->closing || s->tap)
        return asio_push_fail(L, s->closing ? UV_ECANCELED : UV_EBUSY);
    if (s->out.length >= ASIO_COALESCE || (rt->depth == 0 && !rt->looping))
        asio_stream_flush(s);
    else if (s->out.length > 0)
        asio_rt_flush_later(rt, &s->flush);
    if (s->write_status < 0 || s->shut)
        return asio_push_fail(L, s->write_status < 0 ? s->write_status : UV_EPIPE);
    if (s->out.length <= ASIO_HIGH_WATER || !asio_park_can_wait(L, rt)) {
        asio_push_ok(L, rt); /* the shim adds the `true` */
        return 1;
    }
    return stream_write_park(L, s, &write_op, s->queued - ASIO_LOW_WATER);
}

int asio_stream_flush_wait(lua_State *L, struct asio_stream *s)
{
    if (s->tap)
        return asio_push_fail(L, UV_EBUSY);
    asio_stream_flush(s);
    if (s->write_status < 0)
        return asio_push_fail(L, s->write_status);
    if (s->out.length == 0)
        return asio_push_true(L);
    return stream_write_park(L, s, &flush_op, s->queued);
}

int asio_stream_shutdown(struct asio_stream *s)
{
    if (s->write_status == 0) {
        s->shut = true;
        asio_stream_flush(s);
    }
    return s->write_status;
}
