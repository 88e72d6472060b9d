/*
 * latency.h: a histogram of latencies for load.c. 32 steps per power of two: a percentile is right
 * within 3%, whatever the range, and adding costs a few instructions. Owns one static array.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef BENCH_LATENCY_H
#define BENCH_LATENCY_H

#include <stdint.h>
#include <string.h>

#define LATENCY_SLOTS (61 * 32)

static uint32_t latency_counts[LATENCY_SLOTS];

static void latency_reset(void)
{
    memset(latency_counts, 0, sizeof latency_counts);
}

static void latency_add(uint64_t ns)
{
    unsigned slot = (unsigned)ns;
    if (ns >= 32) {
        unsigned power = 63 - (unsigned)__builtin_clzll(ns);
        slot = (power - 4) * 32 + (unsigned)((ns >> (power - 5)) & 31);
    }
    latency_counts[slot]++;
}

/* The lower end of a slot. */
static double latency_slot_us(unsigned slot)
{
    if (slot < 32)
        return slot / 1e3;
    return (double)((uint64_t)(32 + slot % 32) << (slot / 32 - 1)) / 1e3;
}

/* The latency that the given share of all messages (0.5: the median) did not exceed. */
static double latency_us(double share)
{
    uint64_t total = 0, seen = 0;
    for (unsigned i = 0; i < LATENCY_SLOTS; i++)
        total += latency_counts[i];
    for (unsigned i = 0; i < LATENCY_SLOTS; i++) {
        seen += latency_counts[i];
        if (seen > 0 && (double)seen >= share * (double)total)
            return latency_slot_us(i);
    }
    return 0;
}

#endif
