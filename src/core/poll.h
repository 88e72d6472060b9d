/* SPDX-License-Identifier: MIT
 *
 * One round of libuv, and what belongs around it: the clock is armed for the first deadline before, deadlines fire and
 * the collector gets its share afterwards; Ctrl-C and SIGPIPE. What drives the rounds is turn.c. */
#ifndef ASIO_POLL_H
#define ASIO_POLL_H

#include "core/runtime.h"

/* Runs libuv once: until something happens (wait) or only for what is there. */
void asio_poll(struct asio_rt *rt, bool wait);

/* Around every stretch in which the loop runs. */
void asio_poll_enter(struct asio_rt *rt);
void asio_poll_leave(struct asio_rt *rt);

/* Around starting a transport write that goes on by itself, and when it is over: it keeps run
 * going, and while there are any, SIGPIPE is blocked when libuv runs. */
void asio_poll_sending_begins(struct asio_rt *rt);
void asio_poll_sending_began(struct asio_rt *rt);
void asio_poll_sending_ends(struct asio_rt *rt);

#endif
