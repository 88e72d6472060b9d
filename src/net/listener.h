/* SPDX-License-Identifier: MIT
 *
 * Listening, and handing out the connections that come, over any stream of libuv: what server.c offers to
 * scripts. */
#ifndef ASIO_LISTENER_H
#define ASIO_LISTENER_H

#include "net/unix.h"
#include "net/proxy_accept.h"
#include "net/tcp.h"
#include "net/trusted_proxies.h"

#define ASIO_NO_SOCKET ((uv_os_sock_t)-1)

struct asio_server {                /* the userdata */
    struct asio_listener *listener; /* NULL: closed */
    struct asio_drain *drain;
};

/* Who works for a server: its handlers, and the connections that came to it.
 * Created with the listener; referred to by the userdata, the listener, and what it counts; freed with the
 * last of them (light threads do not count any more once the state is being closed). */
struct asio_drain {
    struct asio_rt *rt;
    struct asio_listener *listener; /* NULL: closed */
    struct asio_counter handlers, connections;
    struct asio_wait_list waiters; /* in server:shutdown */
    bool held;                     /* by the userdata */
};

enum asio_listener_state { ASIO_LISTENER_OPEN, ASIO_LISTENER_CLOSING, ASIO_LISTENER_CLOSED };

/* Created by asio.server; referred to by its holder (the userdata that Lua has) until close; freed by
 * libuv's close callback. The holder is found from here through a table with weak values, so that
 * dropping it closes the server; handler and options hang on the holder's environment table. If the
 * state closes first, teardown closes the handle. */
struct asio_listener {
    const struct asio_handle_ops *ops; /* first: see runtime.h */
    struct asio_rt *rt;
    struct asio_server *server; /* NULL: closed, or collected */
    struct asio_drain *drain;
    const struct asio_socket_family *family;
    union {
        uv_handle_t any;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } handle;
    struct asio_timer timer; /* when to go on accepting; while full: when to collect */
    uv_os_sock_t spare;      /* duplicate of the listening socket, or ASIO_NO_SOCKET */
    struct sockaddr_storage address;
    char *path; /* owned, not terminated: its name instead of an address */
    size_t path_length;
    struct asio_sys_file file; /* that it made */
    struct asio_socket_options options;
    const struct asio_trusted_proxies *trust; /* connections come through a proxy; the holder's; or NULL */
    struct asio_wait_list accepters;          /* light threads in server:accept */
    /* Connections through a proxy, see proxy_accept.h: their header is waited for; it is there and nobody is. */
    struct asio_wait_list incomplete, complete;
    uint8_t state;     /* enum asio_listener_state */
    bool handled;      /* there is a handler */
    bool paused;       /* accepting waits for the timer */
    bool pending;      /* libuv holds a connection that was not taken */
    unsigned accepted; /* in the turn `turn` */
    uint64_t turn;
    double backoff;       /* seconds to wait after the next fault */
    uint64_t reported_at; /* uv_hrtime(); 0: never */
    uint64_t collect_at;  /* uv_hrtime() before which no collection is made for room */
};

/* Where to listen: an address; a pipe's name; or a socket that somebody else has made. */
struct asio_endpoint {
    const struct asio_socket_family *family;
    struct sockaddr_storage address;
    const char *path; /* or NULL */
    size_t path_length;
    uv_os_sock_t fd; /* borrowed; or ASIO_NO_SOCKET */
};

/* Opens the listener of a holder that has none; 0 or an error. */
int asio_listener_open(struct asio_rt *rt, struct asio_server *server, const struct asio_endpoint *where,
    const struct asio_socket_options *options);

void asio_listener_close(struct asio_listener *l);

/* Takes the connection that is there, and pushes token and connection; false: none, or not now. May close
 * the listener. */
bool asio_listener_take(lua_State *L, struct asio_listener *l);

/* A connection is complete, and in the list of those: it is handed out if it is wanted. */
void asio_listener_complete(struct asio_listener *l, struct asio_stream *s);

/* There may be room for one that waits. May close the listener. */
void asio_listener_accept_soon(struct asio_listener *l);

/* Pushes its address as server:address() returns it; returns how many values. */
int asio_listener_push_address(lua_State *L, const struct asio_listener *l);

/* ---- drain.c ---- */

struct asio_drain *asio_drain_new(struct asio_rt *rt); /* NULL: out of memory */

/* Frees it if nobody refers to it any more. */
void asio_drain_free(struct asio_drain *drain);

/* The userdata is being collected. */
void asio_drain_let_go(struct asio_drain *drain);

/* Light threads that shutdown waits for: not those that wait in it themselves. */
size_t asio_drain_at_work(const struct asio_drain *drain);

/* A record of one of its handlers. */
bool asio_drain_has(const struct asio_drain *drain, const struct asio_wait *w);

#endif
