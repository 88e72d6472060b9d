/* SPDX-License-Identifier: MIT
 *
 * Passing connections to other processes, over Unix sockets made with { handles = true }. A connection
 * travels as a descriptor on one byte of its own, which reading does not see; those that have come wait in
 * a queue until recv_handle takes them. */
#ifndef ASIO_FD_PASSING_H
#define ASIO_FD_PASSING_H

#include "net/unix.h"

extern const struct asio_transport asio_fd_passing_transport;

/* For a pipe of that transport; false: out of memory. */
bool asio_fd_passing_make(struct asio_unix *p);

/* It has its socket. */
int asio_fd_passing_begin(struct asio_unix *p);

#endif
