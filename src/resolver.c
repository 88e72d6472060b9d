/* SPDX-License-Identifier: MIT
 *
 * Names, without blocking: getaddrinfo on a few helper threads of our own. libuv's look-ups
 * cannot be given up once they run, and hold up the end of the program by seconds; here a
 * look-up that nobody waits for is simply forgotten, and a thread that still sits in the system's
 * resolver keeps what it needs alive by a reference count, not the runtime.
 *
 * Lifetime of struct resolver: made at the first look-up; one reference for the runtime, one per
 * helper thread; freed by whoever drops the last. Helpers end when no request is left.
 * Lifetime of struct request: made by core.resolve; on the queue, in a helper's hands or on the done
 * list, in that order; freed by the loop thread, or by whoever finds the runtime gone. */
#include "error.h"
#include "api.h"
#include "sched.h"

#include <stdio.h>
#include <string.h>
#ifndef _WIN32
#include <netdb.h>
#endif

enum { HELPERS_MAX = 8 };

struct request {
    struct request *next;
    struct asio_wait *wait; /* the loop thread's alone; NULL: given up */
    struct addrinfo *result;
    int status;
    char port[8];
    char host[];
};

struct list {
    struct request *first, *last;
};

struct wakeup {                        /* what libuv's handle belongs to */
    const struct asio_handle_ops *ops; /* first: see runtime.h */
    uv_async_t async;
    struct asio_rt *rt;
};

struct resolver {
    uv_mutex_t lock; /* guards all below */
    struct list queue, done;
    struct wakeup *wakeup; /* NULL: the runtime has gone */
    int references, helpers;
};

static void list_add(struct list *list, struct request *r)
{
    r->next = NULL;
    if (list->last)
        list->last->next = r;
    else
        list->first = r;
    list->last = r;
}

static struct request *list_take(struct list *list)
{
    struct request *r = list->first;
    if (r)
        list->first = r->next;
    if (!list->first)
        list->last = NULL;
    return r;
}

static void request_free(struct request *r)
{
    if (r->result)
        freeaddrinfo(r->result);
    asio_mem.free(r);
}

/* ---- helper threads ----------------------------------------------------------------------- */

static int translate(int error)
{
    switch (error) {
    case 0:
        return 0;
    case EAI_AGAIN:
        return UV_EAI_AGAIN;
    case EAI_BADFLAGS:
        return UV_EAI_BADFLAGS;
    case EAI_FAIL:
        return UV_EAI_FAIL;
    case EAI_FAMILY:
        return UV_EAI_FAMILY;
    case EAI_MEMORY:
        return UV_EAI_MEMORY;
    case EAI_SERVICE:
        return UV_EAI_SERVICE;
    case EAI_SOCKTYPE:
        return UV_EAI_SOCKTYPE;
    default: /* EAI_NONAME, EAI_NODATA, EAI_ADDRFAMILY and what else says: no such name */
        return UV_EAI_NONAME;
    }
}

static void look_up(struct request *r)
{
    struct addrinfo hints;
    memset(&hints, 0, sizeof hints);
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    r->status = translate(getaddrinfo(r->host, r->port, &hints, &r->result));
    if (r->status < 0)
        r->result = NULL;
}

/* Drops a reference; the lock is held and given up. */
static void release(struct resolver *v)
{
    bool last = --v->references == 0;
    uv_mutex_unlock(&v->lock);
    if (!last)
        return;
    uv_mutex_destroy(&v->lock);
    asio_mem.free(v);
}

/* The loop is woken under the lock: the runtime cannot close the handle meanwhile. */
static void helper_main(void *arg)
{
    struct resolver *v = arg;
    struct request *r;
    uv_mutex_lock(&v->lock);
    while ((r = list_take(&v->queue)) != NULL) {
        uv_mutex_unlock(&v->lock);
        look_up(r);
        uv_mutex_lock(&v->lock);
        if (v->wakeup) {
            list_add(&v->done, r);
            uv_async_send(&v->wakeup->async);
        } else {
            request_free(r);
        }
    }
    v->helpers--;
    release(v);
}

/* ---- the loop thread ---------------------------------------------------------------------- */

static void on_done(uv_async_t *async)
{
    struct wakeup *wakeup = ASIO_CONTAINER(async, struct wakeup, async);
    struct resolver *v = wakeup->rt->resolver;
    for (;;) {
        uv_mutex_lock(&v->lock);
        struct request *r = list_take(&v->done);
        uv_mutex_unlock(&v->lock);
        if (!r)
            return;
        if (r->wait)
            asio_sched_wake(r->wait, r->status);
        request_free(r);
    }
}

static void on_close(uv_handle_t *handle)
{
    asio_mem.free(ASIO_CONTAINER(handle, struct wakeup, async));
}

static void teardown(void *owner)
{
    struct wakeup *wakeup = owner;
    uv_close((uv_handle_t *)&wakeup->async, on_close);
}

static const struct asio_handle_ops wakeup_ops = { teardown };

/* The runtime goes: whoever is still in the system's resolver frees its own. */
static void resolver_close(struct asio_rt *rt)
{
    struct resolver *v = rt->resolver;
    struct request *r;
    rt->resolver = NULL;
    if (!v)
        return;
    uv_mutex_lock(&v->lock);
    v->wakeup = NULL;
    while ((r = list_take(&v->queue)) != NULL || (r = list_take(&v->done)) != NULL)
        request_free(r);
    release(v);
}

static int resolver_open(struct asio_rt *rt)
{
    struct resolver *v = asio_mem.malloc(sizeof *v);
    struct wakeup *wakeup = asio_mem.malloc(sizeof *wakeup);
    int status = v && wakeup ? uv_mutex_init(&v->lock) : UV_ENOMEM;
    if (status == 0 && (status = uv_async_init(&rt->loop, &wakeup->async, on_done)) < 0)
        uv_mutex_destroy(&v->lock);
    if (status < 0) {
        asio_mem.free(v);
        asio_mem.free(wakeup);
        return status;
    }
    v->queue = v->done = (struct list){ 0 };
    v->references = 1;
    v->helpers = 0;
    v->wakeup = wakeup;
    wakeup->ops = &wakeup_ops;
    wakeup->rt = rt;
    wakeup->async.data = wakeup;
    rt->resolver = v;
    return 0;
}

/* Hands a request over; a helper is started for it while there are few. */
static int submit(struct resolver *v, struct request *r)
{
    uv_mutex_lock(&v->lock);
    list_add(&v->queue, r);
    int status = 0;
    if (v->helpers < HELPERS_MAX) {
        v->helpers++;
        v->references++;
        status = asio_sys_thread(helper_main, v);
        if (status < 0) {
            v->helpers--;
            v->references--;
        }
    }
    if (status < 0 && v->helpers > 0)
        status = 0; /* those at work will come to it */
    if (status < 0)
        v->queue = (struct list){ 0 }; /* nobody at work: it was the only one */
    uv_mutex_unlock(&v->lock);
    return status;
}

static void abort_resolve(struct asio_wait *w)
{
    struct request *r = w->source;
    r->wait = NULL;
}

/* A list of raw socket addresses, as connect takes them. */
static int push_addresses(lua_State *L, struct asio_wait *w)
{
    struct request *r = w->source;
    if (w->status < 0)
        return asio_push_fail(L, w->status);
    asio_push_ok(L, w->rt);
    lua_newtable(L);
    int n = 0;
    for (struct addrinfo *a = r->result; a; a = a->ai_next) {
        struct sockaddr_storage addr;
        if (a->ai_addrlen > sizeof addr || (a->ai_family != AF_INET && a->ai_family != AF_INET6))
            continue;
        memset(&addr, 0, sizeof addr);
        memcpy(&addr, a->ai_addr, a->ai_addrlen);
        lua_pushlstring(L, (const char *)&addr, sizeof addr);
        lua_rawseti(L, -2, ++n);
    }
    return 2;
}

static const struct asio_wait_op resolve_op = { "resolve", true, abort_resolve, push_addresses };

/* core.resolve(host, port, timeout) -> list of raw addresses with that port. Waits. */
static int l_resolve(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    size_t length;
    const char *host = lua_tolstring(L, 1, &length);
    double timeout = asio_check_timeout(L, 3, 3, "connect");
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    if (strlen(host) != length || length == 0 || length > 1024)
        return asio_push_fail(L, UV_EAI_NONAME);
    struct asio_wait *w = asio_sched_claim(L, rt);
    int status = rt->resolver ? 0 : resolver_open(rt);
    struct request *r = status == 0 ? asio_mem.malloc(sizeof *r + length + 1) : NULL;
    if (!r)
        return asio_push_fail(L, status < 0 ? status : UV_ENOMEM);
    r->wait = w;
    r->result = NULL;
    snprintf(r->port, sizeof r->port, "%d", (int)lua_tointeger(L, 2));
    memcpy(r->host, host, length + 1);
    status = submit(rt->resolver, r);
    if (status < 0) {
        asio_mem.free(r);
        return asio_push_fail(L, status);
    }
    w->source = r;
    return asio_sched_park(L, w, &resolve_op, timeout);
}

void asio_resolver_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "resolve", l_resolve }, { NULL, NULL } };
    asio_api_functions(L, rt, "core", core);
    asio_rt_at_close(rt, resolver_close);
}
