/*
 * epoll_echo: the yardstick. An echo server in C on raw, edge-triggered epoll, one thread unless told
 * otherwise, and no library: what the kernel alone costs. It echoes whole chunks as they are read and does no work
 * per message. Owns one struct conn per connection; memory for unsent bytes exists only while the
 * kernel does not take them.
 *
 * Usage: epoll_echo [PORT [THREADS]]      prints port=N when it listens on 127.0.0.1. Threads share nothing:
 * each has a listener of its own on the port (SO_REUSEPORT), and an epoll.
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER_SIZE 65536
#define EVENTS_PER_TURN 256

/*
 * One accepted connection. Created by accept_all, referenced by its entry in epoll alone, freed by
 * drop.
 */
struct conn {
    int fd;
    char *unsent;   /* bytes the kernel did not take, owned; NULL when there are none */
    size_t length;  /* how many there were */
    size_t written; /* how many of them have gone out since */
};

static _Thread_local char buffer[BUFFER_SIZE];
static _Thread_local int epoll_fd;
static int port; /* constant once the first thread listens */

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void drop(struct conn *c)
{
    close(c->fd); /* takes it out of epoll as well */
    free(c->unsent);
    free(c);
}

/* Keeps what a short write left over; reading stops until it has gone out. */
static void keep(struct conn *c, const char *data, size_t length)
{
    c->unsent = malloc(length);
    if (!c->unsent)
        die("malloc");
    memcpy(c->unsent, data, length);
    c->length = length;
    c->written = 0;
}

/* Sends what was kept. False: the connection has failed. */
static bool send_kept(struct conn *c)
{
    while (c->written < c->length) {
        ssize_t n = send(c->fd, c->unsent + c->written, c->length - c->written, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN;
        c->written += (size_t)n;
    }
    free(c->unsent);
    c->unsent = NULL;
    return true;
}

static bool echo_chunk(struct conn *c, size_t length)
{
    ssize_t n = send(c->fd, buffer, length, MSG_NOSIGNAL);
    if (n < 0) {
        if (errno != EAGAIN)
            return false;
        n = 0;
    }
    if ((size_t)n < length) {
        keep(c, buffer + n, length - (size_t)n);
        /* Room may have come up between the two calls: without a try now no edge would tell. */
        return send_kept(c);
    }
    return true;
}

/*
 * Reads until the socket is empty and echoes. A read shorter than the buffer has emptied it, so the
 * call that would only say EAGAIN is saved, except when the peer has finished: its end of file
 * comes with the same edge as its last bytes. False: the connection is over.
 */
static bool echo_all(struct conn *c, bool finished)
{
    while (!c->unsent) {
        ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
        if (n == 0)
            return false;
        if (n < 0)
            return errno == EAGAIN;
        if (!echo_chunk(c, (size_t)n))
            return false;
        if ((size_t)n < sizeof buffer && !finished && !c->unsent)
            return true;
    }
    return true;
}

static void on_event(struct conn *c, uint32_t events)
{
    bool was_blocked = c->unsent != NULL;
    if (was_blocked && !send_kept(c)) {
        drop(c);
        return;
    }
    if (c->unsent)
        return;
    /* The edge of an end of file that came while output was waiting is past, so look for it. */
    if (!echo_all(c, was_blocked || (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))))
        drop(c);
}

static void accept_all(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct conn *c = calloc(1, sizeof *c);
        if (!c)
            die("malloc");
        c->fd = fd;
        struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c };
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
            die("epoll_ctl");
    }
}

static int listen_on_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof addr;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&addr, length) < 0 || listen(fd, SOMAXCONN) < 0 ||
        getsockname(fd, (struct sockaddr *)&addr, &length) < 0)
        die("listen");
    port = ntohs(addr.sin_port);
    return fd;
}

static void *serve(void *listener_of)
{
    int listener = *(int *)listener_of;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL };
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &ev) < 0)
        die("epoll");
    for (;;) {
        struct epoll_event events[EVENTS_PER_TURN];
        int n = epoll_wait(epoll_fd, events, EVENTS_PER_TURN, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                on_event(events[i].data.ptr, events[i].events);
            else
                accept_all(listener);
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    enum { MOST = 64 };
    int listeners[MOST], threads = argc > 2 ? atoi(argv[2]) : 1;
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    port = argc > 1 ? atoi(argv[1]) : 0;
    if (threads < 1 || threads > MOST)
        die("threads");
    for (int i = 0; i < threads; i++)
        listeners[i] = listen_on_port();
    printf("port=%d\n", port);
    fflush(stdout);
    for (int i = 1; i < threads; i++) {
        pthread_t id;
        if (pthread_create(&id, NULL, serve, &listeners[i]) != 0)
            die("pthread_create");
    }
    serve(&listeners[0]);
}
