/* SPDX-License-Identifier: MIT
 *
 * The parts of the module in the order in which they are opened; they are closed in the reverse order. X(ticker)
 * stands for asio_part_ticker, which task/ticker.c defines; see struct asio_part. A new part adds its line here,
 * and, if it keeps something in the runtime, to the numbers in core/part.h. */
#ifndef ASIO_PARTS_H
#define ASIO_PARTS_H

#include "core/part.h"

#define ASIO_PARTS_LIST(X)                                                                                   \
    X(sched)                                                                                                 \
    X(traceback)                                                                                             \
    X(thread)                                                                                                \
    X(report)                                                                                                \
    X(run)                                                                                                   \
    X(timeout)                                                                                               \
    X(user_coroutine)                                                                                        \
    X(channel)                                                                                               \
    X(sync)                                                                                                  \
    X(select)                                                                                                \
    X(group)                                                                                                 \
    X(ticker)                                                                                                \
    X(inspect)                                                                                               \
    X(watchdog)                                                                                              \
    X(signal)                                                                                                \
    X(wait_fd)                                                                                               \
    X(address)                                                                                               \
    X(conn)                                                                                                  \
    X(quick)                                                                                                 \
    X(connect)                                                                                               \
    X(unix)                                                                                                  \
    X(fd_passing)                                                                                            \
    X(splice)                                                                                                \
    X(relay)                                                                                                 \
    X(stdio)                                                                                                 \
    X(server)                                                                                                \
    X(plugins)                                                                                               \
    X(resolve)                                                                                               \
    X(udp)

#endif
