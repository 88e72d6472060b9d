/*
 * relay_load: one long stream through a relay. Listens where the relay connects to, connects to the relay,
 * sends and receives (a thread each), and measures the relay's CPU time meanwhile. Every 8 bytes say where in
 * the stream they are, which the receiver checks at the beginning of each piece it gets.
 *
 * Usage: relay_load --port RELAY --target PORT --pid RELAY_PID --bytes N
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include "observe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>

enum { CHUNK = 256 * 1024 };

static long long port, target, pid, bytes = 4000000000;
static int source = -1;

static void fail(const char *what)
{
    fprintf(stderr, "relay_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void parse(int argc, char **argv)
{
    static const struct {
        const char *name;
        long long *value;
    } options[] = { { "--port", &port }, { "--target", &target }, { "--pid", &pid }, { "--bytes", &bytes } };
    for (int i = 1; i + 1 < argc; i += 2)
        for (size_t k = 0; k < sizeof options / sizeof *options; k++)
            if (strcmp(argv[i], options[k].name) == 0)
                *options[k].value = atoll(argv[i + 1]);
    bytes -= bytes % CHUNK;
    if (port <= 0 || target <= 0 || bytes <= 0) {
        fputs("usage: relay_load --port RELAY --target PORT --pid RELAY_PID --bytes N\n", stderr);
        exit(2);
    }
}

static int open_socket(long long number, struct sockaddr_in *addr)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0)
        fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    *addr = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)number) };
    addr->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return fd;
}

static void *send_all(void *arg)
{
    static uint64_t chunk[CHUNK / 8];
    (void)arg;
    for (long long at = 0; at < bytes; at += CHUNK) {
        for (size_t i = 0; i < CHUNK / 4096; i++) /* one in each page is enough to tell */
            chunk[i * 512] = (uint64_t)at / 8 + i * 512;
        for (size_t done = 0; done < CHUNK;) {
            ssize_t n = send(source, (char *)chunk + done, CHUNK - done, MSG_NOSIGNAL);
            if (n <= 0)
                fail("send");
            done += (size_t)n;
        }
    }
    shutdown(source, SHUT_WR);
    return NULL;
}

/* `at` is where the n bytes begin in the stream. */
static void check(const char *got, long long at, size_t n)
{
    uint64_t found;
    size_t skip = (size_t)((4096 - at % 4096) % 4096);
    if (skip + sizeof found > n)
        return;
    memcpy(&found, got + skip, sizeof found);
    if (found != ((uint64_t)at + skip) / 8) {
        errno = EBADMSG;
        fail("what came is not what was sent");
    }
}

int main(int argc, char **argv)
{
    static char got[CHUNK];
    struct sockaddr_in addr;
    parse(argc, argv);
    int listener = open_socket(target, &addr);
    if (bind(listener, (struct sockaddr *)&addr, sizeof addr) < 0 || listen(listener, 1) < 0)
        fail("listen");
    source = open_socket(port, &addr);
    if (connect(source, (struct sockaddr *)&addr, sizeof addr) < 0)
        fail("connect");
    int sink = accept(listener, NULL, NULL);
    if (sink < 0)
        fail("accept");
    pthread_t sender;
    uint64_t cpu = cpu_ns_of((pid_t)pid), began = now_ns();
    if (pthread_create(&sender, NULL, send_all, NULL) != 0)
        fail("pthread_create");
    long long total = 0;
    for (ssize_t n; (n = recv(sink, got, sizeof got, 0)) != 0; total += n) {
        if (n < 0)
            fail("recv");
        check(got, total, (size_t)n);
    }
    if (total != bytes)
        fail("the stream is not whole");
    double seconds = (double)(now_ns() - began) / 1e9;
    double cpu_s = (double)(cpu_ns_of((pid_t)pid) - cpu) / 1e9;
    pthread_join(sender, NULL);
    shutdown(sink, SHUT_WR);
    if (recv(source, got, 1, 0) != 0)
        fail("the end did not come back");
    printf("bytes=%lld seconds=%.3f gb_per_s=%.3f cpu_s_per_gb=%.4f relay_cpu=%.3f\n", bytes, seconds,
        (double)bytes / seconds / 1e9, cpu_s / ((double)bytes / 1e9), cpu_s / seconds);
    return 0;
}
