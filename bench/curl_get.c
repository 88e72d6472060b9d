/* SPDX-License-Identifier: MIT
 *
 * The yardstick of the HTTP client: sequential GETs with one easy handle of libcurl, which keeps its connection.
 *     curl_get URL COUNT
 * prints the microseconds of this process's CPU, and of the clock, per request. */
#define _GNU_SOURCE
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

struct body {
    char *bytes;
    size_t n, capacity;
};

/* The body as one string: what the client in Lua gives. */
static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
    struct body *body = arg;
    size *= n;
    if (body->n + size > body->capacity) {
        body->capacity = (body->n + size) * 2;
        body->bytes = realloc(body->bytes, body->capacity);
        if (!body->bytes)
            abort();
    }
    memcpy(body->bytes + body->n, bytes, size);
    body->n += size;
    return size;
}

static double cpu(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
        (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static double wall(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int get(CURL *curl, struct body *body)
{
    long status = 0;
    body->n = 0;
    CURLcode result = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    if (result == CURLE_OK && status == 200)
        return 0;
    fprintf(stderr, "curl_get: %s, status %ld\n", curl_easy_strerror(result), status);
    return 1;
}

int main(int argc, char **argv)
{
    struct body body = { 0 };
    int count = argc > 2 ? atoi(argv[2]) : 0;
    if (count < 1) {
        fprintf(stderr, "curl_get URL COUNT\n");
        return 2;
    }
    curl_global_init(CURL_GLOBAL_ALL);
    CURL *curl = curl_easy_init();
    curl_easy_setopt(curl, CURLOPT_URL, argv[1]);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &body);
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    if (get(curl, &body) != 0)
        return 1;
    double used = cpu(), since = wall();
    for (int i = 0; i < count; i++)
        if (get(curl, &body) != 0)
            return 1;
    printf("curl: %.2f us of CPU, %.2f us a request\n", (cpu() - used) / count, (wall() - since) / count);
    curl_easy_cleanup(curl);
    free(body.bytes);
    return 0;
}
