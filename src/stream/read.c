/* SPDX-License-Identifier: MIT
 *
 * Reading. Bytes arrive in the loop's scratch buffer and a waiting reader is served straight from
 * it; what the reader leaves is copied to the stream's own buffer. Reading stays armed between
 * reads (stopping and starting costs two system calls) and stops only above a mark, when no reader
 * waits for more.
 *
 * A reader says how many bytes have to be there before it is looked at (u.in.need). One that looks
 * for a delimiter (s->delim) wants one more than it has looked at, so that nothing is looked at
 * twice. */
#include "stream/read.h"

#include "base/error.h"
#include "core/park.h"

#include <string.h>

void asio_stream_stop_reading(struct asio_stream *s)
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

/* ---- results ------------------------------------------------------------------------------ */

/* Results made of the buffer, with their token at the top; takes `drop` bytes away. Making them may have run
 * finalizers, which may have closed the stream or read from it. */
static inline int push_taken(lua_State *L, struct asio_stream *s, size_t start, size_t drop, int count)
{
    if (s->closing || s->in.start != start) {
        if (s->in.start == s->in.end)
            asio_inbuf_free(&s->in, &s->rt->blocks);
        lua_pop(L, count);
        return asio_push_fail(L, s->closing ? UV_ECANCELED : UV_EBUSY);
    }
    if (drop)
        asio_inbuf_skip(&s->in, &s->rt->blocks, drop);
    return count;
}

/* The first n bytes as a string; takes `drop` bytes away. The string is made before that: running
 * out of memory loses nothing. Making it may run finalizers, which may close the connection or
 * read from it: the bytes are pinned meanwhile, and looked at again. */
static int push_bytes(lua_State *L, struct asio_stream *s, size_t n, size_t drop)
{
    size_t start = s->in.start;
    bool pinned = s->in.pinned; /* by a read that runs the finalizer that this one is made in */
    asio_push_ok(L, s->rt);
    s->in.pinned = true;
    lua_pushlstring(L, n ? asio_inbuf_bytes(&s->in) : "", n);
    s->in.pinned = pinned;
    return push_taken(L, s, start, drop, 2);
}

static int push_some(lua_State *L, struct asio_stream *s, size_t max)
{
    size_t n = asio_inbuf_length(&s->in);
    if (n > max)
        n = max;
    return push_bytes(L, s, n, n);
}

/* A search is over: a long delimiter's memory goes. */
static void end_search(struct asio_stream *s)
{
    if (s->delim.is_long)
        asio_delimiter_free(&s->delim);
}

/* What comes before the delimiter that ends at `end`, which is dropped with it. */
static int stream_read_push_found(lua_State *L, struct asio_stream *s, size_t end)
{
    if (asio_inbuf_length(&s->in) < end) /* another light thread has read between the wake and this */
        return asio_push_fail(L, UV_EBUSY);
    int n = push_bytes(L, s, asio_delimiter_content(&s->delim, asio_inbuf_bytes(&s->in), end), end);
    end_search(s);
    return n;
}

/* A last line needs no newline, a delimiter is needed. */
static int push_unfinished(lua_State *L, struct asio_stream *s, int status, size_t max)
{
    size_t n = asio_inbuf_length(&s->in);
    if (status == UV_EOF && s->delim.line && n > 0)
        return n > max ? asio_push_fail(L, UV_EMSGSIZE) : push_bytes(L, s, n, n);
    return asio_push_fail(L, status);
}

static int push_read(lua_State *L, struct asio_wait *w)
{
    return w->status < 0 ? asio_push_fail(L, w->status) : push_some(L, w->source, w->u.in.max);
}

static int push_peek(lua_State *L, struct asio_wait *w)
{
    return w->status < 0 ? asio_push_fail(L, w->status) : push_bytes(L, w->source, w->u.in.max, 0);
}

static int push_all(lua_State *L, struct asio_wait *w)
{
    return w->status != UV_EOF ? asio_push_fail(L, w->status) : push_some(L, w->source, SIZE_MAX);
}

static int push_until(lua_State *L, struct asio_wait *w)
{
    if (w->status == UV_EOF)
        return push_unfinished(L, w->source, UV_EOF, w->u.in.max);
    return w->status < 0 ? asio_push_fail(L, w->status) : stream_read_push_found(L, w->source, w->u.in.need);
}

/* Asks a scan. 0: *need is how many bytes make up the whole; UV_EAGAIN: *need is how many have to be there first. */
static int look_for_scan(struct asio_stream *s, struct asio_scan *scan, bool ended, size_t *need)
{
    size_t n = asio_inbuf_length(&s->in);
    scan->need = 0;
    ssize_t found = scan->look(scan, n ? asio_inbuf_bytes(&s->in) : "", n, ended);
    assert(found <= (ssize_t)n);
    if (found < 0)
        return (int)found;
    *need = found > 0 ? (size_t)found : scan->need > n ? scan->need : n + 1;
    return found > 0 ? 0 : UV_EAGAIN;
}

static int push_scanned(lua_State *L, struct asio_stream *s, struct asio_scan *scan, size_t n)
{
    size_t start = s->in.start;
    bool pinned = s->in.pinned;
    if (asio_inbuf_length(&s->in) < n) /* a finalizer has read between the wake and this */
        return asio_push_fail(L, UV_EBUSY);
    asio_push_ok(L, s->rt);
    s->in.pinned = true;
    int count = scan->push(L, scan, asio_inbuf_bytes(&s->in), n);
    s->in.pinned = pinned;
    return push_taken(L, s, start, n, 1 + count);
}

static struct asio_scan *scan_of(const struct asio_wait *w)
{
    return (struct asio_scan *)(uintptr_t)w->u.in.max; /* it needs no max */
}

/* The end may be what it waits for. */
static int push_scan(lua_State *L, struct asio_wait *w)
{
    size_t n = w->u.in.need;
    int status = w->status;
    if (status == UV_EOF) {
        status = look_for_scan(w->source, scan_of(w), true, &n);
        status = status == UV_EAGAIN ? UV_EOF : status;
    }
    return status < 0 ? asio_push_fail(L, status) : push_scanned(L, w->source, scan_of(w), n);
}

static void abort_read(struct asio_wait *w)
{
    struct asio_stream *s = w->source;
    s->reader = NULL;
    end_search(s);
}

static const struct asio_wait_op read_op = {
    .name = "read", .outside = true, .abort = abort_read, .push = push_read
};
static const struct asio_wait_op peek_op = {
    .name = "peek", .outside = true, .abort = abort_read, .push = push_peek
};
static const struct asio_wait_op all_op = {
    .name = "read_all", .outside = true, .abort = abort_read, .push = push_all
};
static const struct asio_wait_op until_op = {
    .name = "read_until", .outside = true, .abort = abort_read, .push = push_until
};
static const struct asio_wait_op scan_op = {
    .name = "read", .outside = true, .abort = abort_read, .push = push_scan
};
static const struct asio_wait_op line_op = {
    .name = "read_line", .outside = true, .abort = abort_read, .push = push_until
};

/* ---- what arrives ------------------------------------------------------------------------- */

/* Looks for the delimiter in what has not been looked at. 0: found, *need is where it ends;
 * UV_EMSGSIZE: more than max come before it; UV_EAGAIN: not there, *need is one more than has
 * been looked at. */
static int stream_read_look(struct asio_stream *s, size_t *need, size_t max)
{
    const char *bytes = asio_inbuf_bytes(&s->in);
    size_t n = asio_inbuf_length(&s->in);
    size_t most = max + asio_delimiter_length(&s->delim); /* max is at most SIZE_MAX / 2 */
    if (n > most)
        n = most; /* enough to tell */
    if (n < *need)
        return UV_EAGAIN;
    if (asio_delimiter_find(&s->delim, bytes, n, *need - 1, need))
        return asio_delimiter_content(&s->delim, bytes, *need) > max ? UV_EMSGSIZE : 0;
    *need = n + 1;
    return n > max && asio_delimiter_earliest(&s->delim, bytes, n) > max ? UV_EMSGSIZE : UV_EAGAIN;
}

/* So many bytes are there as the reader waits for: 0 if that is all it wants, UV_EAGAIN if it
 * waits for more, or its failure. */
static int stream_read_look_again(struct asio_stream *s, struct asio_wait *w)
{
    if (w->op == &until_op || w->op == &line_op)
        return stream_read_look(s, &w->u.in.need, w->u.in.max);
    if (w->op == &scan_op)
        return look_for_scan(s, scan_of(w), false, &w->u.in.need);
    return w->op == &all_op ? UV_EMSGSIZE : 0;
}

static void stream_read_wake_reader(struct asio_stream *s, int status)
{
    struct asio_wait *w = s->reader;
    s->reader = NULL;
    if (status < 0)
        end_search(s); /* the stream may be gone when it runs */
    asio_sched_wake(w, status);
}

/* With a time-out of 0 the reader gets what is there now. libuv tells of bytes and of the end behind them in two
 * turns: the deadline moves behind the next look. A peer that goes on sending does not hold the reader up for ever. */
static void stream_read_look_once_more(struct asio_stream *s, struct asio_wait *w)
{
    enum { LOOKS_MAX = 8 };
    if (asio_rt_is_soon(w->timer.at) && s->looks++ < LOOKS_MAX)
        asio_timer_set(&s->rt->timers, &w->timer, asio_rt_deadline(0)); /* is in the heap: cannot fail */
}

static void serve_reader(struct asio_stream *s)
{
    if (!s->reader)
        return;
    int status = UV_EAGAIN;
    if (asio_inbuf_length(&s->in) >= s->reader->u.in.need)
        status = stream_read_look_again(s, s->reader);
    if (status != UV_EAGAIN)
        stream_read_wake_reader(s, status);
    else
        stream_read_look_once_more(s, s->reader);
}

void asio_stream_received(struct asio_stream *s, char *bytes, size_t n)
{
    s->rt->stats.bytes_in += n;
    if (s->closing) {
        asio_stream_discard(s, n);
        return;
    }
    if (s->tap) {
        s->tap->received(s->tap, bytes, n);
        return;
    }
    size_t held = s->in.capacity;
    int status = 0;
    s->in.pinned = false; /* memory may have run out while it was */
    if (asio_inbuf_length(&s->in) == 0) {
        asio_inbuf_free(&s->in, &s->rt->blocks);
        asio_inbuf_borrow(&s->in, bytes, n);
    } else
        status = asio_inbuf_append(&s->in, &s->rt->blocks, bytes, n);
    if (status == 0) {
        serve_reader(s);
        /* User code has run: the stream may have been closed, but its memory is there until libuv
         * calls back. */
        status = asio_inbuf_own(&s->in, &s->rt->blocks);
    }
    if (status < 0) {
        asio_stream_stop_reading(s);
        asio_stream_ended(s, status);
        return;
    }
    if (s->in.capacity > held)
        asio_rt_external(s->rt, s->in.capacity - held);
    bool wanted = s->reader && s->reader->u.in.need > asio_inbuf_length(&s->in);
    if (!s->closing && !wanted && asio_inbuf_length(&s->in) > ASIO_READ_AHEAD)
        asio_stream_stop_reading(s);
}

/* A reset must not pass for the end: what was read to the end would be taken for whole. The kernel
 * tells of it once, and a write may have been first. */
static int end_reason(const struct asio_stream *s)
{
    bool failed = s->write_status == UV_ECONNRESET || s->write_status == UV_ETIMEDOUT;
    return failed ? s->write_status : UV_EOF;
}

void asio_stream_ended(struct asio_stream *s, int status)
{
    s->reading = false;
    s->read_status = status == UV_EOF && !s->closing ? end_reason(s) : status;
    if (s->closing)
        asio_stream_continue_close(s);
    else if (s->tap)
        s->tap->ended(s->tap);
    else if (s->reader)
        stream_read_wake_reader(s, s->read_status);
}

/* ---- reading ------------------------------------------------------------------------------ */

static int stream_read_wait_for(
    lua_State *L, struct asio_stream *s, const struct asio_wait_op *op, size_t need, size_t max)
{
    struct asio_wait *w = asio_park_claim(L, s->rt);
    if (!asio_stream_start_reading(s))
        return asio_push_fail(L, s->read_status);
    w->source = s;
    w->u.in.need = need;
    w->u.in.max = max;
    s->looks = 0;
    s->reader = w;
    return asio_park(L, w, op, s->read_timeout);
}

int asio_stream_read(lua_State *L, struct asio_stream *s, size_t need, size_t max)
{
    if (asio_stream_is_read(s) && need > 0)
        return asio_push_fail(L, UV_EBUSY);
    if (asio_inbuf_length(&s->in) >= need)
        return push_some(L, s, max);
    if (s->read_status < 0)
        return asio_push_fail(L, s->read_status);
    return stream_read_wait_for(L, s, &read_op, need, max);
}

int asio_stream_peek(lua_State *L, struct asio_stream *s, size_t n)
{
    if (asio_stream_is_read(s) && n > 0)
        return asio_push_fail(L, UV_EBUSY);
    if (asio_inbuf_length(&s->in) >= n)
        return push_bytes(L, s, n, 0);
    if (s->read_status < 0)
        return asio_push_fail(L, s->read_status);
    return stream_read_wait_for(L, s, &peek_op, n, n);
}

int asio_stream_read_all(lua_State *L, struct asio_stream *s, size_t max)
{
    if (asio_stream_is_read(s))
        return asio_push_fail(L, UV_EBUSY);
    if (asio_inbuf_length(&s->in) > max)
        return asio_push_fail(L, UV_EMSGSIZE);
    if (s->read_status == UV_EOF)
        return push_some(L, s, SIZE_MAX);
    if (s->read_status < 0)
        return asio_push_fail(L, s->read_status);
    return stream_read_wait_for(L, s, &all_op, max + 1, max);
}

static int read_to_delim(lua_State *L, struct asio_stream *s, const struct asio_wait_op *op, size_t max)
{
    size_t need = 1;
    int status = stream_read_look(s, &need, max);
    if (status == 0)
        return stream_read_push_found(L, s, need);
    if (status == UV_EAGAIN && s->read_status == 0)
        return stream_read_wait_for(L, s, op, need, max);
    end_search(s);
    return push_unfinished(L, s, status == UV_EAGAIN ? s->read_status : status, max);
}

int asio_stream_read_line(lua_State *L, struct asio_stream *s, size_t max)
{
    if (asio_stream_is_read(s))
        return asio_push_fail(L, UV_EBUSY);
    const char *bytes = asio_inbuf_bytes(&s->in);
    size_t n = asio_inbuf_length(&s->in), content;
    const char *newline = n > 0 ? memchr(bytes, '\n', n < max ? n : max) : NULL;
    if (newline) { /* a line that is there already, and not too long: most are */
        content = (size_t)(newline - bytes);
        return push_bytes(L, s, content - (content > 0 && newline[-1] == '\r'), content + 1);
    }
    asio_delimiter_set_line(&s->delim);
    return read_to_delim(L, s, &line_op, max);
}

int asio_stream_read_until(lua_State *L, struct asio_stream *s, const char *delim, size_t n, size_t max)
{
    if (asio_stream_is_read(s))
        return asio_push_fail(L, UV_EBUSY);
    int status = asio_delimiter_set(&s->delim, delim, n);
    return status < 0 ? asio_push_fail(L, status) : read_to_delim(L, s, &until_op, max);
}

int asio_stream_scan(lua_State *L, struct asio_stream *s, struct asio_scan *scan)
{
    size_t need;
    if (asio_stream_is_read(s))
        return asio_push_fail(L, UV_EBUSY);
    int status = look_for_scan(s, scan, s->read_status == UV_EOF, &need);
    if (status == 0)
        return push_scanned(L, s, scan, need);
    if (status == UV_EAGAIN && s->read_status == 0)
        return stream_read_wait_for(L, s, &scan_op, need, (size_t)(uintptr_t)scan);
    return asio_push_fail(L, status == UV_EAGAIN ? s->read_status : status);
}

void asio_stream_read_abort(struct asio_stream *s, int status)
{
    if (s->reader)
        asio_sched_abort(s->reader, status);
}
