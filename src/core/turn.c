/* SPDX-License-Identifier: MIT
 *
 * The turn: light threads that are ready, what they wrote, libuv, deadlines, the collector's share, reports; and
 * the loop of turns, which its caller's condition ends. */
#include "core/turn.h"

#include "base/error.h"
#include "core/poll.h"

/* Puts one list behind another. */
static void list_join(struct asio_thread_list *list, struct asio_thread_list *added)
{
    if (!added->first)
        return;
    if (list->last)
        list->last->next = added->first;
    else
        list->first = added->first;
    list->last = added->last;
    *added = (struct asio_thread_list){ 0 };
}

/* A snapshot: what becomes ready meanwhile comes after it. Returns how many have run. */
static unsigned run_snapshot(struct asio_rt *rt)
{
    struct asio_thread_list snapshot = rt->ready;
    unsigned count = 0;
    rt->ready = (struct asio_thread_list){ 0 };
    while (snapshot.first && !rt->stop) {
        struct asio_thread *t = snapshot.first;
        snapshot.first = t->next;
        if (!snapshot.first)
            snapshot.last = NULL;
        t->next = NULL;
        count++;
        asio_sched_run(t);
    }
    list_join(&snapshot, &rt->ready);
    if (snapshot.first) /* asio.stop: kept for a later run */
        rt->ready = snapshot;
    return count;
}

/* Light threads that wake one another run for a while before libuv is asked again: asking costs a
 * system call, several times as much as a message over a channel. The while is short, so that
 * they cannot starve I/O. */
static void run_ready(struct asio_rt *rt)
{
    enum { BETWEEN_POLLS = 64 };
    unsigned count = 0;
    list_join(&rt->ready, &rt->yielded);
    do
        count += run_snapshot(rt);
    while (rt->ready.first && count < BETWEEN_POLLS && !rt->stop);
}

/* What a turn kept the processor for: all but libuv's waiting, which ends when a light thread runs, at the latest
 * when libuv returns. (libuv's own measure of idle time costs one more epoll_wait in each turn that waits.) */
static void note_turn(struct asio_rt *rt)
{
    uint64_t now = uv_hrtime();
    uint64_t busy = now - rt->turn_began;
    if (rt->woken_at)
        busy -= rt->woken_at - rt->wait_began;
    if (busy > rt->stats.longest_turn)
        rt->stats.longest_turn = busy;
    rt->turn_began = now;
}

static void turn(struct asio_rt *rt, bool wait)
{
    rt->turns++;
    rt->attention = false;
    rt->wait_began = rt->woken_at = 0;
    run_ready(rt);
    asio_rt_flush(rt);
    if (!rt->stop)
        asio_poll(rt,
            wait && !rt->attention && !asio_sched_has_reports(rt) && !asio_sched_has_ready(rt) &&
                rt->alive > 0);
    if (asio_sched_has_reports(rt))
        rt->turn_ended(rt);
    asio_rt_flush(rt); /* what finalizers wrote; light threads send when they park */
    note_turn(rt);
}

void asio_turn_loop(struct asio_rt *rt, bool wait, bool (*over)(const void *arg), const void *arg)
{
    asio_rt_notice_process(rt);
    asio_rt_flush(rt);
    asio_poll_enter(rt);
    rt->turn_began = uv_hrtime();
    if (!over)
        turn(rt, wait);
    while (over && !over(arg) && !rt->stop && !rt->interrupted && !rt->deadlock && asio_sched_alive(rt))
        turn(rt, wait);
    asio_poll_leave(rt);
}

void asio_turn_raise_interrupted(lua_State *L, struct asio_rt *rt)
{
    if (!rt->interrupted)
        return;
    rt->interrupted = false;
    lua_pushliteral(L, "interrupted!");
    asio_error_raise(L);
}

/* The report is made by a Lua part, which knows how to describe light threads. */
int asio_turn_deadlock(lua_State *L, struct asio_rt *rt)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_DEADLOCK]);
    lua_call(L, 0, 1);
    return asio_error_raise(L);
}
