/* SPDX-License-Identifier: MIT
 *
 * A transport over another stream, whose tap it is. What comes from below goes through the codec to the stream above;
 * what is written above goes through the codec into the queue below, as long as that is short. A codec is as in
 * plugin/layer.h.
 *
 * Closing: the stream above closes in order, as over any transport. Its half-close is the codec's last word and the
 * half-close below; when it is over it drops the stream below, which has nothing to send then, or is reset.
 *
 * Lifetime of struct asio_layer: made by `open`, put under the connection in place of the stream below, which it owns
 * from then on; freed with the codec's state in the close callback of its handle; if the Lua state closes first, the
 * stream below goes first, as it is older, and takes this one with it. */
#include "stream/layer.h"

#include "stream/conn.h"
#include "stream/lifecycle.h"
#include "stream/read.h"
#include "stream/write.h"

#include <assert.h>
#include <string.h>

enum { LAYER_PIECE = 16 * 1024 };    /* that a codec gets at a time */
enum { LAYER_ANSWERS = 256 * 1024 }; /* bytes of a codec's own that may wait for a peer that does not read */

struct asio_layer {
    struct asio_stream stream; /* first */
    uv_idle_t handle;          /* never active: it stands for the layer in the loop */
    struct asio_tap tap;
    struct asio_stream *below; /* NULL: it was closed */
    const struct asio_layer_codec *codec;
    void *state;
    size_t answers; /* bytes that the codec has sent of itself since the queue below was empty */
    bool encoding;  /* it sends what the script writes: that waits while the queue below is long */
    bool said;      /* the codec's last word */
};

static struct asio_layer *layer_of(struct asio_stream *s)
{
    return (struct asio_layer *)(void *)s;
}

static struct asio_layer *layer_of_tap(struct asio_tap *t)
{
    return ASIO_CONTAINER(t, struct asio_layer, tap);
}

/* ---- writing ------------------------------------------------------------------------------ */

/* Why nothing can be written; 0: it can. */
static int layer_obstacle(const struct asio_layer *l)
{
    if (!l->below)
        return UV_ECANCELED;
    return l->below->write_status < 0 ? l->below->write_status : l->said ? UV_EPIPE : 0;
}

/* Where in the buffers the next byte is. */
struct layer_cursor {
    const uv_buf_t *bufs;
    unsigned count;
    size_t offset; /* in the first */
};

static void layer_advance(struct layer_cursor *c, size_t n)
{
    c->offset += n;
    while (c->count > 0 && c->offset >= c->bufs->len) {
        c->offset -= c->bufs->len;
        c->bufs++;
        c->count--;
    }
}

/* The next bytes for the codec, at most a piece: where they lie, or joined in `room` where a buffer ends too early, so
 * that records are full. Returns how many. */
static size_t layer_piece(const struct layer_cursor *from, char *room, const char **bytes)
{
    struct layer_cursor c = *from;
    size_t n = 0, here = c.count > 0 ? c.bufs->len - c.offset : 0;
    *bytes = c.count > 0 ? c.bufs->base + c.offset : room;
    if (here >= LAYER_PIECE || c.count <= 1)
        return here < LAYER_PIECE ? here : LAYER_PIECE;
    *bytes = room;
    while (c.count > 0 && n < LAYER_PIECE) {
        here = c.bufs->len - c.offset;
        here = here < LAYER_PIECE - n ? here : LAYER_PIECE - n;
        memcpy(room + n, c.bufs->base + c.offset, here);
        n += here;
        layer_advance(&c, here);
    }
    return n;
}

/* As much as the queue below has room for. Returns how many bytes, or why none. */
static ssize_t layer_encode(struct asio_layer *l, const uv_buf_t *bufs, unsigned count)
{
    struct layer_cursor c = { bufs, count, 0 };
    char room[LAYER_PIECE];
    const char *bytes;
    size_t done = 0, piece;
    ssize_t taken = 0;
    layer_advance(&c, 0);
    if (c.count > 0 && c.bufs->len - c.offset > LAYER_PIECE)
        asio_outbuf_reserve(&l->below->out, &l->below->rt->out_env, ASIO_HIGH_WATER + LAYER_PIECE);
    while ((piece = layer_piece(&c, room, &bytes)) > 0) {
        if (l->below->out.length > ASIO_HIGH_WATER) {
            taken = UV_EAGAIN;
            break;
        }
        l->encoding = true;
        taken = l->codec->encode(l->state, bytes, piece);
        l->encoding = false;
        if (taken <= 0)
            break;
        assert((size_t)taken <= piece);
        done += (size_t)taken;
        layer_advance(&c, (size_t)taken);
        if (l->below->out.length > ASIO_HIGH_WATER)
            asio_stream_flush(l->below);
        if (layer_obstacle(l) < 0)
            return layer_obstacle(l);
    }
    return taken < 0 && taken != UV_EAGAIN ? taken : (ssize_t)done;
}

static ssize_t layer_try_write(struct asio_stream *s, const uv_buf_t *bufs, unsigned count)
{
    struct asio_layer *l = layer_of(s);
    ssize_t n = layer_obstacle(l);
    if (n == 0)
        n = layer_encode(l, bufs, count);
    if (n < 0)
        return n;
    asio_stream_flush(l->below); /* an error of it has come to the stream above by now */
    if (layer_obstacle(l) < 0)
        return layer_obstacle(l);
    s->rt->stats.bytes_out -= (size_t)n; /* those below count */
    return n > 0 ? n : UV_EAGAIN;
}

/* The bytes are tried again when the queue below is short, or the codec resumes. */
static int layer_write(struct asio_stream *s, const uv_buf_t *bufs, unsigned count, size_t bytes)
{
    (void)bufs, (void)count, (void)bytes;
    return layer_obstacle(layer_of(s));
}

static void layer_fail_writes(struct asio_layer *l, int status)
{
    if (l->stream.sending)
        asio_stream_sent(&l->stream, 0, status);
    else if (l->stream.write_status == 0)
        asio_stream_write_fail(&l->stream, status);
}

static int layer_say_end(struct asio_layer *l)
{
    int status = l->said || !l->codec->finish ? 0 : l->codec->finish(l->state);
    l->said = status != UV_EAGAIN;
    return status;
}

static int layer_shutdown(struct asio_stream *s)
{
    struct asio_layer *l = layer_of(s);
    int status = l->below ? layer_say_end(l) : UV_ECANCELED;
    return status < 0 ? status : asio_stream_shutdown(l->below);
}

/* ---- reading ------------------------------------------------------------------------------ */

static int layer_read_start(struct asio_stream *s)
{
    struct asio_stream *below = layer_of(s)->below;
    if (!below)
        return UV_ECANCELED;
    return asio_stream_start_reading(below) ? 0 : below->read_status;
}

static void layer_read_stop(struct asio_stream *s)
{
    if (layer_of(s)->below)
        asio_stream_stop_reading(layer_of(s)->below);
}

/* ---- the tap of the stream below ---------------------------------------------------------- */

/* The codec may have asked to read while nothing is read above: not without bound. */
static void layer_on_received(struct asio_tap *t, const char *bytes, size_t n)
{
    struct asio_layer *l = layer_of_tap(t);
    l->codec->received(l->state, bytes, n);
    if (l->below && !l->stream.reading && asio_inbuf_length(&l->stream.in) > ASIO_READ_AHEAD)
        asio_stream_stop_reading(l->below);
}

static void layer_on_ended(struct asio_tap *t)
{
    struct asio_layer *l = layer_of_tap(t);
    int status = l->below->read_status;
    if (l->codec->ended)
        status = l->codec->ended(l->state, status);
    if (l->stream.read_status == 0)
        asio_stream_ended(&l->stream, status);
}

static void layer_on_changed(struct asio_tap *t)
{
    struct asio_layer *l = layer_of_tap(t);
    if (l->below->write_status < 0)
        layer_fail_writes(l, l->below->write_status);
    else if (l->stream.sending && l->below->out.length <= ASIO_LOW_WATER)
        asio_stream_sent(&l->stream, 0, 0); /* which tries again */
}

/* If the Lua state is being closed, the stream above is torn down now: what it has queued needs the stream below. */
static void layer_on_closed(struct asio_tap *t)
{
    struct asio_layer *l = layer_of_tap(t);
    if (l->stream.rt->closed) {
        asio_stream_teardown(&l->stream);
        return;
    }
    l->below = NULL;
    layer_fail_writes(l, UV_ECANCELED);
    if (l->stream.read_status == 0)
        asio_stream_ended(&l->stream, UV_ECANCELED);
}

/* ---- transport ---------------------------------------------------------------------------- */

static size_t layer_unsent(struct asio_stream *s)
{
    struct asio_layer *l = layer_of(s);
    if (!l->below)
        return 0;
    bool owes = !l->said && l->codec->finish && !s->broken;
    return l->below->out.length + l->below->transport->unsent(l->below) + owes;
}

static size_t layer_unread(struct asio_stream *s)
{
    struct asio_stream *below = layer_of(s)->below;
    return below ? below->transport->unread(below) : 0;
}

static int layer_fd(struct asio_stream *s, uv_os_fd_t *fd)
{
    struct asio_stream *below = layer_of(s)->below;
    return below ? below->transport->fd(below, fd) : UV_EBADF;
}

static int layer_name_of(struct asio_stream *s, struct sockaddr_storage *addr, bool peer)
{
    struct asio_stream *below = layer_of(s)->below;
    return below ? below->transport->name_of(below, addr, peer) : UV_EBADF;
}

static int layer_path_of(struct asio_stream *s, char *path, size_t *size, bool peer)
{
    struct asio_stream *below = layer_of(s)->below;
    return below ? below->transport->path_of(below, path, size, peer) : UV_EBADF;
}

static const char *layer_kind(const struct asio_stream *s)
{
    return ((const struct asio_layer *)(const void *)s)->codec->name;
}

static void layer_reset(struct asio_stream *s)
{
    struct asio_stream *below = layer_of(s)->below;
    if (below && below->transport->reset)
        below->transport->reset(below);
}

static void layer_on_close(uv_handle_t *handle)
{
    struct asio_layer *l = handle->data;
    if (l->stream.sending)
        asio_stream_sent(&l->stream, 0, UV_ECANCELED);
    if (l->codec->free)
        l->codec->free(l->state);
    asio_stream_free(&l->stream);
    asio_mem.free(l);
}

/* If the peer's end was there first the stream above was not half-closed: that is done here. One that ends with a reset
 * says no last word: what is missing must show. */
static void layer_close_below(struct asio_layer *l, struct asio_stream *below)
{
    if (l->stream.write_status < 0 || l->stream.out.length > 0 || l->stream.broken)
        asio_stream_abort(below);
    else if (l->stream.finished)
        asio_stream_drop(below); /* if its output was given up, that resets it */
    else if (l->said || !l->codec->finish || l->codec->finish(l->state) == 0)
        asio_stream_close(below, false);
    else
        asio_stream_abort(below);
}

static void layer_close(struct asio_stream *s)
{
    struct asio_layer *l = layer_of(s);
    struct asio_stream *below = l->below;
    if (below) {
        below->tap = NULL;
        layer_close_below(l, below);
    }
    l->below = NULL;
    uv_close((uv_handle_t *)&l->handle, layer_on_close);
}

static void layer_abort_waits(struct asio_stream *s, int status)
{
    struct asio_layer *l = layer_of(s);
    (void)status; /* UV_ECANCELED: no other caller */
    if (l->codec->closed)
        l->codec->closed(l->state);
}

/* With paths for names, or with addresses. */
#define LAYER_TRANSPORT(path)                                                                                \
    {                                                                                                        \
        .handle = { asio_stream_teardown }, .name = "layer", .read_start = layer_read_start,                 \
        .read_stop = layer_read_stop, .try_write = layer_try_write, .write = layer_write,                    \
        .shutdown = layer_shutdown, .unsent = layer_unsent, .unread = layer_unread, .close = layer_close,    \
        .fd = layer_fd, .name_of = layer_name_of, .path_of = path, .abort_waits = layer_abort_waits,         \
        .reset = layer_reset, .kind = layer_kind,                                                            \
    }
static const struct asio_transport layer_transport = LAYER_TRANSPORT(NULL);
static const struct asio_transport layer_path_transport = LAYER_TRANSPORT(layer_path_of);

/* ---- what a codec calls ------------------------------------------------------------------- */

/* What has come belongs to the codec. It cannot be closed before that returns: no user code runs yet. */
static void layer_take_buffered(struct asio_layer *l)
{
    struct asio_inbuf in = l->below->in;
    l->below->in = (struct asio_inbuf){ 0 };
    if (asio_inbuf_length(&in) > 0)
        layer_on_received(&l->tap, asio_inbuf_bytes(&in), asio_inbuf_length(&in));
    asio_inbuf_free(&in, &l->stream.rt->blocks);
}

static int layer_open(
    struct asio_stream *below, const struct asio_layer_codec *codec, void *state, struct asio_layer **layer)
{
    bool path = below->transport->path_of != NULL;
    struct asio_layer *l = asio_mem.malloc(sizeof *l);
    if (!l)
        return UV_ENOMEM;
    memset(l, 0, sizeof *l);
    asio_stream_init(&l->stream, below->rt, path ? &layer_path_transport : &layer_transport);
    int status = asio_stream_exchange(below, &l->stream);
    if (status < 0) {
        asio_mem.free(l);
        return status;
    }
    uv_idle_init(&below->rt->loop, &l->handle);
    l->handle.data = l;
    l->tap = (struct asio_tap){ layer_on_received, layer_on_ended, layer_on_changed, layer_on_closed, false };
    l->below = below;
    l->codec = codec;
    l->state = state;
    below->tap = &l->tap;
    *layer = l;
    layer_take_buffered(l);
    return 0;
}

static void layer_deliver(struct asio_layer *l, const char *bytes, size_t n)
{
    if (l->stream.gone || l->stream.read_status < 0)
        return;
    l->stream.rt->stats.bytes_in -= n; /* those below count */
    asio_stream_received(&l->stream, (char *)bytes, n);
}

static void layer_end(struct asio_layer *l, int status)
{
    if (!l->stream.gone && l->stream.read_status == 0)
        asio_stream_ended(&l->stream, status);
}

static int layer_send(struct asio_layer *l, const char *bytes, size_t n)
{
    int status = l->below ? l->below->write_status : UV_ECANCELED;
    if (status < 0 || n == 0)
        return status;
    if (l->below->shut)
        return UV_EPIPE;
    if (l->below->out.length == 0)
        l->answers = 0;
    if (!l->encoding && l->answers + n > LAYER_ANSWERS)
        return UV_ENOBUFS;
    if (!l->encoding)
        l->answers += n;
    status = asio_outbuf_copy(&l->below->out, &l->below->rt->out_env, bytes, n);
    if (status < 0)
        return status;
    l->below->queued += n;
    asio_rt_flush_later(l->below->rt, &l->below->flush);
    return 0;
}

static void layer_resume(struct asio_layer *l)
{
    if (l->stream.sending)
        asio_stream_sent(&l->stream, 0, 0);
    else if (l->stream.shut && !l->said)
        asio_stream_flush(&l->stream);
}

/* As reading of the stream above, which stops it: below alone it could not be stopped from a further layer. */
static int layer_read(struct asio_layer *l)
{
    return asio_stream_start_reading(&l->stream) ? 0 : l->stream.read_status;
}

static void *layer_state(struct asio_stream *s, const struct asio_layer_codec *codec)
{
    bool layered = s->transport == &layer_transport || s->transport == &layer_path_transport;
    return layered && layer_of(s)->codec == codec ? layer_of(s)->state : NULL;
}

const struct asio_plugin_layer asio_layer = {
    .open = layer_open,
    .deliver = layer_deliver,
    .end = layer_end,
    .send = layer_send,
    .resume = layer_resume,
    .read = layer_read,
    .fail = layer_fail_writes,
    .state = layer_state,
};
