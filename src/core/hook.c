/* SPDX-License-Identifier: MIT
 * Whether LuaJIT runs a hook; see hook.h. */
#include "core/hook.h"

#include "base/error.h"

static void hook_on_call(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    asio_rt_open(L)->hook_called = true; /* it is there */
}

/* LuaJIT calls no hook inside a hook, an event of the VM, or a finalizer: the same flag also decides which path
 * lua_yield takes. The script's own hook is put back, unless a signal handler has set another one meanwhile. */
bool asio_hook_active(lua_State *L, struct asio_rt *rt)
{
    lua_Hook hook = lua_gethook(L);
    int mask = lua_gethookmask(L), count = lua_gethookcount(L);
    rt->hook_called = false;
    lua_sethook(L, hook_on_call, LUA_MASKCALL, 0);
    asio_error_push_nothing(L);
    if (lua_pcall(L, 0, 0, 0) != 0)
        lua_pop(L, 1);
    if (lua_gethook(L) == hook_on_call)
        lua_sethook(L, hook, mask, count);
    return !rt->hook_called;
}
