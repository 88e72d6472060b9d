/* SPDX-License-Identifier: MIT
 * What other files ask of light threads, see thread.c and report.c. */
#ifndef ASIO_THREAD_H
#define ASIO_THREAD_H

#include "core/sched.h"

/* The light thread at a stack index, or raises naming the method. */
struct asio_thread *asio_thread_check(lua_State *L, int index, const char *fname);

/* NULL if the value at a stack index is something else. */
struct asio_thread *asio_thread_to(lua_State *L, int index);

/* Asks a light thread to end: its waits raise asio.cancelled from now on. */
void asio_thread_cancel(struct asio_thread *t);

/* The same for all that a counter counts, but the running one. */
void asio_thread_cancel_counted(lua_State *L, struct asio_rt *rt, const struct asio_counter *counter);

/* "running", "ready", "waiting", "done" or "failed". */
const char *asio_thread_status(const struct asio_thread *t);

/* Pushes the name ("#7" by default) of one that is alive, or not yet reported, and returns it. */
const char *asio_thread_push_name(lua_State *L, struct asio_thread *t);

/* The script waits for its end, and is told of it. */
bool asio_thread_is_awaited(const struct asio_thread *t);

/* Of the records in t->joiners (relays among them): only these stand for a join. All are
 * ended with status 0, once. */
extern const struct asio_wait_op asio_join_op;

#endif
