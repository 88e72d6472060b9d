/* SPDX-License-Identifier: MIT
 *
 * What a part of the module is to the runtime: two functions, and a number for each thing that it keeps in a
 * runtime. The runtime opens the parts in the order of module/parts.h, closes them in the reverse order, and
 * knows no more of them. */
#ifndef ASIO_PART_H
#define ASIO_PART_H

#include "base/asio.h"

struct asio_rt;

struct asio_part {
    const char *name;
    /* Binds the part's functions (see bind.h) and makes its state. Raises out of memory; it is then called again
     * by the next require. NULL: there is nothing to open. */
    void (*open)(lua_State *L, struct asio_rt *rt);
    /* The state closes, its handles are still open: gives the part's state back. Called once, also after an
     * `open` that raised. No Lua code runs. NULL: there is nothing to give back. */
    void (*close)(struct asio_rt *rt);
};

/* Slots for the state of a part, which the part sets and frees itself; see asio_rt_part. */
enum asio_part_id {
    ASIO_PART_GROUP,
    ASIO_PART_QUICK,
    ASIO_PART_RESOLVE,
    ASIO_PART_SPLICE,
    ASIO_PART_UDP,
    ASIO_PART_WAIT_FD,
    ASIO_PART_WATCHDOG,
    ASIO_PARTS
};

/* Places in the registry, taken when the runtime is made: storing to one allocates nothing. */
enum asio_ref {
    /* the runtime's */
    ASIO_REF_THREAD_L,
    ASIO_REF_PROTECT,
    ASIO_REF_ANCHORS,
    ASIO_REF_WRAPPERS,
    ASIO_REF_CORE, /* the table `core`, see bind.h */
    /* the scheduler's */
    ASIO_REF_THREADS, /* the table of slots, see coroutine.h */
    ASIO_REF_THREAD_MT,
    ASIO_REF_MAIN_WAIT,
    ASIO_REF_NO_MEMORY,
    ASIO_REF_CANCELLED,
    ASIO_REF_INTERRUPT_MT,
    ASIO_REF_DEADLOCK,
    ASIO_REF_REPORTS,
    ASIO_REF_ON_ERROR,
    /* the parts' */
    ASIO_REF_USER_COROUTINE,
    ASIO_REF_USER_COROUTINE_MT,
    ASIO_REF_CHANNEL_MT,
    ASIO_REF_SEMAPHORE_MT,
    ASIO_REF_MUTEX_MT,
    ASIO_REF_EVENT_MT,
    ASIO_REF_GROUP_MT,
    ASIO_REF_TICKER_MT,
    ASIO_REF_SIGNAL_MT,
    ASIO_REF_CONN_MT,
    ASIO_REF_BUFFER_MT,
    ASIO_REF_SERVER_MT,
    ASIO_REF_UDP_MT,
    ASIO_REF_UDP_IPS,
    ASIO_REFS
};

#endif
