/* SPDX-License-Identifier: MIT
 *
 * Names by the system's getaddrinfo, on a few helper threads of our own. libuv's look-ups
 * cannot be given up once they run, and hold up the end of the program by seconds; here a
 * look-up that nobody waits for is simply forgotten, and a thread that still sits in the system's
 * resolver keeps what it needs alive by a reference count, not the runtime.
 *
 * Lifetime of struct resolver: made at the first look-up; one reference for the runtime, one per
 * helper thread; freed by whoever drops the last. Helpers end when no request is left.
 * Lifetime of struct request: made by start; on the queue, in a helper's hands or on the done
 * list, in that order; freed by the loop thread, or by whoever finds the runtime gone. */
#include "plugin/names.h"

#include "core/runtime.h"

#include <string.h>
#ifndef _WIN32
#include <netdb.h>
#endif

enum { HELPERS_MAX = 8 };

struct request {
    struct request *next;
    struct asio_names_query *query; /* the loop thread's alone; NULL: given up */
    struct addrinfo *result;
    int status;
    int family;
    char host[];
};

struct list {
    struct request *first, *last;
};

struct wakeup {                        /* what libuv's handle belongs to */
    const struct asio_handle_ops *ops; /* first: see runtime.h */
    uv_async_t async;
    struct resolver *resolver;
};

struct resolver {
    uv_mutex_t lock; /* guards all below */
    struct list queue, done;
    struct wakeup *wakeup; /* NULL: the runtime has gone */
    int references, helpers;
};

static void getaddrinfo_list_add(struct list *list, struct request *r)
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

static bool list_remove(struct list *list, struct request *r)
{
    struct request **link = &list->first, *before = NULL;
    while (*link && *link != r) {
        before = *link;
        link = &before->next;
    }
    if (!*link)
        return false;
    *link = r->next;
    if (list->last == r)
        list->last = before;
    return true;
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

static void getaddrinfo_look_up(struct request *r)
{
    struct addrinfo hints;
    memset(&hints, 0, sizeof hints);
    hints.ai_family = r->family;
    hints.ai_socktype = SOCK_STREAM;
    r->status = translate(getaddrinfo(r->host, NULL, &hints, &r->result));
    if (r->status < 0)
        r->result = NULL;
}

/* Drops a reference; the lock is held and given up. */
static void getaddrinfo_release(struct resolver *v)
{
    bool last = --v->references == 0;
    uv_mutex_unlock(&v->lock);
    if (!last)
        return;
    uv_mutex_destroy(&v->lock);
    asio_mem.free(v);
}

/* The loop is woken under the lock: the runtime cannot close the handle meanwhile. */
static void getaddrinfo_helper_main(void *arg)
{
    struct resolver *v = arg;
    struct request *r;
    uv_mutex_lock(&v->lock);
    while ((r = list_take(&v->queue)) != NULL) {
        uv_mutex_unlock(&v->lock);
        getaddrinfo_look_up(r);
        uv_mutex_lock(&v->lock);
        if (v->wakeup) {
            getaddrinfo_list_add(&v->done, r);
            uv_async_send(&v->wakeup->async);
        } else {
            request_free(r);
        }
    }
    v->helpers--;
    getaddrinfo_release(v);
}

/* ---- the loop thread ---------------------------------------------------------------------- */

static bool usable(const struct addrinfo *a)
{
    return a->ai_addr && (a->ai_family == AF_INET || a->ai_family == AF_INET6);
}

static void getaddrinfo_set_address(struct asio_record *record, char *bytes, const struct addrinfo *a)
{
    record->bytes = bytes;
    if (a->ai_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, a->ai_addr, sizeof in);
        record->type = ASIO_NAMES_A;
        record->length = sizeof in.sin_addr;
        memcpy(bytes, &in.sin_addr, sizeof in.sin_addr);
    } else {
        struct sockaddr_in6 in6;
        memcpy(&in6, a->ai_addr, sizeof in6);
        record->type = ASIO_NAMES_AAAA;
        record->length = sizeof in6.sin6_addr;
        record->scope = in6.sin6_scope_id;
        memcpy(bytes, &in6.sin6_addr, sizeof in6.sin6_addr);
    }
}

/* The order is the system's, which knows its routes. */
static int getaddrinfo_make_answer(const struct addrinfo *list, struct asio_answer **answer)
{
    enum { ADDRESS = 16 };
    unsigned count = 0;
    char *bytes;
    for (const struct addrinfo *a = list; a; a = a->ai_next)
        count += usable(a);
    if (count == 0)
        return UV_EAI_NODATA;
    *answer = asio_answer_new(&asio_mem, count, (size_t)count * ADDRESS, &bytes);
    if (!*answer)
        return UV_ENOMEM;
    struct asio_record *record = (*answer)->records;
    for (const struct addrinfo *a = list; a; a = a->ai_next, bytes += ADDRESS)
        if (usable(a))
            getaddrinfo_set_address(record++, bytes, a);
    return 0;
}

static void on_done(uv_async_t *async)
{
    struct resolver *v = ASIO_CONTAINER(async, struct wakeup, async)->resolver;
    for (;;) {
        uv_mutex_lock(&v->lock);
        struct request *r = list_take(&v->done);
        uv_mutex_unlock(&v->lock);
        if (!r)
            return;
        struct asio_names_query *q = r->query;
        if (q) {
            q->parts[0].flight = NULL;
            q->status = r->status < 0 ? r->status : getaddrinfo_make_answer(r->result, &q->answers[0]);
        }
        request_free(r);
        if (q)
            asio_plugin.names_done(q);
    }
}

static void getaddrinfo_on_close(uv_handle_t *handle)
{
    asio_mem.free(ASIO_CONTAINER(handle, struct wakeup, async));
}

static void getaddrinfo_teardown(void *owner)
{
    struct wakeup *wakeup = owner;
    uv_close((uv_handle_t *)&wakeup->async, getaddrinfo_on_close);
}

static const struct asio_handle_ops wakeup_ops = { getaddrinfo_teardown };

/* The runtime goes: whoever is still in the system's resolver frees its own. */
static void resolver_close(void *self)
{
    struct resolver *v = self;
    struct request *r;
    uv_mutex_lock(&v->lock);
    v->wakeup = NULL;
    while ((r = list_take(&v->queue)) != NULL || (r = list_take(&v->done)) != NULL)
        request_free(r);
    getaddrinfo_release(v);
}

static void *resolver_open(const struct asio_plugin *core, struct asio_rt *rt, int *result)
{
    struct resolver *v = asio_mem.malloc(sizeof *v);
    struct wakeup *wakeup = asio_mem.malloc(sizeof *wakeup);
    int status = v && wakeup ? uv_mutex_init(&v->lock) : UV_ENOMEM;
    if (status == 0 && (status = uv_async_init(&rt->loop, &wakeup->async, on_done)) < 0)
        uv_mutex_destroy(&v->lock);
    if (status < 0) {
        asio_mem.free(v);
        asio_mem.free(wakeup);
        *result = status;
        return NULL;
    }
    v->queue = v->done = (struct list){ 0 };
    v->references = 1;
    v->helpers = 0;
    v->wakeup = wakeup;
    wakeup->ops = &wakeup_ops;
    wakeup->resolver = v;
    wakeup->async.data = wakeup;
    return v;
}

/* Hands a request over; a helper is started for it while there are few. */
static int submit(struct resolver *v, struct request *r)
{
    uv_mutex_lock(&v->lock);
    getaddrinfo_list_add(&v->queue, r);
    int status = 0;
    if (v->helpers < HELPERS_MAX) {
        v->helpers++;
        v->references++;
        status = asio_sys_thread(getaddrinfo_helper_main, v);
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

static int getaddrinfo_family_of(const struct asio_names_query *q)
{
    switch (q->type) {
    case ASIO_NAMES_BOTH:
        return AF_UNSPEC;
    case ASIO_NAMES_A:
        return AF_INET;
    case ASIO_NAMES_AAAA:
        return AF_INET6;
    default:
        return -1;
    }
}

static int resolver_start(void *self, struct asio_names_query *q)
{
    size_t length = strlen(q->host);
    if (getaddrinfo_family_of(q) < 0 || q->servers_count > 0)
        return UV_ENOTSUP;
    struct request *r = asio_mem.malloc(sizeof *r + length + 1);
    if (!r)
        return UV_ENOMEM;
    r->query = q;
    r->result = NULL;
    r->family = getaddrinfo_family_of(q);
    memcpy(r->host, q->host, length + 1);
    int status = submit(self, r);
    if (status < 0) {
        asio_mem.free(r);
        return status;
    }
    q->parts[0].flight = r;
    return ASIO_NAMES_PENDING;
}

/* What no helper has begun with is taken off the queue, or it would keep others waiting. */
static void resolver_cancel(void *self, struct asio_names_query *q)
{
    struct resolver *v = self;
    struct request *r = q->parts[0].flight;
    if (!r)
        return;
    r->query = NULL;
    uv_mutex_lock(&v->lock);
    bool queued = list_remove(&v->queue, r);
    uv_mutex_unlock(&v->lock);
    if (queued)
        request_free(r);
}

const struct asio_names_backend asio_names_getaddrinfo = {
    .version = ASIO_PLUGIN_VERSION,
    .name = "getaddrinfo",
    .open = resolver_open,
    .close = resolver_close,
    .start = resolver_start,
    .cancel = resolver_cancel,
};
