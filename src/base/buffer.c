/* SPDX-License-Identifier: MIT
 * Byte queues; see buffer.h. */
#include "base/buffer.h"

#include <assert.h>

enum { SEGMENT_CAPACITY = 16 * 1024, GROWTH = 4 };

_Static_assert(sizeof(struct asio_segment) <= ASIO_BLOCK_EXTRA, "a segment of a power of two fits a block");

void asio_inbuf_borrow(struct asio_inbuf *b, char *p, size_t n)
{
    b->data = p;
    assert(n <= ASIO_INBUF_MAX);
    b->start = 0;
    b->end = (uint32_t)n;
    b->capacity = 0;
}

int asio_inbuf_own(struct asio_inbuf *b, struct asio_blocks *blocks)
{
    size_t n = asio_inbuf_length(b);
    if (b->capacity || n == 0)
        return 0;
    const char *p = asio_inbuf_bytes(b);
    *b = (struct asio_inbuf){ 0 };
    return asio_inbuf_append(b, blocks, p, n);
}

/* Room for n more bytes: by moving what is there to the front when that frees enough and is
 * cheap for what it moves, else by doubling, so that appending stays linear. */
static int buffer_reserve(struct asio_inbuf *b, struct asio_blocks *blocks, size_t n)
{
    size_t length = asio_inbuf_length(b);
    if (n > ASIO_INBUF_MAX - length)
        return UV_ENOMEM;
    if (b->capacity - b->end >= n)
        return 0;
    if (b->start >= length && b->capacity - length >= n) {
        memcpy(b->data, b->data + b->start, length);
    } else {
        size_t capacity = b->capacity > ASIO_INBUF_MAX / 2 ? ASIO_INBUF_MAX : (size_t)b->capacity * 2;
        if (capacity)
            capacity -= ASIO_BLOCK_EXTRA; /* the next class */
        if (capacity < length + n)
            capacity = length + n;
        char *data = asio_blocks_take(blocks, &capacity);
        if (!data)
            return UV_ENOMEM;
        if (length)
            memcpy(data, b->data + b->start, length);
        if (b->capacity) /* else nothing, or borrowed */
            asio_blocks_give(blocks, b->data, b->capacity);
        b->data = data;
        b->capacity = (uint32_t)capacity;
    }
    b->start = 0;
    b->end = (uint32_t)length;
    return 0;
}

int asio_inbuf_append(struct asio_inbuf *b, struct asio_blocks *blocks, const char *p, size_t n)
{
    int status = buffer_reserve(b, blocks, n);
    if (status < 0)
        return status;
    memcpy(b->data + b->end, p, n);
    b->end += (uint32_t)n;
    return 0;
}

void asio_inbuf_skip(struct asio_inbuf *b, struct asio_blocks *blocks, size_t n)
{
    b->start += (uint32_t)n;
    if (b->start == b->end)
        asio_inbuf_free(b, blocks);
}

void asio_inbuf_free(struct asio_inbuf *b, struct asio_blocks *blocks)
{
    if (b->pinned) {
        b->start = b->end;
        return;
    }
    if (b->capacity)
        asio_blocks_give(blocks, b->data, b->capacity);
    *b = (struct asio_inbuf){ 0 };
}

static void link_segment(struct asio_outbuf *q, struct asio_segment *s)
{
    if (q->last)
        q->last->next = s;
    else
        q->first = s;
    q->last = s;
}

/* Takes an anchored string's segment, or the room for `capacity` bytes or more. */
static struct asio_segment *buffer_new_segment(struct asio_outbuf_env *env, size_t capacity)
{
    size_t size = sizeof(struct asio_segment) + capacity;
    if (size < ASIO_BLOCK_MIN)
        size = ASIO_BLOCK_MIN;
    struct asio_segment *s = asio_blocks_take(env->blocks, &size);
    if (!s)
        return NULL;
    *s = (struct asio_segment){ .bytes = s->own, .capacity = size - sizeof *s, .ref = LUA_NOREF };
    env->taken += size;
    return s;
}

static void buffer_drop_segment(struct asio_segment *s, struct asio_outbuf_env *env)
{
    if (s->ref != LUA_NOREF)
        env->release(env->arg, s->ref);
    asio_blocks_give(env->blocks, s, sizeof *s + s->capacity);
}

/* A queue that is one segment is sent with one buffer, which the kernel takes quicker than two: it moves to a
 * larger one, as long as that is little to copy. */
static bool buffer_may_move(const struct asio_outbuf *q, size_t n)
{
    const struct asio_segment *s = q->first;
    return s && s == q->last && s->ref == LUA_NOREF && !q->lent && q->length + n <= SEGMENT_CAPACITY;
}

static int buffer_move(struct asio_outbuf *q, struct asio_outbuf_env *env, const char *p, size_t n)
{
    struct asio_segment *old = q->first;
    size_t capacity = q->length + n;
    size_t grown = (sizeof *old + old->capacity - ASIO_BLOCK_EXTRA) * GROWTH;
    if (capacity < grown)
        capacity = grown < SEGMENT_CAPACITY ? grown : SEGMENT_CAPACITY;
    struct asio_segment *s = buffer_new_segment(env, capacity);
    if (!s)
        return UV_ENOMEM;
    memcpy(s->own, old->own + old->start, q->length);
    memcpy(s->own + q->length, p, n);
    s->end = q->length += n;
    q->first = q->last = s;
    buffer_drop_segment(old, env);
    return 0;
}

/* The new segment is there before anything is copied, so that failing leaves the queue as it was. */
int asio_outbuf_copy(struct asio_outbuf *q, struct asio_outbuf_env *env, const char *p, size_t n)
{
    if (asio_outbuf_fit(q, p, n))
        return 0;
    if (buffer_may_move(q, n))
        return buffer_move(q, env, p, n);
    struct asio_segment *last = q->last;
    size_t room = last && last->ref == LUA_NOREF ? last->capacity - last->end : 0;
    size_t capacity = room && n - room < SEGMENT_CAPACITY ? SEGMENT_CAPACITY : n - room;
    struct asio_segment *s = buffer_new_segment(env, capacity);
    if (!s)
        return UV_ENOMEM;
    memcpy(s->own, p + room, n - room);
    s->end = n - room;
    if (room)
        asio_outbuf_fit(q, p, room);
    link_segment(q, s);
    q->length += n - room;
    return 0;
}

void asio_outbuf_reserve(struct asio_outbuf *q, struct asio_outbuf_env *env, size_t n)
{
    struct asio_segment *s = q->first ? NULL : buffer_new_segment(env, n);
    if (s)
        link_segment(q, s);
}

int asio_outbuf_refer(struct asio_outbuf *q, struct asio_outbuf_env *env, const char *p, size_t n, int ref)
{
    struct asio_segment *s = buffer_new_segment(env, 0);
    if (!s)
        return UV_ENOMEM;
    s->bytes = p;
    s->end = n;
    s->ref = ref;
    link_segment(q, s);
    q->length += n;
    return 0;
}

unsigned asio_outbuf_gather(const struct asio_outbuf *q, uv_buf_t *bufs, unsigned max, size_t *total)
{
    unsigned count = 0;
    *total = 0;
    for (struct asio_segment *s = q->first; s && count < max; s = s->next) {
        size_t n = s->end - s->start;
        if (n > 0x40000000) /* a uv_buf_t is 32 bits wide on some systems */
            n = 0x40000000;
        bufs[count++] = uv_buf_init((char *)s->bytes + s->start, (unsigned)n);
        *total += n;
        if (n != s->end - s->start)
            break;
    }
    return count;
}

void asio_outbuf_skip(struct asio_outbuf *q, struct asio_outbuf_env *env, size_t n)
{
    q->length -= n;
    while (q->first) {
        struct asio_segment *s = q->first;
        size_t here = s->end - s->start;
        if (n < here) {
            s->start += n;
            return;
        }
        n -= here;
        q->first = s->next;
        if (!q->first)
            q->last = NULL;
        buffer_drop_segment(s, env);
    }
}
