/* SPDX-License-Identifier: MIT
 *
 * Accepts connections and hands them out: to the handler, or to light threads in server:accept. It pauses when
 * descriptors run short, when accepting fails, and while there are as many connections as the script allows. */
#ifndef ASIO_LISTENER_H
#define ASIO_LISTENER_H

#include "net/acceptor.h"
#include "net/drain.h"
#include "net/proxy_accept.h"

struct asio_server {                /* the userdata */
    struct asio_listener *listener; /* NULL: closed */
    struct asio_drain *drain;
};

/* Created by asio.server; referred to by its holder (the userdata that Lua has) until close; freed by the acceptor's
 * `closed`. The holder is found from here through a table with weak values, so that dropping it closes the
 * server; handler and options hang on the holder's environment table. If the state closes first, teardown
 * closes it. */
struct asio_listener {
    struct asio_acceptor acceptor; /* first: libuv handles refer to it */
    struct asio_rt *rt;
    struct asio_server *server; /* NULL: closed, or collected */
    struct asio_drain *drain;
    struct asio_timer timer; /* paused: when to go on accepting; while full: when to collect */
    struct sockaddr_storage address;
    char *path; /* owned, not terminated: its name instead of an address */
    size_t path_length;
    struct asio_socket_options options;
    struct asio_wait_list accepters; /* light threads in server:accept */
    struct asio_proxy_gate gate;     /* connections that come through a proxy wait here for their header */
    bool handled;                    /* there is a handler */
    bool paused;                     /* accepting waits for the timer */
    bool batch_full;                 /* the last batch has ended because of its size */
    unsigned batch;                  /* connections to take in a turn, at most */
    unsigned aborted;                /* connections in a row that had failed before they were taken */
    uint64_t turn;                   /* of the last batch */
    uint64_t files_at;               /* uv_now() when a descriptor's number was last looked at */
    uv_os_sock_t files_newest;       /* that number */
    double backoff;                  /* seconds to wait after the next fault */
    uint64_t reported_at;            /* uv_hrtime(); 0: never */
    uint64_t collect_at;             /* uv_hrtime() before which no collection is made for room */
};

/* Opens the listener of a holder that has none; 0, or an error, and the holder has none. */
int asio_listener_open(struct asio_rt *rt, struct asio_server *server, const struct asio_endpoint *where,
    const struct asio_socket_options *options, bool handled);

void asio_listener_close(struct asio_listener *l);

/* Takes the connection that is there, and pushes token and connection; false: none, or not now. May close
 * the listener. */
bool asio_listener_take(lua_State *L, struct asio_listener *l);

/* A light thread has begun to wait in server:accept. */
void asio_listener_await(struct asio_listener *l, struct asio_wait *w);

/* Pushes its address as server:address() returns it; returns how many values. */
int asio_listener_push_address(lua_State *L, const struct asio_listener *l);

#endif
