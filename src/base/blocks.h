/* SPDX-License-Identifier: MIT
 *
 * Blocks of memory for bytes on their way, in classes of size, kept for reuse. Buffers come and go with every
 * message; glibc gives freed memory at the end of its heap back to the kernel and takes it again with the next
 * message (measured: page faults were a fifth of the processor time of an echo server).
 *
 * Lifetime: one in each runtime; what it keeps is bounded by bytes, and freed with the runtime. */
#ifndef ASIO_BLOCKS_H
#define ASIO_BLOCKS_H

#include "base/asio.h"

enum {
    ASIO_BLOCK_CLASSES = 9,                  /* powers of two, from 512 bytes to 128 KB */
    ASIO_BLOCK_EXTRA = 64,                   /* and room for a header */
    ASIO_BLOCK_MIN = 512 + ASIO_BLOCK_EXTRA, /* bytes of the smallest class */
    ASIO_BLOCKS_KEPT = 512 * 1024,           /* bytes kept, at most */
};

struct asio_block; /* a kept one: no more than a link */

struct asio_blocks {
    struct asio_block *kept[ASIO_BLOCK_CLASSES];
    size_t bytes_of[ASIO_BLOCK_CLASSES]; /* kept, by class */
    size_t bytes;                        /* kept */
};

/* A block of at least *size bytes; *size becomes what it has. NULL: memory is out. Above the largest class a
 * block is of the size asked for, and is not kept. */
void *asio_blocks_take(struct asio_blocks *b, size_t *size);

/* Gives a block of `size` bytes back; takes NULL. */
void asio_blocks_give(struct asio_blocks *b, void *block, size_t size);

void asio_blocks_free(struct asio_blocks *b);

#endif
