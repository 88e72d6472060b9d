/* SPDX-License-Identifier: MIT
 *
 * How failures look to Lua. What the world does is returned as nil, message, code; a mistake in
 * the script raises and blames the caller's line. A status is a libuv error: 0 or negative. */
#ifndef ASIO_ERROR_H
#define ASIO_ERROR_H

#include "base/asio.h"

/* The chunk name of the embedded Lua parts: errors blame the first line outside of them. */
#define ASIO_CHUNK_NAME "=[asio]"

/* A status of our own, outside of libuv's numbers: a peer has ended a connection in a way that any third party
 * could have ended it (TLS without close_notify). */
enum { ASIO_ETRUNCATED = -5001 };

/* Pushes nil, message, code for a status and returns 3. May raise out of memory. */
int asio_error_push(lua_State *L, int status);

/* The same with a message of its own, where the system's would not tell what is wrong. */
int asio_error_push_text(lua_State *L, int status, const char *fmt, ...);

/* Writes the lower-case message of a status into buf. */
void asio_error_message(int status, char *buf, size_t size);

/* Raises "bad argument #arg to 'fname' (...)", blaming the line of the script that made the call.
 * `fname` is the public name; arg does not count self. */
int asio_error_arg(lua_State *L, int arg, const char *fname, const char *fmt, ...);

/* The same for a value of the wrong type at stack index `index`. */
int asio_error_type(lua_State *L, int index, int arg, const char *fname, const char *expected);

/* Raises the value at the top of L. A C function that may have run Lua code on another lua_State (a protected body, a
 * light thread, the loop) must raise by this, or by the functions here, not by lua_error: LuaJIT notes which lua_State
 * runs in calls and returns only, and not when an error is caught. Compiled code that runs next would take the other
 * lua_State for its own. */
int asio_error_raise(lua_State *L);
int asio_error_no_memory(lua_State *L);

/* Once for each Lua state, before the functions here; raises out of memory. */
void asio_error_open(lua_State *L);

/* Pushes a C function that does nothing; allocates nothing. */
void asio_error_push_nothing(lua_State *L);

/* Raises a message, blaming the line of the script that made the call. */
int asio_error_misuse(lua_State *L, const char *fmt, ...);

/* A time-out in seconds at `index`: nil or inf mean none (returns -1), else seconds >= 0. NaN,
 * negative numbers and other types raise. */
double asio_check_timeout(lua_State *L, int index, int arg, const char *fname);

/* Raises for a value that asio_check_integer does not like. */
int asio_error_integer(lua_State *L, int index, int arg, const char *fname, double min, double max);

/* A whole number in [min, max] at `index`, or raises. Inline: every read asks. */
static inline double asio_check_integer(
    lua_State *L, int index, int arg, const char *fname, double min, double max)
{
    double n = lua_tonumber(L, index);
    if (!(n > 0 && n >= min && n <= max && n == (double)(int64_t)n)) /* NaN fails every comparison */
        asio_error_integer(L, index, arg, fname, min, max);
    return n;
}

#endif
