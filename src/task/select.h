/* SPDX-License-Identifier: MIT
 * What asio.select can wait for. */
#ifndef ASIO_SELECT_H
#define ASIO_SELECT_H

#include "core/wait.h"

struct asio_selectable {
    /* Takes what is there now: pushes token and results, returns how many; 0: nothing yet. The
     * object is at index 1 of L. */
    int (*poll)(lua_State *L, void *object);
    /* Lets a record (source: the object) wait in the object's queue; its end fetches results by the
     * operation returned. */
    const struct asio_wait_op *(*join)(struct asio_wait *branch);
};

extern const struct asio_selectable asio_channel_selectable, asio_semaphore_selectable, asio_event_selectable,
    asio_thread_selectable;

#endif
