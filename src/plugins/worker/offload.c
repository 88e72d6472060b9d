/* SPDX-License-Identifier: MIT
 *
 * The queue of a pool of Lua states: jobs of the state that has made the pool, its owner. A state of the pool takes the
 * next one when it is idle, and its answer goes to the owner's mailbox. What starts the states is in offload.lua.
 *
 * Lifetime of a job: made by the owner; referenced by the box of the light thread that waits for it, and until it is
 * answered (or taken out of the queue) by the queue, the state that runs it, or the owner's mailbox in turn; freed by
 * the last of them, on any thread. */
#include "plugins/worker/worker.h"

#include <string.h>

enum job_stage {
    JOB_NEW,
    JOB_QUEUED,
    JOB_RUNNING,
    JOB_LOST, /* its state has ended: in the list of those, until the owner says why */
    JOB_OVER,
};

struct offload_job {
    struct post post;          /* the answer, to the owner */
    struct offload_pool *pool; /* a reference */
    struct message *message;   /* what it is to do; then the answer. Of the thread that has the job */
    struct offload_job *next;  /* under the pool's lock, like these: */
    enum job_stage stage;
    unsigned references;
    bool given_up;          /* the answer is not wanted */
    struct asio_wait *wait; /* of the owner's thread, like these: */
    int status;             /* why there is no answer; 0: there is */
};

struct offload_list {
    struct offload_job *first, *last;
};

struct offload_pool {
    struct shared shared; /* first */
    struct peer *owner;   /* a reference; constant */
    uv_mutex_t lock;      /* guards what follows */
    struct offload_list queue, lost;
    size_t queued, running;
    struct offload_port *idle; /* the one that became idle last is first: its caches are warm */
    bool closed;
    bool left; /* by the owner: its handle has gone */
};

/* What a state that is not the owner has with its handle. */
struct offload_port {
    struct post post; /* there is a job, or the pool is closed */
    struct offload_pool *pool;
    struct peer *peer;
    struct offload_port *next; /* in `idle`, under the pool's lock */
    struct asio_wait *wait;    /* of the own thread, like this: */
    struct offload_job *job;   /* runs */
};

static const char offload_box_class = 0; /* its address: the registry's key of the boxes' metatable */

/* ---- jobs ---------------------------------------------------------------------------------- */

static void offload_append(struct offload_list *list, struct offload_job *job)
{
    job->next = NULL;
    if (list->last)
        list->last->next = job;
    else
        list->first = job;
    list->last = job;
}

static struct offload_job *offload_first(struct offload_list *list)
{
    struct offload_job *job = list->first;
    if (!job)
        return NULL;
    list->first = job->next;
    if (!list->first)
        list->last = NULL;
    return job;
}

static void offload_unlink(struct offload_list *list, struct offload_job *job)
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

static void job_drop(struct offload_job *job)
{
    struct offload_pool *pool = job->pool;
    worker_lock(&pool->lock);
    unsigned left = --job->references;
    worker_unlock(&pool->lock);
    if (left > 0)
        return;
    if (job->message)
        message_free(job->message);
    worker_free(job);
    shared_drop(&pool->shared);
}

/* The owner gets the job back; the caller's reference goes along. */
static void job_send_back(struct offload_job *job)
{
    if (!peer_post(job->pool->owner, &job->post))
        job_drop(job);
}

static void job_on_back(struct post *post, struct peer *peer, bool open)
{
    struct offload_job *job = (struct offload_job *)(void *)post;
    struct asio_wait *w = job->wait;
    (void)peer;
    job->wait = NULL;
    job_drop(job);
    if (open && w)
        asio_worker_core->wait->wake(w, 0);
}

/* The answer is not wanted: a job that has not begun will not. On the owner's thread. */
static void job_give_up(struct offload_job *job)
{
    struct offload_pool *pool = job->pool;
    job->wait = NULL;
    worker_lock(&pool->lock);
    bool queued = job->stage == JOB_QUEUED;
    job->given_up = true;
    if (queued) {
        offload_unlink(&pool->queue, job);
        pool->queued--;
        job->stage = JOB_OVER;
    }
    worker_unlock(&pool->lock);
    if (!queued)
        return;
    message_free(job->message);
    job->message = NULL;
    job_drop(job);
}

static struct offload_job *job_new(struct offload_pool *pool, struct message *m)
{
    struct offload_job *job = worker_alloc(sizeof *job);
    if (!job)
        return NULL;
    memset(job, 0, sizeof *job);
    job->post.run = job_on_back;
    job->pool = pool;
    job->message = m;
    job->references = 1; /* the box's */
    shared_keep(&pool->shared);
    return job;
}

/* ---- the pool ------------------------------------------------------------------------------ */

/* With the lock held. */
static void offload_tell_one(struct offload_pool *pool)
{
    struct offload_port *port = pool->idle;
    if (!port)
        return;
    pool->idle = port->next;
    peer_post(port->peer, &port->post);
}

/* False: it is closed. */
static bool offload_enqueue(struct offload_pool *pool, struct offload_job *job)
{
    worker_lock(&pool->lock);
    bool open = !pool->closed;
    if (open) {
        job->references++;
        job->stage = JOB_QUEUED;
        offload_append(&pool->queue, job);
        pool->queued++;
        offload_tell_one(pool);
    }
    worker_unlock(&pool->lock);
    return open;
}

/* The next job that has not begun, which will not; NULL: there is none. */
static struct offload_job *offload_refuse_one(struct offload_pool *pool, struct offload_list *list)
{
    worker_lock(&pool->lock);
    struct offload_job *job = offload_first(list);
    if (job) {
        pool->queued -= job->stage == JOB_QUEUED;
        job->stage = JOB_OVER;
    }
    worker_unlock(&pool->lock);
    if (job && job->message) {
        message_free(job->message);
        job->message = NULL;
    }
    return job;
}

static void offload_cancel_all(struct offload_pool *pool, struct offload_list *list)
{
    struct offload_job *job;
    while ((job = offload_refuse_one(pool, list)) != NULL) {
        job->status = UV_ECANCELED;
        job_send_back(job);
    }
}

static void offload_close(struct offload_pool *pool)
{
    worker_lock(&pool->lock);
    pool->closed = true;
    while (pool->idle)
        offload_tell_one(pool);
    worker_unlock(&pool->lock);
    offload_cancel_all(pool, &pool->queue);
}

static void offload_destroy(struct shared *shared)
{
    struct offload_pool *pool = (struct offload_pool *)(void *)shared;
    peer_drop(pool->owner);
    asio_worker_core->threads->mutex_destroy(&pool->lock);
    worker_free(pool);
}

static void port_on_job(struct post *post, struct peer *peer, bool open)
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
    port->post.run = port_on_job;
    port->pool = pool;
    port->peer = peer;
    *local = port;
    return 0;
}

static void offload_port_leave(struct offload_port *port)
{
    struct offload_pool *pool = port->pool;
    struct offload_port **at = &pool->idle;
    worker_lock(&pool->lock);
    while (*at && *at != port)
        at = &(*at)->next;
    if (*at)
        *at = port->next;
    worker_unlock(&pool->lock);
}

/* A state of the pool ends: it may have been running a job, or have been told of one. True: that the owner is to learn,
 * but it has gone; the caller drops the job. */
static bool offload_port_lose(struct offload_port *port)
{
    struct offload_pool *pool = port->pool;
    worker_lock(&pool->lock);
    bool left = pool->left;
    if (port->job) {
        pool->running--;
        port->job->stage = JOB_LOST;
        if (!left)
            offload_append(&pool->lost, port->job);
    } else if (pool->queued > 0)
        offload_tell_one(pool);
    worker_unlock(&pool->lock);
    return port->job && left;
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
        offload_close(pool);
        offload_cancel_all(pool, &pool->lost);
        return;
    }
    offload_port_leave(port);
    peer_withdraw(port->peer, &port->post);
    if (offload_port_lose(port))
        job_drop(port->job);
    worker_free(port);
}

static int l_offload_tostring(lua_State *L)
{
    const struct shared_kind *kind = &offload_kind;
    struct offload_pool *pool = (struct offload_pool *)(void *)shared_check(L, kind, "tostring")->object;
    worker_lock(&pool->lock);
    int running = (int)pool->running, queued = (int)pool->queued;
    bool closed = pool->closed;
    worker_unlock(&pool->lock);
    lua_pushfstring(
        L, "offload pool (%d running, %d waiting%s)", running, queued, closed ? ", closed" : "");
    return 1;
}

static void offload_open(lua_State *L, struct asio_rt *rt, struct peer *peer)
{
    static const luaL_Reg meta[] = { { "__tostring", l_offload_tostring }, { NULL, NULL } };
    worker_bind(L, rt, peer, meta);
}

const struct shared_kind offload_kind = {
    .name = "offload pool",
    .destroy = offload_destroy,
    .attach = offload_attach,
    .detach = offload_detach,
    .open = offload_open,
    .class = "offload_pool",
};

/* ---- Lua: the owner ------------------------------------------------------------------------ */

static struct offload_pool *offload_check_owner(lua_State *L, const char *fname)
{
    struct offload_pool *pool = (struct offload_pool *)(void *)shared_check(L, &offload_kind, fname)->object;
    if (pool->owner != worker_peer(L))
        asio_worker_core->error->misuse(L, "%s: this pool belongs to another Lua state", fname);
    return pool;
}

/* worker.new_pool() */
static int l_offload_new(lua_State *L)
{
    worker_check_open(L, "offload_pool");
    shared_push_empty(L, &offload_kind);
    struct offload_pool *pool = worker_alloc(sizeof *pool);
    if (pool)
        memset(pool, 0, sizeof *pool);
    if (!pool || asio_worker_core->threads->mutex_init(&pool->lock) < 0) {
        worker_free(pool);
        return luaL_error(L, "not enough memory");
    }
    pool->owner = worker_peer(L);
    peer_keep(pool->owner);
    shared_init(&pool->shared, &offload_kind);
    shared_fill(L, pool->owner, &pool->shared);
    return 1;
}

/* worker.pool_load(pool, fname) -> jobs that run, that wait, whether it is closed */
static int l_offload_load(lua_State *L)
{
    struct offload_pool *pool = offload_check_owner(L, lua_tostring(L, 2));
    worker_lock(&pool->lock);
    size_t running = pool->running, queued = pool->queued;
    bool closed = pool->closed;
    worker_unlock(&pool->lock);
    lua_pushinteger(L, (lua_Integer)running);
    lua_pushinteger(L, (lua_Integer)queued);
    lua_pushboolean(L, closed);
    return 3;
}

static int l_offload_close(lua_State *L)
{
    offload_close(offload_check_owner(L, "close"));
    return 0;
}

/* worker.fail_jobs(pool, what, ok, ...): the answer to jobs whose state has ended ("lost"), to the first that waits
 * ("next"), to all ("all") -> how many */
static int l_offload_fail(lua_State *L)
{
    static const struct message_place place = { "offload", 0, "error", MESSAGE_PLAIN };
    struct offload_pool *pool = offload_check_owner(L, "offload");
    const char *what = lua_tostring(L, 2);
    struct offload_list *list = *what == 'l' ? &pool->lost : &pool->queue;
    struct offload_job *job;
    int last = lua_gettop(L), count = 0;
    while ((*what != 'n' || count == 0) && (job = offload_refuse_one(pool, list)) != NULL) {
        job->status = UV_ENOMEM; /* if the next lines raise; the mailbox is looked into afterwards */
        job_send_back(job);
        job->message = message_pack(L, 3, last, &place);
        job->status = 0;
        lua_settop(L, last);
        count++;
    }
    lua_pushinteger(L, count);
    return 1;
}

static void offload_abort(struct asio_wait *w)
{
    job_give_up(asio_worker_core->wait->source(w));
    asio_worker_core->wait->item_clear(w);
}

/* Pushes the box. */
static int offload_push_box(lua_State *L, struct asio_wait *w)
{
    asio_worker_core->wait->push_ok(L, worker_rt(L));
    asio_worker_core->wait->item_get(L, w);
    return 2;
}

static const struct asio_wait_op offload_op = {
    .name = "offload", .outside = true, .shared = true, .abort = offload_abort, .push = offload_push_box
};

static struct offload_job **offload_push_empty_box(lua_State *L)
{
    struct offload_job **box = lua_newuserdata(L, sizeof *box);
    *box = NULL;
    lua_pushlightuserdata(L, (void *)&offload_box_class);
    lua_rawget(L, LUA_REGISTRYINDEX);
    lua_setmetatable(L, -2);
    return box;
}

static int l_offload_box_gc(lua_State *L)
{
    struct offload_job **box = lua_touserdata(L, 1), *job = *box;
    *box = NULL;
    if (!job || asio_worker_core->threads->forked(worker_rt(L)))
        return 0;
    job_give_up(job);
    job_drop(job);
    return 0;
}

/* With the box at the top of L: its job waits for a state. Packing may run finalizers, which may wait: the wait is
 * claimed afterwards. */
static int offload_start(lua_State *L, struct offload_pool *pool, struct offload_job *job)
{
    struct asio_wait *w = asio_worker_core->wait->claim(L, worker_rt(L));
    int status = message_commit(job->message);
    if (status == 0 && !offload_enqueue(pool, job))
        status = UV_EBADF;
    if (status < 0)
        return asio_worker_core->wait->push_fail(L, status);
    job->wait = w;
    asio_worker_core->wait->item_set(L, w);
    return asio_worker_core->wait->park(L, w, &offload_op, job, -1);
}

/* worker.submit(pool, fn, ...) -> token, box of the answer. Waits for the answer. */
static int l_offload_submit(lua_State *L)
{
    static const struct message_place place = { "offload", 1, NULL, MESSAGE_PLAIN };
    struct offload_pool *pool = offload_check_owner(L, "offload");
    int last = lua_gettop(L);
    int n = asio_worker_core->wait->interrupt(L, worker_rt(L));
    if (n > 0)
        return n;
    struct offload_job **box = offload_push_empty_box(L);
    struct message *m = message_pack(L, 2, last, &place); /* pushes what has to stay until it is committed */
    *box = job_new(pool, m);
    if (!*box) {
        message_free(m);
        return asio_worker_core->wait->push_fail(L, UV_ENOMEM);
    }
    lua_pushvalue(L, last + 1);
    return offload_start(L, pool, *box);
}

/* worker.answer_of(box) -> true, results... | false, error, traceback | nil, message, code */
static int l_offload_answer_of(lua_State *L)
{
    struct offload_job *job = *(struct offload_job **)lua_touserdata(L, 1);
    if (job->status < 0)
        return asio_worker_core->error->push(L, job->status);
    int n = message_push(L, job->message);
    message_free(job->message);
    job->message = NULL;
    return n;
}

/* ---- Lua: a state of the pool -------------------------------------------------------------- */

static struct offload_port *offload_check_port(lua_State *L)
{
    struct offload_port *port = shared_check(L, &offload_kind, "offload")->local;
    if (!port)
        asio_worker_core->error->misuse(L, "offload: this state is not one of the pool");
    return port;
}

/* worker.take_job(pool) -> true; false: none waits; nil: the pool is closed */
static int l_offload_take(lua_State *L)
{
    struct offload_port *port = offload_check_port(L);
    struct offload_pool *pool = port->pool;
    worker_lock(&pool->lock);
    bool closed = pool->closed;
    struct offload_job *job = offload_first(&pool->queue);
    if (job) {
        pool->queued--;
        pool->running++;
        job->stage = JOB_RUNNING;
    }
    worker_unlock(&pool->lock);
    port->job = job;
    if (job || !closed)
        lua_pushboolean(L, job != NULL);
    else
        lua_pushnil(L);
    return 1;
}

static void port_abort_idle(struct asio_wait *w)
{
    struct offload_port *port = asio_worker_core->wait->source(w);
    port->wait = NULL;
    offload_port_leave(port);
    peer_withdraw(port->peer, &port->post);
}

static const struct asio_wait_op offload_idle_op = {
    .name = "offload job", .outside = true, .shared = true, .abort = port_abort_idle
};

/* worker.await_job(pool): waits until there may be one, or the pool is closed. */
static int l_offload_await(lua_State *L)
{
    struct offload_port *port = offload_check_port(L);
    struct offload_pool *pool = port->pool;
    int n = asio_worker_core->wait->interrupt(L, worker_rt(L));
    if (n > 0)
        return n;
    struct asio_wait *w = asio_worker_core->wait->claim(L, worker_rt(L));
    worker_lock(&pool->lock);
    bool waits = !pool->queue.first && !pool->closed;
    if (waits) {
        port->next = pool->idle;
        pool->idle = port;
    }
    worker_unlock(&pool->lock);
    if (!waits) {
        asio_worker_core->wait->push_ok(L, worker_rt(L));
        return 1;
    }
    port->wait = w;
    return asio_worker_core->wait->park(L, w, &offload_idle_op, port, -1);
}

/* worker.begin_job(pool) -> fn, ... */
static int l_offload_begin(lua_State *L)
{
    struct offload_job *job = offload_check_port(L)->job;
    int n = message_push(L, job->message);
    message_free(job->message);
    job->message = NULL;
    return n;
}

static bool offload_is_wanted(struct offload_job *job)
{
    worker_lock(&job->pool->lock);
    bool wanted = !job->given_up;
    worker_unlock(&job->pool->lock);
    return wanted;
}

/* worker.answer_job(pool, ok, ...). Raises for values that cannot be carried; nil, message, code: a connection among
 * them is in use. */
static int l_offload_answer(lua_State *L)
{
    static const struct message_place place = { "offload", 0, "result of an offloaded function", MESSAGE_PLAIN };
    struct offload_port *port = offload_check_port(L);
    struct offload_job *job = port->job;
    struct offload_pool *pool = job->pool;
    if (!offload_is_wanted(job))
        lua_settop(L, 1);
    struct message *m = message_pack(L, 2, lua_gettop(L), &place);
    int status = message_commit(m);
    if (status < 0) {
        message_free(m);
        return asio_worker_core->error->push(L, status);
    }
    if (job->message) /* begin_job has raised */
        message_free(job->message);
    job->message = m;
    port->job = NULL;
    worker_lock(&pool->lock);
    pool->running--;
    job->stage = JOB_OVER;
    bool wanted = !job->given_up;
    worker_unlock(&pool->lock);
    if (wanted)
        job_send_back(job);
    else
        job_drop(job);
    lua_pushboolean(L, 1);
    return 1;
}

void offload_bind(lua_State *L, struct asio_rt *rt, struct peer *peer)
{
    static const luaL_Reg functions[] = { { "new_pool", l_offload_new }, { "pool_load", l_offload_load },
        { "close_pool", l_offload_close }, { "fail_jobs", l_offload_fail }, { "submit", l_offload_submit },
        { "answer_of", l_offload_answer_of }, { "take_job", l_offload_take }, { "await_job", l_offload_await },
        { "begin_job", l_offload_begin }, { "answer_job", l_offload_answer }, { NULL, NULL } };
    static const luaL_Reg box[] = { { "__gc", l_offload_box_gc }, { NULL, NULL } };
    worker_bind(L, rt, peer, functions);
    lua_pushlightuserdata(L, (void *)&offload_box_class);
    lua_createtable(L, 0, 1);
    worker_bind(L, rt, peer, box);
    lua_rawset(L, LUA_REGISTRYINDEX);
}
