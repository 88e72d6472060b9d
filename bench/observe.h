/*
 * observe.h: what one process can see of another on Linux: CPU time, resident memory, open files,
 * page faults, context switches. Included by load.c, which measures its server with it, over exactly the window
 * in which it counts messages. Owns nothing.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef BENCH_OBSERVE_H
#define BENCH_OBSERVE_H

#include <ctype.h>
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    if (clock_gettime(clock, &t) < 0)
        return 0;
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

/*
 * CPU time of a process in ns, user and system, all its threads, those that have ended included.
 * The scheduler's own account: /proc/PID/stat counts in ticks of 10 ms and /proc/PID/schedstat
 * leaves out every thread but the first.
 */
static uint64_t cpu_ns_of(pid_t pid)
{
    clockid_t clock;
    if (pid <= 0 || clock_getcpuclockid(pid, &clock) != 0)
        return 0;
    return clock_ns(clock);
}

/* The number behind `key` in a /proc file of the form "Key:   123 kB", -1 without one. */
static long proc_number(const char *path, const char *key)
{
    FILE *f = fopen(path, "r");
    if (!f)
        return -1;
    char line[256];
    size_t length = strlen(key);
    long number = -1;
    while (number < 0 && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, length) == 0)
            number = strtol(line + length, NULL, 10);
    }
    fclose(f);
    return number;
}

/* Resident memory in bytes. smaps_rollup is exact; VmRSS lags behind on machines of many CPUs. */
static inline long rss_of(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
    long kib = proc_number(path, "Rss:");
    if (kib < 0) {
        snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
        kib = proc_number(path, "VmRSS:");
    }
    return kib < 0 ? -1 : kib * 1024;
}

/* Page faults of a process so far, those that needed the disk included. */
static inline long faults_of(pid_t pid)
{
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return -1;
    const char *rest = fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL; /* a name may hold anything */
    fclose(f);
    long minor, major;
    if (!rest || sscanf(rest, ") %*c %*d %*d %*d %*d %*d %*u %ld %*d %ld", &minor, &major) != 2)
        return -1;
    return minor + major;
}

/* How many entries with a numeric name a directory has. */
static long count_numbers(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir)
        return -1;
    long count = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (isdigit((unsigned char)entry->d_name[0]))
            count++;
    }
    closedir(dir);
    return count;
}

static inline long fds_of(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    return count_numbers(path);
}

/* Voluntary context switches of all threads: a process that sleeps for good makes none. */
static inline long switches_of(pid_t pid)
{
    char path[320];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    if (!dir)
        return -1;
    long sum = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%s/status", (int)pid, entry->d_name);
        long n = proc_number(path, "voluntary_ctxt_switches:");
        sum += n > 0 ? n : 0;
    }
    closedir(dir);
    return sum;
}

#endif
