/* SPDX-License-Identifier: MIT
 *
 * Keys and values of a dict on Lua's stack. The dict is at index 1, the key at 2: argument n of a method is at n + 1. */
#ifndef ASIO_WORKER_DICT_STACK_H
#define ASIO_WORKER_DICT_STACK_H

#include "plugins/worker/dict_store.h"

/* What a state has for its handle (handle->local). */
struct dict_local {
    struct dict_read *reading; /* while it is pushed */
};

/* Raise. The bytes of a key are those of the string on the stack. */
void asio_dict_check_key(lua_State *L, const char *fname, struct dict_key *key);
double asio_dict_check_number(lua_State *L, int index, const char *fname);
void asio_dict_check_present(lua_State *L, const char *fname);

/* Seconds from now on, as a time; nil, and more than the clock will ever show: never. */
uint64_t asio_dict_check_ttl(lua_State *L, int index, const char *fname);

/* The value at a stack index; nil: DICT_NONE. 0 or UV_ENOMEM. If the dict does not take the blob it stays the caller's.
 * Raises what asio_message_pack raises, in which `what` is the value if it is no argument. */
int asio_dict_value_at(lua_State *L, int index, const char *fname, const char *what, struct dict_value *v);

/* nil, message, code; `einval`: what UV_EINVAL means here. */
int asio_dict_push_fail(lua_State *L, int status, const char *einval);

/* true, or that. */
int asio_dict_push_true(lua_State *L, int status);

/* Pushes a value that is not DICT_NONE or a list, and lets go of it; also when it raises: out of memory. */
void asio_dict_push_read(lua_State *L, struct dict *d, struct dict_key *key, struct dict_read *r);

void asio_dict_stack_open(lua_State *L);

#endif
