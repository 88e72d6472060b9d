/* SPDX-License-Identifier: MIT
 *
 * The coroutines that light threads run on: a pool of finished ones to use again, and the one
 * table (rt->refs[ASIO_REF_THREADS]) that anchors what must not be collected while a light thread is alive.
 * Each coroutine has a slot in it, with four values: itself, the handle of the light thread
 * that runs on it, what that thread owns, and what it gives or is given while it waits. Slot 0 is
 * the main chunk's, which has the last of them only. */
#ifndef ASIO_COROUTINE_H
#define ASIO_COROUTINE_H

#include "core/runtime.h"

/* Keys in the table: ASIO_SLOT_KEYS * slot + one of these. */
enum { ASIO_SLOT_COROUTINE, ASIO_SLOT_HANDLE, ASIO_SLOT_OWNED, ASIO_SLOT_ITEM, ASIO_SLOT_KEYS };

/* Pushes a value of a slot. */
void asio_slot_get(lua_State *L, struct asio_rt *rt, int slot, int key);

/* Stores the value at the top of L (popped). The keys of a slot exist once it was used, so that
 * this allocates nothing. */
void asio_slot_set(lua_State *L, struct asio_rt *rt, int slot, int key);
void asio_slot_clear(struct asio_rt *rt, int slot, int key);

/* Makes the slot of the main chunk. */
void asio_slot_open(lua_State *L, struct asio_rt *rt);

/* Gives back a slot whose coroutine was dropped. */
void asio_slot_give_back(struct asio_rt *rt, int slot);

/* A coroutine to run a light thread on, with the globals of L. `fresh`: one to which no script has a reference
 * (a deferred start leaves a function on its stack, which a coroutine.resume by hand would
 * call). Raises out of memory. */
struct asio_coroutine asio_coroutine_take(struct asio_rt *rt, lua_State *L, bool fresh);

/* Puts one that has finished into the pool, its stack empty; false if the pool is full. */
bool asio_coroutine_keep(struct asio_rt *rt, struct asio_coroutine c);

/* Lets the collector have one; its slot stays taken. */
void asio_coroutine_drop(struct asio_rt *rt, int slot);

#endif
