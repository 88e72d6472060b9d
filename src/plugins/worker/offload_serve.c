/* SPDX-License-Identifier: MIT
 *
 * Functions of offload.lua for a state of a pool: it takes jobs and answers them; see offload.h. */
#include "plugins/worker/offload.h"

static struct offload_port *offload_check_port(lua_State *L)
{
    struct offload_port *port = asio_shared_check(L, &asio_offload_kind, "offload")->local;
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
    struct offload_job *job = asio_offload_list_first(&pool->queue);
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

static void offload_abort_idle(struct asio_wait *w)
{
    struct offload_port *port = asio_worker_core->wait->source(w);
    port->wait = NULL;
    asio_offload_port_leave(port);
}

static const struct asio_wait_op offload_idle_op = {
    .name = "offload job", .outside = true, .shared = true, .abort = offload_abort_idle
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
    int n = asio_message_push(L, job->message);
    asio_message_free(job->message);
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
    static const struct message_place place = { "offload", 0, "result of an offloaded function",
        MESSAGE_PLAIN };
    struct offload_port *port = offload_check_port(L);
    struct offload_job *job = port->job;
    struct offload_pool *pool = job->pool;
    if (!offload_is_wanted(job))
        lua_settop(L, 1);
    struct message *m = asio_message_pack(L, 2, lua_gettop(L), &place);
    int status = asio_message_commit(m);
    if (status < 0) {
        asio_message_free(m);
        return asio_worker_core->error->push(L, status);
    }
    if (job->message) /* begin_job has raised */
        asio_message_free(job->message);
    job->message = m;
    port->job = NULL;
    worker_lock(&pool->lock);
    pool->running--;
    job->stage = JOB_OVER;
    bool wanted = !job->given_up;
    worker_unlock(&pool->lock);
    if (wanted)
        asio_offload_job_send_back(job);
    else
        asio_offload_job_drop(job);
    lua_pushboolean(L, 1);
    return 1;
}

void asio_offload_serve_bind(lua_State *L, struct asio_rt *rt, struct peer *peer)
{
    static const luaL_Reg functions[] = { { "take_job", l_offload_take }, { "await_job", l_offload_await },
        { "begin_job", l_offload_begin }, { "answer_job", l_offload_answer }, { NULL, NULL } };
    asio_worker_bind(L, rt, peer, functions);
}
