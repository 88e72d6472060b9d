/* SPDX-License-Identifier: MIT
 *
 * The watchdog: a helper thread that tells on standard error when a light thread keeps the processor
 * longer than it should, while that lasts: the loop cannot, since it does not get to run, and
 * a debug hook could not either, since LuaJIT has none in compiled code. Where in the script it was
 * can only be told when it next waits.
 *
 * Lifetime of struct asio_watchdog: made and freed by the loop thread, which waits for the helper to have
 * gone; the helper touches nothing else, above all no Lua. */
#include "core/bind.h"
#include "base/error.h"
#include "core/sched.h"
#include "task/thread.h"

#include <stdio.h>
#include <string.h>

enum { NAME_SIZE = 64 };

/* A light thread's time on the processor. */
struct stretch {
    struct asio_thread *thread; /* NULL: none runs. The helper does not look into it */
    uint64_t since;             /* uv_hrtime() */
    uint64_t told;              /* ns after which it was told of last; 0: not yet */
};

struct asio_watchdog {
    uv_mutex_t lock; /* guards all below, but for `outer` */
    uv_cond_t changed;
    uint64_t limit; /* ns */
    struct stretch now;
    char name[NAME_SIZE]; /* of now.thread */
    bool quit, gone;
    /* Of the light threads that have spawned the running one, as far as they began after the watchdog. */
    struct stretch outer[ASIO_DEPTH_MAX];
    unsigned depth; /* resumes that have begun */
};

static const char watchdog_doing[] = "naming a light thread for the watchdog";

/* ---- the helper --------------------------------------------------------------------------- */

/* Told at the limit, then every time it has doubled. Returns how long to sleep; 0: until something changes. */
static uint64_t watchdog_look(struct asio_watchdog *d)
{
    if (!d->now.thread)
        return d->limit;
    uint64_t lasted = uv_hrtime() - d->now.since, due = d->now.told ? d->now.told * 2 : d->limit;
    if (lasted < due)
        return due - lasted;
    d->now.told = lasted > due ? lasted : due;
    fprintf(
        stderr, "asio: light thread %s has kept the processor for %.2f s\n", d->name, (double)lasted / 1e9);
    fflush(stderr);
    return d->now.told;
}

static void watchdog_helper_main(void *arg)
{
    struct asio_watchdog *d = arg;
    uv_mutex_lock(&d->lock);
    while (!d->quit)
        uv_cond_timedwait(&d->changed, &d->lock, watchdog_look(d));
    d->gone = true;
    uv_cond_broadcast(&d->changed);
    uv_mutex_unlock(&d->lock);
}

/* ---- the loop thread ---------------------------------------------------------------------- */

struct name {
    struct asio_thread *thread;
    char *text;
    size_t size;
};

static void copy_name(lua_State *L, void *arg)
{
    struct name *n = arg;
    snprintf(n->text, n->size, "%s", asio_thread_push_name(L, n->thread));
}

/* Copying the name allocates, so finalizers of the script may run, and one of them may stop the watchdog or start
 * another: it is looked up afterwards. */
static void watchdog_set(struct asio_rt *rt, struct stretch watch)
{
    char text[NAME_SIZE] = "";
    struct name n = { watch.thread, text, sizeof text };
    if (watch.thread && asio_rt_protect(rt, copy_name, &n, watchdog_doing) != 0)
        snprintf(text, sizeof text, "?");
    struct asio_watchdog *d = asio_rt_part(rt, ASIO_PART_WATCHDOG);
    if (!d)
        return;
    uv_mutex_lock(&d->lock);
    d->now = watch;
    memcpy(d->name, text, sizeof text);
    uv_mutex_unlock(&d->lock);
}

static void watchdog_tell_of(lua_State *L, void *arg)
{
    const struct stretch *w = arg;
    const char *name = asio_thread_push_name(L, w->thread);
    double lasted = (double)(uv_hrtime() - w->since) / 1e9;
    if (w->thread->co)
        luaL_traceback(L, w->thread->co, NULL, 0);
    else
        lua_pushliteral(L, "it has ended");
    fprintf(stderr, "asio: light thread %s kept the processor for %.2f s until here:\n%s\n", name, lasted,
        lua_tostring(L, -1));
    fflush(stderr);
}

static struct stretch watchdog_now(struct asio_watchdog *d)
{
    uv_mutex_lock(&d->lock);
    struct stretch now = d->now;
    uv_mutex_unlock(&d->lock);
    return now;
}

static void watchdog_begin(struct asio_rt *rt, struct asio_watchdog *d, struct asio_thread *t)
{
    assert(d->depth < ASIO_DEPTH_MAX);
    d->outer[d->depth++] = watchdog_now(d);
    watchdog_set(rt, (struct stretch){ t, uv_hrtime(), 0 });
}

static void watchdog_end(struct asio_rt *rt, struct asio_watchdog *d)
{
    struct stretch was = watchdog_now(d);
    watchdog_set(rt, d->depth > 0 ? d->outer[--d->depth] : (struct stretch){ 0 });
    if (was.thread && was.told)
        asio_rt_protect(rt, watchdog_tell_of, &was, watchdog_doing);
}

static void watchdog_on_resume(struct asio_rt *rt, struct asio_thread *t, bool begins)
{
    struct asio_watchdog *d = asio_rt_part(rt, ASIO_PART_WATCHDOG);
    if (begins)
        watchdog_begin(rt, d, t);
    else
        watchdog_end(rt, d);
}

static void watchdog_part_close(struct asio_rt *rt)
{
    struct asio_watchdog *d = asio_rt_part(rt, ASIO_PART_WATCHDOG);
    asio_rt_part_set(rt, ASIO_PART_WATCHDOG, NULL);
    rt->on_resume = NULL;
    if (!d || rt->forked) { /* the child has no helper, which may have held the lock */
        asio_mem.free(d);
        return;
    }
    uv_mutex_lock(&d->lock);
    d->quit = true;
    uv_cond_broadcast(&d->changed);
    while (!d->gone)
        uv_cond_wait(&d->changed, &d->lock);
    uv_mutex_unlock(&d->lock);
    uv_cond_destroy(&d->changed);
    uv_mutex_destroy(&d->lock);
    asio_mem.free(d);
}

static int watchdog_start(struct asio_rt *rt, double seconds)
{
    struct asio_watchdog *d = asio_mem.malloc(sizeof *d);
    if (!d)
        return UV_ENOMEM;
    memset(d, 0, sizeof *d);
    d->limit = (uint64_t)(seconds * 1e9);
    if (rt->current)
        d->now = (struct stretch){ rt->current, uv_hrtime(), 0 };
    int status = uv_mutex_init(&d->lock);
    if (status == 0 && (status = uv_cond_init(&d->changed)) < 0)
        uv_mutex_destroy(&d->lock);
    if (status == 0 && (status = asio_sys_thread(watchdog_helper_main, d, ASIO_SYS_HELPER_STACK)) < 0) {
        uv_cond_destroy(&d->changed);
        uv_mutex_destroy(&d->lock);
    }
    if (status < 0) {
        asio_mem.free(d);
        return status;
    }
    asio_rt_part_set(rt, ASIO_PART_WATCHDOG, d);
    rt->on_resume = watchdog_on_resume;
    if (rt->current)
        watchdog_set(rt, d->now); /* with its name */
    return 0;
}

/* asio.watchdog(seconds); nil or inf: no more. */
static int l_watchdog(lua_State *L)
{
    enum { AT_MOST = 1000000 };
    struct asio_rt *rt = asio_rt_of(L);
    double seconds = asio_check_timeout(L, 1, 1, "watchdog");
    if (seconds >= 0 && seconds < 0.001)
        asio_error_arg(L, 1, "watchdog", "at least a millisecond expected");
    asio_bind_check_open(L, rt, "watchdog");
    watchdog_part_close(rt);
    int status = seconds < 0 ? 0 : watchdog_start(rt, seconds < AT_MOST ? seconds : AT_MOST);
    if (status < 0)
        return asio_error_push(L, status);
    lua_pushboolean(L, 1);
    return 1;
}

static void watchdog_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg module[] = { { "watchdog", l_watchdog }, { NULL, NULL } };
    asio_bind_functions(L, rt, "asio", module);
}

const struct asio_part asio_part_watchdog = { "watchdog", watchdog_part_open, watchdog_part_close };
