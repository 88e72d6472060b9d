/* SPDX-License-Identifier: MIT
 * Blocks of memory kept for reuse; see blocks.h. */
#include "base/blocks.h"

#include <assert.h>

/* A kept block counts as freed: a use of it is then found. */
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

struct asio_block {
    struct asio_block *next;
};

static size_t blocks_size_of(unsigned class)
{
    return ((size_t)512 << class) + ASIO_BLOCK_EXTRA;
}

/* The class of the blocks that have `size` bytes or more; ASIO_BLOCK_CLASSES: none. */
static unsigned blocks_class_for(size_t size)
{
    unsigned class = 0;
    while (class < ASIO_BLOCK_CLASSES && blocks_size_of(class) < size)
        class ++;
    return class;
}

static struct asio_block *blocks_pop(struct asio_blocks *b, unsigned class)
{
    struct asio_block *block = b->kept[class];
    size_t size = blocks_size_of(class);
    assert(b->bytes_of[class] >= size);
    ASAN_UNPOISON_MEMORY_REGION(block, size);
    b->kept[class] = block->next;
    b->bytes_of[class] -= size;
    b->bytes -= size;
    return block;
}

void *asio_blocks_take(struct asio_blocks *b, size_t *size)
{
    unsigned class = blocks_class_for(*size);
    if (class < ASIO_BLOCK_CLASSES) {
        *size = blocks_size_of(class);
        if (b->kept[class])
            return blocks_pop(b, class);
    }
    return asio_mem.malloc(*size);
}

/* Room for a block of a class, at the cost of the class that has most. False: its own is that one. */
static bool blocks_make_room(struct asio_blocks *b, unsigned class)
{
    unsigned most = class;
    while (b->bytes + blocks_size_of(class) > ASIO_BLOCKS_KEPT) {
        for (unsigned i = 0; i < ASIO_BLOCK_CLASSES; i++)
            if (b->bytes_of[i] > b->bytes_of[most])
                most = i;
        if (most == class)
            return false;
        asio_mem.free(blocks_pop(b, most));
    }
    return true;
}

void asio_blocks_give(struct asio_blocks *b, void *p, size_t size)
{
    unsigned class = blocks_class_for(size);
    struct asio_block *block = p;
    if (!p)
        return;
    if (class == ASIO_BLOCK_CLASSES || !blocks_make_room(b, class)) {
        asio_mem.free(p);
        return;
    }
    assert(size == blocks_size_of(class));
    block->next = b->kept[class];
    b->kept[class] = block;
    b->bytes_of[class] += size;
    b->bytes += size;
    ASAN_POISON_MEMORY_REGION(block, size);
}

void asio_blocks_free(struct asio_blocks *b)
{
    for (unsigned class = 0; class < ASIO_BLOCK_CLASSES; class ++)
        while (b->kept[class])
            asio_mem.free(blocks_pop(b, class));
}
