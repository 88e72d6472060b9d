/*
 * tls_yard: the yardstick of TLS. A server in C on edge-triggered epoll with OpenSSL, one thread: what the kernel
 * and OpenSSL cost. OpenSSL reads from memory and writes to memory (a BIO_METHOD of our own): the socket is read
 * and written in pieces of up to 64 KB. Owns one struct conn per connection, and one buffer for each direction
 * that all share; memory of a connection's own holds ciphertext only while the kernel does not take it.
 *
 * Usage: tls_yard MODE CERT KEY [BYTES]      prints port=N when it listens on 127.0.0.1
 *     echo      sends back what comes
 *     idle      the same, and has OpenSSL release its buffers whenever they are empty
 *     send      answers the first bytes with a stream of BYTES, and closes
 *     receive   takes BYTES, answers with 64 bytes, and closes
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define RECORD (16384 + 22)      /* most bytes that TLS 1.3 makes of 16 KB: header, type, tag */
#define BUFFER_SIZE (4 * RECORD) /* of ciphertext */
#define PLAIN_SIZE (4 * 16384)   /* of plaintext, so that what is written at once fills a buffer */
#define EVENTS_PER_TURN 256

/*
 * One accepted connection. Created by accept_all, referenced by its entry in epoll and by its SSL's BIO, freed by
 * drop.
 */
struct conn {
    int fd;
    bool over;      /* no more is to be sent: it closes when all of it has gone out */
    SSL *ssl;       /* owned */
    char *unsent;   /* ciphertext that the kernel did not take, owned; NULL when there is none */
    size_t length;  /* how much there is */
    size_t written; /* how much of it has gone out since */
    uint64_t left;  /* send, receive: bytes to come */
};

static char input[BUFFER_SIZE], output[BUFFER_SIZE], plain[PLAIN_SIZE];
static size_t input_at, input_length, output_length; /* of the connection whose turn it is */
static enum { ECHO, SEND, RECEIVE } mode;
static uint64_t stream_bytes;
static SSL_CTX *context;
static BIO_METHOD *method;
static int epoll_fd;

static void die(const char *what)
{
    perror(what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

/* Ciphertext ----------------------------------------------------------------------------------- */

/* Keeps ciphertext for the time when the kernel has room for it. */
static void keep(struct conn *c, const char *data, size_t length)
{
    size_t old = c->length - c->written;
    char *all = malloc(old + length);
    if (!all)
        die("malloc");
    if (old)
        memcpy(all, c->unsent + c->written, old);
    memcpy(all + old, data, length);
    free(c->unsent);
    c->unsent = all;
    c->length = old + length;
    c->written = 0;
}

/* Sends what OpenSSL has written. A connection that fails is found by the next read. */
static void flush_output(struct conn *c)
{
    size_t sent = 0;
    while (sent < output_length && !c->unsent) {
        ssize_t n = send(c->fd, output + sent, output_length - sent, MSG_NOSIGNAL);
        if (n < 0)
            break;
        sent += (size_t)n;
    }
    if (sent < output_length)
        keep(c, output + sent, output_length - sent);
    output_length = 0;
}

/* Sends what was kept. False: some of it is left, or the connection has failed. */
static bool send_kept(struct conn *c)
{
    while (c->written < c->length) {
        ssize_t n = send(c->fd, c->unsent + c->written, c->length - c->written, MSG_NOSIGNAL);
        if (n < 0)
            return false;
        c->written += (size_t)n;
    }
    free(c->unsent);
    c->unsent = NULL;
    c->length = c->written = 0;
    return true;
}

static int bio_read(BIO *bio, char *to, int size)
{
    size_t n = input_length - input_at;
    BIO_clear_retry_flags(bio);
    if (n == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    if (n > (size_t)size)
        n = (size_t)size;
    memcpy(to, input + input_at, n);
    input_at += n;
    return (int)n;
}

static int bio_write(BIO *bio, const char *from, int length)
{
    if ((size_t)length > sizeof output - output_length)
        flush_output(BIO_get_data(bio));
    size_t n = (size_t)length < sizeof output ? (size_t)length : sizeof output;
    memcpy(output + output_length, from, n);
    output_length += n;
    return (int)n;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    return command == BIO_CTRL_FLUSH;
}

/* Plaintext ------------------------------------------------------------------------------------ */

static void finish(struct conn *c)
{
    SSL_shutdown(c->ssl);
    c->over = true;
}

/* Sends of the stream what the kernel takes. */
static void send_stream(struct conn *c)
{
    while (c->left > 0 && !c->unsent) {
        int n = c->left < PLAIN_SIZE ? (int)c->left : PLAIN_SIZE;
        if (SSL_write(c->ssl, plain, n) != n)
            die("SSL_write");
        c->left -= (uint64_t)n;
        flush_output(c);
    }
    if (c->left == 0)
        finish(c);
}

static void take_plain(struct conn *c, int length)
{
    if (mode == ECHO && SSL_write(c->ssl, plain, length) != length)
        die("SSL_write");
    if (mode == SEND)
        send_stream(c);
    if (mode == RECEIVE) {
        c->left -= (uint64_t)length < c->left ? (uint64_t)length : c->left;
        if (c->left > 0)
            return;
        if (SSL_write(c->ssl, plain, 64) != 64)
            die("SSL_write");
        finish(c);
    }
}

/* Gives OpenSSL all of the input. False: the connection is over. */
static bool decrypt(struct conn *c)
{
    for (;;) {
        int n = SSL_read(c->ssl, plain, sizeof plain);
        if (n <= 0)
            return SSL_get_error(c->ssl, n) == SSL_ERROR_WANT_READ;
        if (!c->over)
            take_plain(c, n);
    }
}

/* Connections ---------------------------------------------------------------------------------- */

static void drop(struct conn *c)
{
    ERR_clear_error();
    SSL_free(c->ssl);
    close(c->fd); /* takes it out of epoll as well */
    free(c->unsent);
    free(c);
}

/*
 * Reads until the socket is empty. A read shorter than the buffer has emptied it, so the call that would only say
 * EAGAIN is saved, except when the peer has finished. False: the connection is over.
 */
static bool read_all(struct conn *c, bool finished)
{
    while (!c->unsent) {
        ssize_t n = recv(c->fd, input, sizeof input, 0);
        if (n <= 0)
            return n < 0 && errno == EAGAIN;
        input_at = 0;
        input_length = (size_t)n;
        bool goes_on = decrypt(c);
        flush_output(c);
        if (!goes_on)
            return false;
        if ((size_t)n < sizeof input && !finished)
            return true;
    }
    return true;
}

static bool serve(struct conn *c, uint32_t events)
{
    bool was_blocked = c->unsent != NULL;
    input_at = input_length = 0;
    if (was_blocked && !send_kept(c))
        return !(events & (EPOLLHUP | EPOLLERR));
    if (was_blocked && mode == SEND && !c->over) {
        send_stream(c);
        flush_output(c);
    }
    bool goes_on = read_all(c, was_blocked || (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)));
    return c->unsent || (goes_on && !c->over);
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
        BIO *bio = BIO_new(method);
        if (!c || !bio)
            die("malloc");
        c->fd = fd;
        c->left = stream_bytes;
        c->ssl = SSL_new(context);
        if (!c->ssl)
            die("SSL_new");
        BIO_set_data(bio, c);
        BIO_set_init(bio, 1);
        SSL_set_bio(c->ssl, bio, bio);
        SSL_set_accept_state(c->ssl);
        struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c };
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
            die("epoll_ctl");
    }
}

static int listen_anywhere(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in addr = { .sin_family = AF_INET };
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof addr;
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, length) < 0 || listen(fd, SOMAXCONN) < 0 ||
        getsockname(fd, (struct sockaddr *)&addr, &length) < 0)
        die("listen");
    printf("port=%d\n", ntohs(addr.sin_port));
    fflush(stdout);
    return fd;
}

static void make_context(const char *cert, const char *key, bool release)
{
    context = SSL_CTX_new(TLS_server_method());
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "memory");
    if (!context || !method || !BIO_meth_set_read(method, bio_read) ||
        !BIO_meth_set_write(method, bio_write) || !BIO_meth_set_ctrl(method, bio_ctrl))
        die("context");
    if (SSL_CTX_use_certificate_chain_file(context, cert) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
        die("certificate and key");
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF); /* tickets hold all that there is */
    if (release)
        SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
}

static void parse(int argc, char **argv)
{
    if (argc < 4) {
        fputs("usage: tls_yard echo|idle|send|receive CERT KEY [BYTES]\n", stderr);
        exit(2);
    }
    if (strcmp(argv[1], "send") == 0)
        mode = SEND;
    else if (strcmp(argv[1], "receive") == 0)
        mode = RECEIVE;
    stream_bytes = argc > 4 ? strtoull(argv[4], NULL, 10) : 0;
    make_context(argv[2], argv[3], strcmp(argv[1], "idle") == 0);
}

int main(int argc, char **argv)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    parse(argc, argv);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        die("epoll_create1");
    int listener = listen_anywhere();
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL };
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &ev) < 0)
        die("epoll_ctl");
    for (;;) {
        struct epoll_event events[EVENTS_PER_TURN];
        int n = epoll_wait(epoll_fd, events, EVENTS_PER_TURN, -1);
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (!c)
                accept_all(listener);
            else if (!serve(c, events[i].events))
                drop(c);
        }
    }
}
