/* SPDX-License-Identifier: MIT
 *
 * Who works for a server: light threads that run its handler, connections that came to it. They are only
 * counted, and know by whom (struct asio_tally): that costs each of them a pointer. See listener.h. */
#include "net/listener.h"

#include <string.h>

void asio_crew_free(struct asio_crew *crew)
{
    bool worked_for = crew->connections.count > 0 || (crew->handlers.count > 0 && !crew->rt->closed);
    if (!crew->held && !crew->listener && !worked_for)
        asio_mem.free(crew);
}

bool asio_crew_has(const struct asio_crew *crew, const struct asio_wait *w)
{
    return !w->main && ASIO_CONTAINER(w, const struct asio_thread, wait)->tally == &crew->handlers;
}

size_t asio_crew_at_work(const struct asio_crew *crew)
{
    size_t count = crew->handlers.count;
    for (const struct asio_wait *w = crew->waiters.first; w; w = w->next)
        count -= asio_crew_has(crew, w);
    return count;
}

static void on_handler_gone(struct asio_tally *tally)
{
    struct asio_crew *crew = ASIO_CONTAINER(tally, struct asio_crew, handlers);
    bool over = asio_crew_at_work(crew) == 0; /* looked at once: who is woken counts again */
    while (over && crew->waiters.first) {
        struct asio_wait *w = crew->waiters.first;
        asio_wait_list_remove(&crew->waiters, w);
        asio_sched_ready(w, 0);
    }
    asio_crew_free(crew);
}

/* There is room for one more. */
static void on_connection_gone(struct asio_tally *tally)
{
    struct asio_crew *crew = ASIO_CONTAINER(tally, struct asio_crew, connections);
    if (crew->listener && !crew->rt->closed && crew->listener->options.max_connections)
        asio_listener_accept_soon(crew->listener);
    asio_crew_free(crew);
}

void asio_crew_let_go(struct asio_crew *crew)
{
    crew->held = false;
    asio_crew_free(crew);
}

struct asio_crew *asio_crew_new(struct asio_rt *rt)
{
    struct asio_crew *crew = asio_mem.malloc(sizeof *crew);
    if (!crew)
        return NULL;
    memset(crew, 0, sizeof *crew);
    crew->rt = rt;
    crew->handlers.gone = on_handler_gone;
    crew->connections.gone = on_connection_gone;
    return crew;
}
