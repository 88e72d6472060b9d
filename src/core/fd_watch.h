/* SPDX-License-Identifier: MIT
 *
 * A callback for the events of a descriptor that belongs to other code (c-ares).
 *
 * Lifetime of a watch: made by asio_fd_watch_open; closed by asio_fd_watch_close, before its owner closes the
 * descriptor; freed by libuv's close callback. If the state closes first, teardown closes it: the owner must not
 * touch it afterwards. */
#ifndef ASIO_FD_WATCH_H
#define ASIO_FD_WATCH_H

#include "core/runtime.h"

struct asio_fd_watch;

/* NULL: *status says why. Nothing is watched for yet. */
struct asio_fd_watch *asio_fd_watch_open(
    struct asio_rt *rt, uv_os_sock_t fd, void (*fn)(void *arg, int events), void *arg, int *status);

/* Calls fn(arg, events) while one of the wanted events (UV_READABLE, UV_WRITABLE; 0: none) is there. */
int asio_fd_watch_set(struct asio_fd_watch *w, int events);

void asio_fd_watch_close(struct asio_fd_watch *w);

#endif
