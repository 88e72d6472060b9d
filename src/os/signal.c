/* SPDX-License-Identifier: MIT
 *
 * asio.signal: signals of the process, waited for like anything else. A signal that comes while no light thread waits
 * is kept for the next wait. A signal that is watched does not do what it does by default.
 *
 * Lifetime of struct watch: made by asio.signal together with its handle in libuv; the userdata
 * (struct signal) refers to it until close or collection; freed by libuv's close callback. */
#include "core/bind.h"
#include "base/error.h"
#include "core/park.h"
#include "sys/sys.h"

#include <signal.h>
#include <string.h>

/* 0: this system has no such signal. */
#ifndef SIGUSR1
enum { SIGUSR1 = 0, SIGUSR2 = 0, SIGALRM = 0, SIGCHLD = 0, SIGCONT = 0, SIGTSTP = 0, SIGTTIN = 0 };
enum { SIGTTOU = 0, SIGPIPE = 0 };
#endif
#ifndef SIGBREAK
#define SIGBREAK 0
#endif
#ifndef SIGQUIT
#define SIGQUIT 0
#endif
#ifndef SIGWINCH
#define SIGWINCH 0
#endif

static const struct {
    const char *name;
    int number;
} names[] = {
    { "SIGINT", SIGINT },
    { "SIGTERM", SIGTERM },
    { "SIGHUP", SIGHUP },
    { "SIGBREAK", SIGBREAK },
    { "SIGQUIT", SIGQUIT },
    { "SIGUSR1", SIGUSR1 },
    { "SIGUSR2", SIGUSR2 },
    { "SIGALRM", SIGALRM },
    { "SIGCHLD", SIGCHLD },
    { "SIGCONT", SIGCONT },
    { "SIGTSTP", SIGTSTP },
    { "SIGTTIN", SIGTTIN },
    { "SIGTTOU", SIGTTOU },
    { "SIGPIPE", SIGPIPE },
    { "SIGWINCH", SIGWINCH },
};

struct signal {          /* the userdata; its environment table holds the function of dump_on */
    struct watch *watch; /* NULL: closed */
};

struct watch {
    const struct asio_handle_ops *ops; /* first: see runtime.h */
    struct asio_rt *rt;
    struct signal *holder; /* NULL: closed */
    uv_signal_t handle;
    int number;
    unsigned pending; /* came while no light thread waited */
    struct asio_wait_list waiters;
};

static void signal_on_close(uv_handle_t *handle)
{
    asio_mem.free(handle->data);
}

static void close_watch(struct watch *w)
{
    if (w->holder)
        w->holder->watch = NULL;
    w->holder = NULL;
    if (w->rt->closed)
        w->waiters = (struct asio_wait_list){ 0 };
    while (w->waiters.first)
        asio_sched_abort(w->waiters.first, UV_ECANCELED);
    w->rt->sigint_watchers -= w->number == SIGINT;
    uv_close((uv_handle_t *)&w->handle, signal_on_close);
    asio_sys_signal_leave(w->number);
}

static void signal_teardown(void *owner)
{
    close_watch(owner);
}

static const struct asio_handle_ops watch_ops = { signal_teardown };

static void call_function(lua_State *L, void *arg)
{
    struct watch *w = arg;
    asio_rt_wrapper_push(L, w->rt, w->holder);
    if (!lua_isuserdata(L, -1))
        return;
    lua_getfenv(L, -1);
    lua_rawgeti(L, -1, 1);
    if (lua_isfunction(L, -1))
        lua_call(L, 0, 0);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct watch *w = handle->data;
    if (!w->holder)
        return;
    struct asio_wait *first = w->waiters.first;
    if (first) {
        asio_wait_list_remove(&w->waiters, first);
        asio_sched_wake(first, 0);
        return;
    }
    w->pending++;
    asio_rt_protect(w->rt, call_function, w, "calling the function of a signal");
}

static int check_name(lua_State *L, const char *fname)
{
    if (lua_type(L, 1) != LUA_TSTRING)
        asio_error_type(L, 1, 1, fname, "name of a signal");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(lua_tostring(L, 1), names[i].name) == 0)
            return names[i].number;
    return asio_error_arg(L, 1, fname, "no such signal: '%s'", lua_tostring(L, 1));
}

static int open_watch(struct asio_rt *rt, struct signal *holder, int number)
{
    if (!asio_sys_signal_comes(number))
        return UV_ENOTSUP;
    struct watch *w = asio_mem.malloc(sizeof *w);
    if (!w)
        return UV_ENOMEM;
    memset(w, 0, sizeof *w);
    w->ops = &watch_ops;
    w->rt = rt;
    w->number = number;
    int status = uv_signal_init(&rt->loop, &w->handle);
    if (status < 0) {
        asio_mem.free(w);
        return status;
    }
    w->handle.data = w;
    asio_sys_signal_enter(number);
    rt->sigint_watchers += number == SIGINT;
    w->holder = holder;
    holder->watch = w;
    status = uv_signal_start(&w->handle, on_signal, number);
    if (status < 0)
        close_watch(w);
    return status;
}

/* core.signal(name, fname[, fn]): fn is called for each, on the loop's own thread; must not wait. */
static int l_signal(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    int number = check_name(L, lua_tostring(L, 2));
    if (asio_bind_is_closed(L, rt, "signal"))
        return asio_error_push(L, UV_EBADF);
    lua_settop(L, 3);
    struct signal *s = lua_newuserdata(L, sizeof *s);
    s->watch = NULL;
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_SIGNAL_MT]);
    lua_setmetatable(L, -2);
    lua_createtable(L, 1, 0);
    lua_pushvalue(L, 3);
    lua_rawseti(L, -2, 1);
    lua_setfenv(L, -2);
    asio_rt_wrapper_add(L, rt, s); /* may raise: nothing is open yet */
    int status = open_watch(rt, s, number);
    if (status < 0)
        return asio_error_push(L, status);
    return 1;
}

static struct signal *signal_check(lua_State *L, const char *fname)
{
    return asio_bind_check(L, 1, asio_rt_of(L)->refs[ASIO_REF_SIGNAL_MT], fname, "signal");
}

static void signal_abort_wait(struct asio_wait *w)
{
    asio_wait_list_remove(&((struct watch *)w->source)->waiters, w);
}

static const struct asio_wait_op signal_op = {
    .name = "signal", .outside = true, .abort = signal_abort_wait
};

/* signal:wait([timeout]) */
static int l_signal_wait(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct watch *watch = signal_check(L, "wait")->watch;
    double timeout = asio_check_timeout(L, 2, 1, "wait");
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    if (!watch)
        return asio_push_fail(L, UV_EBADF);
    if (watch->pending > 0) {
        watch->pending--;
        return asio_push_true(L);
    }
    struct asio_wait *w = asio_park_claim(L, rt);
    w->source = watch;
    asio_wait_list_add(&watch->waiters, w);
    return asio_park(L, w, &signal_op, timeout);
}

static int l_signal_close(lua_State *L)
{
    struct signal *s = signal_check(L, "close");
    if (s->watch)
        close_watch(s->watch);
    return 0;
}

static int l_signal_gc(lua_State *L)
{
    struct signal *s = asio_bind_to(L, 1, asio_rt_of(L)->refs[ASIO_REF_SIGNAL_MT]);
    if (s && s->watch)
        close_watch(s->watch);
    return 0;
}

static int l_signal_tostring(lua_State *L)
{
    struct signal *s = signal_check(L, "tostring");
    const char *name = "closed";
    for (size_t i = 0; s->watch && i < sizeof names / sizeof *names; i++)
        if (names[i].number == s->watch->number)
            name = names[i].name;
    lua_pushfstring(L, "signal (%s)", name);
    return 1;
}

static void signal_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "new_signal", l_signal }, { "wait_signal", l_signal_wait },
        { NULL, NULL } };
    static const luaL_Reg methods[] = { { "close", l_signal_close }, { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", l_signal_gc }, { "__tostring", l_signal_tostring },
        { NULL, NULL } };
    asio_bind_functions(L, rt, "core", core);
    asio_bind_class(L, rt, "signal", methods, meta, rt->refs[ASIO_REF_SIGNAL_MT]);
}

const struct asio_part asio_part_signal = { "signal", signal_part_open, NULL };
