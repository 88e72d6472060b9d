/* SPDX-License-Identifier: MIT
 *
 * Loaded into all programs that run under qemu-user: what Debian 12's qemu (7.2) does otherwise than the kernel and
 * a library can do in its place, and what LuaJIT needs on the processor. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static size_t whole_pages(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (size + page - 1) / page * page;
}

/* When a mapping of a program of 32 bits shrinks, qemu also takes away what is mapped behind it. LuaJIT's allocator
 * shrinks its segments so. */
void *mremap(void *old, size_t size, size_t wanted, int flags, ...)
{
    void *target = NULL;
    if (flags & MREMAP_FIXED) {
        va_list arguments;
        va_start(arguments, flags);
        target = va_arg(arguments, void *);
        va_end(arguments);
    }
    size_t kept = whole_pages(wanted), had = whole_pages(size);
    if (flags || kept == 0 || kept >= had)
        return (void *)syscall(SYS_mremap, old, size, wanted, flags, target);
    return munmap((char *)old + kept, had - kept) ? MAP_FAILED : old;
}

#ifdef __mips__
/* Programs of Debian run in whichever mode of the floating-point registers the processor prefers. The code that LuaJIT
 * makes is right only where two registers make a double. */
__attribute__((constructor)) static void pair_registers(void)
{
    prctl(PR_SET_FP_MODE, 0UL, 0UL, 0UL, 0UL);
}

/* The error of a socket, which qemu gives with the number that it has on this machine. */
static int number_on_mips(int error)
{
    static const struct {
        short here, there;
    } numbers[] = {
        { 71, EPROTO },
        { 90, EMSGSIZE },
        { 92, ENOPROTOOPT },
        { 95, EOPNOTSUPP },
        { 98, EADDRINUSE },
        { 99, EADDRNOTAVAIL },
        { 100, ENETDOWN },
        { 101, ENETUNREACH },
        { 103, ECONNABORTED },
        { 104, ECONNRESET },
        { 105, ENOBUFS },
        { 107, ENOTCONN },
        { 110, ETIMEDOUT },
        { 111, ECONNREFUSED },
        { 112, EHOSTDOWN },
        { 113, EHOSTUNREACH },
    };
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].here == error)
            return numbers[i].there;
    return error;
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *size)
{
    int result = (int)syscall(SYS_getsockopt, fd, level, name, value, size);
    if (result == 0 && level == SOL_SOCKET && name == SO_ERROR && *size == sizeof(int))
        *(int *)value = number_on_mips(*(int *)value);
    return result;
}
#endif
