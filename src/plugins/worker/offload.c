/* SPDX-License-Identifier: MIT
 *
 * Functions of offload.lua for the owner of a pool: jobs that wait for their answers; see offload.h. */
#include "plugins/worker/offload.h"

#include <string.h>

static const char offload_box_class = 0; /* its address: the registry's key of the boxes' metatable */

static struct offload_pool *offload_check_owner(lua_State *L, const char *fname)
{
    struct offload_pool *pool =
        (struct offload_pool *)(void *)asio_shared_check(L, &asio_offload_kind, fname)->object;
    if (pool->owner != worker_peer(L))
        asio_worker_core->error->misuse(L, "%s: this pool belongs to another Lua state", fname);
    return pool;
}

/* worker.new_pool() */
static int l_offload_new(lua_State *L)
{
    asio_worker_check_open(L, "offload_pool");
    asio_shared_push_empty(L, &asio_offload_kind);
    struct offload_pool *pool = worker_alloc(sizeof *pool);
    if (pool)
        memset(pool, 0, sizeof *pool);
    if (!pool || asio_worker_core->threads->mutex_init(&pool->lock) < 0) {
        worker_free(pool);
        return luaL_error(L, "not enough memory");
    }
    pool->owner = worker_peer(L);
    asio_peer_keep(pool->owner);
    asio_shared_init(&pool->shared, &asio_offload_kind);
    asio_shared_fill(L, pool->owner, &pool->shared);
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
    asio_offload_close(offload_check_owner(L, "close"));
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
    while ((*what != 'n' || count == 0) && (job = asio_offload_refuse_one(pool, list)) != NULL) {
        job->status = UV_ENOMEM; /* if the next lines raise; the mailbox is looked into afterwards */
        asio_offload_job_send_back(job);
        job->message = asio_message_pack(L, 3, last, &place);
        job->status = 0;
        lua_settop(L, last);
        count++;
    }
    lua_pushinteger(L, count);
    return 1;
}

static void offload_abort(struct asio_wait *w)
{
    asio_offload_job_give_up(asio_worker_core->wait->source(w));
    asio_worker_core->wait->item_clear(w);
}

/* Pushes the box, or the failure: asio.stop has ended the wait of the main chunk. */
static int offload_push_box(lua_State *L, struct asio_wait *w)
{
    int status = asio_worker_core->wait->status(w);
    if (status < 0)
        return asio_worker_core->wait->push_fail(L, status);
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
    asio_offload_job_give_up(job);
    asio_offload_job_drop(job);
    return 0;
}

/* With the box at the top of L: its job waits for a state. Packing may run finalizers, which may wait: the wait is
 * claimed afterwards. */
static int offload_start(lua_State *L, struct offload_pool *pool, struct offload_job *job)
{
    struct asio_wait *w = asio_worker_core->wait->claim(L, worker_rt(L));
    int status = asio_message_commit(job->message);
    if (status == 0 && !asio_offload_enqueue(pool, job))
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
    struct message *m =
        asio_message_pack(L, 2, last, &place); /* pushes what has to stay until it is committed */
    *box = asio_offload_job_new(pool, m);
    if (!*box) {
        asio_message_free(m);
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
    int n = asio_message_push(L, job->message);
    asio_message_free(job->message);
    job->message = NULL;
    return n;
}

void asio_offload_bind(lua_State *L, struct asio_rt *rt, struct peer *peer)
{
    static const luaL_Reg functions[] = { { "new_pool", l_offload_new }, { "pool_load", l_offload_load },
        { "close_pool", l_offload_close }, { "fail_jobs", l_offload_fail }, { "submit", l_offload_submit },
        { "answer_of", l_offload_answer_of }, { NULL, NULL } };
    static const luaL_Reg box[] = { { "__gc", l_offload_box_gc }, { NULL, NULL } };
    asio_worker_bind(L, rt, peer, functions);
    asio_offload_serve_bind(L, rt, peer);
    lua_pushlightuserdata(L, (void *)&offload_box_class);
    lua_createtable(L, 0, 1);
    asio_worker_bind(L, rt, peer, box);
    lua_rawset(L, LUA_REGISTRYINDEX);
}
