/* SPDX-License-Identifier: MIT
 *
 * Waking a loop from other threads.
 *
 * Lifetime: made by asio_async_open; closed with the runtime: `closing` is called then, after which no thread may send;
 * freed by libuv's close callback. */
#ifndef ASIO_ASYNC_H
#define ASIO_ASYNC_H

#include "core/runtime.h"

struct asio_async;

/* woken(arg) is called on the loop's thread, once for any number of sends before it; it may run user code. NULL:
 * *status says why. Does not keep asio.run going. */
struct asio_async *asio_async_open(
    struct asio_rt *rt, void (*woken)(void *arg), void (*closing)(void *arg), void *arg, int *status);

/* From any thread, while the runtime is not closed: the caller's lock excludes `closing`. */
void asio_async_send(struct asio_async *a);

#endif
