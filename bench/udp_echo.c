/*
 * udp_echo: the yardstick of datagrams. An echo server in C on raw epoll, recvmmsg and sendmmsg, one
 * thread and no library: what the kernel alone costs. It takes as many datagrams at once as there
 * are, up to BATCH, and sends them back from where they are. Owns one socket and one array of
 * buffers.
 *
 * Usage: udp_echo [PORT]      prints port=N when it is bound to 127.0.0.1
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH 64
#define SLOT 2048 /* most bytes of a datagram: those of the benchmark are small */

static struct mmsghdr messages[BATCH];
static struct iovec vectors[BATCH];
static struct sockaddr_in peers[BATCH];
static char buffers[BATCH][SLOT];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void prepare(void)
{
    for (int i = 0; i < BATCH; i++) {
        vectors[i].iov_base = buffers[i];
        messages[i].msg_hdr.msg_iov = &vectors[i];
        messages[i].msg_hdr.msg_iovlen = 1;
        messages[i].msg_hdr.msg_name = &peers[i];
    }
}

static int receive(int fd)
{
    for (int i = 0; i < BATCH; i++) {
        vectors[i].iov_len = SLOT;
        messages[i].msg_hdr.msg_namelen = sizeof peers[i];
    }
    int n = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
    if (n < 0 && errno != EAGAIN)
        die("recvmmsg");
    return n;
}

static void send_back(int fd, int count)
{
    for (int i = 0; i < count; i++)
        vectors[i].iov_len = messages[i].msg_len;
    for (int sent = 0; sent < count;) {
        int n = sendmmsg(fd, messages + sent, (unsigned)(count - sent), 0);
        if (n < 0)
            die("sendmmsg");
        sent += n;
    }
}

static int bind_to(int port)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof addr;
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, length) < 0 ||
        getsockname(fd, (struct sockaddr *)&addr, &length) < 0)
        die("bind");
    printf("port=%d\n", ntohs(addr.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv)
{
    int fd = bind_to(argc > 1 ? atoi(argv[1]) : 0), epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = { .events = EPOLLIN };
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll");
    prepare();
    for (;;) {
        if (epoll_wait(epoll_fd, &event, 1, -1) < 1)
            continue;
        /* Fewer than a batch: it is empty, or epoll tells. */
        for (int n = BATCH; n == BATCH;) {
            n = receive(fd);
            if (n > 0)
                send_back(fd, n);
        }
    }
}
