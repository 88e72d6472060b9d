/* SPDX-License-Identifier: MIT
 * The heap of deadlines alone: a million random ones are set, then all are taken out in order.
 * Prints insert_ns=, fire_ns= and disorder= (how many came before an earlier one). */
#include "../src/timer.h"

#include <stdio.h>
#include <stdlib.h>

enum { COUNT = 1000000 };

static uint64_t last;
static unsigned long disorder;

struct owner { /* a timer belongs to something, here to its own deadline */
    struct asio_timer timer;
    uint64_t due;
};

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

int main(void)
{
    struct asio_timers timers = { 0 };
    struct owner *owners = calloc(COUNT, sizeof *owners);
    uint64_t seed = 88172645463325252u;
    if (!owners)
        return 1;
    for (int i = 0; i < COUNT; i++) {
        seed ^= seed << 13; /* xorshift64, Marsaglia 2003 */
        seed ^= seed >> 7;
        seed ^= seed << 17;
        owners[i].due = seed >> 1;
        asio_timer_init(&owners[i].timer, on_fire);
    }
    uint64_t began = uv_hrtime();
    for (int i = 0; i < COUNT; i++)
        if (asio_timer_set(&timers, &owners[i].timer, owners[i].due) < 0)
            return 1;
    double insert = each(began);
    struct asio_timer *t;
    unsigned long fired = 0;
    began = uv_hrtime();
    while ((t = asio_timers_pop(&timers, UINT64_MAX - 1)) != NULL) {
        t->fire(t);
        fired++;
    }
    printf("insert_ns=%.1f fire_ns=%.1f disorder=%lu\n", insert, each(began), disorder);
    asio_timers_free(&timers);
    free(owners);
    return fired == COUNT && disorder == 0 ? 0 : 1;
}
