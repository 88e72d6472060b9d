/* SPDX-License-Identifier: MIT
 * Whether LuaJIT runs a hook; see hook.h. */
#include "core/hook.h"

static void hook_on_call(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    asio_rt_open(L)->hook_called = true; /* it is there */
}

static void hook_body(lua_State *L, void *arg)
{
    (void)L, (void)arg; /* being called is enough */
}

/* LuaJIT calls no hook inside a hook, an event of the VM, or a finalizer: the same flag also decides which path
 * lua_yield takes. The script's own hook is put back, unless a signal handler has set another one meanwhile. */
bool asio_hook_active(struct asio_rt *rt)
{
    lua_Hook hook = lua_gethook(rt->L);
    int mask = lua_gethookmask(rt->L), count = lua_gethookcount(rt->L);
    rt->hook_called = false;
    lua_sethook(rt->L, hook_on_call, LUA_MASKCALL, 0);
    asio_rt_protect(rt, hook_body, NULL, "asking for hooks");
    if (lua_gethook(rt->L) == hook_on_call)
        lua_sethook(rt->L, hook, mask, count);
    return !rt->hook_called;
}
