/* SPDX-License-Identifier: MIT
 *
 * Names by the system's getaddrinfo, on a few detached helper threads. libuv's look-ups cannot be given up once
 * they run, and delay the end of the program by seconds. Here a look-up that is given up is forgotten, and a
 * helper thread that is still inside getaddrinfo holds a reference to what it needs, not to the runtime.
 *
 * Lifetime of struct getaddrinfo_pool: made at the first look-up; one reference for the runtime, one per helper
 * thread; the last one dropped frees it. Helpers end when no request is left.
 * Lifetime of struct getaddrinfo_request: made by start; on the queue, taken by a helper, then on the done list;
 * freed by the loop thread, or by the helper if the runtime has closed. */
#include "dns/getaddrinfo.h"

#include "core/runtime.h"

#include <errno.h>
#include <string.h>
#ifndef _WIN32
#include <netdb.h>
#endif

enum { HELPERS_MAX = 8 };

struct getaddrinfo_request {
    struct getaddrinfo_request *next;
    struct asio_names_query *query; /* the loop thread's alone; NULL: given up */
    struct addrinfo *result;
    int status;
    int family;
    char host[];
};

struct getaddrinfo_list {
    struct getaddrinfo_request *first, *last;
};

struct getaddrinfo_wakeup {            /* of libuv's handle, which closes later than the pool may be freed */
    const struct asio_handle_ops *ops; /* first: see runtime.h */
    uv_async_t async;
    struct getaddrinfo_pool *pool;
};

struct getaddrinfo_pool {
    uv_mutex_t lock; /* guards all below */
    struct getaddrinfo_list queue, done;
    struct getaddrinfo_wakeup *wakeup; /* NULL: the runtime has gone */
    int references, helpers;
};

static void getaddrinfo_add(struct getaddrinfo_list *list, struct getaddrinfo_request *r)
{
    r->next = NULL;
    if (list->last)
        list->last->next = r;
    else
        list->first = r;
    list->last = r;
}

static struct getaddrinfo_request *getaddrinfo_take(struct getaddrinfo_list *list)
{
    struct getaddrinfo_request *r = list->first;
    if (r)
        list->first = r->next;
    if (!list->first)
        list->last = NULL;
    return r;
}

static bool getaddrinfo_remove(struct getaddrinfo_list *list, struct getaddrinfo_request *r)
{
    struct getaddrinfo_request **link = &list->first, *before = NULL;
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

static void getaddrinfo_free(struct getaddrinfo_request *r)
{
    if (r->result)
        freeaddrinfo(r->result);
    asio_mem.free(r);
}

/* ---- helper threads ----------------------------------------------------------------------- */

static int getaddrinfo_translate(int error)
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
    default: /* EAI_NONAME, EAI_NODATA, EAI_ADDRFAMILY and others that mean: no such name */
        return UV_EAI_NONAME;
    }
}

/* Out of descriptors glibc says that there is no such name; errno says why. */
static void getaddrinfo_look_up(struct getaddrinfo_request *r)
{
    struct addrinfo hints;
    memset(&hints, 0, sizeof hints);
    hints.ai_family = r->family;
    hints.ai_socktype = SOCK_STREAM;
    errno = 0;
    r->status = getaddrinfo_translate(getaddrinfo(r->host, NULL, &hints, &r->result));
    if (r->status == 0)
        return;
    r->result = NULL;
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
        r->status = uv_translate_sys_error(errno);
}

/* Drops a reference; the lock is held and given up. */
static void getaddrinfo_release(struct getaddrinfo_pool *v)
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
    struct getaddrinfo_pool *v = arg;
    struct getaddrinfo_request *r;
    uv_mutex_lock(&v->lock);
    while ((r = getaddrinfo_take(&v->queue)) != NULL) {
        uv_mutex_unlock(&v->lock);
        getaddrinfo_look_up(r);
        uv_mutex_lock(&v->lock);
        if (v->wakeup) {
            getaddrinfo_add(&v->done, r);
            uv_async_send(&v->wakeup->async);
        } else {
            getaddrinfo_free(r);
        }
    }
    v->helpers--;
    getaddrinfo_release(v);
}

/* ---- the loop thread ---------------------------------------------------------------------- */

static bool getaddrinfo_usable(const struct addrinfo *a)
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
        count += getaddrinfo_usable(a);
    if (count == 0)
        return UV_EAI_NODATA;
    *answer = asio_answer_new(&asio_mem, count, (size_t)count * ADDRESS, &bytes);
    if (!*answer)
        return UV_ENOMEM;
    struct asio_record *record = (*answer)->records;
    for (const struct addrinfo *a = list; a; a = a->ai_next, bytes += ADDRESS)
        if (getaddrinfo_usable(a))
            getaddrinfo_set_address(record++, bytes, a);
    return 0;
}

static void getaddrinfo_on_done(uv_async_t *async)
{
    struct getaddrinfo_pool *v = ASIO_CONTAINER(async, struct getaddrinfo_wakeup, async)->pool;
    const struct asio_rt *rt = ASIO_CONTAINER(async->loop, struct asio_rt, loop);
    while (!rt->closed) { /* a light thread forks: in the child a helper may hold the lock for ever */
        uv_mutex_lock(&v->lock);
        struct getaddrinfo_request *r = getaddrinfo_take(&v->done);
        uv_mutex_unlock(&v->lock);
        if (!r)
            return;
        struct asio_names_query *q = r->query;
        if (q) {
            q->parts[0].flight = NULL;
            q->status = r->status < 0 ? r->status : getaddrinfo_make_answer(r->result, &q->answers[0]);
        }
        getaddrinfo_free(r);
        if (q)
            q->done(q);
    }
}

static void getaddrinfo_on_close(uv_handle_t *handle)
{
    asio_mem.free(ASIO_CONTAINER(handle, struct getaddrinfo_wakeup, async));
}

static void getaddrinfo_teardown(void *owner)
{
    struct getaddrinfo_wakeup *wakeup = owner;
    uv_close((uv_handle_t *)&wakeup->async, getaddrinfo_on_close);
}

static const struct asio_handle_ops getaddrinfo_wakeup_ops = { getaddrinfo_teardown };

/* The runtime closes: a helper that is still inside getaddrinfo frees its own request. */
static void getaddrinfo_close(void *self)
{
    struct getaddrinfo_pool *v = self;
    struct getaddrinfo_request *r;
    uv_mutex_lock(&v->lock);
    v->wakeup = NULL;
    while ((r = getaddrinfo_take(&v->queue)) != NULL || (r = getaddrinfo_take(&v->done)) != NULL)
        getaddrinfo_free(r);
    getaddrinfo_release(v);
}

static void *getaddrinfo_open(const struct asio_plugin *core, struct asio_rt *rt, int *result)
{
    struct getaddrinfo_pool *v = asio_mem.malloc(sizeof *v);
    struct getaddrinfo_wakeup *wakeup = asio_mem.malloc(sizeof *wakeup);
    int status = v && wakeup ? uv_mutex_init(&v->lock) : UV_ENOMEM;
    if (status == 0 && (status = uv_async_init(&rt->loop, &wakeup->async, getaddrinfo_on_done)) < 0)
        uv_mutex_destroy(&v->lock);
    if (status < 0) {
        asio_mem.free(v);
        asio_mem.free(wakeup);
        *result = status;
        return NULL;
    }
    v->queue = v->done = (struct getaddrinfo_list){ 0 };
    v->references = 1;
    v->helpers = 0;
    v->wakeup = wakeup;
    wakeup->ops = &getaddrinfo_wakeup_ops;
    wakeup->pool = v;
    wakeup->async.data = wakeup;
    return v;
}

/* Hands a request over; a helper is started for it while there are few. */
static int getaddrinfo_submit(struct getaddrinfo_pool *v, struct getaddrinfo_request *r)
{
    uv_mutex_lock(&v->lock);
    getaddrinfo_add(&v->queue, r);
    int status = 0;
    if (v->helpers < HELPERS_MAX) {
        v->helpers++;
        v->references++;
        status = asio_sys_thread(getaddrinfo_helper_main, v, ASIO_SYS_HELPER_STACK);
        if (status < 0) {
            v->helpers--;
            v->references--;
        }
    }
    if (status < 0 && v->helpers > 0)
        status = 0; /* the helpers at work take it later */
    if (status < 0)
        v->queue = (struct getaddrinfo_list){ 0 }; /* no helper, so nothing else is queued */
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

static int getaddrinfo_start(void *self, struct asio_names_query *q)
{
    size_t length = strlen(q->host);
    if (getaddrinfo_family_of(q) < 0 || q->servers_count > 0)
        return UV_ENOTSUP;
    struct getaddrinfo_request *r = asio_mem.malloc(sizeof *r + length + 1);
    if (!r)
        return UV_ENOMEM;
    r->query = q;
    r->result = NULL;
    r->family = getaddrinfo_family_of(q);
    memcpy(r->host, q->host, length + 1);
    int status = getaddrinfo_submit(self, r);
    if (status < 0) {
        asio_mem.free(r);
        return status;
    }
    q->parts[0].flight = r;
    return ASIO_NAMES_PENDING;
}

/* A request that no helper has taken leaves the queue, or it would delay those behind it. */
static void getaddrinfo_cancel(void *self, struct asio_names_query *q)
{
    struct getaddrinfo_pool *v = self;
    struct getaddrinfo_request *r = q->parts[0].flight;
    if (!r)
        return;
    r->query = NULL;
    uv_mutex_lock(&v->lock);
    bool queued = getaddrinfo_remove(&v->queue, r);
    uv_mutex_unlock(&v->lock);
    if (queued)
        getaddrinfo_free(r);
}

const struct asio_names_backend asio_getaddrinfo = {
    .version = ASIO_PLUGIN_NAMES_VERSION,
    .name = "getaddrinfo",
    .open = getaddrinfo_open,
    .close = getaddrinfo_close,
    .start = getaddrinfo_start,
    .cancel = getaddrinfo_cancel,
};
