/* SPDX-License-Identifier: MIT
 *
 * Mode alloc: every allocation fails in turn. Each scenario of scenarios.lua runs once with its
 * first allocation refused, once with its second, and so on until it gets by without reaching the
 * one that would be: the Lua state's, libuv's and the core's counted together (memory.c says what
 * is exempt). Then the same with several refused in a row, and with all from the Nth on, through
 * lua_close as well.
 *
 * Whatever happens has to be a result or a raised error; afterwards the state has to be as good as
 * new, and closing it has to give back every block and descriptor. */
#include "host.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DENSE = 300, STRIDE = 7, FAILURES_MAX = 5, SECONDS = 5 };

struct plan {
    const char *name;
    long count;
    int stride; /* multiplies */
};
static const struct plan plans[] = { { "one", 1, 1 }, { "two", 2, 3 }, { "five", 5, 3 },
    { "all", LONG_MAX, 2 } };

struct run {
    const char *scenario;
    const struct plan *plan;
    long n;
    bool reached; /* the Nth allocation was asked for */
    bool ok;
};

/* Nothing hangs: a script that waited too long was interrupted (host_limit). */
static bool run_script(lua_State *L, struct run *r)
{
    host_limit(SECONDS);
    bool ok = state_call(L, r->scenario, 0, 0);
    r->reached = memory_refused() > 0;
    if (!host_check(!host_late(), "hangs"))
        return false;
    return r->reached || host_check(ok, "%s", state_error());
}

static bool still_works(lua_State *L)
{
    memory_disarm();
    bool ok = state_call(L, "still_works", 0, 0) && !host_late();
    return host_check(ok, "does not work any more: %s", state_error());
}

static void run_once(struct run *r)
{
    host_clear_stderr();
    host_doing("alloc %s, %s from %ld", r->scenario, r->plan->name, r->n);
    int fds = system_fds();
    lua_State *L = state_open("scenarios.lua");
    memory_plan(r->n, r->plan->count);
    bool ok = run_script(L, r);
    if (ok && r->plan->count != LONG_MAX)
        ok = still_works(L);
    r->ok = host_check(state_close(L, fds), "left something over") && ok;
    host_limit(0);
}

static long following(long n, const struct plan *plan)
{
    if (host_long)
        return n + 1;
    return n + (n < DENSE ? 1 : STRIDE) * plan->stride;
}

static void run_scenario(const char *scenario)
{
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        struct run r = { .scenario = scenario, .plan = &plans[i], .reached = true };
        int failures = 0, runs = 0;
        for (r.n = getenv("HOST_FROM") ? atol(getenv("HOST_FROM")) : 1; r.reached && failures < FAILURES_MAX; r.n = following(r.n, r.plan)) {
            run_once(&r);
            failures += !r.ok;
            runs++;
        }
        printf("%-16s %-4s in a row: %4d runs, up to the %ld. allocation\n", scenario, r.plan->name, runs,
            r.n - 1);
    }
}

/* What libuv and libc make once and keep. */
static void warm_up(void)
{
    struct run r = { .scenario = "by_name", .plan = &plans[0], .n = LONG_MAX };
    lua_State *L = state_open("scenarios.lua");
    memory_plan(LONG_MAX, 1);
    host_doing("warming up");
    run_script(L, &r);
    lua_close(L);
    memory_settled();
}

void mode_alloc(void)
{
    char names[50][32];
    int count = 0;
    lua_State *L = state_open("scenarios.lua");
    state_call(L, "names", 0, 1);
    for (; count < 50 && count < (int)lua_objlen(L, -1); count++) {
        lua_rawgeti(L, -1, count + 1);
        snprintf(names[count], sizeof names[count], "%s", lua_tostring(L, -1));
        lua_pop(L, 1);
    }
    lua_close(L);
    warm_up();
    for (int i = 0; i < count; i++)
        if (!host_only || strcmp(host_only, names[i]) == 0)
            run_scenario(names[i]);
}
