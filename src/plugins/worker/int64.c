/* SPDX-License-Identifier: MIT
 *
 * Integers of 64 bits, which Lua's C interface does not know: the library ffi is asked from Lua. */
#include "plugins/worker/pack.h"

/* kind: 1 signed, 2 unsigned; 0 something else. The value is copied, since it may be a reference. */
static const char int64_text[] =
    "local ok, ffi = pcall(..., 'ffi') "
    "if not ok then return end "
    "local types = { ffi.typeof 'int64_t', ffi.typeof 'uint64_t' } "
    "return function(v) "
    "  local kind = ffi.istype(types[1], v) and 1 or ffi.istype(types[2], v) and 2 "
    "  if not kind then return 0 end "
    "  return kind, types[kind](v) "
    "end, function(kind, high, low) "
    "  local integer = types[kind] "
    "  return integer(high) * 2^32 + integer(low) "
    "end";

/* Pushes one of these functions, or nil: there is no ffi. The userdata with the slots is at stack index `self`. */
static void int64_push(lua_State *L, int self, enum pack_slot slot)
{
    luaL_checkstack(L, 8, "int64");
    lua_getfenv(L, self);
    lua_rawgeti(L, -1, (int)slot);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        if (luaL_loadbuffer(L, int64_text, sizeof int64_text - 1, "=[asio]") != 0)
            lua_error(L);
        lua_rawgeti(L, -2, PACK_REQUIRE);
        lua_call(L, 1, 2);
        lua_rawseti(L, -3, PACK_INT64_MAKE);
        lua_rawseti(L, -2, PACK_INT64_KIND);
        lua_rawgeti(L, -1, (int)slot);
    }
    lua_remove(L, -2);
}

bool asio_pack_int64(struct pack *p, int index)
{
    lua_State *L = p->L;
    int64_push(L, p->self, PACK_INT64_KIND);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        return false;
    }
    lua_pushvalue(L, index);
    lua_call(L, 1, 2);
    int kind = (int)lua_tonumber(L, -2);
    if (kind != 0)
        pack_fixed(p, kind == 1 ? PACK_INT64 : PACK_UINT64, lua_topointer(L, -1), sizeof(int64_t));
    lua_pop(L, 2);
    return kind != 0;
}

void asio_unpack_int64(struct unpack *u, enum pack_tag tag)
{
    lua_State *L = u->L;
    int64_push(L, u->self, PACK_INT64_MAKE);
    if (lua_isnil(L, -1))
        luaL_error(L, "a 64-bit integer needs the library ffi");
    uint64_t n;
    memcpy(&n, u->at, sizeof n);
    u->at += sizeof n;
    lua_pushinteger(L, tag == PACK_INT64 ? 1 : 2);
    lua_pushnumber(L, (double)(n >> 32));
    lua_pushnumber(L, (double)(uint32_t)n);
    lua_call(L, 3, 1);
}
