/* SPDX-License-Identifier: MIT
 *
 * What works for a server: the light threads that run its handler, and the connections that it has accepted. They
 * are only counted, and know their counter (struct asio_counter): that costs each of them a pointer.
 * server:shutdown waits here for the handlers. */
#ifndef ASIO_DRAIN_H
#define ASIO_DRAIN_H

#include "core/wait.h"

/* Created with the listener; referred to by the server's userdata (`held`), by the owner, and by what it counts;
 * freed with the last of them. If the state closes first, its light threads are uncounted then. */
struct asio_drain {
    struct asio_rt *rt;
    void *owner;               /* the listener; NULL: closed */
    void (*room)(void *owner); /* one of its connections has gone; may close the owner */
    struct asio_counter handlers, connections;
    struct asio_wait_list waiters; /* in server:shutdown */
    bool held;
};

/* With an owner, and held. NULL: out of memory. */
struct asio_drain *asio_drain_new(struct asio_rt *rt, void *owner, void (*room)(void *owner));

/* The owner has closed: it is not told any more. May free the drain. */
void asio_drain_disown(struct asio_drain *drain);

/* The userdata is being collected. May free the drain. */
void asio_drain_let_go(struct asio_drain *drain);

/* Light threads that shutdown waits for: not those that wait in it themselves. */
size_t asio_drain_at_work(const struct asio_drain *drain);

/* The record belongs to a light thread that runs one of its handlers. */
bool asio_drain_has(const struct asio_drain *drain, const struct asio_wait *w);

#endif
