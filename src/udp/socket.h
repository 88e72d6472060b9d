/* SPDX-License-Identifier: MIT
 *
 * What a datagram socket is, and what all files of this folder need of it: its state, the kernel's socket behind
 * it, its errors. In reading order: socket, datagram (queues), address, recv, send, options, udp (creation,
 * closing and methods, on top of all others).
 *
 * Datagrams that arrive while no reader waits are kept, up to a mark; above it reading stops, and the kernel's
 * buffer fills. What is sent is queued, and goes to the kernel in one call when the light thread parks or
 * ends; above a mark the sender waits.
 *
 * Lifetime of struct asio_udp_socket:
 * - created by asio.udp; its userdata (struct asio_udp) refers to it until close, and it to the userdata;
 * - after close it lives on until what is queued is out (bounded), then until libuv has closed the handle,
 *   whose close callback alone frees it;
 * - anchored by nothing: a collected userdata closes it;
 * - if the state closes first: teardown tries once to send without blocking, and closes the handle. */
#ifndef ASIO_UDP_SOCKET_H
#define ASIO_UDP_SOCKET_H

#include "udp/datagram.h"
#include "core/sched.h"

struct asio_udp_socket;

struct asio_udp {                   /* the userdata */
    const void *magic;              /* &asio_udp_socket_magic: tells it from other userdata of the size */
    struct asio_udp_socket *socket; /* NULL: closed */
};
extern const char asio_udp_socket_magic;

enum { ASIO_UDP_IPS = 32 }; /* addresses whose text is kept */

/* One of these addresses; its port means nothing. */
struct asio_udp_ip {
    union asio_sockaddr addr; /* AF_UNSPEC: none */
    const char *text;         /* the Lua string, kept alive by the table at ASIO_REF_UDP_IPS */
};

/* What the datagram sockets of one runtime share, in its slot ASIO_PART_UDP. Made with the first socket; one
 * reference for the runtime, one for each socket; the last reference frees it. */
struct asio_udp_shared {
    int references;
    struct asio_datagram_env env;
    struct asio_sys_batch *batch; /* where datagrams land; made at the first read */
    bool one_by_one;              /* the system has no batches: datagrams land in the loop's scratch */
    int received;                 /* by the socket that is being read: how many, or an error */
    /* Received by `owner` in this callback and not taken yet: list[first, end). */
    struct asio_udp_socket *owner;
    struct asio_datagram *list;
    unsigned first, end;
    /* The last addresses, each in a place that follows from it; and from the text to that place. */
    struct asio_udp_ip ips[ASIO_UDP_IPS];
    uint8_t by_text[ASIO_UDP_IPS];
};

/* Asked for when the socket was made; applied when it is opened. */
struct asio_udp_options {
    bool reuse_address, reuse_port, ipv6_only, broadcast;
    int recv_buffer, send_buffer; /* the kernel's, in bytes; 0: as it is */
    size_t recv_queue, send_queue;
};

struct asio_udp_socket {
    const struct asio_handle_ops *ops; /* first: see runtime.h */
    struct asio_rt *rt;
    struct asio_udp_shared *shared;
    struct asio_udp *holder; /* NULL: closed, or collected */
    uv_udp_t handle;
    struct asio_udp_options options;
    double read_timeout, write_timeout; /* seconds, negative: none */
    struct asio_wait *reader;
    struct asio_wait_list writers; /* parked sends and flushes */
    struct asio_datagram_queue in, out;
    uint64_t queued; /* cost of all that was ever queued to be sent */
    struct asio_flush_node flush;
    struct asio_timer timer; /* to try sending again; closing: to give up */
    uint64_t give_up;        /* closing: uv_hrtime() after which what is queued is dropped */
    int family;              /* AF_INET, AF_INET6; AF_UNSPEC: not opened yet */
    int error;               /* not reported to the script yet; 0: none */
    bool connected;
    bool reading;  /* libuv was asked to */
    bool full;     /* it was stopped because of what is kept */
    bool pushing;  /* the first datagram is being made a string, which runs finalizers */
    bool sending;  /* the first datagram waits for room: libuv has it, or the timer is set */
    bool retrying; /* the latter */
    bool closing;  /* no userdata refers to it any more */
    bool gone;     /* the handle was given back */
};

/* Self of a method, or NULL. */
static inline struct asio_udp *asio_udp_socket_to(lua_State *L)
{
    struct asio_udp *u = lua_touserdata(L, 1);
    if (!u || lua_objlen(L, 1) != sizeof *u || u->magic != &asio_udp_socket_magic)
        return NULL;
    if (u->socket)
        asio_rt_notice_fork(u->socket->rt);
    return u;
}
struct asio_udp *asio_udp_socket_refuse(lua_State *L, const char *fname);

/* The socket of the method `fname`, or raises; NULL: closed. */
static inline struct asio_udp_socket *asio_udp_socket_check(lua_State *L, const char *fname)
{
    struct asio_udp *u = asio_udp_socket_to(L);
    return (u ? u : asio_udp_socket_refuse(L, fname))->socket;
}

/* What a waiting function returns on a closed one. */
int asio_udp_socket_push_closed(lua_State *L);

/* The shared state, with one reference more; NULL: out of memory. */
struct asio_udp_shared *asio_udp_socket_share(struct asio_rt *rt);
void asio_udp_socket_release(struct asio_udp_shared *shared);

int asio_udp_socket_bind(struct asio_udp_socket *s, const union asio_sockaddr *addr);

/* Makes the socket of the kernel, at the first use with an address of this family (AF_UNSPEC: any, so IPv4).
 * UV_EAFNOSUPPORT: it is of the other. */
int asio_udp_socket_open_as(struct asio_udp_socket *s, int family);

/* Closes the handle at once; what is queued is dropped. */
void asio_udp_socket_finish(struct asio_udp_socket *s);

/* The status is the answer of a connected socket's peer to an earlier datagram. */
bool asio_udp_socket_is_answer(int status);

/* Keeps an error for the next call; a waiting reader gets an answer at once. */
void asio_udp_socket_failed(struct asio_udp_socket *s, int status);
int asio_udp_socket_push_failed(lua_State *L, struct asio_udp_socket *s); /* ... which reports it */

#endif
