/* SPDX-License-Identifier: MIT
 * The resolver that a runtime has chosen: see names.h for what resolvers are, backend.c for the choice. */
#ifndef ASIO_BACKEND_H
#define ASIO_BACKEND_H

#include "plugin/names.h"

/* Part of the state of resolve.c. Created empty; `state` is made at the first look-up, and freed by close. */
struct asio_backend {
    const struct asio_names_backend *ops; /* NULL: not chosen yet */
    void *state;                          /* the resolver's; NULL: not opened yet */
};

/* Chooses a resolver (NULL: the system's) unless one is open: 0; UV_ENOTSUP: it was built for another asio.so, or
 * another one is open; or why it cannot be loaded now. */
int asio_backend_use(struct asio_backend *b, struct asio_rt *rt, const struct asio_names_backend *ops);

/* Opens the chosen resolver, or the system's. Nothing is kept of a failure: the next call tries again. */
int asio_backend_ready(struct asio_backend *b, struct asio_rt *rt);

/* `forked`: in the child of a fork, where there are no helper threads. */
void asio_backend_close(struct asio_backend *b, bool forked);

#endif
