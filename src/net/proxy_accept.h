/* SPDX-License-Identifier: MIT
 *
 * Connections that come through a proxy: from accepting such a connection until its header is there and the
 * listener hands it out.
 *
 * Lifetime of struct asio_proxy_accept: made at accept, owned by the stream, and freed with it; of a connection that is
 * handed out only the names stay. Until then it is in one of two lists of the gate, which gives it up when it
 * closes, also when the state does. The gate is part of a listener. */
#ifndef ASIO_PROXY_ACCEPT_H
#define ASIO_PROXY_ACCEPT_H

#include "net/proxy_protocol.h"
#include "net/trusted_proxies.h"
#include "stream/stream.h"

/* Where connections wait for their header (`incomplete`), and then for being handed out (`complete`). */
struct asio_proxy_gate {
    const struct asio_trusted_proxies *trust; /* borrowed; NULL: connections come without a header */
    struct asio_wait_list incomplete, complete;
    /* A header is there, and the connection in `complete`. May hand it out, and close the gate. */
    void (*arrived)(struct asio_proxy_gate *gate, struct asio_stream *s);
};

/* Closes all connections that wait in it. */
void asio_proxy_gate_close(struct asio_proxy_gate *gate);

struct asio_proxy_accept {
    struct asio_stream_alias alias; /* first */
    struct asio_proxy_names names;  /* what is kept ends here, or before its paths */
    struct asio_wait wait;          /* for its header; its links are those of the list */
    struct asio_timer timer;
    struct asio_proxy_gate *gate;
    int ref; /* anchor of the connection */
    bool complete;
};

/* Takes over a connection that was accepted, with its anchor, until its header is there. An error: it is not trusted,
 * or memory is out; the anchor is then the caller's. */
int asio_proxy_accept_begin(struct asio_proxy_gate *gate, struct asio_stream *s, int ref);

/* Takes a connection that is complete out of the gate. Returns its anchor, the caller's then. */
int asio_proxy_accept_end(struct asio_stream *s);

#endif
