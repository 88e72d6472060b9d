/* SPDX-License-Identifier: MIT
 *
 * Listening, and handing out the connections that come, over any stream of libuv: what server.c offers to
 * scripts. */
#ifndef ASIO_LISTENER_H
#define ASIO_LISTENER_H

#include "net/drain.h"
#include "net/proxy_accept.h"
#include "net/tcp.h"
#include "net/unix.h"

#define ASIO_NO_SOCKET ((uv_os_sock_t)-1)

struct asio_server {                /* the userdata */
    struct asio_listener *listener; /* NULL: closed */
    struct asio_drain *drain;
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
    struct asio_wait_list accepters; /* light threads in server:accept */
    struct asio_proxy_gate gate;     /* connections that come through a proxy wait here for their header */
    uint8_t state;                   /* enum asio_listener_state */
    bool handled;                    /* there is a handler */
    bool paused;                     /* accepting waits for the timer */
    bool pending;                    /* libuv holds a connection that was not taken */
    unsigned accepted;               /* in the turn `turn` */
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

/* Pushes its address as server:address() returns it; returns how many values. */
int asio_listener_push_address(lua_State *L, const struct asio_listener *l);

#endif
