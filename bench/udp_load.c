/*
 * udp_load: the load generator for datagrams, one thread on epoll. Each client is a connected socket
 * with a number of datagrams in flight; every datagram names its client, its place and how often that
 * was used, and what comes back is compared to the last byte: one that is doubled, altered or given
 * to the wrong client ends the run with status 1. What the kernel drops is sent again and counted.
 *
 * Options are those of load.c: --connections is the number of clients.
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "latency.h"
#define LOAD_NAME "udp_load"
#define LOAD_MODES "pingpong"
#include "load_options.h"
#include "observe.h"

#define BATCH 32
#define LARGEST 2048
#define EVENTS_PER_TURN 64
#define LOST_NS 200000000ull /* without an echo for so long: it was dropped */

/* What a datagram begins with. */
struct head {
    uint32_t client, place;
    uint64_t turn;
};

/* One datagram in flight. Lives in the array of its client. */
struct flight {
    uint64_t turn; /* how often this place was used */
    uint64_t sent; /* when */
};

/* Created by open_clients, lives to the end. */
struct client {
    int fd;
    uint32_t number;
    struct flight *flights; /* opt.inflight of them */
};

static unsigned char pattern[LARGEST + 256];
static unsigned char in[BATCH][LARGEST + 1], out[BATCH][LARGEST];
static struct iovec in_vectors[BATCH], out_vectors[BATCH];
static struct mmsghdr in_messages[BATCH], out_messages[BATCH];
static uint64_t messages, lost;

static void prepare(void)
{
    uint32_t x = 2463534242u;
    for (size_t i = 0; i < sizeof pattern; i++) {
        x = x * 1664525u + 1013904223u;
        pattern[i] = (unsigned char)(x >> 24);
    }
    for (int i = 0; i < BATCH; i++) {
        in_vectors[i] = (struct iovec){ in[i], sizeof in[i] };
        in_messages[i].msg_hdr.msg_iov = &in_vectors[i];
        out_vectors[i] = (struct iovec){ out[i], (size_t)opt.size };
        out_messages[i].msg_hdr.msg_iov = &out_vectors[i];
        in_messages[i].msg_hdr.msg_iovlen = out_messages[i].msg_hdr.msg_iovlen = 1;
    }
}

/* With --alike every datagram of a place is the same, so that the server's strings are. */
static void fill(unsigned char *datagram, const struct client *c, uint32_t place)
{
    uint64_t turn = opt.alike ? 0 : c->flights[place].turn;
    struct head head = { c->number, place, turn };
    memcpy(datagram, &head, sizeof head);
    memcpy(datagram + sizeof head, pattern + (turn & 255), (size_t)opt.size - sizeof head);
}

static void send_batch(struct client *c, int count)
{
    for (int sent = 0; sent < count;) {
        int n = sendmmsg(c->fd, out_messages + sent, (unsigned)(count - sent), 0);
        if (n < 0)
            fail("sendmmsg: %s", strerror(errno));
        sent += n;
    }
}

/* The place whose echo it is; an echo of a datagram that was given up is none: -1. */
static int check(const struct client *c, const unsigned char *datagram, size_t size)
{
    unsigned char expected[LARGEST];
    struct head head;
    if (size != (size_t)opt.size)
        fail("%zu bytes came back as one datagram", size);
    memcpy(&head, datagram, sizeof head);
    if (head.client != c->number || head.place >= (uint32_t)opt.inflight)
        fail("a datagram of client %u came to client %u", head.client, c->number);
    if (!opt.alike && head.turn < c->flights[head.place].turn && lost > 0)
        return -1;
    fill(expected, c, head.place);
    if (memcmp(datagram, expected, size) != 0)
        fail("the echo differs from what was sent, or came twice");
    return (int)head.place;
}

static void start(struct client *c, uint32_t place, unsigned char *datagram, uint64_t now)
{
    c->flights[place].turn++;
    c->flights[place].sent = now;
    fill(datagram, c, place);
}

static void on_readable(struct client *c)
{
    int n = recvmmsg(c->fd, in_messages, BATCH, MSG_DONTWAIT, NULL);
    if (n < 0 && errno != EAGAIN)
        fail("recvmmsg: %s", strerror(errno));
    uint64_t now = now_ns();
    int count = 0;
    for (int i = 0; i < n; i++) {
        int place = check(c, in[i], in_messages[i].msg_len);
        if (place < 0)
            continue;
        latency_add(now - c->flights[place].sent);
        messages++;
        start(c, (uint32_t)place, out[count++], now);
    }
    send_batch(c, count);
}

/* Sends again what has not come back, which is rare: one by one. */
static void look_for_lost(struct client *clients, uint64_t now)
{
    for (int i = 0; i < opt.connections; i++) {
        struct client *c = &clients[i];
        for (int k = 0; k < opt.inflight; k++) {
            if (c->flights[k].sent + LOST_NS > now)
                continue;
            lost++;
            start(c, (uint32_t)k, out[0], now);
            send_batch(c, 1);
        }
    }
}

static void serve_until(int epoll_fd, struct client *clients, uint64_t end)
{
    uint64_t looked = now_ns();
    for (uint64_t now = looked; now < end; now = now_ns()) {
        struct epoll_event events[EVENTS_PER_TURN];
        int n = epoll_wait(epoll_fd, events, EVENTS_PER_TURN, 50);
        for (int i = 0; i < n; i++)
            on_readable(events[i].data.ptr);
        if (now - looked > LOST_NS / 2) {
            look_for_lost(clients, now);
            looked = now;
        }
    }
}

static struct client *open_clients(int epoll_fd)
{
    struct client *clients = calloc((size_t)opt.connections, sizeof *clients);
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)opt.port) };
    if (!clients || inet_pton(AF_INET, opt.host, &to.sin_addr) != 1)
        fail("bad host, or no memory");
    for (int i = 0; i < opt.connections; i++) {
        struct client *c = &clients[i];
        c->number = (uint32_t)i;
        c->flights = calloc((size_t)opt.inflight, sizeof *c->flights);
        c->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = c };
        if (!c->flights || c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0 ||
            epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event) < 0)
            fail("client: %s", strerror(errno));
    }
    return clients;
}

static void begin(struct client *clients)
{
    for (int i = 0; i < opt.connections; i++)
        for (int k = 0; k < opt.inflight; k++) {
            start(&clients[i], (uint32_t)k, out[0], now_ns());
            send_batch(&clients[i], 1);
        }
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    if (opt.size < (int)sizeof(struct head) || opt.size > LARGEST)
        fail("--size: from %zu to %d", sizeof(struct head), LARGEST);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    prepare();
    struct client *clients = open_clients(epoll_fd);
    begin(clients);
    serve_until(epoll_fd, clients, now_ns() + (uint64_t)(opt.warmup * 1e9));
    latency_reset();
    uint64_t counted = messages, lost_before = lost, cpu = cpu_ns_of(opt.pid);
    uint64_t own = clock_ns(CLOCK_PROCESS_CPUTIME_ID), began = now_ns();
    serve_until(epoll_fd, clients, began + (uint64_t)(opt.seconds * 1e9));
    double cpu_ns = (double)(cpu_ns_of(opt.pid) - cpu);
    double own_ns = (double)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own);
    double seconds = (double)(now_ns() - began) / 1e9, done = (double)(messages - counted);
    if (done == 0)
        fail("no datagram came back");
    printf("clients=%d size=%d inflight=%d seconds=%.3f messages=%.0f messages_per_s=%.0f lost=%llu "
           "p50_us=%.1f p99_us=%.1f cpu_ns_per_message=%.1f server_cpu=%.3f load_cpu=%.3f\n",
        opt.connections, opt.size, opt.inflight, seconds, done, done / seconds,
        (unsigned long long)(lost - lost_before), latency_us(0.5), latency_us(0.99), cpu_ns / done,
        cpu_ns / seconds / 1e9, own_ns / seconds / 1e9);
    return 0;
}
