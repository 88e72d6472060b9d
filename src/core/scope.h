/* SPDX-License-Identifier: MIT
 *
 * Scopes: stretches of a light thread's run that a deadline or a cancel can interrupt, and
 * shields that keep interrupts out. struct asio_scope is in wait.h, with what its state means. */
#ifndef ASIO_SCOPE_H
#define ASIO_SCOPE_H

#include "core/wait.h"

/* Enters a scope. `at`: its deadline, ASIO_NEVER for none; `fire` is called when it has passed. NULL:
 * out of memory. */
struct asio_scope *asio_scope_enter(
    struct asio_wait *w, uint64_t at, bool shield, void (*fire)(struct asio_timer *t));

/* Leaves, and frees, all scopes of a record inside of `outer` (NULL: all). */
void asio_scope_drop(struct asio_wait *w, struct asio_scope *outer);

/* Takes the scopes inside of `outer` away from a record, and puts them on one again. */
struct asio_scope *asio_scope_suspend(struct asio_wait *w, struct asio_scope *outer);
void asio_scope_resume(struct asio_wait *w, struct asio_scope *innermost);

/* Takes the innermost user's coroutine off a record, with the scopes it is in: it has yielded to its
 * resumer, has ended, or will never go on. */
void asio_scope_pop_user_coroutine(struct asio_wait *w);

/* Frees suspended scopes. */
void asio_scope_free(struct asio_rt *rt, struct asio_scope *innermost);

/* At the close of the state: the spare ones. */
void asio_scope_close(struct asio_rt *rt);

#endif
