/* SPDX-License-Identifier: MIT
 * Kinds of stream sockets; see family.h. */
#include "net/family.h"

struct asio_uvstream *asio_family_adopt(struct asio_rt *rt, const struct asio_socket_family *family,
    const struct asio_socket_options *options, uv_os_sock_t fd, int *status)
{
    struct asio_uvstream *u = family->make(rt, options);
    *status = u ? family->open(&u->handle, fd) : UV_ENOMEM;
    if (*status < 0)
        asio_sys_close(fd);
    else
        *status = family->connected(u, options);
    if (*status == 0)
        return u;
    if (u)
        asio_uvstream_discard(u);
    return NULL;
}
