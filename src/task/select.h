/* SPDX-License-Identifier: MIT
 * What asio.select can wait for. */
#ifndef ASIO_SELECT_H
#define ASIO_SELECT_H

#include "core/wait.h"

extern const struct asio_selectable asio_channel_selectable, asio_semaphore_selectable, asio_event_selectable,
    asio_thread_selectable;

#endif
