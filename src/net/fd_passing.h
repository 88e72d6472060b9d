/* SPDX-License-Identifier: MIT
 *
 * Passing connections to other processes, over Unix sockets made with { handles = true }. A connection
 * travels as a descriptor on one byte of its own, which reading does not see; those that have come wait in
 * a queue until recv_handle takes them. */
#ifndef ASIO_FD_PASSING_H
#define ASIO_FD_PASSING_H

#include "net/family.h"

extern const struct asio_socket_family asio_fd_passing_family;

/* The kind of a connected socket; NULL: it is something else. */
const struct asio_socket_family *asio_fd_passing_family_of(uv_os_sock_t fd);

#endif
