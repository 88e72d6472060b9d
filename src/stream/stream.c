/* SPDX-License-Identifier: MIT
 *
 * A stream's beginning and its end. Closing is orderly: what was written is sent, our side is
 * half-closed, and what still comes in is read and discarded until the peer closes too. Simply
 * closing with unread input makes the system reset the connection and drop output on its way
 * (measured: 872,426 of 1,000,000 bytes lost). It goes on behind the script's back, bounded by
 * `linger`. */
#include "stream/stream.h"

#include <string.h>

enum { DISCARD_MAX = 16 * 1024 * 1024 }; /* bytes read away from a peer that does not stop */
static const double grace = 2;           /* seconds for the peer to close once it has everything */

static void on_close_timer(struct asio_timer *timer)
{
    asio_stream_continue_close(ASIO_CONTAINER(timer, struct asio_stream, timer));
}

static void stream_on_flush(struct asio_flush_node *node)
{
    asio_stream_flush(ASIO_CONTAINER(node, struct asio_stream, flush));
}

void asio_stream_init(struct asio_stream *s, struct asio_rt *rt, const struct asio_transport *transport)
{
    memset(s, 0, sizeof *s);
    s->transport = transport;
    s->rt = rt;
    s->flush.flush = stream_on_flush;
    s->read_timeout = s->write_timeout = -1;
    s->linger = 30;
    asio_timer_init(&s->timer, on_close_timer);
}

void asio_stream_attach(struct asio_stream *s, struct asio_conn *conn)
{
    s->conn = conn;
    conn->stream = s;
    s->counted = true;
    s->rt->stats.connections++;
    s->rt->stats.connections_open++;
}

static void stream_detach(struct asio_stream *s)
{
    if (s->conn)
        s->conn->stream = NULL;
    s->conn = NULL;
}

/* Gives the handle back at once. */
static void stream_finish(struct asio_stream *s)
{
    if (s->gone)
        return;
    s->gone = true;
    asio_timer_remove(&s->rt->timers, &s->timer);
    asio_rt_flush_forget(s->rt, &s->flush);
    s->transport->close(s);
}

static void stream_look_again(struct asio_stream *s, double seconds)
{
    uint64_t at = asio_rt_deadline(seconds);
    if (at > s->give_up)
        at = s->give_up;
    if (asio_timer_set(&s->rt->timers, &s->timer, at) < 0)
        stream_finish(s);
}

/* Output is out and our side half-closed: wait for the peer's end, as long as it may still lack
 * bytes, and a little longer. */
static void await_peer(struct asio_stream *s)
{
    bool delivered = s->transport->unsent(s) == 0;
    if (s->read_status < 0 || uv_hrtime() >= s->give_up || (delivered && s->discarded > DISCARD_MAX))
        stream_finish(s);
    else if (s->timer.at != ASIO_NEVER)
        return; /* not time to decide yet */
    else if (delivered && s->finished)
        stream_finish(s); /* the grace is over */
    else
        stream_look_again(s, grace);
}

/* What comes in is read and discarded from the start: a peer that writes before it reads would
 * otherwise wait for us as we wait for it. */
static void keep_reading(struct asio_stream *s)
{
    if (s->reading || s->read_status < 0)
        return;
    if (s->transport->read_start(s) < 0)
        stream_finish(s);
    else
        s->reading = true;
}

void asio_stream_continue_close(struct asio_stream *s)
{
    if (!s->closing || s->gone)
        return;
    bool expired = s->timer.at == ASIO_NEVER;
    if (s->write_status < 0 || (expired && uv_hrtime() >= s->give_up)) {
        stream_finish(s);
    } else if (s->out.length > 0) {
        if (expired)
            stream_look_again(s, s->linger);
    } else if (!s->finished) {
        if (s->read_status < 0 || (!s->half_closed && s->transport->shutdown(s) < 0)) {
            stream_finish(s);
            return;
        }
        s->finished = true;
        stream_look_again(s, grace);
    } else {
        await_peer(s);
    }
}

void asio_stream_discard(struct asio_stream *s, size_t n)
{
    if (!s->finished)
        return;
    s->discarded = n > UINT32_MAX - s->discarded ? UINT32_MAX : s->discarded + (uint32_t)n;
    if (s->discarded > DISCARD_MAX)
        asio_stream_continue_close(s);
}

/* A collected connection that owes nobody anything goes at once: under a shortage of files its
 * descriptor is wanted now. */
static bool owes_nothing(struct asio_stream *s)
{
    return s->out.length == 0 && s->transport->unsent(s) == 0 && s->transport->unread(s) == 0;
}

/* Whoever has it gives it up, and may abort another stream. */
static void untap(struct asio_stream *s)
{
    struct asio_tap *tap = s->tap;
    s->tap = NULL;
    if (tap)
        tap->closed(tap);
}

/* Nothing of the script's refers to it any more. */
static void let_go(struct asio_stream *s)
{
    stream_detach(s);
    s->closing = true;
    untap(s);
    asio_inbuf_free(&s->in);
    asio_stream_read_abort(s, UV_ECANCELED);
    asio_stream_write_abort(s, UV_ECANCELED);
    if (s->transport->abort_waits)
        s->transport->abort_waits(s, UV_ECANCELED);
    asio_rt_ref(s->rt); /* until the handle is gone: run waits for what was written */
}

void asio_stream_drop(struct asio_stream *s)
{
    if (s->closing)
        return;
    let_go(s);
    stream_finish(s);
}

void asio_stream_close(struct asio_stream *s, bool collected)
{
    if (s->closing)
        return;
    if (s->tap) { /* somebody else has bytes of it: an orderly end would pass for the whole */
        asio_stream_abort(s);
        return;
    }
    s->collected = collected;
    if (s->tap) { /* somebody else has bytes of it: an orderly end would pass for the whole */
        asio_stream_abort(s);
        return;
    }
    let_go(s);
    s->give_up = asio_rt_deadline(s->linger);
    if (collected && owes_nothing(s)) {
        stream_finish(s);
        return;
    }
    stream_look_again(s, s->linger);
    if (!s->gone)
        keep_reading(s);
    if (!s->gone)
        asio_stream_flush(s); /* goes on with asio_stream_continue_close */
}

/* Where there is no such thing as a reset the peer sees the end, or an error, as its system does it. */
void asio_stream_abort(struct asio_stream *s)
{
    uv_os_fd_t fd;
    if (!s->closing && s->transport->fd(s, &fd) == 0)
        asio_sys_reset_on_close(fd);
    asio_stream_drop(s);
}

void asio_stream_teardown(void *p)
{
    struct asio_stream *s = p;
    stream_detach(s);
    s->reader = NULL; /* dropped silently: their coroutines are going too */
    s->writers = (struct asio_wait_list){ 0 };
    if (!s->closing)
        asio_rt_ref(s->rt);
    s->closing = true;
    untap(s);
    asio_stream_flush(s);
    stream_finish(s);
}

void asio_stream_free(struct asio_stream *s)
{
    asio_timer_remove(&s->rt->timers, &s->timer);
    asio_rt_flush_forget(s->rt, &s->flush);
    s->in.pinned = false; /* memory may have run out while it was */
    asio_inbuf_free(&s->in);
    asio_delimiter_free(&s->delim);
    asio_mem.free(s->proxied);
    asio_stream_drop_output(s);
    s->rt->stats.connections_open -= s->counted;
    if (s->counter) {
        s->counter->count--;
        s->counter->gone(s->counter);
    }
    if (s->closing)
        asio_rt_unref(s->rt);
}
