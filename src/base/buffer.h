/* SPDX-License-Identifier: MIT
 *
 * Two byte queues, both of which own memory only while they hold bytes, in blocks that a runtime keeps for reuse.
 *
 * asio_inbuf: bytes that have arrived and are not read yet. It may *borrow* them from the loop's
 * scratch buffer for the length of a read callback, so that a reader that takes everything costs
 * no copy; asio_inbuf_own copies what is left.
 *
 * asio_outbuf: bytes on their way to the kernel, a list of segments. Small writes are copied into
 * the last segment; a large Lua string is a segment that points into the string, which is kept
 * alive by an anchor (`ref`) that the owner of the queue releases. */
#ifndef ASIO_BUFFER_H
#define ASIO_BUFFER_H

#include "base/blocks.h"

#include <string.h>

/* What a buffer holds at most: LuaJIT's longest string, and what is read ahead of it. 32 bits are enough for it, and
 * make an idle connection smaller. */
#define ASIO_INBUF_MAX (UINT32_MAX / 2 + (1u << 20))

struct asio_inbuf {
    char *data;
    uint32_t start, end; /* unread bytes are data[start, end) */
    uint32_t capacity;   /* 0: borrowed, or nothing */
    bool pinned;         /* the bytes are being copied: freeing only forgets them for now */
};

static inline size_t asio_inbuf_length(const struct asio_inbuf *b)
{
    return b->end - b->start;
}

static inline const char *asio_inbuf_bytes(const struct asio_inbuf *b)
{
    return b->data + b->start;
}

/* Makes an empty buffer show n bytes at p, which stay the caller's. */
void asio_inbuf_borrow(struct asio_inbuf *b, char *p, size_t n);

/* Copies what is left of a borrowed view; 0 or UV_ENOMEM (the view is then gone). */
int asio_inbuf_own(struct asio_inbuf *b, struct asio_blocks *blocks);

/* Adds n bytes behind; 0 or UV_ENOMEM (the buffer is then as before). The buffer must own. */
int asio_inbuf_append(struct asio_inbuf *b, struct asio_blocks *blocks, const char *p, size_t n);

/* Drops n bytes at the front. */
void asio_inbuf_skip(struct asio_inbuf *b, struct asio_blocks *blocks, size_t n);

void asio_inbuf_free(struct asio_inbuf *b, struct asio_blocks *blocks);

/* What is queued at most: fewer bytes than one call of the system takes. A string of 100 MB that is written 100 times
 * in one call takes no memory, and would be more than 32 bits can count. */
#define ASIO_OUTBUF_MAX (SIZE_MAX / 2 - (1u << 20))

struct asio_segment {
    struct asio_segment *next;
    const char *bytes; /* own[] or inside a Lua string */
    size_t start, end;
    size_t capacity; /* of own[] */
    int ref;         /* the string's anchor, or LUA_NOREF */
    char own[];
};

struct asio_outbuf {
    struct asio_segment *first, *last;
    size_t length; /* bytes in all segments */
    bool lent;     /* something sends from them: the bytes that are there stay where they are */
};

/* What the queues of one runtime share. */
struct asio_outbuf_env {
    struct asio_blocks *blocks;
    size_t taken;                        /* bytes of segments made since the owner has last set it to 0 */
    void (*release)(void *arg, int ref); /* lets go of a string's anchor */
    void *arg;
};

/* Copies n bytes behind if the last segment has room. Inline: most small writes end here. */
static inline bool asio_outbuf_fit(struct asio_outbuf *q, const char *p, size_t n)
{
    struct asio_segment *last = q->last;
    if (!last || last->capacity - last->end < n || last->ref != LUA_NOREF)
        return false;
    memcpy(last->own + last->end, p, n);
    last->end += n;
    q->length += n;
    return true;
}

/* The same for n and m bytes; both or neither. */
static inline bool asio_outbuf_fit_two(
    struct asio_outbuf *q, const char *p, size_t n, const char *also, size_t m)
{
    struct asio_segment *last = q->last;
    if (!last || last->capacity - last->end < n + m || last->ref != LUA_NOREF)
        return false;
    memcpy(last->own + last->end, p, n);
    memcpy(last->own + last->end + n, also, m);
    last->end += n + m;
    q->length += n + m;
    return true;
}

/* Copies n bytes behind; 0 or UV_ENOMEM (nothing is then added). */
int asio_outbuf_copy(struct asio_outbuf *q, struct asio_outbuf_env *env, const char *p, size_t n);

/* Room for n bytes in one piece, in an empty queue: what is copied then is sent as one buffer. Only a hint. */
void asio_outbuf_reserve(struct asio_outbuf *q, struct asio_outbuf_env *env, size_t n);

/* Adds a segment that points at n bytes of an anchored string; 0 or UV_ENOMEM. */
int asio_outbuf_refer(struct asio_outbuf *q, struct asio_outbuf_env *env, const char *p, size_t n, int ref);

/* Fills up to max uv_buf_t from the front; returns how many, and their bytes in *total. */
unsigned asio_outbuf_gather(const struct asio_outbuf *q, uv_buf_t *bufs, unsigned max, size_t *total);

/* Drops n bytes at the front. */
void asio_outbuf_skip(struct asio_outbuf *q, struct asio_outbuf_env *env, size_t n);

#endif
