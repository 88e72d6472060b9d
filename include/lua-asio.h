/* SPDX-License-Identifier: MIT
 *
 * For programs that have LuaJIT in them and link LuaAsio statically; docs/embedding.md explains what comes with it.
 * Programs that only run scripts need no header: with asio.so on package.cpath, `require 'asio'` is enough.
 *
 * Every Lua state has a runtime of its own, which lua_close ends. Several states in one process, on several threads,
 * do not affect one another; a state is used by one thread at a time.
 *
 * These are functions for package.preload, so that `require` opens what scripts ask for:
 *
 *     lua_getglobal(L, "package");
 *     lua_getfield(L, -1, "preload");
 *     lua_pushcfunction(L, luaopen_asio);
 *     lua_setfield(L, -2, "asio");
 *     lua_pop(L, 2);
 *
 * Link with:  pkg-config --cflags --libs lua-asio
 * or:         find_package(LuaAsio REQUIRED)  target_link_libraries(program PRIVATE LuaAsio::asio)
 */
#ifndef LUA_ASIO_H
#define LUA_ASIO_H

#ifdef __cplusplus
extern "C" {
#endif

struct lua_State;

/* The module `asio`. Opens the runtime of the state at the first call, and returns the same table at each further one.
 * Raises a Lua error when memory or descriptors run out, hence not to be called outside of lua_pcall or lua_cpcall. */
int luaopen_asio(struct lua_State *L);

/* The module `asio.ares`: names are looked up by c-ares, and not on helper threads. Not for scripts: the module `asio`
 * takes it from package.preload at the first look-up. It needs c-ares as well (`pkg-config --libs lua-asio libcares`,
 * LuaAsio::ares), and is there if LuaAsio was built with it. */
int luaopen_asio_ares(struct lua_State *L);

/* The module `asio.worker`: several Lua states on threads. Not for scripts: the module `asio` takes it from
 * package.preload at the first call of asio.worker and the like. Each of these states calls luaL_openlibs, and gets what
 * package.preload has in the state that starts it: C functions without upvalues. */
int luaopen_asio_worker(struct lua_State *L);

/* The module `asio.http`: HTTP, for scripts. It needs `asio` in package.preload, and zlib as well (`pkg-config --libs
 * lua-asio zlib`, LuaAsio::http) unless LuaAsio was built without, and is there if LuaAsio was built with the sources of
 * llhttp, which is inside. */
int luaopen_asio_http(struct lua_State *L);

#ifdef __cplusplus
}
#endif

#endif
