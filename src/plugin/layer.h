/* SPDX-License-Identifier: MIT
 *
 * A layer: a stream over another stream, which takes the place of that under its connection (start_tls). The
 * plugin brings a codec, which turns bytes into other bytes; stream/layer.c does the rest: back-pressure, the
 * orderly close, half-close, reset, errors, the end of the Lua state.
 *
 * A codec's functions get its state. They may call the functions of struct asio_plugin_layer from wherever they are
 * called. User code may run in `deliver` and `end`: the layer may be closed when they return, and they do nothing
 * then; but neither it nor the codec's state is freed before the callback of libuv returns. */
#ifndef ASIO_PLUGIN_LAYER_H
#define ASIO_PLUGIN_LAYER_H

#include "base/asio.h"

struct asio_stream;
struct asio_layer;

struct asio_layer_codec {
    const char *name; /* what tostring(conn) shows: "tls" */

    /* Bytes have come from below, and are borrowed: `deliver` what they mean, `send` what answers them. */
    void (*received)(void *state, const char *bytes, size_t n);

    /* Takes bytes from the front of those that the script writes, and sends what they become. Returns how many, at
     * least one; UV_EAGAIN: none now, and `resume` is called later; or an error. */
    ssize_t (*encode)(void *state, const char *bytes, size_t n);

    /* The rest only where it applies, else NULL. */

    /* The script's bytes have ended: sends what tells the peer so. 0 or an error; UV_EAGAIN: not now, and `resume` is
     * called later. */
    int (*finish)(void *state);

    /* The stream below has ended, with UV_EOF or an error: what that is above. Bytes that came after the codec's
     * own end are not an end in order, for instance. */
    int (*ended)(void *state, int status);

    /* The script closes the connection: waits of the codec's own end with UV_ECANCELED (struct asio_plugin_wait, ready). */
    void (*closed)(void *state);

    void (*free)(void *state);
};

/* What a codec calls. */
struct asio_plugin_layer {
    /* Puts a layer under the connection of `below`, and sets *layer before the codec is first called. 0; then it has
     * the state; or UV_EBADF, UV_EBUSY (a light thread reads or writes, or it is relayed), UV_EPIPE, UV_EOF (one way
     * has ended already), UV_ENOMEM: then nothing has changed. Bytes that are queued go first as they are; bytes
     * that have come are the codec's. */
    int (*open)(struct asio_stream *below, const struct asio_layer_codec *codec, void *state,
        struct asio_layer **layer);

    /* Bytes for the script. User code runs. */
    void (*deliver)(struct asio_layer *l, const char *bytes, size_t n);

    /* The end for the script, UV_EOF or an error, before the stream below ends. User code runs. */
    void (*end)(struct asio_layer *l, int status);

    /* Bytes for the peer, which are copied. 0 or an error; UV_ENOBUFS: outside of `encode`, where a peer that does not
     * read has too many waiting for it. They go out with what is written, at the latest at the end of the turn. */
    int (*send)(struct asio_layer *l, const char *bytes, size_t n);

    /* The codec can encode again. */
    void (*resume)(struct asio_layer *l);

    /* The codec needs bytes from below although the script does not read. 0 or an error. */
    int (*read)(struct asio_layer *l);

    /* Nothing can be written any more. */
    void (*fail)(struct asio_layer *l, int status);

    /* The codec's state, if the stream is a layer of this codec; else NULL. */
    void *(*state)(struct asio_stream *s, const struct asio_layer_codec *codec);
};

#endif
