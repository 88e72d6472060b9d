/* SPDX-License-Identifier: MIT
 *
 * Connections that come through a proxy: what happens between accepting such a connection and handing it out, which
 * is when its header is there.
 *
 * Lifetime of struct asio_proxy_accept: made at accept, owned by the stream, and freed with it; of a connection that is
 * handed out only the names stay. Until then it is in one of two lists of the listener, which gives it up when
 * it closes, also if the state does. */
#ifndef ASIO_PROXY_ACCEPT_H
#define ASIO_PROXY_ACCEPT_H

#include "net/proxy_protocol.h"
#include "stream/stream.h"

struct asio_listener;

struct asio_proxy_accept {
    struct asio_stream_alias alias; /* first */
    struct asio_proxy_names names;  /* what is kept ends here, or before its paths */
    struct asio_wait wait;          /* for its header; its links are those of the list */
    struct asio_timer timer;
    struct asio_listener *listener;
    int ref; /* anchor of the connection */
    bool complete;
};

/* Takes over a connection that was accepted, with its anchor, until its header is there. An error: it is not trusted,
 * or memory is out; the anchor is then the caller's. */
int asio_proxy_accept_begin(struct asio_listener *l, struct asio_stream *s, int ref);

/* Takes a connection that is complete out of the listener's hands. Returns its anchor, the caller's then. */
int asio_proxy_accept_end(struct asio_stream *s);

/* Closes one that was not handed out. */
void asio_proxy_accept_give_up(struct asio_stream *s);

#endif
