/*
 * load_socket.h: the sockets of the load generators, and what they do when one fails. Owns nothing: the
 * caller closes what it gets.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef BENCH_LOAD_SOCKET_H
#define BENCH_LOAD_SOCKET_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "load_options.h"

#define PER_SOURCE 500 /* connections that share one source address */
#define PATIENCE_S 10  /* how long the server may take for anything */

static void fail_errno(const char *what)
{
    fail("%s: %s", what, strerror(errno));
}

static void sleep_ms(long ms)
{
    struct timespec t = { ms / 1000, ms % 1000 * 1000000 };
    nanosleep(&t, NULL);
}

static void raise_file_limit(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

static struct sockaddr_in address(const char *host, int port)
{
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    if (inet_pton(AF_INET, host, &addr.sin_addr) != 1)
        fail("not an IPv4 address: %s", host);
    return addr;
}

/* 62,500 source addresses in 127.0.0.0/8: a million connections leave few used ports at each. */
static struct sockaddr_in source_address(int source)
{
    struct sockaddr_in addr = { .sin_family = AF_INET };
    uint32_t low = (uint32_t)(source % 250) + 1, high = (uint32_t)(source / 250 % 250) + 1;
    addr.sin_addr.s_addr = htonl(127u << 24 | high << 16 | low << 8 | 9);
    return addr;
}

/* A connected, blocking socket whose calls give up after PATIENCE_S. */
static int open_socket(int port, int source)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fail_errno("socket");
    int on = 1;
    struct timeval patience = { .tv_sec = PATIENCE_S };
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    struct sockaddr_in to = address(opt.host, port);
    if (ntohl(to.sin_addr.s_addr) >> 24 == 127) {
        /* Without this, bind takes a port before the destination is known and shares it with none. */
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        struct sockaddr_in from = source_address(source);
        if (bind(fd, (struct sockaddr *)&from, sizeof from) < 0)
            fail_errno("bind");
    }
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
        fail_errno("connect");
    return fd;
}

#endif
