/* SPDX-License-Identifier: MIT
 *
 * Waking a loop from other threads.
 *
 * Lifetime: made by asio_async_open; watched by the loop until the runtime closes, which calls `closing`; freed by
 * asio_async_free, on any thread, after that. In between it can be sent without effect, so that the thread that sends
 * needs no lock: the one that it wakes would wait for it at once. */
#ifndef ASIO_ASYNC_H
#define ASIO_ASYNC_H

#include "core/runtime.h"

struct asio_async;

/* woken(arg) is called on the loop's thread, once for any number of sends before it; it may run user code. NULL:
 * *status says why. Does not keep asio.run going. */
struct asio_async *asio_async_open(
    struct asio_rt *rt, void (*woken)(void *arg), void (*closing)(void *arg), void *arg, int *status);

void asio_async_send(struct asio_async *a);
void asio_async_free(struct asio_async *a);

#endif
