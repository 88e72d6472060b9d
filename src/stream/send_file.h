/* SPDX-License-Identifier: MIT
 * Bytes of a file that go to a connection without being copied to the process. */
#ifndef ASIO_STREAM_SEND_FILE_H
#define ASIO_STREAM_SEND_FILE_H

#include "stream/stream.h"

/* Sends what is queued, and up to n bytes of the file from `offset` on behind it, as much as the system takes now.
 * Returns how many bytes of the file; UV_EAGAIN: none now; UV_ENOTSUP: such a file cannot go to such a stream, or there
 * is no such call; UV_EOF: the file has no bytes there; or an error of the stream, with which it has failed. */
ssize_t asio_stream_send_file(struct asio_stream *s, int file, int64_t offset, size_t n);

#endif
