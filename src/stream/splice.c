/* SPDX-License-Identifier: MIT
 * A pool of pipes; see splice.h. */
#include "stream/splice.h"

#include "core/bind.h"

enum { SPARE_MAX = 8 };
static const double idle = 1; /* seconds */

/* The part's state: made by the first relay, freed when the Lua state closes. */
struct asio_splices {
    struct asio_splice *spare;
    unsigned count, users;
    bool used; /* since the timer was set */
    struct asio_timer timer;
    struct asio_rt *rt;
};

static void discard(struct asio_splice *p)
{
    asio_sys_close(p->ends[0]);
    asio_sys_close(p->ends[1]);
    asio_mem.free(p);
}

static void close_spare(struct asio_splices *s)
{
    while (s->spare) {
        struct asio_splice *p = s->spare;
        s->spare = p->next;
        discard(p);
    }
    s->count = 0;
}

/* If memory is out for the timer, they stay until the last relay ends. */
static void look_later(struct asio_splices *s)
{
    s->used = false;
    (void)asio_timer_set(&s->rt->timers, &s->timer, asio_rt_deadline(idle));
}

static void on_idle(struct asio_timer *t)
{
    struct asio_splices *s = ASIO_CONTAINER(t, struct asio_splices, timer);
    if (s->used)
        look_later(s);
    else
        close_spare(s);
}

bool asio_splice_enter(struct asio_rt *rt)
{
    struct asio_splices *s = asio_rt_part(rt, ASIO_PART_SPLICE);
    if (!s) {
        s = asio_mem.malloc(sizeof *s);
        if (!s)
            return false;
        *s = (struct asio_splices){ .rt = rt };
        asio_rt_part_set(rt, ASIO_PART_SPLICE, s);
        asio_timer_init(&s->timer, on_idle);
    }
    s->users++;
    return true;
}

void asio_splice_leave(struct asio_rt *rt)
{
    struct asio_splices *s = asio_rt_part(rt, ASIO_PART_SPLICE);
    if (s && --s->users == 0)
        close_spare(s);
}

static struct asio_splice *splice_make(void)
{
    struct asio_splice *p = asio_mem.malloc(sizeof *p);
    if (!p)
        return NULL;
    p->held = 0;
    if (asio_sys_pipe(p->ends) < 0) {
        asio_mem.free(p);
        return NULL;
    }
    if (!asio_sys_files_short(p->ends[1]))
        return p;
    discard(p);
    return NULL;
}

struct asio_splice *asio_splice_take(struct asio_rt *rt)
{
    struct asio_splices *s = asio_rt_part(rt, ASIO_PART_SPLICE);
    struct asio_splice *p = s->spare;
    s->used = true;
    if (!p)
        return splice_make();
    s->spare = p->next;
    s->count--;
    return p;
}

void asio_splice_give(struct asio_rt *rt, struct asio_splice *p)
{
    struct asio_splices *s = asio_rt_part(rt, ASIO_PART_SPLICE);
    if (!s || p->held > 0 || s->count == SPARE_MAX) {
        discard(p);
        return;
    }
    p->next = s->spare;
    s->spare = p;
    s->count++;
    if (s->timer.at == ASIO_NEVER)
        look_later(s);
}

ssize_t asio_splice_in(struct asio_splice *p, uv_os_fd_t from, size_t n)
{
    ssize_t moved = asio_sys_splice(from, (uv_os_fd_t)(intptr_t)p->ends[1], n);
    if (moved > 0)
        p->held += (size_t)moved;
    return moved;
}

ssize_t asio_splice_out(struct asio_splice *p, uv_os_fd_t to)
{
    ssize_t moved = asio_sys_splice((uv_os_fd_t)(intptr_t)p->ends[0], to, p->held);
    if (moved > 0)
        p->held -= (size_t)moved;
    return moved;
}

size_t asio_splice_read(struct asio_splice *p, char *to, size_t n)
{
    ssize_t got = asio_sys_pipe_read(p->ends[0], to, n < p->held ? n : p->held);
    if (got <= 0)
        return 0;
    p->held -= (size_t)got;
    return (size_t)got;
}

static void splice_part_close(struct asio_rt *rt)
{
    struct asio_splices *s = asio_rt_part(rt, ASIO_PART_SPLICE);
    if (!s)
        return;
    close_spare(s);
    asio_timer_remove(&rt->timers, &s->timer);
    asio_mem.free(s);
    asio_rt_part_set(rt, ASIO_PART_SPLICE, NULL);
}

const struct asio_part asio_part_splice = { "splice", NULL, splice_part_close };
