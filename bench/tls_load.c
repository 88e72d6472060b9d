/*
 * tls_load: the load generator of the benchmarks for TLS, one thread with OpenSSL, on epoll where there are many
 * connections. It offers TLS 1.3, TLS_AES_128_GCM_SHA256 and X25519 alone, so that every server does the same
 * work, and measures the server over the same window in which it counts. A message has 64 bytes and is a request
 * of HTTP: an echo server sends it back, nginx answers it. Every result is a line of key=value pairs; anything
 * wrong ends it with status 1.
 *
 * Modes: pingpong    connections that send a message again when it has come back
 *        receive     one connection: asks once, and the server sends a stream and closes
 *        send        one connection: sends a stream; the server answers its end with 64 bytes and closes
 *        handshake   opens, uses once and closes connections, several at a time
 *        idle        opens connections that rest after one message: memory of the server
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>

#define LOAD_NAME "tls_load"
#define LOAD_MODES "pingpong|receive|send|handshake|idle"
#include "latency.h"
#include "load_options.h"
#include "load_socket.h"
#include "observe.h"

#define MESSAGE 64 /* bytes */
#define EVENTS_PER_TURN 256
#define CIPHER "TLS_AES_128_GCM_SHA256"

/*
 * A connection, or in `handshake` a place for one after another. Created by open_conn or by mode_handshake, in
 * the arrays of the modes; the session outlives its connection, for the next one of the place.
 */
struct conn {
    int fd;
    SSL *ssl;
    SSL_SESSION *session; /* owned, the newest that the server has sent; NULL while there is none */
    enum { SHAKING, ASKED, CLOSING } state;
    int received;   /* bytes of the answer */
    uint64_t asked; /* when */
    unsigned char message[MESSAGE];
};

static SSL_CTX *context;
static unsigned char buffer[CHUNK];
static unsigned char request[MESSAGE];
static int epoll_fd;
static int sources;       /* connections opened by now, for spreading the source addresses */
static uint64_t messages; /* that have come back, all connections */
static bool sending = true;

/* TLS ------------------------------------------------------------------------------------------ */

static void fail_tls(const char *what)
{
    ERR_print_errors_fp(stderr);
    fail("%s: TLS failed", what);
}

/* The server has sent a ticket: OpenSSL gives us the session. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
    struct conn *c = SSL_get_app_data(ssl);
    SSL_SESSION_free(c->session);
    c->session = session;
    return 1;
}

static void make_context(void)
{
    context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(context, CIPHER) || !SSL_CTX_set1_groups_list(context, "X25519"))
        fail_tls("context");
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL); /* work of the client's, which is not measured */
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, on_session);
}

/* What a call has returned that did not succeed: nothing to do but wait, or the end of the program. */
static void must_wait(struct conn *c, int result, const char *what)
{
    int saved = errno, error = SSL_get_error(c->ssl, result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        return;
    if (error == SSL_ERROR_ZERO_RETURN)
        fail("%s: the server closed the connection", what);
    if (error == SSL_ERROR_SYSCALL)
        fail("%s: %s", what, saved ? strerror(saved) : "end of file");
    fail_tls(what);
}

/* The result of a call on a blocking socket, which waits PATIENCE_S. */
static int done(struct conn *c, int result, const char *what)
{
    if (result > 0)
        return result;
    must_wait(c, result, what);
    fail("%s: the server took too long", what);
}

static void set_blocking(struct conn *c, bool blocking)
{
    int flags = fcntl(c->fd, F_GETFL);
    if (fcntl(c->fd, F_SETFL, blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK) < 0)
        fail_errno("fcntl");
}

/* A connected socket, blocking, with the handshake to come. */
static void connect_conn(struct conn *c)
{
    c->fd = open_socket(opt.port, sources++ / PER_SOURCE);
    c->ssl = SSL_new(context);
    c->state = SHAKING;
    if (!c->ssl || !SSL_set_fd(c->ssl, c->fd) || !SSL_set_app_data(c->ssl, c))
        fail_tls("connection");
}

static void open_conn(struct conn *c)
{
    connect_conn(c);
    done(c, SSL_connect(c->ssl), "handshake");
    if (strcmp(SSL_get_cipher_name(c->ssl), CIPHER) != 0)
        fail("the cipher is %s", SSL_get_cipher_name(c->ssl));
}

static void close_conn(struct conn *c)
{
    SSL_shutdown(c->ssl);
    SSL_free(c->ssl);
    close(c->fd);
}

/* Messages ------------------------------------------------------------------------------------- */

/* Answered by nginx with 64 bytes, or with the stream; the echo servers do not look into it. */
static void make_request(const char *path, const char *more)
{
    char head[MESSAGE];
    size_t length = (size_t)snprintf(head, sizeof head, "GET /%s HTTP/1.1\r\nHost: a\r\n%sX:", path, more);
    memset(request, '0', MESSAGE);
    memcpy(request, head, length);
    memcpy(request + MESSAGE - 4, "\r\n\r\n", 4);
}

/* Every message of `pingpong` differs: an answer to another one shows. */
static void ask(struct conn *c)
{
    memcpy(c->message, request, MESSAGE);
    if (!opt.http)
        snprintf((char *)c->message, 20, "%019llu", (unsigned long long)(now_ns()));
    c->received = 0;
    c->asked = now_ns();
    int n = SSL_write(c->ssl, c->message, MESSAGE);
    if (n != MESSAGE)
        done(c, n, "write"); /* the socket has room for a message */
}

/* True once the answer is whole. One of nginx comes in one record. */
static bool take_answer(struct conn *c)
{
    int n = SSL_read(c->ssl, buffer, opt.http ? CHUNK : MESSAGE - c->received);
    if (n <= 0) {
        must_wait(c, n, "answer");
        return false;
    }
    if (opt.http && (n < MESSAGE || memcmp(buffer, "HTTP/1.1 200", 12) != 0))
        fail("the answer is none of HTTP's");
    if (!opt.http && memcmp(buffer, c->message + c->received, (size_t)n) != 0)
        fail("the echo differs from what was sent");
    c->received += n;
    return opt.http || c->received == MESSAGE;
}

static void exchange(struct conn *c)
{
    ask(c);
    while (!take_answer(c))
        if (now_ns() - c->asked > PATIENCE_S * 1000000000ull)
            fail("no answer");
}

static void watch(struct conn *c, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.ptr = c };
    set_blocking(c, false);
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &ev) < 0)
        fail_errno("epoll_ctl");
}

static int wait_for_events(struct epoll_event *events)
{
    int n = epoll_wait(epoll_fd, events, EVENTS_PER_TURN, PATIENCE_S * 1000);
    if (n == 0)
        fail("the server took too long");
    if (n < 0 && errno != EINTR)
        fail_errno("epoll_wait");
    return n;
}

/* What is measured from one moment on. Filled by begin. */
struct window {
    uint64_t start, cpu, own;
};

static struct window begin(void)
{
    return (struct window){
        .start = now_ns(), .cpu = cpu_ns_of(opt.pid), .own = clock_ns(CLOCK_PROCESS_CPUTIME_ID)
    };
}

/* Turns the moments into what has passed since. */
static void end(struct window *w)
{
    w->cpu = cpu_ns_of(opt.pid) - w->cpu;
    w->own = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - w->own;
    w->start = now_ns() - w->start;
}

static void print_window(const struct window *w)
{
    double ns = (double)w->start;
    printf(
        "seconds=%.3f server_cpu=%.3f load_cpu=%.3f\n", ns / 1e9, (double)w->cpu / ns, (double)w->own / ns);
}

/* Ping-pong ------------------------------------------------------------------------------------ */

static void on_message(struct conn *c)
{
    if (!take_answer(c))
        return;
    latency_add(now_ns() - c->asked);
    messages++;
    if (sending)
        ask(c);
}

static void serve(void)
{
    struct epoll_event events[EVENTS_PER_TURN];
    int n = wait_for_events(events);
    for (int i = 0; i < n; i++)
        on_message(events[i].data.ptr);
}

static void serve_until(uint64_t moment)
{
    while (now_ns() < moment)
        serve();
}

static struct conn *make_conns(int count)
{
    struct conn *conns = calloc((size_t)count, sizeof *conns);
    if (!conns)
        fail("out of memory");
    return conns;
}

static void mode_pingpong(void)
{
    struct conn *conns = make_conns(opt.connections);
    for (int i = 0; i < opt.connections; i++)
        open_conn(&conns[i]);
    for (int i = 0; i < opt.connections; i++) {
        watch(&conns[i], EPOLLIN);
        ask(&conns[i]);
    }
    serve_until(now_ns() + (uint64_t)(opt.warmup * 1e9));
    latency_reset();
    messages = 0;
    struct window w = begin();
    serve_until(w.start + (uint64_t)(opt.seconds * 1e9));
    end(&w);
    double count = (double)messages, seconds = (double)w.start / 1e9;
    if (messages == 0)
        fail("no message came back");
    printf("messages=%.0f messages_per_s=%.0f cpu_ns_per_message=%.1f p50_us=%.1f p99_us=%.1f\n", count,
        count / seconds, (double)w.cpu / count, latency_us(0.5), latency_us(0.99));
    print_window(&w);
    sending = false;
    for (uint64_t goal = messages + (uint64_t)opt.connections; messages < goal;)
        serve();
    for (int i = 0; i < opt.connections; i++)
        close_conn(&conns[i]);
}

/* A stream ------------------------------------------------------------------------------------- */

static void print_stream(struct window *w, double bytes)
{
    end(w);
    printf("bytes=%.0f gb_per_s=%.3f cpu_s_per_gb=%.4f\n", bytes, bytes / (double)w->start,
        (double)w->cpu / bytes);
    print_window(w);
}

static void mode_receive(void)
{
    struct conn c = { .fd = -1 };
    double total = 0;
    make_request("bulk", "Connection: close\r\n");
    open_conn(&c);
    struct window w = begin();
    ask(&c);
    for (int n; (n = SSL_read(c.ssl, buffer, CHUNK)) > 0;)
        total += n;
    if (total < opt.gb * 1e9)
        fail("the stream ended after %.0f bytes", total);
    print_stream(&w, total);
    close_conn(&c);
}

static void mode_send(void)
{
    struct conn c = { .fd = -1 };
    long long left = (long long)(opt.gb * 1e9);
    open_conn(&c);
    struct window w = begin();
    for (int n; left > 0; left -= n)
        n = done(&c, SSL_write(c.ssl, buffer, left < CHUNK ? (int)left : CHUNK), "write");
    for (int n = 0; n < MESSAGE;)
        n += done(&c, SSL_read(c.ssl, buffer, MESSAGE), "answer");
    print_stream(&w, opt.gb * 1e9);
    close_conn(&c);
}

/* Handshakes ----------------------------------------------------------------------------------- */

static int started, finished, warm; /* connections; `warm` are not counted */

/* OpenSSL takes a session once. The copy keeps it for a server that sends no ticket when it resumes. */
static void use_session(struct conn *c)
{
    SSL_SESSION *copy = SSL_SESSION_dup(c->session);
    if (!copy || !SSL_set_session(c->ssl, copy))
        fail_tls("session");
    SSL_SESSION_free(copy);
}

static void start(struct conn *c)
{
    started++;
    connect_conn(c);
    if (opt.resume && c->session)
        use_session(c);
    watch(c, EPOLLIN | EPOLLOUT | EPOLLET);
}

static bool shake(struct conn *c)
{
    int n = SSL_connect(c->ssl);
    if (n != 1) {
        must_wait(c, n, "handshake");
        return false;
    }
    if (finished >= warm && SSL_session_reused(c->ssl) != opt.resume)
        fail(opt.resume ? "a session was not resumed" : "a session was resumed");
    return true;
}

/* Whether the server has closed as well; its close_notify is of no interest. */
static bool closed(struct conn *c)
{
    ssize_t n;
    while ((n = recv(c->fd, buffer, CHUNK, 0)) > 0)
        ;
    return n == 0 || errno != EAGAIN;
}

static void step(struct conn *c)
{
    if (c->state == SHAKING) {
        if (!shake(c))
            return;
        ask(c);
        c->state = ASKED;
    }
    if (c->state == ASKED) {
        if (!take_answer(c))
            return;
        SSL_shutdown(c->ssl);
        shutdown(c->fd, SHUT_WR);
        c->state = CLOSING;
    }
    if (!closed(c))
        return;
    SSL_free(c->ssl);
    close(c->fd);
    finished++;
    if (started < warm + opt.count)
        start(c);
}

static void finish(int goal)
{
    while (finished < goal) {
        struct epoll_event events[EVENTS_PER_TURN];
        int n = wait_for_events(events);
        for (int i = 0; i < n; i++)
            step(events[i].data.ptr);
    }
}

static void mode_handshake(void)
{
    struct conn *conns = make_conns(opt.connections);
    warm = opt.count / 10 + 4 * opt.connections;
    for (int i = 0; i < opt.connections; i++)
        start(&conns[i]);
    finish(warm);
    struct window w = begin();
    int before = finished;
    finish(warm + opt.count);
    int count = finished - before;
    end(&w);
    printf("count=%d connections_per_s=%.0f cpu_ns_per_connection=%.0f\n", count,
        (double)count / (double)w.start * 1e9, (double)w.cpu / count);
    print_window(&w);
}

/* Idle connections ----------------------------------------------------------------------------- */

static void mode_idle(void)
{
    struct conn first = { .fd = -1 }, *conns = make_conns(opt.idle);
    open_conn(&first); /* what the first connection alone costs is no cost per connection */
    exchange(&first);
    sleep_ms(300);
    long before = rss_of(opt.pid);
    for (int i = 0; i < opt.idle; i++) {
        open_conn(&conns[i]);
        exchange(&conns[i]);
    }
    sleep_ms(500);
    long used = rss_of(opt.pid);
    for (int i = 0; i < opt.idle; i++) {
        if (recv(conns[i].fd, buffer, 1, MSG_DONTWAIT) >= 0 || errno != EAGAIN)
            fail("an idle connection did not stay open and silent");
        close_conn(&conns[i]);
    }
    close_conn(&first);
    printf("idle=%d rss_before=%ld rss_used=%ld bytes_used=%.0f\n", opt.idle, before, used,
        (double)(used - before) / opt.idle);
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
    make_context();
    make_request("small", "");
    if (strcmp(opt.mode, "pingpong") == 0)
        mode_pingpong();
    else if (strcmp(opt.mode, "receive") == 0)
        mode_receive();
    else if (strcmp(opt.mode, "send") == 0)
        mode_send();
    else if (strcmp(opt.mode, "handshake") == 0)
        mode_handshake();
    else if (strcmp(opt.mode, "idle") == 0)
        mode_idle();
    else
        fail("no such mode: %s", opt.mode);
    return 0;
}
