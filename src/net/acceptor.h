/* SPDX-License-Identifier: MIT
 *
 * A listening socket: it tells its owner when connections wait, and takes them one by one. Where the system can accept
 * without waiting (asio_sys_accept) libuv only polls the socket; a failure is then seen by the owner, which may pause.
 * (libuv's own accept closes clients when descriptors run out, without telling, and goes on for ever within one
 * turn when accept goes on failing: seen with 1.44.) Elsewhere libuv listens and accepts. */
#ifndef ASIO_ACCEPTOR_H
#define ASIO_ACCEPTOR_H

#include "net/family.h"

/* Where to listen: an address; a name; or a listening socket that another program has opened. */
struct asio_endpoint {
    const struct asio_socket_family *family;
    struct sockaddr_storage address;
    const char *path; /* or NULL */
    size_t path_length;
    uv_os_sock_t fd; /* borrowed; or ASIO_NO_SOCKET */
};

/* Part of a listener. Opened once, then closed once (also when opening failed); its memory has to stay until `closed`
 * is called, which may be at once; if the state closes first, the teardown of `ops` closes it. */
struct asio_acceptor {
    const struct asio_handle_ops *ops; /* first: see runtime.h */
    const struct asio_socket_family *family;
    void (*ready)(struct asio_acceptor *a, int status); /* connections wait; or polling has failed */
    void (*closed)(struct asio_acceptor *a);
    uv_os_sock_t fd;    /* polled and owned; ASIO_NO_SOCKET: libuv listens */
    uv_os_sock_t taken; /* accepted, and not yet a connection; or ASIO_NO_SOCKET */
    union {
        uv_handle_t any;
        uv_poll_t poll;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } handle;
    struct asio_sys_file file; /* that the socket made */
    bool has_handle;           /* libuv knows it */
    bool watched;              /* `ready` is called */
    unsigned offered;          /* so many connections libuv holds: one at most, on Windows more */
    bool inherits_known;       /* whether connections have the listening socket's TCP_NODELAY */
};

/* ops, ready and closed are set, the rest is zero. 0 or an error; it is not watched yet. */
int asio_acceptor_open(struct asio_acceptor *a, struct asio_rt *rt, const struct asio_endpoint *where,
    const struct asio_socket_options *options);
void asio_acceptor_close(struct asio_acceptor *a, bool keep_file);

/* Watching: `ready` is called in each turn in which a connection waits. */
void asio_acceptor_watch(struct asio_acceptor *a);
void asio_acceptor_unwatch(struct asio_acceptor *a);

/* Makes sure that a connection is in hand: 0; UV_EAGAIN: none waits; UV_ECONNABORTED: it has gone, try again; or an
 * error. */
int asio_acceptor_fetch(struct asio_acceptor *a);

/* libuv holds a connection, of which no event will tell. */
static inline bool asio_acceptor_holds(const struct asio_acceptor *a)
{
    return a->offered > 0;
}

/* Makes a stream of the connection in hand. NULL: *status; with UV_ENOMEM the connection stays in hand, else it is
 * lost. *options is changed: what connections get from the listening socket is not set again. */
struct asio_uvstream *asio_acceptor_adopt(
    struct asio_acceptor *a, struct asio_rt *rt, struct asio_socket_options *options, int *status);

/* Few descriptors are left, and the connection in hand or a new one has one of the last. */
bool asio_acceptor_files_short(const struct asio_acceptor *a);

/* Its name: an address, or a path that is not terminated (*size in and out). */
int asio_acceptor_address(struct asio_acceptor *a, struct sockaddr_storage *address);
int asio_acceptor_path(struct asio_acceptor *a, char *path, size_t *size);

#endif
