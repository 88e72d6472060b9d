/* SPDX-License-Identifier: MIT
 *
 * Pipes of the system through which bytes pass from one socket to another without being copied. A few that
 * are empty are kept for the next who needs one: who holds bytes in one has it for himself meanwhile. A
 * second after the last use, or with the last user, they are closed.
 *
 * Lifetime of a pipe: taken from the runtime's spare ones or made; its holder's until given back; if the state
 * closes first the spare ones go, and holders give back theirs. */
#ifndef ASIO_SPLICE_H
#define ASIO_SPLICE_H

#include "core/runtime.h"

struct asio_splice {
    struct asio_splice *next; /* of the spare ones */
    uv_os_sock_t ends[2];     /* to read from, to write to */
    size_t held;              /* bytes in it */
};

/* Whoever may want pipes; pipes are kept while there is somebody. False: out of memory, there will be none. */
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
