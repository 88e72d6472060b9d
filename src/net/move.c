/* SPDX-License-Identifier: MIT
 * Connections that go to another loop of this process; see move.h. */
#include "net/move.h"

#include "net/fd_passing.h"
#include "stream/lifecycle.h"
#include "stream/write.h"

#include <string.h>

struct asio_moved {
    const struct asio_socket_family *family;
    uv_os_sock_t fd;
    struct asio_stream_alias *alias; /* owned, or NULL */
    double read_timeout, write_timeout;
    float linger;
    int read_status;
    bool shut, half_closed;
    size_t length; /* of what was received and is not read */
    char bytes[];
};

int asio_move_obstacle(const struct asio_conn *conn)
{
    struct asio_stream *s = conn->stream;
    if (!s || !s->transport->passable)
        return s ? UV_ENOTSUP : UV_EBADF;
    if (asio_stream_is_read(s) || s->writers.first || s->in.pinned)
        return UV_EBUSY;
    asio_stream_flush(s);
    if (s->write_status < 0)
        return s->write_status;
    return s->out.length > 0 || s->sending ? UV_EBUSY : 0;
}

int asio_move_prepare(const struct asio_conn *conn, struct asio_moved **moved)
{
    struct asio_stream *s = conn->stream;
    uv_os_fd_t fd;
    int status = asio_move_obstacle(conn);
    if (status < 0)
        return status;
    size_t length = asio_inbuf_length(&s->in);
    struct asio_moved *m = asio_mem.malloc(sizeof *m + length);
    if (!m)
        return UV_ENOMEM;
    status = s->transport->fd(s, &fd);
    if (status == 0)
        status = asio_sys_dup(fd, &m->fd);
    if (status < 0) {
        asio_mem.free(m);
        return status;
    }
    m->family = asio_fd_passing_family_of(m->fd);
    m->alias = NULL;
    m->length = length;
    *moved = m;
    return 0;
}

void asio_move_out(struct asio_conn *conn, struct asio_moved *m)
{
    struct asio_stream *s = conn->stream;
    m->alias = s->alias;
    s->alias = NULL;
    m->read_timeout = s->read_timeout;
    m->write_timeout = s->write_timeout;
    m->linger = s->linger;
    m->read_status = s->read_status;
    m->shut = s->shut;
    m->half_closed = s->half_closed;
    if (m->length > 0)
        memcpy(m->bytes, asio_inbuf_bytes(&s->in), m->length);
    asio_stream_drop(s);
}

/* The stream, with all that came along; NULL: *status. The socket is taken over last. */
static struct asio_uvstream *move_make(struct asio_rt *rt, struct asio_moved *m, int *status)
{
    struct asio_socket_options options = asio_socket_options_default();
    struct asio_uvstream *u = m->family ? m->family->make(rt, &options) : NULL;
    *status = u ? 0 : m->family ? UV_ENOMEM : UV_ENOTSUP;
    if (u && m->length > 0)
        *status = asio_inbuf_append(&u->stream.in, &rt->blocks, m->bytes, m->length);
    if (*status == 0)
        *status = m->family->open(&u->handle, m->fd);
    if (*status == 0)
        return u;
    if (u)
        asio_uvstream_discard(u);
    return NULL;
}

int asio_move_in(lua_State *L, struct asio_rt *rt, struct asio_moved *m)
{
    int status;
    struct asio_conn *conn = asio_conn_push(L, rt);
    struct asio_uvstream *u = move_make(rt, m, &status);
    if (!u) {
        lua_pop(L, 1);
        return status;
    }
    struct asio_stream *s = &u->stream;
    s->alias = m->alias;
    s->read_timeout = m->read_timeout;
    s->write_timeout = m->write_timeout;
    s->linger = m->linger;
    s->read_status = m->read_status;
    s->shut = m->shut;
    s->half_closed = m->half_closed;
    asio_stream_attach(s, conn);
    asio_mem.free(m);
    return 0;
}

bool asio_move_count(struct asio_conn *conn, struct asio_counter *counter)
{
    if (!conn->stream)
        return false;
    conn->stream->counter = counter;
    counter->count++;
    return true;
}

void asio_move_free(struct asio_moved *m)
{
    asio_sys_close(m->fd);
    asio_mem.free(m->alias);
    asio_mem.free(m);
}
