/* SPDX-License-Identifier: MIT
 * What works for a server; see drain.h. */
#include "net/drain.h"

#include "core/park.h"

#include <string.h>

static void drain_free_unused(struct asio_drain *drain)
{
    if (!drain->held && !drain->owner && drain->connections.count == 0 && drain->handlers.count == 0)
        asio_mem.free(drain);
}

bool asio_drain_has(const struct asio_drain *drain, const struct asio_wait *w)
{
    return !w->main && ASIO_CONTAINER(w, const struct asio_thread, wait)->counter == &drain->handlers;
}

size_t asio_drain_at_work(const struct asio_drain *drain)
{
    size_t count = drain->handlers.count;
    for (const struct asio_wait *w = drain->waiters.first; w; w = w->next)
        count -= asio_drain_has(drain, w);
    return count;
}

static void drain_on_handler_gone(struct asio_counter *counter)
{
    struct asio_drain *drain = ASIO_CONTAINER(counter, struct asio_drain, handlers);
    bool over = asio_drain_at_work(drain) == 0; /* asked once: a handler that is woken here counts again */
    while (over && drain->waiters.first) {
        struct asio_wait *w = drain->waiters.first;
        asio_wait_list_remove(&drain->waiters, w);
        asio_sched_ready(w, 0);
    }
    drain_free_unused(drain);
}

static void drain_on_connection_gone(struct asio_counter *counter)
{
    struct asio_drain *drain = ASIO_CONTAINER(counter, struct asio_drain, connections);
    if (drain->owner && !drain->rt->closed)
        drain->room(drain->owner); /* the userdata still holds the drain, or its collection frees it later */
    drain_free_unused(drain);
}

struct asio_drain *asio_drain_new(struct asio_rt *rt, void *owner, void (*room)(void *owner))
{
    struct asio_drain *drain = asio_mem.malloc(sizeof *drain);
    if (!drain)
        return NULL;
    memset(drain, 0, sizeof *drain);
    drain->rt = rt;
    drain->owner = owner;
    drain->room = room;
    drain->held = true;
    drain->handlers.gone = drain_on_handler_gone;
    drain->connections.gone = drain_on_connection_gone;
    return drain;
}

void asio_drain_disown(struct asio_drain *drain)
{
    drain->owner = NULL;
    drain_free_unused(drain);
}

void asio_drain_let_go(struct asio_drain *drain)
{
    drain->held = false;
    drain_free_unused(drain);
}
