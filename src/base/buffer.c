/* SPDX-License-Identifier: MIT
 * Byte queues; see buffer.h. */
#include "base/buffer.h"

enum { FIRST_CAPACITY = 512, SEGMENT_CAPACITY = 16 * 1024, SPARE_SMALL = 64, SPARE_LARGE = 1 };

void asio_inbuf_borrow(struct asio_inbuf *b, char *p, size_t n)
{
    b->data = p;
    b->start = 0;
    b->end = n;
    b->capacity = 0;
}

int asio_inbuf_own(struct asio_inbuf *b)
{
    size_t n = asio_inbuf_length(b);
    if (b->capacity || n == 0)
        return 0;
    const char *p = asio_inbuf_bytes(b);
    *b = (struct asio_inbuf){ 0 };
    return asio_inbuf_append(b, p, n);
}

/* Room for n more bytes: by moving what is there to the front when that frees enough and is
 * cheap for what it moves, else by doubling, so that appending stays linear. */
static int buffer_reserve(struct asio_inbuf *b, size_t n)
{
    size_t length = asio_inbuf_length(b);
    if (n > SIZE_MAX / 4 - length)
        return UV_ENOMEM;
    if (b->capacity - b->end >= n)
        return 0;
    if (b->start >= length && b->capacity - length >= n) {
        memcpy(b->data, b->data + b->start, length);
    } else {
        size_t capacity = b->capacity ? b->capacity * 2 : FIRST_CAPACITY;
        while (capacity < length + n)
            capacity *= 2;
        char *data = asio_mem.malloc(capacity);
        if (!data)
            return UV_ENOMEM;
        if (length)
            memcpy(data, b->data + b->start, length);
        asio_mem.free(b->data);
        b->data = data;
        b->capacity = capacity;
    }
    b->start = 0;
    b->end = length;
    return 0;
}

int asio_inbuf_append(struct asio_inbuf *b, const char *p, size_t n)
{
    int status = buffer_reserve(b, n);
    if (status < 0)
        return status;
    memcpy(b->data + b->end, p, n);
    b->end += n;
    return 0;
}

void asio_inbuf_skip(struct asio_inbuf *b, size_t n)
{
    b->start += n;
    if (b->start == b->end)
        asio_inbuf_free(b);
}

void asio_inbuf_free(struct asio_inbuf *b)
{
    if (b->pinned) {
        b->start = b->end;
        return;
    }
    if (b->capacity)
        asio_mem.free(b->data);
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

static struct asio_segment *new_segment(size_t capacity)
{
    struct asio_segment *s = asio_mem.malloc(sizeof *s + capacity);
    if (s)
        *s = (struct asio_segment){ .bytes = s->own, .capacity = capacity, .ref = LUA_NOREF };
    return s;
}

/* A small one for a first small write, large ones for a queue that goes on growing. */
static struct asio_segment *take_segment(struct asio_outbuf *q, struct asio_outbuf_env *env, size_t need)
{
    bool large = q->first || need > FIRST_CAPACITY;
    size_t capacity = large ? SEGMENT_CAPACITY : FIRST_CAPACITY;
    struct asio_segment **spare = large ? &env->large : &env->small, *s = *spare;
    if (!s || need > capacity)
        return new_segment(need > capacity ? need : capacity);
    *spare = s->next;
    *(large ? &env->large_count : &env->small_count) -= 1;
    s->next = NULL;
    s->start = s->end = 0;
    return s;
}

static bool keep_segment(struct asio_segment *s, struct asio_segment **spare, int *count, int max)
{
    if (*count == max)
        return false;
    s->next = *spare;
    *spare = s;
    *count += 1;
    return true;
}

static void drop_segment(struct asio_segment *s, struct asio_outbuf_env *env)
{
    bool kept = false;
    if (s->ref != LUA_NOREF)
        env->release(env->arg, s->ref);
    else if (s->capacity == FIRST_CAPACITY)
        kept = keep_segment(s, &env->small, &env->small_count, SPARE_SMALL);
    else if (s->capacity == SEGMENT_CAPACITY)
        kept = keep_segment(s, &env->large, &env->large_count, SPARE_LARGE);
    if (!kept)
        asio_mem.free(s);
}

static void buffer_free_all(struct asio_segment *s)
{
    while (s) {
        struct asio_segment *following = s->next;
        asio_mem.free(s);
        s = following;
    }
}

void asio_outbuf_env_free(struct asio_outbuf_env *env)
{
    buffer_free_all(env->small);
    buffer_free_all(env->large);
    env->small = env->large = NULL;
}

/* The new segment is there before anything is copied, so that failing leaves the queue as it was. */
int asio_outbuf_copy(struct asio_outbuf *q, struct asio_outbuf_env *env, const char *p, size_t n)
{
    if (asio_outbuf_fit(q, p, n))
        return 0;
    struct asio_segment *last = q->last;
    size_t room = last && last->ref == LUA_NOREF ? last->capacity - last->end : 0;
    struct asio_segment *s = take_segment(q, env, n - room);
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

int asio_outbuf_refer(struct asio_outbuf *q, const char *p, size_t n, int ref)
{
    struct asio_segment *s = new_segment(0);
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
        drop_segment(s, env);
    }
}
