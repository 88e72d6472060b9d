/* SPDX-License-Identifier: MIT
 * Scopes; see scope.h. A few spare ones are kept, with their timers still in the heap: entering
 * and leaving one then moves a deadline, which is a store, and allocates nothing. */
#include "core/scope.h"

enum { SPARE_MAX = 64 };

static struct asio_scope *scope_take(struct asio_rt *rt)
{
    struct asio_scope *s = rt->spare_scopes;
    if (s) {
        rt->spare_scopes = s->outer;
        rt->spare_scopes_count--;
        return s;
    }
    s = asio_mem.malloc(sizeof *s);
    if (s)
        asio_timer_init(&s->timer, NULL);
    return s;
}

static void scope_give_back(struct asio_rt *rt, struct asio_scope *s)
{
    if (s->holder)
        *s->holder = NULL;
    if (s->ref != LUA_NOREF)
        asio_rt_release(rt, s->ref);
    if (rt->spare_scopes_count == SPARE_MAX || rt->closed) {
        asio_timer_remove(&rt->timers, &s->timer);
        asio_mem.free(s);
        return;
    }
    asio_timer_clear(&s->timer);
    s->outer = rt->spare_scopes;
    rt->spare_scopes = s;
    rt->spare_scopes_count++;
}

struct asio_scope *asio_scope_enter(
    struct asio_wait *w, uint64_t at, bool shield, void (*fire)(struct asio_timer *t))
{
    struct asio_scope *s = scope_take(w->rt);
    if (!s)
        return NULL;
    s->wait = w;
    s->id = ++w->rt->last_scope;
    s->holder = NULL;
    s->ref = LUA_NOREF;
    s->shield = shield;
    s->tripped = false;
    s->timer.fire = fire;
    if (at != ASIO_NEVER && asio_timer_set(&w->rt->timers, &s->timer, at) < 0) {
        scope_give_back(w->rt, s);
        return NULL;
    }
    s->outer = w->scope;
    w->scope = s;
    return s;
}

void asio_scope_free(struct asio_rt *rt, struct asio_scope *s)
{
    while (s) {
        struct asio_scope *outer = s->outer;
        scope_give_back(rt, s);
        s = outer;
    }
}

void asio_scope_drop(struct asio_wait *w, struct asio_scope *outer)
{
    while (w->scope != outer) {
        struct asio_scope *s = w->scope;
        w->scope = s->outer;
        scope_give_back(w->rt, s);
    }
}

/* Its list then ends where `outer` began. */
struct asio_scope *asio_scope_suspend(struct asio_wait *w, struct asio_scope *outer)
{
    struct asio_scope *innermost = w->scope, *s = innermost;
    if (s == outer)
        return NULL;
    w->scope = outer;
    for (;; s = s->outer) {
        s->wait = NULL;
        if (s->outer == outer)
            break;
    }
    s->outer = NULL;
    return innermost;
}

void asio_scope_resume(struct asio_wait *w, struct asio_scope *innermost)
{
    struct asio_scope *s = innermost;
    if (!s)
        return;
    for (;; s = s->outer) {
        s->wait = w;
        if (!s->outer)
            break;
    }
    s->outer = w->scope;
    w->scope = innermost;
}

void asio_scope_pop_user_coroutine(struct asio_wait *w)
{
    struct asio_user_coroutine *n = w->user_coroutine;
    assert(n && n->wait == w);
    w->user_coroutine = n->outer;
    n->suspended = asio_scope_suspend(w, n->mark);
    n->wait = NULL;
}

void asio_scope_close(struct asio_rt *rt)
{
    while (rt->spare_scopes) {
        struct asio_scope *s = rt->spare_scopes;
        rt->spare_scopes = s->outer;
        asio_timer_remove(&rt->timers, &s->timer);
        asio_mem.free(s);
    }
    rt->spare_scopes_count = 0;
}
