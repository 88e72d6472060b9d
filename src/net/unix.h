/* SPDX-License-Identifier: MIT
 * The transport of Unix sockets, and of named pipes on Windows. */
#ifndef ASIO_PIPE_H
#define ASIO_PIPE_H

#include "stream/uvstream.h"

struct asio_passing;

struct asio_pipe {
    struct asio_stream stream;    /* first */
    uv_pipe_t handle;             /* right behind it, see uvstream.h */
    struct asio_passing *passing; /* NULL: it carries bytes alone; see passing.h */
};

extern const struct asio_carrier asio_pipe_carrier;

/* An entry of a transport's table. */
int asio_pipe_path_of(struct asio_stream *s, char *path, size_t *size, bool peer);

/* The name in "unix:NAME" at a stack index, and its length; NULL: it is something else. */
const char *asio_pipe_name(lua_State *L, int index, size_t *n);

/* Pushes nil, message, code for what became of a name, and returns 3. */
int asio_pipe_push_failure(lua_State *L, int status);

#endif
