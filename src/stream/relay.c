/* SPDX-License-Identifier: MIT
 *
 * asio.relay: moves bytes both ways between two connections until both have ended. Each stream is tapped
 * (stream.h): what it brings goes straight to the other's output. While that is not out nothing is read, which
 * is all there is of back-pressure; the end of one becomes the half-close of the other.
 *
 * Bytes are copied, through the loop's scratch buffer, as long as they come in small pieces: two system calls
 * each. A way that brings much at once is spliced: bytes go through a pipe (splice.h) and are not copied.
 * When the other socket takes no more, a small piece of the pipe goes into the stream's output queue: that it
 * is out tells when to go on, and no descriptor is needed to watch for that. Any fault of splicing ends in copying.
 *
 * Nothing is decided in the callbacks: each does what it can, and `settle` looks what has become of it. */
#include "core/bind.h"
#include "core/park.h"
#include "core/poll.h"
#include "core/options.h"
#include "stream/conn.h"
#include "stream/lifecycle.h"
#include "stream/read.h"
#include "stream/write.h"
#include "base/error.h"
#include "stream/splice.h"

#include <string.h>

enum {
    SPLICED = 1024 * 1024, /* bytes asked for at once: what a pipe holds; then the others have their turn */
    PIECE = 4096,          /* that is copied to learn when there is room again */
    LARGE = 32 * 1024,     /* at once, so many times in a row: from then on it is spliced */
    LARGE_READS = 2,
    LATER = 1000,     /* so many more of them when there was no pipe */
    SMALL = 8 * 1024, /* less than this, so many times in a row: it is copied */
    SMALL_READS = 8   /* (between 4 KB and 64 KB neither was measured to be cheaper) */
};

static const double look_interval = 1; /* seconds between looks at a source that is not read */

/* From one stream to the other. */
struct way {
    struct asio_tap tap; /* first; of `from` */
    struct relay *relay;
    struct asio_stream *from, *to;
    struct asio_splice *pipe; /* while it holds bytes */
    uint64_t taken;           /* bytes that have come from `from` */
    uint64_t before;          /* to->queued when it began */
    int failed;               /* the peer of `to` takes no more: what comes is thrown away; or 0 */
    int streak;               /* of reads that speak for the other manner */
    bool copies;              /* its sockets cannot be spliced */
    bool shut;                /* the script has half-closed `to` before */
};

/* Created by asio.relay; owned by itself, referred to by both streams and by the wait record; freed when it is
 * over, which closes both streams; if the state closes first, by the streams' teardown. */
struct relay {
    struct asio_rt *rt;
    struct asio_wait *wait;
    struct way ways[2];
    struct asio_timer timer; /* nothing has moved for `timeout` seconds */
    struct asio_timer look;  /* one way stands still: whether its source has failed */
    double timeout;          /* negative: may take for ever */
    size_t unsent;           /* in the systems' buffers when it fired last */
    bool busy;               /* its own code runs, and looks at the end what has become of it */
    bool again;              /* something has changed meanwhile */
    bool canceled;           /* a stream was closed, or the wait given up */
    bool by_peer;            /* it ends by what a peer did */
};

/* ---- the end ------------------------------------------------------------------------------ */

/* Bytes of a way that the system has; what was queued before it began went first. */
static uint64_t sent(const struct way *w)
{
    uint64_t all = w->to->queued - w->to->out.length;
    return all > w->before ? all - w->before : 0;
}

/* From now on bytes are spliced, or copied. While they are spliced SIGPIPE is blocked. */
static void set_manner(struct way *w, bool spliced)
{
    w->streak = 0;
    if (spliced == w->tap.bare)
        return;
    w->tap.bare = spliced;
    if (spliced)
        asio_poll_sending_begins(w->relay->rt);
    else
        asio_poll_sending_ends(w->relay->rt);
}

static void give_pipe(struct way *w)
{
    if (w->pipe)
        asio_splice_give(w->relay->rt, w->pipe);
    w->pipe = NULL;
}

static void end_way(struct way *w)
{
    w->from->tap = NULL;
    set_manner(w, false);
    give_pipe(w);
}

/* How the stream ends that a way leads to: what is missing must show. If it is the state that closes, its teardown
 * does the rest. One that is being closed already is left alone. */
enum ending { ENDING_CLOSE, ENDING_BREAK, ENDING_ABORT };

static enum ending ending_of(const struct way *w, int status)
{
    int from = w->from->read_status;
    if (status == 0)
        return ENDING_CLOSE;
    if (!w->relay->by_peer || w->to->write_status < 0 || w->pipe)
        return ENDING_ABORT;
    if (from == UV_EOF && w->to->half_closed)
        return ENDING_CLOSE; /* this way was whole, the other one has failed */
    return from == UV_ECONNRESET ? ENDING_BREAK : ENDING_ABORT;
}

static void end_stream(struct asio_stream *s, enum ending how)
{
    if (how == ENDING_CLOSE)
        asio_stream_close(s, false);
    else if (s->rt->closed)
        s->write_status = s->write_status < 0 ? s->write_status : UV_ECANCELED;
    else if (how == ENDING_BREAK)
        asio_stream_break(s);
    else
        asio_stream_abort(s);
}

/* Gives up the taps of both streams and closes the streams. That can run finalizers of the script, which find it busy. */
static void relay_release(struct relay *r, int status)
{
    enum ending endings[2];
    r->busy = true;
    for (int i = 0; i < 2; i++) {
        if (r->wait)
            r->wait->u.relay.sent[i] = sent(&r->ways[i]);
        endings[i] = ending_of(&r->ways[i], status);
        end_way(&r->ways[i]);
    }
    asio_timer_remove(&r->rt->timers, &r->timer);
    asio_timer_remove(&r->rt->timers, &r->look);
    asio_splice_leave(r->rt);
    end_stream(r->ways[0].to, endings[0]);
    end_stream(r->ways[1].to, endings[1]);
}

static void relay_finish(struct relay *r, int status)
{
    relay_release(r, status);
    if (r->wait)
        asio_sched_ready(r->wait, status);
    asio_mem.free(r);
}

/* ---- moving bytes ------------------------------------------------------------------------- */

static void moved(struct relay *r)
{
    if (r->timeout >= 0) /* cannot fail: it is in the heap already */
        asio_timer_set(&r->rt->timers, &r->timer, asio_rt_deadline(r->timeout));
}

static void queue(struct way *w, const char *bytes, size_t n)
{
    int status = asio_outbuf_copy(&w->to->out, &w->relay->rt->out_env, bytes, n);
    if (status < 0)
        asio_stream_write_fail(w->to, status);
    else
        w->to->queued += n;
}

/* Sends bytes from where they are, and queues what is not taken. */
static void copy(struct way *w, const char *bytes, size_t n)
{
    struct asio_stream *to = w->to;
    uv_buf_t buf = uv_buf_init((char *)bytes, (unsigned)n);
    ssize_t done = to->shut ? UV_EPIPE : to->out.length > 0 ? 0 : to->transport->try_write(to, &buf, 1);
    if (done < 0 && done != UV_EAGAIN) {
        asio_stream_write_fail(to, (int)done);
        return;
    }
    if (done < 0)
        done = 0;
    to->queued += (size_t)done;
    w->relay->rt->stats.bytes_out += (size_t)done;
    if ((size_t)done < n) {
        queue(w, bytes + done, n - (size_t)done);
        asio_stream_flush(to);
    }
}

/* Moves up to n bytes of the pipe to the stream's own queue. */
static void unload_copying(struct way *w, size_t n)
{
    char piece[PIECE];
    while (n > 0 && w->pipe->held > 0 && w->to->write_status == 0) {
        size_t got = asio_splice_read(w->pipe, piece, n < sizeof piece ? n : sizeof piece);
        if (got > 0)
            queue(w, piece, got);
        else
            asio_stream_write_fail(w->to, UV_EIO); /* only this code takes bytes out of a pipe of its own */
        n -= got;
    }
    asio_stream_flush(w->to);
}

/* True when the pipe is empty: it is kept. */
static bool unload(struct way *w)
{
    struct asio_stream *to = w->to;
    uv_os_fd_t fd;
    while (w->pipe->held > 0 && to->out.length == 0 && to->write_status == 0) {
        ssize_t n = to->shut ? UV_EPIPE : to->transport->fd(to, &fd);
        if (n == 0)
            n = asio_splice_out(w->pipe, fd);
        if (n > 0) {
            to->queued += (size_t)n;
            w->relay->rt->stats.bytes_out += (size_t)n;
        } else {
            unload_copying(w, n == UV_EAGAIN ? PIECE : SIZE_MAX);
        }
    }
    return w->pipe->held == 0;
}

/* What splice does not do for this socket, or now; everything else is the socket's own error. */
static bool is_fault_of_splice(ssize_t status)
{
    switch (status) {
    case UV_EINVAL:
    case UV_ENOMEM:
    case UV_ENOSYS:
    case UV_ENOTSUP:
    case UV_EPERM:
    case UV_EBADF:
        return true;
    default:
        return false;
    }
}

/* What the system has goes into the pipe. */
static bool relay_load(struct way *w, uv_os_fd_t fd)
{
    ssize_t n = asio_splice_in(w->pipe, fd, SPLICED);
    if (n > 0) {
        w->taken += (size_t)n;
        w->relay->rt->stats.bytes_in += (size_t)n;
        w->streak = n < SMALL ? w->streak + 1 : 0;
        return n >= LARGE;
    }
    if (is_fault_of_splice(n)) {
        w->copies = true;
        set_manner(w, false);
    } else if (n != UV_EAGAIN) {
        asio_stream_stop_reading(w->from);
        asio_stream_ended(w->from, n == 0 ? UV_EOF : (int)n);
    }
    return false;
}

/* The system has bytes, or the end. */
static void splice(struct way *w)
{
    uv_os_fd_t fd;
    uint64_t until = w->taken + SPLICED;
    if (w->pipe || w->to->out.length > 0)
        return; /* that comes first */
    w->pipe = w->from->transport->fd(w->from, &fd) == 0 ? asio_splice_take(w->relay->rt) : NULL;
    if (!w->pipe) {
        set_manner(w, false);
        w->streak = -LATER; /* none now, or on this system */
        return;
    }
    while (relay_load(w, fd) && unload(w) && w->taken < until)
        ;
    if (w->streak >= SMALL_READS)
        set_manner(w, false);
}

/* ---- what has become of it ---------------------------------------------------------------- */

/* The peer of `to` takes no more, but its answer may be on its way. The other peer may write on before it looks for that:
 * what it writes is thrown away. */
static int fail_way(struct way *w)
{
    bool by_peer = w->to->write_status == UV_EPIPE || w->to->write_status == UV_ECONNRESET;
    if (!by_peer || w->shut)
        return w->to->write_status;
    w->failed = w->to->write_status;
    set_manner(w, false);
    give_pipe(w);
    return UV_EAGAIN;
}

/* The source has ended. */
static int end_of_way(struct way *w)
{
    if (w->failed)
        return UV_EAGAIN; /* until the other way has ended too */
    if (!w->pipe && !w->to->shut)
        asio_stream_shutdown(w->to); /* behind what is queued */
    if (w->to->write_status < 0)
        return fail_way(w);
    return w->to->half_closed && !w->pipe ? 0 : UV_EAGAIN;
}

static void stand_still(struct way *w)
{
    struct relay *r = w->relay;
    asio_stream_stop_reading(w->from);
    if (r->look.at == ASIO_NEVER) /* out of memory: a source that fails is seen when it is read */
        asio_timer_set(&r->rt->timers, &r->look, asio_rt_deadline(look_interval));
}

/* 0: this way is at its end; UV_EAGAIN: it goes on; or the whole has failed. */
static int advance(struct way *w)
{
    struct asio_stream *from = w->from, *to = w->to;
    if (w->pipe && unload(w))
        give_pipe(w);
    if (w->relay->canceled)
        return UV_ECANCELED;
    if (!w->failed && to->write_status < 0 && fail_way(w) != UV_EAGAIN)
        return to->write_status;
    if (from->read_status < 0 && from->read_status != UV_EOF)
        return from->read_status;
    if (from->read_status == UV_EOF)
        return end_of_way(w);
    if (to->out.length > 0)
        stand_still(w);
    else if (!asio_stream_start_reading(from))
        return from->read_status;
    return UV_EAGAIN;
}

/* One way has failed: the whole is over with the other one. */
static int over_with(const struct way *failed, const struct way *other, int status)
{
    return status == 0 || other->failed ? failed->failed : UV_EAGAIN;
}

/* 0: done; UV_EAGAIN: it goes on; or it has failed. */
static int relay_look(struct relay *r)
{
    int first, second;
    do {
        r->again = false;
        first = advance(&r->ways[0]);
        second = first < 0 && first != UV_EAGAIN ? first : advance(&r->ways[1]);
    } while (r->again && !r->canceled);
    r->busy = false;
    if (r->canceled)
        return UV_ECANCELED;
    if (second < 0 && second != UV_EAGAIN)
        return second;
    if (r->ways[0].failed)
        return over_with(&r->ways[0], &r->ways[1], second);
    if (r->ways[1].failed)
        return over_with(&r->ways[1], &r->ways[0], first);
    return second == 0 ? first : second;
}

/* False: its own code runs already, and will look. */
static bool relay_enter(struct relay *r)
{
    r->again = r->busy;
    if (r->busy)
        return false;
    moved(r);
    return r->busy = true;
}

static void relay_settle(struct relay *r)
{
    int status = relay_look(r);
    r->by_peer = !r->canceled;
    if (status != UV_EAGAIN)
        relay_finish(r, status);
}

static void on_received(struct asio_tap *t, const char *bytes, size_t n)
{
    struct way *w = (struct way *)(void *)t;
    struct relay *r = w->relay;
    bool outermost = relay_enter(r);
    if (w->failed) {
        w->taken += n;
    } else if (bytes) {
        w->taken += n;
        if (n >= LARGE || w->streak > 0)
            w->streak = n >= LARGE ? w->streak + 1 : 0;
        copy(w, bytes, n);
        if (w->streak >= LARGE_READS && !w->copies)
            set_manner(w, true);
    } else {
        splice(w);
    }
    if (outermost)
        relay_settle(r);
}

static void on_changed(struct asio_tap *t)
{
    struct relay *r = ((struct way *)(void *)t)->relay;
    if (relay_enter(r))
        relay_settle(r);
}

/* The stream's memory is there until libuv calls back. If the Lua state is being closed, the waiting light thread is
 * gone. */
static void on_closed(struct asio_tap *t)
{
    struct relay *r = ((struct way *)(void *)t)->relay;
    if (r->rt->closed)
        r->wait = NULL;
    r->canceled = r->again = true;
    if (!r->busy)
        relay_finish(r, UV_ECANCELED);
}

static size_t unsent(struct asio_stream *s)
{
    return s->transport->unsent(s) + s->out.length;
}

/* A peer that takes bytes slowly moves them too. */
static void relay_on_timer(struct asio_timer *t)
{
    struct relay *r = ASIO_CONTAINER(t, struct relay, timer);
    size_t before = r->unsent;
    r->unsent = unsent(r->ways[0].from) + unsent(r->ways[1].from);
    if (r->unsent == before)
        relay_finish(r, UV_ETIMEDOUT);
    else
        moved(r);
}

/* What has come from a source that has failed, and was not read for want of room, is lost. */
static void relay_on_look(struct asio_timer *t)
{
    struct relay *r = ASIO_CONTAINER(t, struct relay, look);
    uv_os_fd_t fd;
    for (int i = 0; i < 2; i++) {
        struct asio_stream *from = r->ways[i].from;
        bool still = !from->reading && from->read_status == 0;
        if (still && from->transport->fd(from, &fd) == 0 && asio_sys_has_failed(fd)) {
            int status = asio_sys_end_reason(fd);
            asio_stream_ended(from, status < 0 ? status : UV_ECONNRESET); /* the relay may be over */
            return;
        }
    }
    if (!r->ways[0].from->reading || !r->ways[1].from->reading)
        asio_timer_set(&r->rt->timers, &r->look, asio_rt_deadline(look_interval));
}

/* ---- asio.relay --------------------------------------------------------------------------- */

static void abort_relay(struct asio_wait *w)
{
    struct relay *r = w->source;
    bool busy = r->busy;
    r->canceled = r->again = true;
    if (!busy)
        relay_release(r, UV_ECANCELED); /* and notes what was sent */
    r->wait = NULL;
    if (!busy)
        asio_mem.free(r);
}

static int push_relay(lua_State *L, struct asio_wait *w)
{
    int n = w->status < 0 ? asio_push_fail(L, w->status) : 1;
    if (w->status == 0)
        asio_push_ok(L, w->rt);
    for (int i = 0; i < 2; i++)
        lua_pushnumber(L, (double)w->u.relay.sent[i]);
    return n + 2;
}

static const struct asio_wait_op relay_op = {
    .name = "relay", .outside = true, .abort = abort_relay, .push = push_relay
};

static void begin_way(struct relay *r, struct way *w, struct asio_stream *from, struct asio_stream *to)
{
    w->tap = (struct asio_tap){ on_received, on_changed, on_changed, on_closed, false };
    w->relay = r;
    w->from = from;
    w->to = to;
    w->before = to->queued;
    w->shut = to->shut;
    w->copies = !from->transport->bare || !to->transport->bare;
    from->tap = &w->tap;
}

/* What is buffered goes behind what is queued. */
static void pass_buffered(struct way *w)
{
    size_t n = asio_inbuf_length(&w->from->in);
    w->taken = n;
    if (n > 0 && w->to->shut)
        asio_stream_write_fail(w->to, UV_EPIPE);
    else if (n > 0)
        queue(w, asio_inbuf_bytes(&w->from->in), n);
    asio_inbuf_free(&w->from->in, &w->relay->rt->blocks);
    asio_stream_flush(w->to);
}

static int relay_begin(struct relay *r, struct asio_rt *rt, struct asio_wait *w, double timeout)
{
    *r = (struct relay){ .rt = rt, .wait = w, .timeout = timeout, .busy = true };
    asio_timer_init(&r->timer, relay_on_timer);
    asio_timer_init(&r->look, relay_on_look);
    return timeout < 0 ? 0 : asio_timer_set(&rt->timers, &r->timer, asio_rt_deadline(timeout));
}

static int run(lua_State *L, struct relay *r, struct asio_stream *a, struct asio_stream *b)
{
    struct asio_wait *w = r->wait;
    begin_way(r, &r->ways[0], a, b);
    begin_way(r, &r->ways[1], b, a);
    pass_buffered(&r->ways[0]);
    pass_buffered(&r->ways[1]);
    w->status = relay_look(r);
    r->by_peer = !r->canceled;
    if (w->status == UV_EAGAIN) {
        w->source = r;
        return asio_park(L, w, &relay_op, -1);
    }
    relay_release(r, w->status);
    asio_mem.free(r);
    return push_relay(L, w);
}

static int relay_start(lua_State *L, struct asio_stream *a, struct asio_stream *b, double timeout)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct asio_wait *w = asio_park_claim(L, rt);
    struct relay *r = asio_mem.malloc(sizeof *r);
    if (!r)
        return asio_push_fail(L, UV_ENOMEM);
    int status = relay_begin(r, rt, w, timeout);
    if (status == 0 && !asio_splice_enter(rt))
        status = UV_ENOMEM;
    if (status == 0)
        return run(L, r, a, b);
    asio_timer_remove(&rt->timers, &r->timer);
    asio_mem.free(r);
    return asio_push_fail(L, status);
}

static const struct asio_option relay_options[] = {
    { .name = "timeout", ASIO_OPTION_TIMEOUT, .unless = -1 }, /* seconds in which nothing moves */
    { .name = NULL },
};

/* core.relay(a, b, options) */
static int l_relay(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct asio_conn *ends[2];
    for (int i = 0; i < 2; i++) {
        ends[i] = asio_conn_to(L, i + 1);
        if (!ends[i])
            asio_error_type(L, i + 1, i + 1, "relay", "connection");
    }
    if (ends[0] == ends[1])
        asio_error_arg(L, 2, "relay", "two different connections expected");
    double timeout;
    asio_options_read(L, 3, 3, "relay", relay_options, &timeout);
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    struct asio_stream *a = ends[0]->stream, *b = ends[1]->stream;
    if (!a || !b)
        return asio_push_fail(L, UV_EBADF);
    if (asio_stream_is_read(a) || asio_stream_is_read(b))
        return asio_push_fail(L, UV_EBUSY);
    return relay_start(L, a, b, timeout);
}

static void relay_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "relay", l_relay }, { NULL, NULL } };
    asio_bind_functions(L, rt, "core", core);
}

const struct asio_part asio_part_relay = { "relay", relay_part_open, NULL };
