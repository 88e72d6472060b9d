/* SPDX-License-Identifier: MIT
 * How failures look to Lua; see error.h. */
#include "base/error.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* libuv words three statuses in a way that would mislead here. */
static const char *own_words(int status)
{
    switch (status) {
    case UV_EBADF:
        return "closed";
    case UV_ECANCELED:
        return "canceled";
    case UV_ETIMEDOUT:
        return "operation timed out";
    case ASIO_ETRUNCATED:
        return "connection truncated";
    default:
        return NULL;
    }
}

void asio_error_message(int status, char *buf, size_t size)
{
    const char *own = own_words(status);
    if (own)
        snprintf(buf, size, "%s", own);
    else
        uv_strerror_r(status, buf, size);
    for (char *p = buf; *p; p++)
        *p = (char)tolower((unsigned char)*p);
}

static void push_code(lua_State *L, int status)
{
    char code[64] = "ETRUNCATED";
    if (status != ASIO_ETRUNCATED)
        uv_err_name_r(status, code, sizeof code);
    lua_pushstring(L, code);
}

int asio_error_push(lua_State *L, int status)
{
    char text[128];
    lua_pushnil(L);
    asio_error_message(status, text, sizeof text);
    lua_pushstring(L, text);
    push_code(L, status);
    return 3;
}

int asio_error_push_text(lua_State *L, int status, const char *fmt, ...)
{
    va_list args;
    lua_pushnil(L);
    va_start(args, fmt);
    lua_pushvfstring(L, fmt, args);
    va_end(args);
    push_code(L, status);
    return 3;
}

static bool is_our_part(lua_State *L, int level)
{
    lua_Debug ar;
    return lua_getstack(L, level, &ar) && lua_getinfo(L, "S", &ar) && !strcmp(ar.source, ASIO_CHUNK_NAME);
}

static const char nothing_key = 0; /* its address is the key of a function in the registry */

static int l_nothing(lua_State *L)
{
    (void)L;
    return 0;
}

void asio_error_open(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&nothing_key);
    lua_pushcfunction(L, l_nothing);
    lua_rawset(L, LUA_REGISTRYINDEX);
}

void asio_error_push_nothing(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&nothing_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
}

/* A call makes L the running lua_State again. */
int asio_error_raise(lua_State *L)
{
    asio_error_push_nothing(L);
    lua_call(L, 0, 0);
    return lua_error(L);
}

int asio_error_no_memory(lua_State *L)
{
    lua_pushliteral(L, "not enough memory");
    return asio_error_raise(L);
}

/* xpcall between two of our parts. */
static bool is_between_our_parts(lua_State *L, int level)
{
    lua_Debug ar;
    return lua_getstack(L, level, &ar) && lua_getinfo(L, "S", &ar) && *ar.what == 'C' &&
        is_our_part(L, level + 1);
}

/* The line to blame is the first above our own Lua parts (a C function is level 0; the shim that
 * called it, when there is one, level 1). They may have called one another through xpcall. */
static int raise_at_caller(lua_State *L, const char *fmt, va_list args)
{
    int level = 1;
    while (is_our_part(L, level) || is_between_our_parts(L, level))
        level++;
    luaL_where(L, level);
    lua_pushvfstring(L, fmt, args);
    lua_concat(L, 2);
    return asio_error_raise(L);
}

int asio_error_misuse(lua_State *L, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    raise_at_caller(L, fmt, args);
    va_end(args);
    return 0;
}

int asio_error_arg(lua_State *L, int arg, const char *fname, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    const char *why = lua_pushvfstring(L, fmt, args);
    va_end(args);
    return asio_error_misuse(L, "bad argument #%d to '%s' (%s)", arg, fname, why);
}

int asio_error_type(lua_State *L, int index, int arg, const char *fname, const char *expected)
{
    const char *got = lua_type(L, index) == LUA_TNONE ? "no value" : luaL_typename(L, index);
    return asio_error_arg(L, arg, fname, "%s expected, got %s", expected, got);
}

double asio_check_timeout(lua_State *L, int index, int arg, const char *fname)
{
    if (lua_isnoneornil(L, index))
        return -1;
    if (lua_type(L, index) != LUA_TNUMBER)
        asio_error_type(L, index, arg, fname, "number of seconds");
    double seconds = lua_tonumber(L, index);
    if (!(seconds >= 0)) /* NaN fails every comparison */
        asio_error_arg(L, arg, fname, "seconds must not be negative or NaN");
    return isinf(seconds) ? -1 : seconds;
}

int asio_error_integer(lua_State *L, int index, int arg, const char *fname, double min, double max)
{
    double n = lua_tonumber(L, index);
    if (!lua_isnumber(L, index))
        return asio_error_type(L, index, arg, fname, "number");
    if (!(n >= min && n <= max))
        return asio_error_arg(L, arg, fname, "number out of range");
    if (n != (double)(int64_t)n) /* in range, hence the cast is defined; libm is not linked */
        return asio_error_arg(L, arg, fname, "whole number expected");
    return 0; /* zero, where zero is allowed */
}
