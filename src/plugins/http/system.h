/* SPDX-License-Identifier: MIT
 *
 * What each system does its own way: files, and random bytes. system_unix.c, system_windows.c. A failure is a negative
 * number of libuv's. */
#ifndef ASIO_HTTP_SYSTEM_H
#define ASIO_HTTP_SYSTEM_H

#include "plugins/http/http.h"

#include <stdio.h>

/* A descriptor, or a handle of Windows; -1: none. */
typedef intptr_t http_file;

struct http_file_status {
    const char *kind; /* file, directory, other */
    double size;
    double seconds, nanoseconds; /* of the last change, since 1970 */
};

/* For reading. Does not wait, whatever it is. */
int asio_http_system_open(const char *path, http_file *file);

/* The directory beneath which `child` opens; it may be a link. */
int asio_http_system_root(const char *path, http_file *file);

/* A path beneath the root, for reading: links are followed as long as they stay there. UV_ENOSYS: this system does not
 * check that. */
int asio_http_system_resolve(http_file root, const char *path, http_file *file);

/* One component of a path, which has neither slash nor backslash and is no way up. Never follows a link. `last`: for
 * reading; else it has to be a directory. */
int asio_http_system_child(http_file parent, const char *name, bool last, http_file *file);

int asio_http_system_status(http_file file, struct http_file_status *status);
ssize_t asio_http_system_read(http_file file, char *bytes, size_t n, int64_t offset);
void asio_http_system_close(http_file file);

/* Whether a file that was opened by this path is no longer found by it: renamed or removed. False also where that cannot
 * be told, and on Windows, where an open file of C's library stays where it is. */
bool asio_http_system_moved(FILE *file, const char *path);

/* The working directory of the process. False where paths do not begin with a slash. */
bool asio_http_system_directory(char *path, size_t n);

/* The number of libuv's for one of C's (errno). */
int asio_http_system_failure(int error);

/* From the system's generator for keys. */
bool asio_http_system_random(void *bytes, size_t n);

#endif
