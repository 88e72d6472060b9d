/* SPDX-License-Identifier: MIT
 *
 * Datagram sockets. What arrives while nobody waits is kept, up to a mark; above it reading stops
 * and the kernel's buffer takes over. What is sent is queued, and goes to the kernel in one call
 * when the light thread waits or ends; above a mark the sender waits.
 *
 * Lifetime of struct asio_udp_socket:
 * - created by asio.udp; its userdata (struct asio_udp) refers to it until close, and it to the userdata;
 * - after close it lives on by itself until what is queued is out (bounded), then until libuv lets go
 *   of the handle, whose close callback frees it, and nothing else does;
 * - anchored by nobody: a collected userdata closes it;
 * - if the state closes first: teardown tries once to send without blocking and closes the handle. */
#ifndef ASIO_UDP_H
#define ASIO_UDP_H

#include "udp/datagram.h"
#include "core/sched.h"

struct asio_udp_socket;

struct asio_udp {                   /* the userdata */
    const void *magic;              /* &asio_udp_magic: tells it from other userdata of the size */
    struct asio_udp_socket *socket; /* NULL: closed */
};
extern const char asio_udp_magic;

enum { ASIO_UDP_IPS = 32 }; /* addresses whose text is kept */

/* One of these addresses; its port means nothing. */
struct asio_udp_ip {
    union asio_sockaddr addr; /* AF_UNSPEC: none */
    const char *text;         /* the Lua string, which the table of them keeps alive */
};

/* What the datagram sockets of one runtime share. Made with the first of them; one reference for the
 * runtime, one for each socket; freed by whoever drops the last. */
struct asio_udp_shared {
    int references;
    struct asio_datagram_env env;
    struct asio_sys_batch *batch; /* where datagrams land; made at the first read */
    bool one_by_one;              /* the system has no such thing: they land in the loop's scratch */
    int received;                 /* by the socket that is being read: how many, or an error */
    /* What has just come, to the owner, and nobody has taken yet: list[first, end). */
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
    uint64_t give_up;        /* closing: uv_hrtime() after which nothing is waited for any more */
    int family;              /* AF_INET, AF_INET6; AF_UNSPEC: not opened yet */
    int error;               /* that nobody was told of yet; 0: none */
    bool connected;
    bool reading;  /* libuv was asked to */
    bool full;     /* it was stopped because of what is kept */
    bool pushing;  /* the first datagram is being made a string, which runs finalizers */
    bool sending;  /* the first datagram waits for room: libuv has it, or the timer is set */
    bool retrying; /* the latter */
    bool closing;  /* nobody can refer to it any more */
    bool gone;     /* the handle was given back */
};

/* udp.c */

/* Makes the socket of the kernel, at the first use with an address of this family (AF_UNSPEC: whatever, so
 * IPv4). UV_EAFNOSUPPORT: it is of the other. */
int asio_udp_open_as(struct asio_udp_socket *s, int family);

/* Self of the method `fname`, or raises; NULL: closed. */
static inline struct asio_udp *asio_udp_to(lua_State *L)
{
    struct asio_udp *u = lua_touserdata(L, 1);
    return u && lua_objlen(L, 1) == sizeof *u && u->magic == &asio_udp_magic ? u : NULL;
}
struct asio_udp *asio_udp_refuse(lua_State *L, const char *fname);
static inline struct asio_udp_socket *asio_udp_check(lua_State *L, const char *fname)
{
    struct asio_udp *u = asio_udp_to(L);
    return (u ? u : asio_udp_refuse(L, fname))->socket;
}

/* What a waiting function returns on a closed one. */
int asio_udp_closed(lua_State *L);

/* For a waiting function: the host is a name, which the shim has to resolve; as long as sending may take. */
int asio_udp_push_name(lua_State *L, struct asio_udp_socket *s);

/* The peer of a connected socket does not want what it was sent. */
bool asio_udp_is_answer(int status);

/* Keeps an error for whoever asks next; an answer is told to a waiting reader at once. */
void asio_udp_failed(struct asio_udp_socket *s, int status);
int asio_udp_push_failed(lua_State *L, struct asio_udp_socket *s); /* ... and this is the one */

/* Gives the handle back at once. */
void asio_udp_finish(struct asio_udp_socket *s);

/* udp_address.c */
void asio_udp_address_open(lua_State *L, struct asio_rt *rt);

/* The address and port at stack indices `host` and `host` + 1, or a raw address alone: 0, ASIO_UDP_NAME (not
 * numeric: a name), or an error. Raises for what is none of these. The socket may be NULL, closed. */
enum { ASIO_UDP_NAME = 1 };
int asio_udp_address(
    lua_State *L, struct asio_udp_socket *s, int host, const char *fname, union asio_sockaddr *addr);

/* Opens the socket for the address, or makes the address one of the socket's family. */
int asio_udp_fit(struct asio_udp_socket *s, union asio_sockaddr *addr);

void asio_udp_push_ip(lua_State *L, struct asio_udp_socket *s, const struct sockaddr *addr);

/* udp_recv.c */
void asio_udp_recv_open(lua_State *L, struct asio_rt *rt);
void asio_udp_recv_abort(struct asio_udp_socket *s, int status); /* wakes the reader, if any */

/* udp_send.c */
void asio_udp_send_open(lua_State *L, struct asio_rt *rt);
void asio_udp_send_abort(struct asio_udp_socket *s, int status); /* wakes all senders */
void asio_udp_flush(struct asio_udp_socket *s);

/* udp_options.c: what a socket can be told once it is there. */
void asio_udp_options_open(lua_State *L, struct asio_rt *rt);

#endif
