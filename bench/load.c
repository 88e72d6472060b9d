/*
 * load: the load generator of the benchmarks, one thread on edge-triggered epoll. It sends a
 * pattern that depends on connection and position, so that a byte lost, doubled or given to the
 * wrong connection shows, and measures the server over the same window in which it counts.
 * Every result is a line of key=value pairs; anything wrong ends it with status 1.
 *
 * Modes: pingpong   connections that send a message again when it has come back
 *        idle       opens connections that rest: memory of the server, and whether it rests too
 *        among      ping-pong alone, among connections that rest, and alone again
 *        churn      opens, uses once and closes connections one after another
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>

#define LOAD_NAME "load"
#define LOAD_MODES "pingpong|idle|among|churn"
#include "latency.h"
#include "load_options.h"
#include "load_socket.h"
#include "observe.h"

#define PERIOD 65521           /* of the pattern: a prime, so that no message size divides it */
#define PERIOD_LINES (4 << 20) /* about, for lines, which come again with it: many that differ */
#define EVENTS_PER_TURN 256
#define OPEN_AT_ONCE 16 /* connections opened before the server must have accepted them */
#define FULLY_CHECKED 8 /* of large chunks one in so many is compared to the last byte */

/*
 * A busy connection. Created by open_busy, which also puts it into epoll; lives in the array that
 * open_busy returns; closed and freed with that array by close_all.
 */
struct conn {
    int fd;
    uint32_t seed;     /* where its stream begins in the pattern */
    uint64_t goal;     /* bytes asked to go out so far: whole messages */
    uint64_t sent;     /* bytes the kernel has taken */
    uint64_t received; /* bytes that have come back */
    uint64_t answered; /* whole messages that have come back */
    uint64_t *asked;   /* ring of opt.inflight times: when each message was asked for */
    uint32_t chunks;
};

static unsigned char pattern[PERIOD_LINES + CHUNK];
static uint32_t period = PERIOD;
static unsigned char buffer[CHUNK];
static int epoll_fd;
static bool sending = true; /* false: what has come back is not replaced any more */
static uint64_t messages;   /* that have come back, all connections */
static uint64_t unanswered; /* in flight, all connections */
static int sources;         /* connections opened by now, for spreading the source addresses */

/* The pattern -------------------------------------------------------------------------------- */

static void make_pattern(void)
{
    uint32_t x = 2463534242u;
    int size = opt.size;
    if (opt.lines)
        period = (uint32_t)(PERIOD_LINES / size * size);
    int end = (int)period + CHUNK;
    for (int i = 0; i < end; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        pattern[i] = (unsigned char)(x >> 11);
        if (opt.lines)
            pattern[i] = i % size == size - 1 ? '\n' : (unsigned char)(' ' + pattern[i] % 95);
    }
    for (int i = (int)period; i < end; i++)
        pattern[i] = pattern[i - (int)period];
    for (int i = size; opt.alike && i < end; i++)
        pattern[i] = pattern[i - size];
}

/* At least CHUNK bytes of a stream from `offset` on. */
static const unsigned char *stream_at(uint32_t seed, uint64_t offset)
{
    if (opt.alike)
        return pattern + offset % (uint64_t)opt.size;
    return pattern + (offset + seed) % period;
}

/* Lines begin where they did. */
static uint32_t seed_of(int number)
{
    if (opt.lines)
        return (uint32_t)number * 7919u % (period / (uint32_t)opt.size) * (uint32_t)opt.size;
    return (uint32_t)number * 7919u % period;
}

/* Connections --------------------------------------------------------------------------------- */

/* Sends one message on a blocking socket and reads its echo. */
static void exchange(int fd, uint32_t seed)
{
    const unsigned char *message = stream_at(seed, 0);
    for (int sent = 0; sent < opt.size;) {
        ssize_t n = send(fd, message + sent, (size_t)(opt.size - sent), MSG_NOSIGNAL);
        if (n < 0)
            fail_errno("send");
        sent += (int)n;
    }
    for (int received = 0; received < opt.size;) {
        ssize_t n = recv(fd, buffer + received, (size_t)(opt.size - received), 0);
        if (n < 0)
            fail_errno("no echo");
        if (n == 0)
            fail("the server closed a connection before the echo");
        received += (int)n;
    }
    if (memcmp(buffer, message, (size_t)opt.size) != 0)
        fail("the echo differs from what was sent");
}

/* Closes a blocking socket in order: our end of file, then the server's. */
static void close_in_order(int fd)
{
    shutdown(fd, SHUT_WR);
    ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n > 0)
        fail("unexpected bytes");
    if (n < 0)
        fail_errno("waiting for the server to close");
    close(fd);
}

static void one_connection(int source)
{
    int fd = open_socket(opt.port, source);
    exchange(fd, seed_of(source));
    close_in_order(fd);
}

/*
 * Opens `count` sockets into `fds`, never more than a few ahead of the server: some listen with a
 * short queue, and a connection dropped there comes back only after a second. Accepting is in
 * order, so when a later connection has got its echo, all earlier ones have been accepted.
 */
static void open_paced(int *fds, int count)
{
    for (int i = 0; i < count; i++) {
        fds[i] = open_socket(opt.port, sources++ / PER_SOURCE);
        if (i % OPEN_AT_ONCE == OPEN_AT_ONCE - 1 || i == count - 1)
            one_connection(sources / PER_SOURCE);
    }
}

/* Ping-pong ---------------------------------------------------------------------------------- */

static void ask_message(struct conn *c, uint64_t number, uint64_t now)
{
    c->asked[number % (uint64_t)opt.inflight] = now;
    c->goal += (uint64_t)opt.size;
    unanswered++;
}

static void send_asked(struct conn *c)
{
    while (c->sent < c->goal) {
        uint64_t left = c->goal - c->sent;
        size_t length = left < CHUNK ? (size_t)left : CHUNK;
        ssize_t n = send(c->fd, stream_at(c->seed, c->sent), length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0)
            fail_errno("send");
        c->sent += (uint64_t)n;
    }
}

/* Small chunks are compared whole, large ones in part: the load must not become the bottleneck. */
static void check_chunk(struct conn *c, size_t length)
{
    size_t checked = length;
    if (length > 1024 && c->chunks++ % FULLY_CHECKED != 0)
        checked = 64;
    if (memcmp(buffer, stream_at(c->seed, c->received), checked) != 0)
        fail("the echo differs from what was sent");
}

static void take_chunk(struct conn *c, size_t length)
{
    check_chunk(c, length);
    c->received += length;
    if (c->received > c->sent)
        fail("more came back than was sent");
    uint64_t answered = c->received / (uint64_t)opt.size;
    if (answered == c->answered)
        return;
    uint64_t now = now_ns();
    for (; c->answered < answered; c->answered++) {
        latency_add(now - c->asked[c->answered % (uint64_t)opt.inflight]);
        messages++;
        unanswered--;
        if (sending)
            ask_message(c, c->answered, now);
    }
}

static void on_event(struct conn *c)
{
    for (;;) {
        ssize_t n = recv(c->fd, buffer, sizeof buffer, MSG_DONTWAIT);
        if (n == 0)
            fail("the server closed a connection");
        if (n < 0 && errno != EAGAIN)
            fail_errno("recv");
        if (n < 0)
            break;
        take_chunk(c, (size_t)n);
        send_asked(c);
        if ((size_t)n < sizeof buffer)
            break; /* empty: the next byte makes an edge of its own */
    }
    send_asked(c);
}

/* Serves the connections until the time has come or nothing is in flight. */
static void serve_until(uint64_t end)
{
    for (uint64_t now = now_ns(); now < end && unanswered > 0; now = now_ns()) {
        struct epoll_event events[EVENTS_PER_TURN];
        int n = epoll_wait(epoll_fd, events, EVENTS_PER_TURN, (int)((end - now) / 1000000 + 1));
        if (n < 0 && errno != EINTR)
            fail_errno("epoll_wait");
        for (int i = 0; i < n; i++)
            on_event(events[i].data.ptr);
    }
}

static struct conn *open_busy(void)
{
    int *fds = calloc((size_t)opt.connections, sizeof *fds);
    struct conn *conns = calloc((size_t)opt.connections, sizeof *conns);
    if (!fds || !conns)
        fail("out of memory");
    open_paced(fds, opt.connections);
    for (int i = 0; i < opt.connections; i++) {
        struct conn *c = &conns[i];
        c->fd = fds[i];
        c->seed = seed_of(i);
        c->asked = calloc((size_t)opt.inflight, sizeof *c->asked);
        struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c };
        if (!c->asked || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &ev) < 0)
            fail_errno("epoll_ctl");
    }
    free(fds);
    return conns;
}

static void close_all(struct conn *conns)
{
    for (int i = 0; i < opt.connections; i++) {
        close(conns[i].fd);
        free(conns[i].asked);
    }
    free(conns);
}

/* Takes back what is still in flight: at the end every byte sent must have come back. */
static void drain(struct conn *conns)
{
    sending = false;
    serve_until(now_ns() + PATIENCE_S * 1000000000ull);
    for (int i = 0; i < opt.connections; i++) {
        if (conns[i].received != conns[i].goal)
            fail("%llu bytes never came back", (unsigned long long)(conns[i].goal - conns[i].received));
    }
}

/* What was measured in one window. Filled by play. */
struct window {
    double seconds;
    double messages;
    double cpu_ns; /* of the server */
    double own_ns; /* CPU time of this process */
    long faults;   /* page faults of the server */
};

/* Ping-pong on all busy connections: a warm-up, the window, and the end of what is in flight. */
static struct window play(struct conn *conns)
{
    sending = true;
    for (int i = 0; i < opt.connections; i++) {
        for (int k = 0; k < opt.inflight; k++)
            ask_message(&conns[i], conns[i].answered + (uint64_t)k, now_ns());
        send_asked(&conns[i]);
    }
    serve_until(now_ns() + (uint64_t)(opt.warmup * 1e9));
    latency_reset();
    long faults = faults_of(opt.pid);
    uint64_t counted = messages, cpu = cpu_ns_of(opt.pid);
    uint64_t own = clock_ns(CLOCK_PROCESS_CPUTIME_ID), start = now_ns();
    serve_until(start + (uint64_t)(opt.seconds * 1e9));
    struct window w = {
        .cpu_ns = (double)(cpu_ns_of(opt.pid) - cpu),
        .own_ns = (double)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own),
        .seconds = (double)(now_ns() - start) / 1e9,
        .messages = (double)(messages - counted),
        .faults = faults_of(opt.pid) - faults,
    };
    if (w.messages == 0)
        fail("no message came back");
    drain(conns);
    return w;
}

static void mode_pingpong(void)
{
    struct conn *conns = open_busy();
    struct window w = play(conns);
    printf("connections=%d size=%d inflight=%d seconds=%.3f messages=%.0f messages_per_s=%.0f p50_us=%.1f "
           "p99_us=%.1f cpu_ns_per_message=%.1f server_cpu=%.3f load_cpu=%.3f faults=%ld\n",
        opt.connections, opt.size, opt.inflight, w.seconds, w.messages, w.messages / w.seconds,
        latency_us(0.5), latency_us(0.99), w.cpu_ns / w.messages, w.cpu_ns / w.seconds / 1e9,
        w.own_ns / w.seconds / 1e9, w.faults);
    close_all(conns);
}

/* Idle connections --------------------------------------------------------------------------- */

static int *open_idle(void)
{
    int *fds = calloc((size_t)opt.idle, sizeof *fds);
    if (!fds)
        fail("out of memory");
    open_paced(fds, opt.idle);
    return fds;
}

/* They must have stayed open and silent all the time. */
static void close_idle(int *fds)
{
    for (int i = 0; i < opt.idle; i++) {
        char byte;
        if (recv(fds[i], &byte, 1, MSG_DONTWAIT) >= 0 || errno != EAGAIN)
            fail("an idle connection did not stay open and silent");
        close(fds[i]);
    }
    free(fds);
}

/* No connection sends for a while: all processor time that the server uses then is wasted. */
static void watch_silence(void)
{
    uint64_t cpu = cpu_ns_of(opt.pid);
    long switches = switches_of(opt.pid);
    sleep_ms((long)(opt.seconds * 1000));
    printf("silent_seconds=%.3f silent_cpu_ns=%llu silent_switches=%ld\n", opt.seconds,
        (unsigned long long)(cpu_ns_of(opt.pid) - cpu), switches_of(opt.pid) - switches);
}

/* Memory of the server per idle connection: when it has only been opened, and when it has exchanged
 * a message since. */
static void mode_idle(void)
{
    one_connection(0); /* what the first connection alone costs is no cost per connection */
    sleep_ms(300);
    long before = rss_of(opt.pid);
    uint64_t start = now_ns();
    int *fds = open_idle();
    double took = (double)(now_ns() - start) / 1e9;
    sleep_ms(500);
    long opened = rss_of(opt.pid);
    for (int i = 0; i < opt.idle; i++)
        exchange(fds[i], seed_of(i));
    sleep_ms(500);
    long used = rss_of(opt.pid);
    printf("idle=%d open_seconds=%.3f rss_before=%ld rss_opened=%ld rss_used=%ld bytes_opened=%.0f "
           "bytes_used=%.0f\n",
        opt.idle, took, before, opened, used, (double)(opened - before) / opt.idle,
        (double)(used - before) / opt.idle);
    watch_silence();
    close_idle(fds);
}

/*
 * The same busy connections alone, among idle ones, and alone again: three windows with the same
 * server, so that a drift of the machine does not look like a cost of the idle ones.
 */
static void mode_among(void)
{
    struct conn *conns = open_busy();
    struct window alone = play(conns);
    int *fds = open_idle();
    struct window among = play(conns);
    close_idle(fds);
    sleep_ms(500);
    struct window again = play(conns);
    printf("idle=%d alone_cpu_ns=%.1f among_cpu_ns=%.1f again_cpu_ns=%.1f among_messages_per_s=%.0f\n",
        opt.idle, alone.cpu_ns / alone.messages, among.cpu_ns / among.messages, again.cpu_ns / again.messages,
        among.messages / among.seconds);
    close_all(conns);
}

/* Churn -------------------------------------------------------------------------------------- */

/* Has the server collect all garbage; returns the bytes its Lua heap has then, -1 without one. */
static long collect(void)
{
    if (!opt.control)
        return -1;
    int fd = open_socket(opt.control, 0);
    char answer[128] = "";
    size_t length = 0;
    if (send(fd, "G", 1, MSG_NOSIGNAL) != 1)
        fail_errno("control");
    while (length < sizeof answer - 1) {
        ssize_t n = recv(fd, answer + length, sizeof answer - 1 - length, 0);
        if (n < 0)
            fail_errno("control");
        if (n == 0)
            break;
        length += (size_t)n;
    }
    close(fd);
    long bytes = -1;
    if (sscanf(answer, "memory=%ld", &bytes) != 1)
        fail("control: unexpected answer: %s", answer);
    return bytes;
}

/* Open files of the server, once their number has stopped changing. */
static long settled_fds(void)
{
    long last = fds_of(opt.pid);
    for (int quiet = 0, i = 0; quiet < 5 && i < 100; i++) {
        sleep_ms(50);
        long now = fds_of(opt.pid);
        quiet = now == last ? quiet + 1 : 0;
        last = now;
    }
    return last;
}

static void mode_churn(void)
{
    int warm = opt.count / 100 < 1000 ? 1000 : opt.count / 100;
    for (int i = 0; i < warm; i++)
        one_connection(i);
    long heap_before = collect();
    long fds_before = settled_fds(), rss_before = rss_of(opt.pid), faults = faults_of(opt.pid);
    uint64_t cpu = cpu_ns_of(opt.pid), start = now_ns();
    for (int i = 0; i < opt.count; i++)
        one_connection(warm + i);
    double took = (double)(now_ns() - start);
    cpu = cpu_ns_of(opt.pid) - cpu;
    faults = faults_of(opt.pid) - faults;
    long rss_uncollected = rss_of(opt.pid), heap_after = collect();
    long fds_after = settled_fds(), rss_after = rss_of(opt.pid);
    printf("count=%d warmup=%d seconds=%.3f connections_per_s=%.0f cpu_ns_per_connection=%.0f faults=%ld\n",
        opt.count, warm, took / 1e9, (double)opt.count / took * 1e9, (double)cpu / (double)opt.count, faults);
    printf("fds_before=%ld fds_after=%ld rss_before=%ld rss_uncollected=%ld rss_after=%ld "
           "rss_growth=%ld heap_before=%ld heap_after=%ld\n",
        fds_before, fds_after, rss_before, rss_uncollected, rss_after, rss_after - rss_before, heap_before,
        heap_after);
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        fail_errno("epoll_create1");
    make_pattern();
    if (strcmp(opt.mode, "pingpong") == 0)
        mode_pingpong();
    else if (strcmp(opt.mode, "idle") == 0)
        mode_idle();
    else if (strcmp(opt.mode, "among") == 0)
        mode_among();
    else if (strcmp(opt.mode, "churn") == 0)
        mode_churn();
    else
        fail("no such mode: %s", opt.mode);
    return 0;
}
