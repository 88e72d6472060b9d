/*
 * splice_relay: the yardstick of relays. Two threads a connection, one each way: splice from a socket to a
 * pipe, from the pipe to the other socket, all of it blocking. What the kernel alone costs, without a thought
 * for many connections.
 *
 * Usage: splice_relay TARGET_PORT      prints port=N when it listens on 127.0.0.1
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define PIPE_SIZE (1024 * 1024) /* of 64 KB, 256 KB and 1 MB the one that took least */

struct way {
    int from, to;
};

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int tcp_socket(int port, struct sockaddr_in *addr)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0)
        die("socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    *addr = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    addr->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return fd;
}

static void *move(void *arg)
{
    struct way *w = arg;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        die("pipe");
    if (fcntl(ends[1], F_SETPIPE_SZ, PIPE_SIZE) < 0)
        perror("F_SETPIPE_SZ");
    for (;;) {
        ssize_t n = splice(w->from, NULL, ends[1], NULL, PIPE_SIZE, SPLICE_F_MOVE);
        if (n <= 0)
            break;
        while (n > 0) {
            ssize_t out = splice(ends[0], NULL, w->to, NULL, (size_t)n, SPLICE_F_MOVE);
            if (out <= 0)
                die("splice");
            n -= out;
        }
    }
    shutdown(w->to, SHUT_WR);
    close(ends[0]);
    close(ends[1]);
    return NULL;
}

static void *relay(void *arg)
{
    struct way *ways = arg;
    pthread_t back;
    if (pthread_create(&back, NULL, move, &ways[1]) != 0)
        die("pthread_create");
    move(&ways[0]);
    pthread_join(back, NULL);
    close(ways[0].from);
    close(ways[0].to);
    free(ways);
    return NULL;
}

int main(int argc, char **argv)
{
    struct sockaddr_in addr, target;
    socklen_t length = sizeof addr;
    int listener = tcp_socket(0, &addr);
    signal(SIGPIPE, SIG_IGN);
    if (argc != 2 || bind(listener, (struct sockaddr *)&addr, sizeof addr) < 0 ||
        listen(listener, SOMAXCONN) < 0 || getsockname(listener, (struct sockaddr *)&addr, &length) < 0)
        die("listen");
    printf("port=%d\n", ntohs(addr.sin_port));
    fflush(stdout);
    for (;;) {
        int from = accept(listener, NULL, NULL), to = tcp_socket(atoi(argv[1]), &target);
        struct way *ways = calloc(2, sizeof *ways);
        pthread_t thread;
        if (from < 0 || !ways || connect(to, (struct sockaddr *)&target, sizeof target) < 0)
            die("connection");
        ways[0] = (struct way){ from, to };
        ways[1] = (struct way){ to, from };
        if (pthread_create(&thread, NULL, relay, ways) != 0)
            die("pthread_create");
        pthread_detach(thread);
    }
}
