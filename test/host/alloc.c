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
#include <luajit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DENSE = 300, STRIDE = 7, OPENSSL_STRIDE = 211, FAILURES_MAX = 5, SECONDS = 5 };

struct plan {
    const char *name;
    long count;
    int stride; /* multiplies */
};
static const struct plan plans[] = { { "one", 1, 1 }, { "two", 2, 5 }, { "five", 5, 7 },
    { "all", LONG_MAX, 5 } };

/* HOST_OPENSSL=1: OpenSSL's allocations fail too, which are many. It keeps certificates whose keys it had no memory to
 * read, and does not tell: it need not work afterwards, with the same options. */
static bool alloc_openssl;

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
    if (!host_check(!host_late(), "hangs: %s", state_error()))
        return false;
    return r->reached || host_check(ok, "%s", state_error());
}

static bool still_works(lua_State *L)
{
    memory_disarm();
    bool ok = state_call(L, "still_works", 0, 0) && !host_late();
    return host_check(ok, "does not work any more: %s", state_error());
}

/* LuaJIT itself crashes when memory runs out in compiled code, up to releases of 2023 ("Handle
 * on-trace OOM errors from helper functions"): so nothing is compiled here. */
static lua_State *open_interpreted(void)
{
    lua_State *L = state_open("scenarios.lua");
    luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
    return L;
}

static void run_once(struct run *r)
{
    host_clear_stderr();
    host_doing("alloc %s, %s from %ld", r->scenario, r->plan->name, r->n);
    int fds = system_fds();
    lua_State *L = open_interpreted();
    memory_plan(r->n, r->plan->count);
    bool ok = run_script(L, r);
    if (ok && r->plan->count != LONG_MAX && !alloc_openssl)
        ok = still_works(L);
    r->ok = host_check(state_close(L, fds), "left something over") && ok;
    host_limit(0);
}

static long following(long n, const struct plan *plan)
{
    if (alloc_openssl)
        return n + (host_long ? STRIDE : OPENSSL_STRIDE) * plan->stride;
    if (host_long)
        return n + 1;
    return n + (n < DENSE ? 1 : STRIDE) * plan->stride;
}

static void run_plan(const char *scenario, const struct plan *plan)
{
    struct run r = { .scenario = scenario, .plan = plan, .n = host_number ? host_number : 1 };
    int failures = 0, runs = 0;
    do {
        run_once(&r);
        failures += !r.ok;
        runs++;
        r.n = following(r.n, plan);
    } while (!host_number && r.reached && failures < FAILURES_MAX);
    printf("%-20s %-4s in a row: %4d runs, up to allocation %ld\n", scenario, plan->name, runs, r.n - 1);
}

static void run_scenario(const char *scenario)
{
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++)
        run_plan(scenario, &plans[i]);
}

/* What libuv and libc make once and keep. */
static void warm_up(void)
{
    struct run r = { .scenario = "by_name", .plan = &plans[0], .n = LONG_MAX };
    lua_State *L = state_open("scenarios.lua");
    memory_plan(LONG_MAX, 1);
    host_doing("warming up");
    run_script(L, &r);
    if (getenv("HOST_CERTS")) {
        r.scenario = "tls_names";
        run_script(L, &r);
    }
    lua_close(L);
    memory_settled();
}

void mode_alloc(void)
{
    char names[100][64];
    int count = state_names("scenarios.lua", names, 100);
    alloc_openssl = getenv("HOST_OPENSSL") && strcmp(getenv("HOST_OPENSSL"), "1") == 0;
    if (alloc_openssl && !host_check(memory_of_openssl(), "no OpenSSL"))
        return;
    warm_up();
    for (int i = 0; i < count; i++)
        if (host_only ? strcmp(host_only, names[i]) == 0 : i % host_shares == host_share - 1)
            run_scenario(names[i]);
}
