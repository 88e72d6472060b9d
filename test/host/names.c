/* SPDX-License-Identifier: MIT
 *
 * A name server in a thread of this process: 127.0.0.1 for every name but those that begin with "slow",
 * which it never answers. */
#include "host.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { HEADER = 12, TYPE_A = 1 };

static const unsigned char record[] = { 0xc0, HEADER, 0, TYPE_A, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1 };

/* Makes an answer of a question, in its place; its length, or 0: none. */
static size_t answer(unsigned char *message, size_t length)
{
    if (length < HEADER + 6 || memcmp(message + HEADER + 1, "slow", 4) == 0)
        return 0;
    message[2] |= 0x80;
    if (message[length - 3] != TYPE_A)
        return length;
    message[7] = 1;
    memcpy(message + length, record, sizeof record);
    return length + sizeof record;
}

static void *serve(void *arg)
{
    int fd = *(int *)arg;
    unsigned char message[1024];
    for (;;) {
        struct sockaddr_in from;
        socklen_t size = sizeof from;
        ssize_t n = recvfrom(fd, message, 512, 0, (struct sockaddr *)&from, &size);
        size_t length = n > 0 ? answer(message, (size_t)n) : 0;
        if (length > 0)
            sendto(fd, message, length, 0, (struct sockaddr *)&from, size);
    }
    return NULL;
}

void names_serve(void)
{
    static int fd;
    char text[40];
    pthread_t thread;
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof addr;
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, size) != 0)
        abort();
    getsockname(fd, (struct sockaddr *)&addr, &size);
    snprintf(text, sizeof text, "127.0.0.1:%d", ntohs(addr.sin_port));
    setenv("HOST_NAME_SERVER", text, 1);
    if (pthread_create(&thread, NULL, serve, &fd) != 0)
        abort();
    pthread_detach(thread);
}
