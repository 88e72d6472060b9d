/* SPDX-License-Identifier: MIT
 * Whether LuaJIT runs a hook, inside of which no light thread may be resumed. */
#ifndef ASIO_HOOK_H
#define ASIO_HOOK_H

#include "core/runtime.h"

/* True inside a debug hook, an event of the VM (jit.attach) or a finalizer: lua_yield then takes its path for hooks,
 * whatever coroutine calls it, and the next resume of that coroutine crashes. So no light thread may be resumed
 * there. A light thread that asks for itself needs not call this: if its coroutine can yield, no hook has begun since
 * it was resumed. Costs about 0.1 us: C has no other way to ask LuaJIT than to try whether it calls a hook. A
 * hook of the script's that counts instructions starts again from its full count. */
bool asio_hook_active(lua_State *L, struct asio_rt *rt);

#endif
