/* SPDX-License-Identifier: MIT
 *
 * Passing connections to other processes, over Unix sockets made with { handles = true }. A connection
 * travels as a descriptor on one byte of its own, which reading does not see; those that have come wait in
 * a queue until recv_handle takes them. */
#ifndef ASIO_PASSING_H
#define ASIO_PASSING_H

#include "net/unix.h"

extern const struct asio_transport asio_passing_transport;

/* For a pipe of that transport; false: out of memory. */
bool asio_passing_make(struct asio_pipe *p);

/* It has its socket. */
int asio_passing_begin(struct asio_pipe *p);

#endif
