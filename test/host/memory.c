/* SPDX-License-Identifier: MIT
 *
 * The three allocators of a process with the core in it: the Lua state's, libuv's and the core's
 * own. They share one count, so that "the Nth allocation" means the Nth of all three, and one plan
 * of which to refuse.
 *
 * Exempt is what libuv aborts on by design: growing its table of watchers (maybe_resize in
 * src/unix/core.c: "if (watchers == NULL) abort()"), which happens when a descriptor is watched
 * whose number is higher than any before. It is the only use of realloc in what the core calls of
 * libuv 1.43 to 1.51 (the others read links, pass descriptors over pipes, or belong to other
 * systems), so libuv's realloc is never refused; its malloc and calloc are.
 *
 * Exempt is also what makes a block smaller: Lua's manual promises that this cannot fail. */
#include "host.h"

#include "base/asio.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum kind { LUA, LIBUV, CORE, KINDS };
static const char *const kind_names[KINDS] = { "Lua", "libuv", "core" };

static atomic_long blocks[KINDS]; /* handed out and not given back; helper threads give back too */
static atomic_bool armed;
static atomic_long calls, refused, first, count;

static bool refuse(void)
{
    if (!atomic_load(&armed))
        return false;
    long n = atomic_fetch_add(&calls, 1) + 1;
    if (n < first || n - first >= count)
        return false;
    refused++;
    return true;
}

static void *counted(enum kind kind, void *p)
{
    if (p)
        blocks[kind]++;
    return p;
}

static void give_back(enum kind kind, void *p)
{
    if (p)
        blocks[kind]--;
    free(p);
}

static void *grow(enum kind kind, void *p, size_t size)
{
    return p ? realloc(p, size) : counted(kind, malloc(size));
}

void *memory_lua(void *ud, void *p, size_t old_size, size_t size)
{
    (void)ud;
    if (size == 0) {
        give_back(LUA, p);
        return NULL;
    }
    return size > old_size && refuse() ? NULL : grow(LUA, p, size);
}

static void *uv_malloc(size_t size)
{
    return refuse() ? NULL : counted(LIBUV, malloc(size));
}

static void *uv_calloc(size_t n, size_t size)
{
    return refuse() ? NULL : counted(LIBUV, calloc(n, size));
}

static void *uv_realloc(void *p, size_t size)
{
    return grow(LIBUV, p, size);
}

static void uv_free(void *p)
{
    give_back(LIBUV, p);
}

static void *core_malloc(size_t size)
{
    return refuse() ? NULL : counted(CORE, malloc(size));
}

static void *core_realloc(void *p, size_t size)
{
    return refuse() ? NULL : grow(CORE, p, size);
}

static void core_free(void *p)
{
    give_back(CORE, p);
}

/* What OpenSSL keeps to the end of the process is not told from the rest: its blocks are not counted. */
static void *openssl_malloc(size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return refuse() ? NULL : malloc(size);
}

static void *openssl_realloc(void *p, size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return refuse() ? NULL : realloc(p, size);
}

static void openssl_free(void *p, const char *file, int line)
{
    (void)file, (void)line;
    free(p);
}

bool memory_of_openssl(void)
{
    typedef void *malloc_fn(size_t, const char *, int);
    typedef void *realloc_fn(void *, size_t, const char *, int);
    typedef void free_fn(void *, const char *, int);
    void *library = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_GLOBAL);
    if (!library)
        library = dlopen("libcrypto.so.1.1", RTLD_NOW | RTLD_GLOBAL);
    int (*set)(malloc_fn *, realloc_fn *, free_fn *);
    *(void **)&set = library ? dlsym(library, "CRYPTO_set_mem_functions") : NULL;
    return set && set(openssl_malloc, openssl_realloc, openssl_free) == 1;
}

void memory_install(void)
{
    uv_replace_allocator(uv_malloc, uv_realloc, uv_calloc, uv_free);
    asio_mem = (struct asio_allocator){ core_malloc, core_realloc, core_free };
}

void memory_plan(long the_first, long the_count)
{
    armed = false;
    calls = refused = 0;
    first = the_first;
    count = the_count;
}

void memory_arm(void)
{
    armed = true;
}

void memory_disarm(void)
{
    armed = false;
}

long memory_refused(void)
{
    return refused;
}

static bool all_back(void)
{
    return blocks[LUA] == 0 && blocks[LIBUV] == 0 && blocks[CORE] == 0;
}

bool memory_settled(void)
{
    struct timespec pause = { 0, 1000000 };
    for (int ms = 0; ms < 5000 && !all_back(); ms++)
        nanosleep(&pause, NULL);
    if (all_back())
        return true;
    for (int kind = 0; kind < KINDS; kind++) {
        if (blocks[kind] != 0)
            printf("  left over: %ld blocks of %s\n", (long)blocks[kind], kind_names[kind]);
        blocks[kind] = 0; /* told once, not with every case that follows */
    }
    return false;
}
