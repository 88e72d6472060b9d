/*
 * load_options.h: what the load generators can be told on their command lines. Owns the options, `opt`, which
 * do not change once they have been read. The program says its LOAD_NAME and its LOAD_MODES first.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef BENCH_LOAD_OPTIONS_H
#define BENCH_LOAD_OPTIONS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 65536 /* most bytes of one send or recv, and the largest message */

struct options {
    const char *mode;
    const char *host;
    int port;
    int control; /* churn: port where the server collects garbage on demand; 0 for none */
    int connections;
    int size;
    int inflight;
    int alike; /* every message the same */
    int lines; /* messages are lines of text: the last byte ends the line */
    int idle;
    int count;  /* churn, handshake: connections */
    int resume; /* handshake: with the session of the connection before */
    int http;   /* the server answers requests, and echoes nothing */
    int pid;    /* the server; 0: not measured */
    double seconds;
    double warmup;
    double gb; /* receive, send: of 10^9 bytes */
};

static struct options opt = {
    .mode = "pingpong",
    .host = "127.0.0.1",
    .connections = 100,
    .size = 64,
    .inflight = 1,
    .idle = 19000,
    .count = 1000000,
    .seconds = 3,
    .warmup = 0.5,
    .gb = 1,
};

static void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

static void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs(LOAD_NAME ": ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static void usage(FILE *to)
{
    fputs(
        "usage: " LOAD_NAME " --port N [options]\n"
        "  --mode " LOAD_MODES "   (pingpong)\n"
        "  --host ADDRESS               IPv4 (127.0.0.1)\n"
        "  --connections N              busy ones (100)\n"
        "  --size BYTES                 of a message, at most 65536 (64)\n"
        "  --inflight N                 messages under way per connection (1)\n"
        "  --alike 0|1                  every message different, or all the same (0)\n"
        "  --lines 0|1                  messages are any bytes, or lines of text (0)\n"
        "  --seconds S, --warmup S      measured, and before that (3, 0.5)\n"
        "  --pid PID                    the server, whose CPU time and memory are measured\n"
        "  --idle N                     idle, among: connections that rest (19000)\n"
        "  --count N                    churn, handshake: connections in all (1000000)\n"
        "  --control PORT               churn: where the server collects garbage on request\n"
        "  --gb N                       receive, send: GB of the stream (1)\n"
        "  --resume 0|1                 handshake: new sessions, or resumed ones (0)\n"
        "  --http 0|1                   TLS: a message comes back, or an answer of HTTP in one record (0)\n",
        to);
}

static const struct setting {
    const char *name;
    enum { TEXT, INTEGER, REAL } kind;
    void *target; /* in opt, of the type that kind says */
    double least, most;
} settings[] = {
    { "mode", TEXT, &opt.mode, 0, 0 },
    { "host", TEXT, &opt.host, 0, 0 },
    { "port", INTEGER, &opt.port, 1, 65535 },
    { "control", INTEGER, &opt.control, 1, 65535 },
    { "connections", INTEGER, &opt.connections, 0, 1e6 },
    { "size", INTEGER, &opt.size, 1, CHUNK },
    { "inflight", INTEGER, &opt.inflight, 1, 1e5 },
    { "alike", INTEGER, &opt.alike, 0, 1 },
    { "lines", INTEGER, &opt.lines, 0, 1 },
    { "idle", INTEGER, &opt.idle, 1, 1e6 },
    { "count", INTEGER, &opt.count, 1, 1e9 },
    { "resume", INTEGER, &opt.resume, 0, 1 },
    { "http", INTEGER, &opt.http, 0, 1 },
    { "gb", REAL, &opt.gb, 0.001, 1000 },
    { "pid", INTEGER, &opt.pid, 1, 1e9 },
    { "seconds", REAL, &opt.seconds, 0, 3600 },
    { "warmup", REAL, &opt.warmup, 0, 3600 },
};

static const struct setting *find_setting(const char *argument)
{
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        if (strncmp(argument, "--", 2) == 0 && strcmp(argument + 2, settings[i].name) == 0)
            return &settings[i];
    }
    return NULL;
}

static void set_number(const struct setting *s, const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= s->least && value <= s->most))
        fail("--%s: a number from %.0f to %.0f expected, got %s", s->name, s->least, s->most, text);
    if (s->kind == REAL)
        *(double *)s->target = value;
    else
        *(int *)s->target = (int)value;
}

static void parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const struct setting *s = find_setting(argv[i]);
        if (!s || i + 1 == argc) {
            bool help = strcmp(argv[i], "--help") == 0;
            usage(help ? stdout : stderr);
            exit(help ? 0 : 2);
        }
        if (s->kind == TEXT)
            *(const char **)s->target = argv[++i];
        else
            set_number(s, argv[++i]);
    }
    if (opt.port == 0) {
        usage(stderr);
        exit(2);
    }
}

#endif
