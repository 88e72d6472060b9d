/* SPDX-License-Identifier: MIT
 *
 * Connections that come through a proxy: who may be one, and what happens between accepting such a connection
 * and handing it out, which is when its header is there.
 *
 * Lifetime of struct asio_trust: a userdata, anchored in the environment table of the server.
 * Lifetime of struct asio_proxied: made at accept, owned by the stream, and freed with it, or when its header names
 * nobody. Until the connection is handed out it is in one of two lists of the listener, which gives it up
 * when it closes, also if the state does. */
#ifndef ASIO_PROXIED_H
#define ASIO_PROXIED_H

#include "proxy_protocol.h"
#include "stream.h"

struct asio_listener;

struct asio_network {
    unsigned char bytes[16]; /* IPv4 is mapped into IPv6 */
    unsigned char prefix;    /* bits; ASIO_NETWORK_UNIX: all Unix sockets */
};
enum { ASIO_NETWORK_UNIX = 255 };

struct asio_trust {
    double timeout; /* seconds until the header has to be there */
    size_t count, room;
    struct asio_network networks[];
};

/* Reads the option's value at `index` into `to` (NULL: only looks at it). Raises for what makes no sense. Returns how
 * many networks there are. */
size_t asio_trust_read(lua_State *L, int index, int arg, const char *fname, struct asio_trust *to);

/* Pushes it as a userdata; the same arguments. */
struct asio_trust *asio_trust_push(lua_State *L, int index, int arg, const char *fname);

struct asio_proxied {
    union asio_sockaddr source, target; /* AF_UNSPEC: not known yet */
    char paths[2 * ASIO_PROXY_PATH];    /* if their family is AF_UNIX; else this goes when it is handed out */
    /* The rest goes then in any case. */
    struct asio_wait wait; /* for its header; its links are those of the list */
    struct asio_timer timer;
    struct asio_listener *listener;
    int ref; /* anchor of the connection */
    bool complete;
};

/* Takes over a connection that was accepted, with its anchor, until its header is there. An error: it is not trusted,
 * or memory is out; the anchor is then the caller's. */
int asio_proxied_begin(struct asio_listener *l, struct asio_stream *s, int ref);

/* Takes a connection that is complete out of the listener's hands. Returns its anchor, the caller's then. */
int asio_proxied_end(struct asio_stream *s);

/* Closes one that was not handed out. */
void asio_proxied_give_up(struct asio_stream *s);

#endif
