/* SPDX-License-Identifier: MIT
 *
 * What every file shares: the libraries and the memory seam. The map of the house, in reading order, is in
 * docs/architecture.md: each file knows only those above it there, and module.c knows them all. */
#ifndef ASIO_H
#define ASIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lua.h>
#include <lauxlib.h>
#include <uv.h>

/* Where the core's own memory comes from. Tests replace it before the first use to make every
 * allocation fail in turn; nothing else touches it. Must be safe to call from any thread. */
struct asio_allocator {
    void *(*malloc)(size_t size);
    void *(*realloc)(void *p, size_t size);
    void (*free)(void *p);
};
extern struct asio_allocator asio_mem;

/* How many of a kind there are; `gone` is called after each that goes. */
struct asio_counter {
    size_t count;
    void (*gone)(struct asio_counter *t);
};

#define ASIO_CONTAINER(ptr, type, field) ((type *)(void *)((char *)(ptr)-offsetof(type, field)))

#endif
