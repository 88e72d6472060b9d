/* SPDX-License-Identifier: MIT
 * Socket activation; see systemd.h. */
#include "net/systemd.h"

#include "sys/sys.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST = 3, MOST = 4096 };

/* A whole number in the environment; 0: there is none. Children inherit the variables: they are for the
 * process alone that LISTEN_PID names. */
static long systemd_number(const char *name)
{
    const char *text = getenv(name);
    char *end;
    long n = text ? strtol(text, &end, 10) : 0;
    return n > 0 && *end == 0 ? n : 0;
}

/* The index of a name in a list with colons between; without a list all are called "unknown". */
static long systemd_find(const char *names, const char *name, size_t n, long count)
{
    if (n == 0)
        return 0;
    for (long i = 0; i < count; i++) {
        size_t length = names ? strcspn(names, ":") : strlen("unknown");
        if (length == n && memcmp(names ? names : "unknown", name, n) == 0)
            return i;
        if (names && names[length] == 0)
            break;
        if (names)
            names += length + 1;
    }
    return -1;
}

uv_os_sock_t asio_systemd_find(const char *name, size_t n, const char **why)
{
    long count = systemd_number("LISTEN_FDS");
    *why = "this process was not started with sockets (LISTEN_PID, LISTEN_FDS)";
    if (systemd_number("LISTEN_PID") != (long)uv_os_getpid() || count < 1 || count > MOST)
        return 0;
    for (long i = 0; i < count; i++)
        asio_sys_cloexec((uv_os_sock_t)(FIRST + i));
    long index = systemd_find(getenv("LISTEN_FDNAMES"), name, n, count);
    *why = index < 0 ? "no socket of this name was passed (LISTEN_FDNAMES)" : NULL;
    return (uv_os_sock_t)(FIRST + index);
}
