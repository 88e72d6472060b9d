/* SPDX-License-Identifier: MIT
 *
 * A stream's beginning and its end: attached to a connection, closed in order (stream.c goes on with
 * that), aborted, dropped, torn down with the Lua state, and freed. */
#include "stream/lifecycle.h"

#include "stream/read.h"
#include "stream/write.h"

#include <assert.h>
#include <string.h>

static void lifecycle_on_flush(struct asio_flush_node *node)
{
    asio_stream_flush(ASIO_CONTAINER(node, struct asio_stream, flush));
}

void asio_stream_init(struct asio_stream *s, struct asio_rt *rt, const struct asio_transport *transport)
{
    memset(s, 0, sizeof *s);
    s->transport = transport;
    s->rt = rt;
    s->flush.flush = lifecycle_on_flush;
    s->read_timeout = s->write_timeout = -1;
    s->linger = 30;
    asio_timer_init(&s->timer, asio_stream_on_close_timer);
}

void asio_stream_attach(struct asio_stream *s, struct asio_conn *conn)
{
    assert(!s->conn && !s->closing && !conn->stream);
    s->conn = conn;
    conn->stream = s;
    s->counted = true;
    s->rt->stats.connections++;
    s->rt->stats.connections_open++;
}

static int lifecycle_exchange_obstacle(const struct asio_stream *s)
{
    if (!s->conn || s->closing)
        return UV_EBADF;
    if (asio_stream_is_read(s) || s->writers.first)
        return UV_EBUSY;
    if (s->in.pinned) /* a finalizer asks, while a read takes its bytes */
        return UV_EBUSY;
    if (s->write_status < 0 || s->shut)
        return s->shut ? UV_EPIPE : s->write_status;
    return s->read_status;
}

int asio_stream_exchange(struct asio_stream *s, struct asio_stream *above)
{
    assert(!above->conn && above->rt == s->rt);
    int status = lifecycle_exchange_obstacle(s);
    if (status < 0)
        return status;
    above->conn = s->conn;
    above->conn->stream = above;
    above->alias = s->alias;
    above->counted = s->counted;
    above->read_timeout = s->read_timeout;
    above->write_timeout = s->write_timeout;
    above->linger = s->linger;
    above->reading = s->reading;
    s->conn = NULL;
    s->alias = NULL;
    s->counted = false;
    return 0;
}

static void lifecycle_detach(struct asio_stream *s)
{
    if (s->conn)
        s->conn->stream = NULL;
    s->conn = NULL;
}

/* What comes in is read and discarded from the start: a peer that writes before it reads would
 * otherwise wait for us as we wait for it. */
static void lifecycle_keep_reading(struct asio_stream *s)
{
    if (s->reading || s->read_status < 0)
        return;
    if (s->transport->read_start(s) < 0)
        asio_stream_finish(s);
    else
        s->reading = true;
}

/* A collected connection that owes its peer nothing goes at once: under a shortage of files its
 * descriptor is wanted now. */
static bool lifecycle_owes_nothing(struct asio_stream *s)
{
    return s->out.length == 0 && s->transport->unsent(s) == 0 && s->transport->unread(s) == 0;
}

/* The tap's owner gives it up. It may abort another stream, and user code may run; it cannot reach this stream, which
 * is detached and closing. */
static void lifecycle_untap(struct asio_stream *s)
{
    struct asio_tap *tap = s->tap;
    s->tap = NULL;
    if (tap)
        tap->closed(tap);
}

/* Nothing of the script's refers to it any more. */
static void lifecycle_let_go(struct asio_stream *s)
{
    lifecycle_detach(s);
    asio_stream_begin_close(s);
    lifecycle_untap(s);
    asio_inbuf_free(&s->in, &s->rt->blocks);
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
    lifecycle_let_go(s);
    s->write_status =
        0; /* a passed connection lives on elsewhere: closing our descriptor must not reset it */
    asio_stream_finish(s);
}

void asio_stream_close(struct asio_stream *s, bool collected)
{
    if (s->closing)
        return;
    if (s->tap) { /* its owner has bytes of it: an orderly end would pass for the whole */
        asio_stream_abort(s);
        return;
    }
    s->collected = collected;
    lifecycle_let_go(s);
    if (collected && lifecycle_owes_nothing(s)) {
        asio_stream_finish(s);
        return;
    }
    lifecycle_keep_reading(s);
    if (!s->gone)
        asio_stream_flush(s); /* goes on with asio_stream_continue_close */
}

void asio_stream_break(struct asio_stream *s)
{
    s->broken = !s->closing;
    asio_stream_close(s, false);
}

/* Where there is no such thing as a reset the peer sees the end, or an error, as its system does it. */
void asio_stream_abort(struct asio_stream *s)
{
    if (s->closing)
        return;
    lifecycle_let_go(s);
    if (s->write_status == 0)
        s->write_status = UV_ECANCELED; /* written bytes are given up, those that the system has too */
    asio_stream_finish(s);
}

void asio_stream_teardown(void *p)
{
    struct asio_stream *s = p;
    lifecycle_detach(s);
    s->reader = NULL; /* dropped silently: their coroutines are going too */
    s->writers = (struct asio_wait_list){ 0 };
    if (!s->closing) {
        asio_rt_ref(s->rt);
        asio_stream_begin_close(s);
    }
    lifecycle_untap(s);
    asio_stream_flush(s); /* tries once */
    asio_stream_finish(s);
}

void asio_stream_free(struct asio_stream *s)
{
    assert(s->gone || !s->closing);
    asio_timer_remove(&s->rt->timers, &s->timer);
    asio_rt_flush_forget(s->rt, &s->flush);
    s->in.pinned = false; /* memory may have run out while it was */
    asio_inbuf_free(&s->in, &s->rt->blocks);
    asio_delimiter_free(&s->delim);
    asio_mem.free(s->alias);
    asio_stream_drop_output(s);
    s->rt->stats.connections_open -= s->counted;
    if (s->counter) {
        s->counter->count--;
        s->counter->gone(s->counter);
    }
    if (s->closing)
        asio_rt_unref(s->rt);
}
