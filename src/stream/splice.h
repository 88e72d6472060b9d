/* SPDX-License-Identifier: MIT
 *
 * Pipes of the system through which bytes pass from one socket to another without being copied. A way of a relay
 * has a pipe of its own while there are bytes in it. A few empty pipes are kept for reuse; they are closed a second
 * after the last use, or when the last relay ends.
 *
 * Lifetime of a pipe: taken from the runtime's spare pipes, or made; owned by the relay until it is given back; if the
 * Lua state closes first, the spare pipes are closed, and each relay gives its own back. */
#ifndef ASIO_SPLICE_H
#define ASIO_SPLICE_H

#include "core/runtime.h"

struct asio_splice {
    struct asio_splice *next; /* of the spare ones */
    uv_os_sock_t ends[2];     /* to read from, to write to */
    size_t held;              /* bytes in it */
};

/* Around every relay: spare pipes are kept as long as there is one. False: out of memory; do not take any then. */
bool asio_splice_enter(struct asio_rt *rt);
void asio_splice_leave(struct asio_rt *rt);

/* NULL: the system has no such thing, or no more of them. */
struct asio_splice *asio_splice_take(struct asio_rt *rt);
void asio_splice_give(struct asio_rt *rt, struct asio_splice *p);

/* Bytes moved in or out; 0: the end; UV_EAGAIN; or an error. In: only while libuv runs, when SIGPIPE is blocked. */
ssize_t asio_splice_in(struct asio_splice *p, uv_os_fd_t from, size_t n);
ssize_t asio_splice_out(struct asio_splice *p, uv_os_fd_t to);

/* Takes out up to n of the bytes it holds; fewer: an error. */
size_t asio_splice_read(struct asio_splice *p, char *to, size_t n);

#endif
