/* SPDX-License-Identifier: MIT
 * The heap of deadlines alone, a million of them. Random ones are set, then taken out in order:
 * prints insert_ns=, fire_ns= and disorder= (how many came before an earlier one). Then what most
 * deadlines meet, all are set and none comes: removed in the order in which they were set, random
 * ones (remove_ns=, with the setting random_both_ns=) and those of one time-out for all, each
 * later than the one before (same_set_ns=, same_remove_ns=, same_both_ns=). */
#include "base/timer_heap.h"

#include <stdio.h>
#include <stdlib.h>

enum { COUNT = 1000000 };

static uint64_t last;
static unsigned long disorder;

struct owner { /* a timer belongs to something, here to its own deadline */
    struct asio_timer timer;
    uint64_t due;
};

static struct asio_timer_heap timers;
static struct owner *owners;

static void on_fire(struct asio_timer *t)
{
    uint64_t due = ((struct owner *)(void *)t)->due;
    disorder += due < last;
    last = due;
}

static double each(uint64_t began)
{
    return (double)(uv_hrtime() - began) / COUNT;
}

static void plan_random(void)
{
    uint64_t seed = 88172645463325252u;
    for (int i = 0; i < COUNT; i++) {
        seed ^= seed << 13; /* xorshift64, Marsaglia 2003 */
        seed ^= seed >> 7;
        seed ^= seed << 17;
        owners[i].due = seed >> 1;
    }
}

static void plan_alike(void)
{
    for (int i = 0; i < COUNT; i++)
        owners[i].due = 1000000u + 250u * (uint64_t)i;
}

static double set_all(void)
{
    uint64_t began = uv_hrtime();
    for (int i = 0; i < COUNT; i++)
        if (asio_timer_set(&timers, &owners[i].timer, owners[i].due) < 0)
            exit(1);
    return each(began);
}

static double remove_all(void)
{
    uint64_t began = uv_hrtime();
    for (int i = 0; i < COUNT; i++)
        asio_timer_remove(&timers, &owners[i].timer);
    double took = each(began);
    asio_timer_heap_free(&timers);
    return took;
}

static double fire_all(void)
{
    struct asio_timer *t;
    unsigned long fired = 0;
    uint64_t began = uv_hrtime();
    while ((t = asio_timer_heap_pop(&timers, UINT64_MAX - 1)) != NULL) {
        t->fire(t);
        fired++;
    }
    double took = each(began);
    asio_timer_heap_free(&timers);
    if (fired != COUNT)
        exit(1);
    return took;
}

int main(void)
{
    owners = calloc(COUNT, sizeof *owners);
    if (!owners)
        return 1;
    for (int i = 0; i < COUNT; i++)
        asio_timer_init(&owners[i].timer, on_fire);

    plan_random();
    double insert = set_all(), fire = fire_all();
    printf("insert_ns=%.1f fire_ns=%.1f disorder=%lu ", insert, fire, disorder);
    double set = set_all(), remove = remove_all();
    printf("remove_ns=%.1f random_both_ns=%.1f ", remove, set + remove);
    plan_alike();
    set = set_all();
    remove = remove_all();
    printf("same_set_ns=%.1f same_remove_ns=%.1f same_both_ns=%.1f\n", set, remove, set + remove);
    free(owners);
    return disorder == 0 ? 0 : 1;
}
