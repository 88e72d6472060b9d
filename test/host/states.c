/* SPDX-License-Identifier: MIT
 *
 * Mode states: Lua states closed while light threads wait for everything there is (states.lua),
 * after errors, inside one another; several states in one process, on one thread. */
#include "host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SECONDS = 10 };

static lua_State *open_state(void)
{
    return state_open("states.lua");
}

static bool call(lua_State *L, const char *name)
{
    return host_check(state_call(L, name, 0, 0), "%s: %s", name, state_error());
}

static int call_number(lua_State *L, const char *name)
{
    int n = -1;
    if (host_check(state_call(L, name, 0, 1), "%s: %s", name, state_error())) {
        n = (int)lua_tointeger(L, -1);
        lua_pop(L, 1);
    }
    return n;
}

static void close_state(lua_State *L, int fds)
{
    host_check(state_close(L, fds), "left something over");
}

/* Which case runs now; false: another one was asked for. */
static bool begins(const char *what, const char *detail, int number)
{
    if (host_only && strcmp(host_only, what) != 0)
        return false;
    host_clear_stderr();
    host_doing("states %s %s %d", what, detail, number);
    host_limit(SECONDS);
    system_hold_lookups(true);
    return true;
}

/* ---- closed while waiting ----------------------------------------------------------------- */

static void start(lua_State *L, const char *name, int turns)
{
    lua_pushstring(L, name);
    lua_pushinteger(L, turns);
    host_check(state_call(L, "start", 2, 0), "start: %s", state_error());
}

static void start_all(lua_State *L)
{
    lua_pushinteger(L, 0);
    host_check(state_call(L, "start_all", 1, 0), "start_all: %s", state_error());
}

static void closed_while_waiting(const char *name, int turns)
{
    if (!begins("waiting", name, turns))
        return;
    int fds = system_fds();
    lua_State *L = open_state();
    start(L, name, turns);
    close_state(L, fds);
}

static void each_wait(void)
{
    static const int turns[] = { 0, 1, 3 };
    char names[50][64];
    int count = state_names("states.lua", names, 50);
    for (int i = 0; i < count; i++)
        for (int t = 0; t < 3; t++)
            closed_while_waiting(names[i], turns[t]);
}

static void all_waits(void)
{
    if (!begins("all", "", 0))
        return;
    int fds = system_fds();
    lua_State *L = open_state();
    start_all(L);
    close_state(L, fds);
}

/* ---- two states --------------------------------------------------------------------------- */

static void serve_each_other(lua_State *a, lua_State *b, int clients, int rounds)
{
    int ports[2] = { call_number(a, "serve"), call_number(b, "serve") };
    lua_State *states[2] = { a, b };
    for (int i = 0; i < 2; i++) {
        lua_pushinteger(states[i], ports[1 - i]);
        lua_pushinteger(states[i], clients);
        lua_pushinteger(states[i], rounds);
        host_check(state_call(states[i], "clients", 3, 0), "clients: %s", state_error());
    }
    while (!host_late() && (call_number(a, "finished") < clients || call_number(b, "finished") < clients)) {
        call(a, "step");
        call(b, "step");
    }
    host_check(!host_late(), "hangs");
}

/* `other` stays open until the first is closed, and works all the same afterwards. */
static void interleaved(bool waiting, bool first_first)
{
    if (!begins("interleaved", waiting ? "waiting" : "idle", first_first))
        return;
    int fds = system_fds();
    lua_State *a = open_state(), *b = open_state();
    serve_each_other(a, b, 5, 10);
    if (waiting) {
        start_all(a);
        start_all(b);
    }
    lua_State *first = first_first ? a : b, *second = first_first ? b : a;
    lua_close(first);
    start(second, "read", 3);
    start(second, "server_with_handlers", 3);
    close_state(second, fds);
}

/* ---- one inside another ------------------------------------------------------------------- */

static int l_close_other(lua_State *L)
{
    lua_close(lua_touserdata(L, lua_upvalueindex(1)));
    return 0;
}

static int l_run_other(lua_State *L)
{
    lua_State *other = lua_touserdata(L, lua_upvalueindex(1));
    bool ok = state_call(other, "run_briefly", 0, 0);
    return ok ? 0 : luaL_error(L, "%s", state_error());
}

static int l_open_and_close(lua_State *L)
{
    (void)L;
    lua_State *other = open_state();
    start(other, "server_with_handlers", 1);
    start(other, "write", 1);
    lua_close(other);
    return 0;
}

static void inside(const char *what, lua_CFunction fn, bool closes)
{
    if (!begins("inside", what, 0))
        return;
    int fds = system_fds();
    lua_State *a = open_state(), *b = open_state();
    start_all(b);
    start(a, "read", 1);
    lua_pushlightuserdata(a, b);
    lua_pushcclosure(a, fn, 1);
    host_check(state_call(a, "call_inside", 1, 0), "%s", state_error());
    if (!closes)
        lua_close(b);
    close_state(a, fds);
}

/* ---- after errors, and without much ------------------------------------------------------- */

static void after(const char *how, const char *expected)
{
    if (!begins("after", how, 0))
        return;
    int fds = system_fds();
    lua_State *L = open_state();
    for (int i = 0; i < 2; i++) { /* and once more after what came of the first */
        lua_pushstring(L, how);
        bool ok = state_call(L, "fail", 1, 0);
        host_check(!ok && strstr(state_error(), expected), "raised: %s", ok ? "nothing" : state_error());
    }
    start_all(L);
    close_state(L, fds);
}

static void simple(const char *what, const char *const *calls)
{
    if (!begins("simple", what, 0))
        return;
    int fds = system_fds();
    lua_State *L = open_state();
    for (; *calls; calls++)
        call(L, *calls);
    close_state(L, fds);
}

static void unheard(void)
{
    if (!begins("unheard", "", 0))
        return;
    int fds = system_fds();
    lua_State *L = open_state();
    call(L, "fail_unheard");
    close_state(L, fds);
    host_check(host_stderr_has("nobody waits for this"), "the error was not reported");
}

/* ---- os.exit(0, true) in a light thread --------------------------------------------------- */

static void at_exit(void)
{
    system_hold_lookups(false);
    if (!memory_settled())
        _exit(3);
}

static int exit_inside(void *arg)
{
    (void)arg;
    atexit(at_exit);
    lua_State *L = open_state();
    state_call(L, "exit", 0, 0);
    printf("  came back from os.exit: %s\n", state_error());
    return 1;
}

static void exits(void)
{
    if (begins("exit", "", 0))
        host_check(host_fork(exit_inside, NULL), "os.exit(0, true)");
}

void mode_states(void)
{
    static const char *const never_run[] = { NULL };
    static const char *const served[] = { "serve", NULL };
    static const char *const twice[] = { "require_twice", "serve", "require_twice", "run_briefly", NULL };
    system_full_listener();
    each_wait();
    all_waits();
    for (int i = 0; i < 4; i++)
        interleaved(i & 1, i & 2);
    inside("closed", l_close_other, true);
    inside("run", l_run_other, false);
    inside("opened and closed", l_open_and_close, false);
    after("error", "as expected");
    after("deadlock", "deadlock");
    after("interrupt", "interrupted!");
    after("handler", "as expected");
    simple("never run", never_run);
    simple("a server that never ran", served);
    simple("required twice", twice);
    unheard();
    exits();
    host_limit(0);
}
