/* SPDX-License-Identifier: MIT
 * Tells of light threads that keep the processor for long; the scheduler says who runs. */
#ifndef ASIO_WATCHDOG_H
#define ASIO_WATCHDOG_H

#include "core/runtime.h"

/* Who has been running since when. */
struct asio_watch {
    struct asio_thread *thread; /* NULL: nobody. Not looked into by the helper */
    uint64_t since;             /* uv_hrtime() */
    uint64_t told;              /* ns after which it was told of last; 0: not yet */
};

/* Around a resume, only while rt->watchdog is set. Returns what to give to leave. */
struct asio_watch asio_watchdog_enter(struct asio_rt *rt, struct asio_thread *t);
void asio_watchdog_leave(struct asio_rt *rt, struct asio_watch before);

#endif
