/* SPDX-License-Identifier: MIT
 * The transport of Unix sockets, and of named pipes on Windows. */
#ifndef ASIO_UNIX_H
#define ASIO_UNIX_H

#include "net/family.h"

struct asio_unix {
    struct asio_stream stream; /* first */
    uv_pipe_t handle;          /* right behind it, see uvstream.h */
};

extern const struct asio_socket_family asio_unix_family;

/* Entries of the tables of families and transports, also of those in fd_passing.c. */
int asio_unix_init(uv_loop_t *loop, uv_stream_t *handle);
int asio_unix_open_socket(uv_stream_t *handle, uv_os_sock_t fd);
int asio_unix_path_of(struct asio_stream *s, char *path, size_t *size, bool peer);

/* The name in "unix:NAME" at a stack index, and its length; NULL: it is something else. */
const char *asio_unix_name(lua_State *L, int index, size_t *n);

/* Pushes nil, message, code for what became of a name, and returns 3. */
int asio_unix_push_failure(lua_State *L, int status);

#endif
