/* SPDX-License-Identifier: MIT
 *
 * Mode signals: SIGPIPE, which a script must never cause, whatever the embedding program has set;
 * and SIGINT, which ends a run and is the program's own again afterwards. Each case runs in a
 * process of its own (signals.lua has the scripts). */
#include "host.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SECONDS = 10 };

static atomic_int received;

static void on_signal(int signum)
{
    (void)signum;
    received++;
}

static void on_signal_info(int signum, siginfo_t *info, void *context)
{
    (void)signum, (void)info, (void)context;
    received++;
}

/* ---- dispositions ------------------------------------------------------------------------- */

enum disposition { DEFAULT, IGNORED, HANDLED, HANDLED_INFO, BLOCKED, BLOCKED_PENDING };
static const char *const disposition_names[] = { "default", "ignored", "handled", "handled with info",
    "blocked", "blocked and pending" };

/* What the program sets, in all its details: they have to be there again. */
static void set_disposition(int signum, enum disposition d)
{
    struct sigaction action = { .sa_flags = 0 };
    sigset_t set;
    sigemptyset(&action.sa_mask);
    action.sa_handler = d == IGNORED ? SIG_IGN : SIG_DFL;
    if (d == HANDLED || d == BLOCKED_PENDING) {
        action.sa_handler = on_signal;
        sigaddset(&action.sa_mask, SIGUSR1);
    } else if (d == HANDLED_INFO) {
        action.sa_sigaction = on_signal_info;
        action.sa_flags = SA_SIGINFO | SA_RESTART;
    }
    sigaction(signum, &action, NULL);
    sigemptyset(&set);
    sigaddset(&set, signum);
    pthread_sigmask(d >= BLOCKED ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
    if (d == BLOCKED_PENDING)
        raise(signum);
}

struct before {
    struct sigaction action;
    sigset_t mask;
    bool pending;
};

static bool is_pending(int signum)
{
    sigset_t set;
    return sigpending(&set) == 0 && sigismember(&set, signum) == 1;
}

static struct before remember(int signum)
{
    struct before b;
    memset(&b, 0, sizeof b);
    sigaction(signum, NULL, &b.action);
    pthread_sigmask(SIG_SETMASK, NULL, &b.mask);
    b.pending = is_pending(signum);
    return b;
}

static bool same_mask(const sigset_t *a, const sigset_t *b)
{
    for (int signum = 1; signum < 32; signum++)
        if (sigismember(a, signum) != sigismember(b, signum))
            return false;
    return true;
}

/* Everything is as it was; says what is not. */
static bool unchanged(int signum, const struct before *before)
{
    struct before now = remember(signum);
    bool action = now.action.sa_handler == before->action.sa_handler &&
        now.action.sa_flags == before->action.sa_flags &&
        same_mask(&now.action.sa_mask, &before->action.sa_mask);
    bool mask = same_mask(&now.mask, &before->mask);
    if (!action)
        printf("  the signal's action has changed\n");
    if (!mask)
        printf("  the thread's mask has changed\n");
    if (now.pending != before->pending)
        printf("  %s\n", now.pending ? "a signal is pending" : "a signal that was pending has gone");
    return action && mask && now.pending == before->pending;
}

static bool call(lua_State *L, const char *name, const char *argument)
{
    lua_pushstring(L, argument);
    bool ok = state_call(L, name, 1, 0);
    if (!ok)
        printf("  %s: %s\n", name, state_error());
    return ok;
}

/* The last of every case. */
static int finish(lua_State *L)
{
    lua_close(L);
    bool settled = memory_settled();
    alarm(0);
    return settled ? 0 : 1;
}

/* ---- SIGPIPE ------------------------------------------------------------------------------ */

struct sigpipe {
    const char *name;
    enum disposition disposition;
};

static int sigpipe_case(void *arg)
{
    struct sigpipe *c = arg;
    set_disposition(SIGPIPE, c->disposition);
    struct before before = remember(SIGPIPE);
    lua_State *L = state_open("signals.lua");
    bool ok = call(L, "sigpipe", c->name);
    ok = unchanged(SIGPIPE, &before) && ok;
    if (finish(L) != 0)
        ok = false;
    ok = unchanged(SIGPIPE, &before) && ok;
    if (received > 0)
        printf("  the handler of the program was called\n");
    return ok && received == 0 ? 0 : 1;
}

static void each_sigpipe(enum disposition d)
{
    static char names[100][64];
    int count = state_names("signals.lua", names, 100);
    for (int i = 0; i < count; i++) {
        struct sigpipe c = { names[i], d };
        host_clear_stderr();
        host_doing("signals SIGPIPE %s, %s", disposition_names[d], c.name);
        host_limit(SECONDS);
        host_check(host_fork(sigpipe_case, &c), "see above");
    }
}

/* ---- SIGINT ------------------------------------------------------------------------------- */

struct sigint {
    const char *where;
    enum disposition disposition;
};

static bool raises_interrupted(lua_State *L, const char *name, const char *argument)
{
    lua_pushstring(L, argument);
    bool ok = state_call(L, name, 1, 0);
    if (ok || !strstr(state_error(), "interrupted!"))
        printf("  raised: %s\n", ok ? "nothing" : state_error());
    return !ok && strstr(state_error(), "interrupted!");
}

/* Twice: nothing of the first may be left. Outside of run the signal is the program's. */
static int interrupted_case(void *arg)
{
    struct sigint *c = arg;
    set_disposition(SIGINT, c->disposition);
    struct before before = remember(SIGINT);
    lua_State *L = state_open("signals.lua");
    bool ok = true;
    for (int i = 0; i < 2; i++)
        ok = raises_interrupted(L, "interrupt", c->where) && unchanged(SIGINT, &before) && ok;
    ok = ok && received == 0;
    if (c->disposition != DEFAULT) {
        raise(SIGINT);
        ok = ok && received == 1;
    }
    return finish(L) == 0 && ok ? 0 : 1;
}

static int ignored_case(void *arg)
{
    (void)arg;
    set_disposition(SIGINT, IGNORED);
    struct before before = remember(SIGINT);
    lua_State *L = state_open("signals.lua");
    bool ok = call(L, "ignored", NULL) && unchanged(SIGINT, &before);
    return finish(L) == 0 && ok ? 0 : 1;
}

/* However a run ends, the program's action is back. */
static int ends_case(void *arg)
{
    struct sigint *c = arg;
    set_disposition(SIGINT, c->disposition);
    struct before before = remember(SIGINT);
    lua_State *L = state_open("signals.lua");
    bool ok = unchanged(SIGINT, &before);
    ok = call(L, "end_a_run", c->where) && unchanged(SIGINT, &before) && ok;
    return finish(L) == 0 && ok ? 0 : 1;
}

static int l_run_other(lua_State *L)
{
    lua_State *other = lua_touserdata(L, lua_upvalueindex(1));
    return state_call(other, "run_briefly", 0, 0) ? 0 : luaL_error(L, "%s", state_error());
}

/* A run of another state inside of this one's ends first: Ctrl-C still is this one's. */
static int nested_case(void *arg)
{
    (void)arg;
    set_disposition(SIGINT, HANDLED_INFO);
    struct before before = remember(SIGINT);
    lua_State *L = state_open("signals.lua"), *other = state_open("signals.lua");
    lua_pushlightuserdata(L, other);
    lua_pushcclosure(L, l_run_other, 1);
    bool ok = !state_call(L, "nested", 1, 0) && strstr(state_error(), "interrupted!");
    ok = ok && unchanged(SIGINT, &before) && received == 0;
    lua_close(other);
    return finish(L) == 0 && ok ? 0 : 1;
}

static atomic_int waiting;

static int l_ready(lua_State *L)
{
    (void)L;
    waiting++;
    return 0;
}

static void *wait_for_it(void *arg)
{
    lua_State *L = state_open("signals.lua");
    lua_getglobal(L, "host");
    lua_pushcfunction(L, l_ready);
    lua_setfield(L, -2, "ready");
    lua_pop(L, 1);
    *(bool *)arg = raises_interrupted(L, "wait_for_it", NULL);
    lua_close(L);
    return NULL;
}

/* One Ctrl-C ends the runs of all threads. */
static int threads_case(void *arg)
{
    (void)arg;
    enum { COUNT = 3 };
    pthread_t threads[COUNT];
    bool ok[COUNT], all = true;
    set_disposition(SIGINT, HANDLED);
    struct before before = remember(SIGINT);
    for (int i = 0; i < COUNT; i++)
        pthread_create(&threads[i], NULL, wait_for_it, &ok[i]);
    while (waiting < COUNT)
        usleep(1000);
    kill(getpid(), SIGINT);
    for (int i = 0; i < COUNT; i++) {
        pthread_join(threads[i], NULL);
        all = all && ok[i];
    }
    all = unchanged(SIGINT, &before) && received == 0 && all;
    return memory_settled() && all ? 0 : 1;
}

static void sigint(const char *what, int (*fn)(void *), const char *where, enum disposition d)
{
    struct sigint c = { where, d };
    host_clear_stderr();
    host_doing("signals SIGINT %s, %s %s", disposition_names[d], what, where ? where : "");
    host_limit(SECONDS);
    host_check(host_fork(fn, &c), "see above");
}

static void each_sigint(void)
{
    static const char *const places[] = { "run", "run_without_a_function", "run_once", "main_chunk" };
    static const char *const ends[] = { "stopped", "failed", "turn", "main_chunk", "deadlock" };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        sigint("interrupted", interrupted_case, places[i], DEFAULT);
        sigint("interrupted", interrupted_case, places[i], HANDLED);
        sigint("interrupted", interrupted_case, places[i], HANDLED_INFO);
    }
    for (enum disposition d = DEFAULT; d <= BLOCKED; d++)
        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
            sigint("after a run", ends_case, ends[i], d);
    sigint("interrupted", ignored_case, NULL, IGNORED);
    sigint("nested", nested_case, NULL, HANDLED_INFO);
    sigint("threads", threads_case, NULL, HANDLED);
}

void mode_signals(void)
{
    for (enum disposition d = DEFAULT; d <= BLOCKED_PENDING; d++)
        if (!host_only || strcmp(host_only, disposition_names[d]) == 0)
            each_sigpipe(d);
    if (!host_only || strcmp(host_only, "SIGINT") == 0)
        each_sigint();
    host_limit(0);
}
