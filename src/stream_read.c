/* SPDX-License-Identifier: MIT
 *
 * Reading. Bytes arrive in the loop's scratch buffer and a waiting reader is served straight from
 * it; what nobody takes is copied to the stream's own buffer. Reading stays armed between
 * reads (stopping and starting costs two system calls) and stops only when nobody wants what
 * has piled up. */
#include "error.h"
#include "stream.h"

static void stop_reading(struct asio_stream *s)
{
    if (s->reading)
        s->transport->read_stop(s);
    s->reading = false;
}

bool asio_stream_start_reading(struct asio_stream *s)
{
    if (s->reading || s->read_status < 0)
        return s->reading;
    int status = s->transport->read_start(s);
    s->reading = status == 0;
    if (status < 0)
        s->read_status = status;
    return status == 0;
}

static void wake_reader(struct asio_stream *s, int status)
{
    struct asio_wait *w = s->reader;
    s->reader = NULL;
    asio_sched_wake(w, status);
}

void asio_stream_received(struct asio_stream *s, char *bytes, size_t n)
{
    s->rt->stats.bytes_in += n;
    if (s->closing) {
        asio_stream_discard(s, n);
        return;
    }
    int status = 0;
    if (asio_inbuf_length(&s->in) == 0)
        asio_inbuf_borrow(&s->in, bytes, n);
    else
        status = asio_inbuf_append(&s->in, bytes, n);
    if (status == 0 && s->reader && asio_inbuf_length(&s->in) >= s->reader->u.in.need)
        wake_reader(s, 0);
    /* User code has run: the stream may have been closed, but its memory is there until libuv
     * calls back. */
    if (status == 0 && (status = asio_inbuf_own(&s->in)) > 0) {
        asio_rt_external(s->rt, (size_t)status);
        status = 0;
    }
    if (status < 0) {
        stop_reading(s);
        asio_stream_ended(s, status);
        return;
    }
    bool wanted = s->reader && s->reader->u.in.need > asio_inbuf_length(&s->in);
    if (!s->closing && !wanted && asio_inbuf_length(&s->in) > ASIO_READ_AHEAD)
        stop_reading(s);
}

void asio_stream_ended(struct asio_stream *s, int status)
{
    s->reading = false;
    s->read_status = status;
    if (s->closing)
        asio_stream_continue_close(s);
    else if (s->reader)
        wake_reader(s, status);
}

/* The string is made before the bytes are dropped: running out of memory loses nothing. Making it
 * may run finalizers, which may close the connection or read from it: the bytes are pinned
 * meanwhile, and looked at again. */
static int push_bytes(lua_State *L, struct asio_stream *s, size_t max)
{
    size_t n = asio_inbuf_length(&s->in), start = s->in.start;
    if (n > max)
        n = max;
    asio_push_ok(L, s->rt);
    s->in.pinned = true;
    lua_pushlstring(L, n ? asio_inbuf_bytes(&s->in) : "", n);
    s->in.pinned = false;
    if (s->closing || s->in.start != start) {
        if (s->in.start == s->in.end)
            asio_inbuf_free(&s->in);
        lua_pop(L, 2);
        return asio_push_fail(L, s->closing ? UV_ECANCELED : UV_EBUSY);
    }
    if (n)
        asio_inbuf_skip(&s->in, n);
    return 2;
}

static int push_read(lua_State *L, struct asio_wait *w)
{
    return w->status < 0 ? asio_push_fail(L, w->status) : push_bytes(L, w->source, w->u.in.max);
}

static void abort_read(struct asio_wait *w)
{
    struct asio_stream *s = w->source;
    s->reader = NULL;
}

static const struct asio_wait_op read_op = { "read", true, abort_read, push_read };

int asio_stream_read(lua_State *L, struct asio_stream *s, size_t need, size_t max)
{
    if (s->reader && need > 0)
        return asio_push_fail(L, UV_EBUSY);
    if (asio_inbuf_length(&s->in) >= need)
        return push_bytes(L, s, max);
    if (s->read_status < 0)
        return asio_push_fail(L, s->read_status);
    struct asio_wait *w = asio_sched_claim(L, s->rt);
    if (!asio_stream_start_reading(s))
        return asio_push_fail(L, s->read_status);
    w->source = s;
    w->u.in.need = need;
    w->u.in.max = max;
    s->reader = w;
    return asio_sched_park(L, w, &read_op, s->read_timeout);
}

void asio_stream_read_abort(struct asio_stream *s, int status)
{
    if (s->reader)
        asio_sched_abort(s->reader, status);
}
