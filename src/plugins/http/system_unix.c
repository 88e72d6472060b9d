/* SPDX-License-Identifier: MIT
 * POSIX; see system.h. */
#define _GNU_SOURCE /* O_PATH, O_LARGEFILE */
#include "plugins/http/system.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/syscall.h>
#endif

#ifndef O_PATH
#define O_PATH O_RDONLY
#endif
#ifndef O_LARGEFILE
#define O_LARGEFILE 0
#endif

/* Opening a FIFO does not wait. */
enum { SYSTEM_FLAGS = O_RDONLY | O_NONBLOCK | O_CLOEXEC };

static int system_from_descriptor(int fd, http_file *file)
{
    *file = fd;
    return fd < 0 ? -errno : 0;
}

int asio_http_system_open(const char *path, http_file *file)
{
    return system_from_descriptor(open(path, SYSTEM_FLAGS), file);
}

int asio_http_system_root(const char *path, http_file *file)
{
    return system_from_descriptor(open(path, O_PATH | O_DIRECTORY | O_CLOEXEC), file);
}

/* Linux 5.6 follows a link only if it stays beneath the root; an absolute one does not, wherever it leads. EAGAIN:
 * something was renamed meanwhile, and the kernel is not sure. EPERM: a filter that does not know the call. */
int asio_http_system_resolve(http_file root, const char *path, http_file *file)
{
#ifdef SYS_openat2
    enum { TRIES = 8, NO_MAGICLINKS = 2, BENEATH = 8 };
    /* struct open_how, whose header not every libc finds: flags, mode, how to look up */
    const uint64_t how[3] = { SYSTEM_FLAGS | O_LARGEFILE, 0, BENEATH | NO_MAGICLINKS };
    for (int i = 0; i < TRIES; i++) {
        *file = syscall(SYS_openat2, (int)root, path, how, sizeof how);
        if (*file >= 0)
            return 0;
        if (errno != EAGAIN)
            break;
    }
    return errno == EXDEV ? UV_ENOENT : errno == EPERM ? UV_ENOSYS : -errno;
#else
    (void)root, (void)path, (void)file;
    return UV_ENOSYS;
#endif
}

/* A symbolic link is ELOOP, or ENOTDIR where a directory is needed. */
int asio_http_system_child(http_file parent, const char *name, bool last, http_file *file)
{
    int flags = O_NOFOLLOW | (last ? SYSTEM_FLAGS : O_PATH | O_DIRECTORY | O_CLOEXEC);
    return system_from_descriptor(openat((int)parent, name, flags), file);
}

int asio_http_system_status(http_file file, struct http_file_status *status)
{
    struct stat s;
    if (fstat((int)file, &s) != 0)
        return -errno;
    status->kind = S_ISREG(s.st_mode) ? "file" : S_ISDIR(s.st_mode) ? "directory" : "other";
    status->size = (double)s.st_size;
#ifdef __APPLE__
    status->seconds = (double)s.st_mtimespec.tv_sec;
    status->nanoseconds = (double)s.st_mtimespec.tv_nsec;
#else
    status->seconds = (double)s.st_mtim.tv_sec;
    status->nanoseconds = (double)s.st_mtim.tv_nsec;
#endif
    return 0;
}

ssize_t asio_http_system_read(http_file file, char *bytes, size_t n, int64_t offset)
{
    ssize_t got;
    do
        got = pread((int)file, bytes, n, (off_t)offset);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

void asio_http_system_close(http_file file)
{
    close((int)file);
}

bool asio_http_system_moved(FILE *file, const char *path)
{
    struct stat opened, found;
    if (fstat(fileno(file), &opened) != 0)
        return false;
    if (stat(path, &found) != 0)
        return errno == ENOENT || errno == ENOTDIR;
    return found.st_dev != opened.st_dev || found.st_ino != opened.st_ino;
}

bool asio_http_system_directory(char *path, size_t n)
{
    return getcwd(path, n) != NULL;
}

int asio_http_system_failure(int error)
{
    return -error;
}

bool asio_http_system_random(void *bytes, size_t n)
{
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    bool all = fd >= 0 && read(fd, bytes, n) == (ssize_t)n;
    if (fd >= 0)
        close(fd);
    return all;
}
