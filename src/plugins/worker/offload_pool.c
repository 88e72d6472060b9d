/* SPDX-License-Identifier: MIT
 *
 * The queue of a pool of Lua states, and what becomes of its jobs; see offload.h. */
#include "plugins/worker/offload.h"

#include <string.h>

/* ---- jobs ---------------------------------------------------------------------------------- */

static void offload_list_append(struct offload_list *list, struct offload_job *job)
{
    job->next = NULL;
    if (list->last)
        list->last->next = job;
    else
        list->first = job;
    list->last = job;
}

struct offload_job *asio_offload_list_first(struct offload_list *list)
{
    struct offload_job *job = list->first;
    if (!job)
        return NULL;
    list->first = job->next;
    if (!list->first)
        list->last = NULL;
    return job;
}

static void offload_list_unlink(struct offload_list *list, struct offload_job *job)
{
    struct offload_job *before = NULL, *at = list->first;
    while (at != job) {
        before = at;
        at = at->next;
    }
    if (before)
        before->next = job->next;
    else
        list->first = job->next;
    if (list->last == job)
        list->last = before;
}

void asio_offload_job_drop(struct offload_job *job)
{
    struct offload_pool *pool = job->pool;
    worker_lock(&pool->lock);
    unsigned left = --job->references;
    worker_unlock(&pool->lock);
    if (left > 0)
        return;
    if (job->message)
        asio_message_free(job->message);
    worker_free(job);
    asio_shared_drop(&pool->shared);
}

void asio_offload_job_send_back(struct offload_job *job)
{
    if (!asio_peer_post(job->pool->owner, &job->post))
        asio_offload_job_drop(job);
}

static void offload_job_on_back(struct post *post, struct peer *peer, bool open)
{
    struct offload_job *job = (struct offload_job *)(void *)post;
    struct asio_wait *w = job->wait;
    (void)peer;
    job->wait = NULL;
    asio_offload_job_drop(job);
    if (open && w)
        asio_worker_core->wait->wake(w, 0);
}

void asio_offload_job_give_up(struct offload_job *job)
{
    struct offload_pool *pool = job->pool;
    job->wait = NULL;
    worker_lock(&pool->lock);
    bool queued = job->stage == JOB_QUEUED;
    job->given_up = true;
    if (queued) {
        offload_list_unlink(&pool->queue, job);
        pool->queued--;
        job->stage = JOB_OVER;
    }
    worker_unlock(&pool->lock);
    if (!queued)
        return;
    asio_message_free(job->message);
    job->message = NULL;
    asio_offload_job_drop(job);
}

struct offload_job *asio_offload_job_new(struct offload_pool *pool, struct message *m)
{
    struct offload_job *job = worker_alloc(sizeof *job);
    if (!job)
        return NULL;
    memset(job, 0, sizeof *job);
    job->post.run = offload_job_on_back;
    job->pool = pool;
    job->message = m;
    job->references = 1; /* the box's */
    asio_shared_keep(&pool->shared);
    return job;
}

/* ---- the pool ------------------------------------------------------------------------------ */

/* With the lock held: an idle state, if there is one, is told. The caller unlocks by the next function: a state that is
 * woken may get the processor at once, and would wait for the lock. */
static struct peer *offload_tell_one(struct offload_pool *pool)
{
    struct offload_port *port = pool->idle;
    bool asleep;
    if (!port)
        return NULL;
    pool->idle = port->next;
    return asio_peer_post_begin(port->peer, &port->post, &asleep);
}

static void offload_unlock(struct offload_pool *pool, struct peer *told)
{
    worker_unlock(&pool->lock);
    if (told)
        asio_peer_wake(told);
}

bool asio_offload_enqueue(struct offload_pool *pool, struct offload_job *job)
{
    struct peer *told = NULL;
    worker_lock(&pool->lock);
    bool open = !pool->closed;
    if (open) {
        job->references++;
        job->stage = JOB_QUEUED;
        offload_list_append(&pool->queue, job);
        pool->queued++;
        told = offload_tell_one(pool);
    }
    offload_unlock(pool, told);
    return open;
}

struct offload_job *asio_offload_refuse_one(struct offload_pool *pool, struct offload_list *list)
{
    worker_lock(&pool->lock);
    struct offload_job *job = asio_offload_list_first(list);
    if (job) {
        pool->queued -= job->stage == JOB_QUEUED;
        job->stage = JOB_OVER;
    }
    worker_unlock(&pool->lock);
    if (job && job->message) {
        asio_message_free(job->message);
        job->message = NULL;
    }
    return job;
}

static void offload_cancel_all(struct offload_pool *pool, struct offload_list *list)
{
    struct offload_job *job;
    while ((job = asio_offload_refuse_one(pool, list)) != NULL) {
        job->status = UV_ECANCELED;
        asio_offload_job_send_back(job);
    }
}

void asio_offload_close(struct offload_pool *pool)
{
    worker_lock(&pool->lock);
    pool->closed = true;
    while (pool->idle) {
        offload_unlock(pool, offload_tell_one(pool));
        worker_lock(&pool->lock);
    }
    worker_unlock(&pool->lock);
    offload_cancel_all(pool, &pool->queue);
}

static void offload_destroy(struct shared *shared)
{
    struct offload_pool *pool = (struct offload_pool *)(void *)shared;
    asio_peer_drop(pool->owner);
    asio_worker_core->threads->mutex_destroy(&pool->lock);
    worker_free(pool);
}

static void offload_port_on_job(struct post *post, struct peer *peer, bool open)
{
    struct offload_port *port = (struct offload_port *)(void *)post;
    struct asio_wait *w = port->wait;
    (void)peer;
    port->wait = NULL;
    if (open && w)
        asio_worker_core->wait->wake(w, 0);
}

static int offload_attach(struct shared *shared, struct peer *peer, void **local)
{
    struct offload_pool *pool = (struct offload_pool *)(void *)shared;
    if (peer == pool->owner)
        return 0;
    struct offload_port *port = worker_alloc(sizeof *port);
    if (!port)
        return UV_ENOMEM;
    memset(port, 0, sizeof *port);
    port->post.run = offload_port_on_job;
    port->pool = pool;
    port->peer = peer;
    *local = port;
    return 0;
}

void asio_offload_port_leave(struct offload_port *port)
{
    struct offload_pool *pool = port->pool;
    struct offload_port **at = &pool->idle;
    worker_lock(&pool->lock);
    while (*at && *at != port)
        at = &(*at)->next;
    if (*at)
        *at = port->next;
    asio_peer_withdraw(port->peer, &port->post);
    offload_unlock(pool, pool->queued > 0 ? offload_tell_one(pool) : NULL);
}

/* A state of the pool ends that runs a job. True: the owner is to learn that, but it has gone; the caller drops the job. */
static bool offload_port_lose(struct offload_port *port)
{
    struct offload_pool *pool = port->pool;
    worker_lock(&pool->lock);
    bool left = pool->left;
    pool->running--;
    port->job->stage = JOB_LOST;
    if (!left)
        offload_list_append(&pool->lost, port->job);
    worker_unlock(&pool->lock);
    return left;
}

/* The owner's handle has gone, or that of another state. */
static void offload_detach(struct shared *shared, void *local)
{
    struct offload_pool *pool = (struct offload_pool *)(void *)shared;
    struct offload_port *port = local;
    if (!port) {
        worker_lock(&pool->lock);
        pool->left = true;
        worker_unlock(&pool->lock);
        asio_offload_close(pool);
        offload_cancel_all(pool, &pool->lost);
        return;
    }
    asio_offload_port_leave(port);
    if (port->job && offload_port_lose(port))
        asio_offload_job_drop(port->job);
    worker_free(port);
}

static int l_offload_tostring(lua_State *L)
{
    const struct shared_kind *kind = &asio_offload_kind;
    struct offload_pool *pool = (struct offload_pool *)(void *)asio_shared_check(L, kind, "tostring")->object;
    worker_lock(&pool->lock);
    int running = (int)pool->running, queued = (int)pool->queued;
    bool closed = pool->closed;
    worker_unlock(&pool->lock);
    lua_pushfstring(L, "offload pool (%d running, %d waiting%s)", running, queued, closed ? ", closed" : "");
    return 1;
}

static void offload_open(lua_State *L, struct asio_rt *rt, struct peer *peer)
{
    static const luaL_Reg meta[] = { { "__tostring", l_offload_tostring }, { NULL, NULL } };
    asio_worker_bind(L, rt, peer, meta);
}

const struct shared_kind asio_offload_kind = {
    .name = "offload pool",
    .article = "an",
    .destroy = offload_destroy,
    .attach = offload_attach,
    .detach = offload_detach,
    .open = offload_open,
    .class = "offload_pool",
};
