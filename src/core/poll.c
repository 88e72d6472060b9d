/* SPDX-License-Identifier: MIT
 * One round of libuv; see poll.h. */
#include "core/poll.h"

/* ---- deadlines ---------------------------------------------------------------------------- */

/* Only ends libuv's waiting (it runs timers first, and waits then): what is due is seen to
 * afterwards, so that what has arrived in time wins over its deadline. */
static void on_clock(uv_timer_t *clock)
{
    struct asio_rt *rt = ASIO_CONTAINER(clock, struct asio_rt, clock);
    rt->clock_at = ASIO_NEVER;
    uv_stop(clock->loop);
}

/* Only what was due at the beginning is fired: what user code adds meanwhile waits for the next
 * turn, so that short sleeps cannot keep I/O from being looked at. Likewise a deadline of 0 seconds
 * that was set after libuv was asked; what comes behind it is as good as not yet due. */
static void fire_timers(struct asio_rt *rt)
{
    if (rt->timers.count == 0)
        return;
    uint64_t now = uv_hrtime();
    if (asio_timer_heap_bound(&rt->timers) > now)
        return;
    uint64_t next = asio_timer_heap_next(&rt->timers);
    while (next <= now && !(asio_rt_is_soon(next) && next > rt->asked)) {
        struct asio_timer *t = asio_timer_heap_pop(&rt->timers, now);
        t->fire(t);
        next = asio_timer_heap_next(&rt->timers);
    }
}

/* Armed for the first deadline, rounded up to libuv's milliseconds, so that it never fires early
 * and comes again. A deadline that moved later leaves the clock as it is: one spurious wake-up at
 * the old time costs less than re-arming at every read that has a time-out. */
static void arm_clock(struct asio_rt *rt)
{
    if (rt->timers.count > 0 && asio_timer_heap_bound(&rt->timers) / 1000000 + 1 >= rt->clock_at)
        return;
    uint64_t next = asio_timer_heap_next(&rt->timers);
    if (next == ASIO_NEVER) {
        if (rt->clock_at != ASIO_NEVER)
            uv_timer_stop(&rt->clock);
        rt->clock_at = ASIO_NEVER;
        return;
    }
    uint64_t at = next / 1000000 + 1;
    if (at >= rt->clock_at)
        return;
    uv_update_time(&rt->loop);
    uint64_t now = uv_now(&rt->loop);
    uv_timer_start(&rt->clock, on_clock, at > now ? at - now : 0, 0);
    rt->clock_at = at;
}

/* ---- the collector ------------------------------------------------------------------------ */

static void poll_collect(lua_State *L, void *arg)
{
    lua_gc(L, LUA_GCSTEP, (int)(*(size_t *)arg >> 10));
}

/* The collector paces itself by its own heap and cannot see sockets and buffers. Step by what was
 * added outside, so that connections dropped without close are found after as many accepts as
 * the heap has room for, not never. A script that stopped the collector keeps it stopped. */
static void pay_gc_debt(struct asio_rt *rt)
{
    enum { WORTH_A_STEP = 16 * 1024, AT_MOST = 1024 * 1024 };
    if (rt->gc_debt < WORTH_A_STEP)
        return;
    size_t debt = rt->gc_debt > AT_MOST ? AT_MOST : rt->gc_debt;
    rt->gc_debt = 0;
#ifdef LUA_GCISRUNNING
    if (!lua_gc(rt->L, LUA_GCISRUNNING, 0))
        return;
#endif
    asio_rt_protect(rt, poll_collect, &debt, "collecting garbage");
}

/* ---- SIGPIPE ------------------------------------------------------------------------------ */

static void block_sigpipe(struct asio_rt *rt)
{
    if (!rt->sigpipe_blocked)
        rt->sigpipe = asio_sys_sigpipe_block();
    rt->sigpipe_blocked = true;
}

static void unblock_sigpipe(struct asio_rt *rt)
{
    if (rt->sigpipe_blocked)
        asio_sys_sigpipe_end(rt->sigpipe);
    rt->sigpipe_blocked = false;
}

void asio_poll_sending_begins(struct asio_rt *rt)
{
    rt->sending++;
    asio_rt_ref(rt);
    block_sigpipe(rt);
}

void asio_poll_sending_began(struct asio_rt *rt)
{
    if (!rt->polling)
        unblock_sigpipe(rt);
}

void asio_poll_sending_ends(struct asio_rt *rt)
{
    assert(rt->sending > 0);
    rt->sending--;
    asio_rt_unref(rt);
}

/* ---- a round ------------------------------------------------------------------------------ */

/* Something keeps run going that libuv knows nothing of (a sleep without end, a server that pauses):
 * libuv would return at once. */
static void keep_waiting(struct asio_rt *rt)
{
    enum { A_DAY = 24 * 60 * 60 * 1000 };
    if (!uv_loop_alive(&rt->loop))
        uv_timer_start(&rt->clock, on_clock, A_DAY, 0);
}

void asio_poll(struct asio_rt *rt, bool wait)
{
    assert(!rt->polling && !rt->current);
    if (rt->closed)
        return;
    arm_clock(rt);
    if (wait)
        keep_waiting(rt);
    rt->asked = rt->timers.count ? uv_hrtime() : 0;
    rt->polling = true;
    if (rt->sending)
        block_sigpipe(rt);
    rt->wait_began = wait ? uv_hrtime() : 0;
    if (wait && rt->on_waiting)
        rt->on_waiting(rt->on_waiting_arg, true);
    uv_run(&rt->loop, wait && rt->alive > 0 ? UV_RUN_ONCE : UV_RUN_NOWAIT);
    if (wait && rt->on_waiting)
        rt->on_waiting(rt->on_waiting_arg, false);
    rt->polling = false;
    asio_rt_woken(rt);
    asio_rt_flush(rt);
    unblock_sigpipe(rt);
    if (rt->closed)
        return; /* a light thread has forked, and this is the child */
    fire_timers(rt);
    pay_gc_debt(rt);
}

/* ---- Ctrl-C ------------------------------------------------------------------------------- */

static void on_sigint(uv_signal_t *handle, int signum)
{
    (void)signum;
    struct asio_rt *rt = ASIO_CONTAINER(handle, struct asio_rt, sigint);
    rt->interrupted = rt->interrupted || rt->sigint_watchers == 0; /* else the script sees to it */
}

void asio_poll_enter(struct asio_rt *rt)
{
    rt->looping = true;
    if (rt->closed)
        return; /* a fork */
    rt->watches_sigint = !rt->guest && asio_sys_signal_enter(SIGINT);
    if (rt->guest)
        return;
    if (!rt->watches_sigint) {
        asio_sys_signal_leave(SIGINT);
        return;
    }
    if (!rt->sigint.data && uv_signal_init(&rt->loop, &rt->sigint) == 0)
        rt->sigint.data = rt->clock.data;
    if (rt->sigint.data)
        uv_signal_start(&rt->sigint, on_sigint, SIGINT);
}

void asio_poll_leave(struct asio_rt *rt)
{
    if (rt->sigint.data && !rt->closed)
        uv_signal_stop(&rt->sigint);
    if (rt->watches_sigint)
        asio_sys_signal_leave(SIGINT);
    rt->watches_sigint = false;
    rt->looping = false;
}
