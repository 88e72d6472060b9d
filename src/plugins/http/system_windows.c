/* SPDX-License-Identifier: MIT
 * Windows; see system.h. Paths are UTF-8. */
#define _CRT_RAND_S
#include "plugins/http/system.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <winternl.h>

/* Of the kernel's own interface: the headers for drivers have them. */
enum {
    SYSTEM_OPEN = 1,                /* FILE_OPEN */
    SYSTEM_FLAGS = 0x20 | 0x200000, /* FILE_SYNCHRONOUS_IO_NONALERT, FILE_OPEN_REPARSE_POINT */
    SYSTEM_DIRECTORY = 1,           /* FILE_DIRECTORY_FILE */
    SYSTEM_CASE_INSENSITIVE = 0x40, /* OBJ_CASE_INSENSITIVE */
    SYSTEM_SHARE = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
};

static int system_error(DWORD error)
{
    switch (error) {
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:
    case ERROR_INVALID_NAME:
    case ERROR_BAD_PATHNAME:
    case ERROR_BAD_NETPATH:
    case ERROR_DELETE_PENDING:
        return UV_ENOENT;
    case ERROR_DIRECTORY:
        return UV_ENOTDIR;
    case ERROR_FILENAME_EXCED_RANGE:
        return UV_ENAMETOOLONG;
    case ERROR_ACCESS_DENIED:
    case ERROR_SHARING_VIOLATION:
    case ERROR_LOCK_VIOLATION:
        return UV_EACCES;
    case ERROR_TOO_MANY_OPEN_FILES:
        return UV_EMFILE;
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_OUTOFMEMORY:
        return UV_ENOMEM;
    }
    return UV_EIO;
}

static int system_from_handle(HANDLE handle, http_file *file)
{
    *file = (http_file)handle;
    return handle == INVALID_HANDLE_VALUE ? system_error(GetLastError()) : 0;
}

/* FILE_FLAG_BACKUP_SEMANTICS: directories as well. */
static int system_open_path(const char *path, DWORD access, http_file *file)
{
    enum { MOST = 4096 };
    wchar_t wide[MOST];
    *file = -1;
    if (strlen(path) >= MOST)
        return UV_ENAMETOOLONG;
    if (MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, MOST) <= 0)
        return UV_ENOENT;
    return system_from_handle(
        CreateFileW(wide, access, SYSTEM_SHARE, NULL, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, NULL), file);
}

int asio_http_system_open(const char *path, http_file *file)
{
    return system_open_path(path, FILE_GENERIC_READ, file);
}

int asio_http_system_root(const char *path, http_file *file)
{
    int status = system_open_path(path, FILE_LIST_DIRECTORY | FILE_TRAVERSE | SYNCHRONIZE, file);
    struct http_file_status s;
    if (status == 0)
        status = asio_http_system_status(*file, &s);
    if (status == 0 && strcmp(s.kind, "directory") != 0)
        status = UV_ENOTDIR;
    if (status < 0 && *file != -1)
        asio_http_system_close(*file);
    return status;
}

int asio_http_system_resolve(http_file root, const char *path, http_file *file)
{
    (void)root, (void)path, (void)file;
    return UV_ENOSYS;
}

/* A second name that the system has made (GIT~1 of .git): what looks at names does not know it. */
static bool system_is_short_name(const char *name)
{
    const char *tilde = strrchr(name, '~');
    if (!tilde || strlen(name) > 12 || tilde[1] < '0' || tilde[1] > '9')
        return false;
    size_t digits = strspn(tilde + 1, "0123456789");
    return tilde[1 + digits] == 0 || tilde[1 + digits] == '.';
}

/* A colon leads to another stream of the file. The kernel itself knows no names of devices (CON), and takes off no dots
 * and blanks at the end. */
static int system_wide_name(const char *name, wchar_t wide[256])
{
    if (strchr(name, ':') || system_is_short_name(name))
        return UV_ENOENT;
    int n = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, name, -1, wide, 256);
    return n > 1 ? n - 1 : UV_ENOENT;
}

static int system_refuse_link(HANDLE handle)
{
    BY_HANDLE_FILE_INFORMATION info;
    if (!GetFileInformationByHandle(handle, &info))
        return system_error(GetLastError());
    return info.dwFileAttributes & FILE_ATTRIBUTE_REPARSE_POINT ? UV_ELOOP : 0;
}

int asio_http_system_child(http_file parent, const char *name, bool last, http_file *file)
{
    wchar_t wide[256];
    *file = -1;
    int n = system_wide_name(name, wide);
    if (n < 0)
        return n;
    USHORT bytes = (USHORT)((unsigned)n * sizeof *wide);
    UNICODE_STRING text = { bytes, bytes, wide };
    OBJECT_ATTRIBUTES which = { .Length = sizeof which,
        .RootDirectory = (HANDLE)parent,
        .ObjectName = &text,
        .Attributes = SYSTEM_CASE_INSENSITIVE };
    IO_STATUS_BLOCK done;
    HANDLE handle;
    NTSTATUS opened = NtCreateFile(&handle,
        last ? FILE_GENERIC_READ : FILE_LIST_DIRECTORY | FILE_TRAVERSE | SYNCHRONIZE, &which, &done, NULL, 0,
        SYSTEM_SHARE, SYSTEM_OPEN, SYSTEM_FLAGS | (last ? 0 : SYSTEM_DIRECTORY), NULL, 0);
    if (opened < 0)
        return system_error(RtlNtStatusToDosError(opened));
    int status = system_refuse_link(handle);
    if (status < 0)
        CloseHandle(handle);
    else
        *file = (http_file)handle;
    return status;
}

/* Time is counted in 100 ns, since 1601. */
int asio_http_system_status(http_file file, struct http_file_status *status)
{
    BY_HANDLE_FILE_INFORMATION info;
    bool disk = GetFileType((HANDLE)file) == FILE_TYPE_DISK;
    *status = (struct http_file_status){ .kind = "other" };
    if (!disk)
        return 0;
    if (!GetFileInformationByHandle((HANDLE)file, &info))
        return system_error(GetLastError());
    uint64_t ticks = (uint64_t)info.ftLastWriteTime.dwHighDateTime << 32 | info.ftLastWriteTime.dwLowDateTime;
    status->kind = info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY ? "directory" : "file";
    status->size = (double)((uint64_t)info.nFileSizeHigh << 32 | info.nFileSizeLow);
    status->seconds = (double)(ticks / 10000000) - 11644473600.0;
    status->nanoseconds = (double)(ticks % 10000000) * 100;
    return 0;
}

ssize_t asio_http_system_read(http_file file, char *bytes, size_t n, int64_t offset)
{
    OVERLAPPED at = { .Offset = (DWORD)offset, .OffsetHigh = (DWORD)(offset >> 32) };
    DWORD got = 0;
    if (ReadFile((HANDLE)file, bytes, (DWORD)n, &got, &at))
        return (ssize_t)got;
    DWORD error = GetLastError();
    return error == ERROR_HANDLE_EOF ? 0 : system_error(error);
}

void asio_http_system_close(http_file file)
{
    CloseHandle((HANDLE)file);
}

bool asio_http_system_moved(FILE *file, const char *path)
{
    (void)file, (void)path;
    return false;
}

bool asio_http_system_directory(char *path, size_t n)
{
    (void)path, (void)n;
    return false;
}

int asio_http_system_failure(int error)
{
    static const struct {
        int error, status;
    } known[] = { { ENOENT, UV_ENOENT }, { ENOTDIR, UV_ENOTDIR }, { EACCES, UV_EACCES }, { EPERM, UV_EPERM },
        { EISDIR, UV_EISDIR }, { EMFILE, UV_EMFILE }, { ENOMEM, UV_ENOMEM }, { ENOSPC, UV_ENOSPC },
        { EROFS, UV_EROFS }, { EINVAL, UV_EINVAL } };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].error == error)
            return known[i].status;
    return UV_EIO;
}

bool asio_http_system_random(void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i += sizeof(unsigned)) {
        unsigned number;
        if (rand_s(&number) != 0)
            return false;
        memcpy((char *)bytes + i, &number, n - i < sizeof number ? n - i : sizeof number);
    }
    return true;
}
