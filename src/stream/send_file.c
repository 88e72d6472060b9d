/* SPDX-License-Identifier: MIT
 * Files to connections; see send_file.h. The caller waits for room by writing a little and flushing. */
#include "stream/send_file.h"

#include "core/poll.h"
#include "stream/write.h"
#include "sys/sys.h"

/* What the call does not do for this file or this socket; everything else ends the connection. */
static bool send_file_is_no_way(ssize_t status)
{
    return status == UV_EINVAL || status == UV_ENOSYS || status == UV_ENOTSUP || status == UV_EPERM;
}

/* The call may raise SIGPIPE. */
static ssize_t send_file_now(struct asio_stream *s, int file, int64_t offset, size_t n)
{
    uv_os_fd_t fd;
    int status = s->transport->fd(s, &fd);
    if (status < 0)
        return status;
    asio_poll_sending_begins(s->rt);
    ssize_t sent = asio_sys_send_file(fd, file, offset, n);
    asio_poll_sending_began(s->rt);
    asio_poll_sending_ends(s->rt);
    return sent;
}

ssize_t asio_stream_send_file(struct asio_stream *s, int file, int64_t offset, size_t n)
{
    if (s->closing)
        return UV_ECANCELED;
    if (s->shut || s->tap)
        return s->tap ? UV_EBUSY : UV_EPIPE;
    if (!s->transport->passable)
        return UV_ENOTSUP;
    asio_stream_flush(s);
    if (s->write_status < 0)
        return s->write_status;
    if (s->out.length > 0 || s->sending)
        return UV_EAGAIN;
    ssize_t sent = send_file_now(s, file, offset, n);
    if (sent > 0) {
        s->queued += (size_t)sent;
        s->rt->stats.bytes_out += (size_t)sent;
        return sent;
    }
    if (sent == 0)
        return UV_EOF;
    if (sent == UV_EAGAIN)
        return sent;
    if (send_file_is_no_way(sent))
        return UV_ENOTSUP;
    asio_stream_write_fail(s, (int)sent);
    return sent;
}
