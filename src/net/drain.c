/* SPDX-License-Identifier: MIT
 *
 * Who works for a server: light threads that run its handler, connections that came to it. They are only
 * counted, and know by whom (struct asio_counter): that costs each of them a pointer. See listener.h. */
#include "net/listener.h"

#include <string.h>

void asio_drain_free(struct asio_drain *drain)
{
    bool worked_for = drain->connections.count > 0 || (drain->handlers.count > 0 && !drain->rt->closed);
    if (!drain->held && !drain->listener && !worked_for)
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

static void on_handler_gone(struct asio_counter *counter)
{
    struct asio_drain *drain = ASIO_CONTAINER(counter, struct asio_drain, handlers);
    bool over = asio_drain_at_work(drain) == 0; /* looked at once: who is woken counts again */
    while (over && drain->waiters.first) {
        struct asio_wait *w = drain->waiters.first;
        asio_wait_list_remove(&drain->waiters, w);
        asio_sched_ready(w, 0);
    }
    asio_drain_free(drain);
}

/* There is room for one more. */
static void on_connection_gone(struct asio_counter *counter)
{
    struct asio_drain *drain = ASIO_CONTAINER(counter, struct asio_drain, connections);
    if (drain->listener && !drain->rt->closed && drain->listener->options.max_connections)
        asio_listener_accept_soon(drain->listener);
    asio_drain_free(drain);
}

void asio_drain_let_go(struct asio_drain *drain)
{
    drain->held = false;
    asio_drain_free(drain);
}

struct asio_drain *asio_drain_new(struct asio_rt *rt)
{
    struct asio_drain *drain = asio_mem.malloc(sizeof *drain);
    if (!drain)
        return NULL;
    memset(drain, 0, sizeof *drain);
    drain->rt = rt;
    drain->handlers.gone = on_handler_gone;
    drain->connections.gone = on_connection_gone;
    return drain;
}
