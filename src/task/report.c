/* SPDX-License-Identifier: MIT
 *
 * No silent death: an error that no light thread joins is told at the end of the turn, to the script's on_error or on
 * standard error. */
#include "core/bind.h"
#include "base/error.h"
#include "task/group.h"
#include "task/thread.h"
#include "task/traceback.h"

#include <stdio.h>

enum { AT_ERROR = 1, AT_TRACEBACK, AT_HANDLE }; /* stack of a report_report; the last two may be nil */

static void to_stderr(lua_State *L, struct asio_thread *t)
{
    const char *text = lua_tostring(L, AT_ERROR), *traceback = lua_tostring(L, AT_TRACEBACK);
    if (!text && luaL_callmeta(L, AT_ERROR, "__tostring"))
        text = lua_tostring(L, -1);
    if (!text)
        text = lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, AT_ERROR));
    if (t)
        fprintf(stderr, "asio: light thread %s failed: %s\n", asio_thread_push_name(L, t), text);
    else
        fprintf(stderr, "asio: %s\n", text);
    if (traceback)
        fprintf(stderr, "%s\n", traceback);
}

/* The script's function runs in a light thread of its own: it may wait, and its own error is told
 * on standard error. */
static void report_tell_of(lua_State *L, struct asio_thread *t)
{
    struct asio_rt *rt = asio_rt_of(L);
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_ON_ERROR]);
    if (!lua_isfunction(L, -1) || rt->closed || (t && t->reports)) {
        to_stderr(L, t);
        return;
    }
    lua_insert(L, 1);
    asio_sched_spawn(rt, L, 3, ASIO_SPAWN_REPORTER);
}

static void report_report(lua_State *L, void *arg)
{
    struct asio_thread *t = arg;
    lua_settop(L, 0);
    if (!t->kept) {
        lua_pushliteral(L, "not enough memory");
        lua_pushnil(L);
        asio_sched_push_handle(L, t);
    } else {
        asio_sched_push_handle(L, t);
        lua_getfenv(L, 1);
        lua_rawgeti(L, 2, ASIO_KEPT_ERROR);
        lua_rawgeti(L, 2, ASIO_KEPT_TRACEBACK);
        lua_pushvalue(L, 1);
        lua_remove(L, 1);
        lua_remove(L, 1);
    }
    report_tell_of(L, t);
}

static void report_text(lua_State *L, void *arg)
{
    struct asio_rt *rt = asio_rt_of(L);
    lua_settop(L, 0);
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_REPORTS]);
    lua_rawgeti(L, 1, *(int *)arg);
    lua_remove(L, 1);
    lua_settop(L, 3);
    report_tell_of(L, NULL);
}

static void report_groups(lua_State *L, void *arg)
{
    lua_settop(L, 0);
    lua_pushfstring(L,
        "%d group(s) collected before a wait for them: the light threads in them were cancelled",
        *(int *)arg);
    lua_settop(L, 3);
    report_tell_of(L, NULL);
}

static struct asio_thread *take_failed(struct asio_rt *rt)
{
    struct asio_thread *t = rt->failed, *ordered = NULL;
    rt->failed = NULL;
    while (t) {
        struct asio_thread *following = t->next;
        t->next = ordered;
        ordered = t;
        t = following;
    }
    return ordered;
}

static const char report_doing[] = "reporting an error";

static void report_texts(struct asio_rt *rt)
{
    int groups = asio_group_take_dropped(rt);
    for (int i = 1; i <= rt->reports; i++)
        asio_rt_protect(rt, report_text, &i, report_doing);
    rt->reports = 0;
    rt->report_due = false;
    if (groups > 0 && !rt->closed) /* else the end itself has dropped them */
        asio_rt_protect(rt, report_groups, &groups, report_doing);
}

/* In the order in which they came. What the script's function leaves behind is told at once, what
 * that leads to at the end of the next turn. */
static void turn_ended(struct asio_rt *rt)
{
    enum { PASSES = 2 };
    for (int pass = 0; pass < PASSES && asio_sched_has_reports(rt); pass++) {
        struct asio_thread *ordered = take_failed(rt);
        while (ordered) {
            struct asio_thread *t = ordered;
            ordered = t->next;
            t->next = NULL;
            if (!t->joined && asio_rt_protect(rt, report_report, t, report_doing) != 0)
                fputs("asio: reporting an error failed\n", stderr);
            t->joined = true;
            asio_sched_forget(t);
        }
        report_texts(rt);
    }
    fflush(stderr);
}

/* asio.on_error([fn]) -> the one before */
static int l_on_error(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    if (!lua_isnoneornil(L, 1) && !lua_isfunction(L, 1))
        asio_error_type(L, 1, 1, "on_error", "function");
    lua_settop(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_ON_ERROR]);
    if (!lua_isfunction(L, -1)) {
        lua_pop(L, 1);
        lua_pushnil(L);
    }
    lua_pushvalue(L, 1);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_pushboolean(L, 0); /* the key stays taken */
    }
    lua_rawseti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_ON_ERROR]);
    return 1;
}

/* core.report(text) */
static int l_report(lua_State *L)
{
    lua_settop(L, 1);
    asio_sched_report_text(L, asio_rt_of(L));
    return 0;
}

static void report_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg module[] = { { "on_error", l_on_error }, { NULL, NULL } };
    static const luaL_Reg core[] = { { "report", l_report }, { NULL, NULL } };
    rt->turn_ended = turn_ended;
    asio_bind_functions(L, rt, "core", core);
    lua_newtable(L);
    lua_rawseti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_REPORTS]);
    asio_bind_functions(L, rt, "asio", module);
}

const struct asio_part asio_part_report = { "report", report_part_open, NULL };
