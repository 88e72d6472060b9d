/* SPDX-License-Identifier: MIT
 *
 * A stream of bytes, whatever carries it: buffers, waiting readers and writers, coalesced
 * writes, back-pressure and the orderly close. Below it is a transport, a small table of
 * functions; above it conn.c, the methods that Lua sees.
 *
 * Lifetime:
 * - created by a transport (tcp.c), as the first member of the transport's own struct;
 * - a connection's userdata (struct asio_conn) refers to it until close, and it to the userdata;
 * - after close it lives on by itself until the output is out, then until libuv calls the transport's close
 *   callback, which calls asio_stream_free; nothing else frees it;
 * - nothing anchors it: when the userdata is collected it is closed;
 * - if the Lua state closes first: teardown tries one write without blocking and closes the handle.
 */
#ifndef ASIO_STREAM_H
#define ASIO_STREAM_H

#include "base/buffer.h"
#include "base/delimiter.h"
#include "core/sched.h"

struct asio_stream;

/* Statuses are 0 or negative libuv errors. */
struct asio_transport {
    struct asio_handle_ops handle; /* first: see runtime.h */
    const char *name;
    int (*read_start)(struct asio_stream *s); /* then calls asio_stream_received, _ended */
    void (*read_stop)(struct asio_stream *s);
    /* Sends what it can without waiting: bytes, UV_EAGAIN, or an error. */
    ssize_t (*try_write)(struct asio_stream *s, const uv_buf_t *bufs, unsigned count);
    /* Sends all, then calls asio_stream_sent. The bytes stay where they are until then. */
    int (*write)(struct asio_stream *s, const uv_buf_t *bufs, unsigned count, size_t bytes);
    int (*shutdown)(struct asio_stream *s);  /* half-close, once everything is sent */
    size_t (*unsent)(struct asio_stream *s); /* bytes the peer's system has not acknowledged */
    size_t (*unread)(struct asio_stream *s); /* bytes waiting in our system */
    void (*close)(struct asio_stream *s);    /* gives the handle back; frees later */
    int (*fd)(struct asio_stream *s, uv_os_fd_t *fd);
    int (*name_of)(struct asio_stream *s, struct sockaddr_storage *addr, bool peer);
    /* The rest only where it applies, else NULL. */
    /* Its name where that is no internet address; *size becomes what it takes. */
    int (*path_of)(struct asio_stream *s, char *path, size_t *size, bool peer);
    void (*abort_waits)(struct asio_stream *s, int status); /* of waits of the transport's own */
    /* The close that follows shows the peer a fault, and not an end: written bytes were given up. */
    void (*reset)(struct asio_stream *s);
    /* While our system does not take all of the queue: also if the process ends now, by os.exit or by a signal, the
     * peer is to see a fault. */
    void (*guard)(struct asio_stream *s, bool on);
    const char *(*kind)(const struct asio_stream *s); /* its name, where that is not always the same */
    bool passable; /* its descriptor is all there is: another process can have it */
    bool bare;     /* so that a tap may read from it beside the transport */
};

/* The consumer of all that a stream brings, which alone writes to it, in C: a relay, a layer. Lua's reads and writes
 * are EBUSY meanwhile. Set, owned and taken back by the consumer; the stream forgets it when it is closed.
 * Contract: `changed` may be called from anywhere, also from within a write to this stream, and runs no user code.
 * `received`, `ended` and `closed` may run user code: the tap may feed a stream above, which wakes its reader. What
 * calls them reads its own state again afterwards: the stream may have been untapped, closed and given back; its
 * memory is there until libuv's next callback. */
struct asio_tap {
    /* Bytes have come, and are borrowed. NULL, only when `bare`: they are still in the system. */
    void (*received)(struct asio_tap *t, const char *bytes, size_t n);
    void (*ended)(struct asio_tap *t);   /* read_status has been set */
    void (*changed)(struct asio_tap *t); /* look at write_status, out.length */
    void (*closed)(struct asio_tap *t);  /* the stream is being closed, by a script or with the Lua state */
    bool bare;
};

_Static_assert(offsetof(struct asio_transport, handle) == 0, "teardown finds the table at the beginning");

/* What a stream is called in place of the names that its transport knows: what a proxy has said of the client
 * that it stands for. Allocated by its maker (net/proxy_accept.c); owned and freed by the stream. */
struct asio_stream_alias {
    int (*name_of)(const struct asio_stream_alias *a, struct sockaddr_storage *addr, bool peer);
    /* NULL: its names are internet addresses. Otherwise as the transport's path_of. */
    int (*path_of)(const struct asio_stream_alias *a, char *path, size_t *size, bool peer);
};

struct asio_conn {              /* the userdata */
    const void *magic;          /* conn.c's: tells it from other userdata of the size */
    struct asio_stream *stream; /* NULL: closed */
};

struct asio_stream {
    const struct asio_transport *transport; /* first: libuv handle->data points to the stream */
    struct asio_rt *rt;
    struct asio_conn *conn; /* NULL: closed, or collected */
    struct asio_wait *reader;
    struct asio_wait_list writers; /* parked writes and flushes */
    struct asio_tap *tap;
    struct asio_inbuf in;
    struct asio_delimiter delim; /* what is looked for by the reader, or was by the last one */
    struct asio_outbuf out;
    uint64_t queued; /* bytes ever written into the queue; queued - out.length were sent */
    struct asio_flush_node flush;
    struct asio_stream_alias *alias; /* its names in place of the transport's; or NULL */
    struct asio_counter *counter;    /* counts it until the handle is gone, or NULL */
    struct asio_timer timer;         /* closing: when to look again, at last when to give up */
    union {
        struct {
            double read_timeout, write_timeout; /* seconds, negative: none */
        };
        struct {                /* closing: */
            size_t queued;      /* bytes at the last look for progress */
            uint32_t unsent;    /* the same of the transport; UINT32_MAX: that many or more, or not known */
            uint32_t discarded; /* bytes that came after the half-close */
        } last;
    };
    uint64_t give_up; /* closing: uv_hrtime() after which a peer that takes nothing is given up */
    float linger;     /* closing: seconds without progress after which the peer is given up */
    int read_status, write_status; /* sticky: UV_EOF or the first error */
    bool reading;                  /* the transport was asked to read */
    bool sending;                  /* a transport write is on its way */
    bool guarded;                  /* the transport's guard is on */
    bool shut;                     /* shutdown was asked for: nothing more can be written */
    bool half_closed;              /* and everything is sent, and the peer told */
    bool closing;                  /* orderly close in progress */
    bool broken;                   /* closing: it ends with a reset, once everything is sent */
    bool finished;                 /* closing: everything is sent and half-closed */
    bool counted;                  /* in rt->stats: it was a connection once */
    bool gone;                     /* the handle was given back */
    bool collected;                /* closed by the collector, and not by the script */
    uint8_t looks;                 /* the reader has a time-out of 0: so often its deadline was put off */
};

enum {
    ASIO_LARGE = 16 * 1024,      /* from here on a string is sent without being copied */
    ASIO_COALESCE = 16 * 1024,   /* a queue this long is sent at once, not when the thread parks */
    ASIO_HIGH_WATER = 64 * 1024, /* above it writers wait */
    ASIO_LOW_WATER = 16 * 1024,  /* until this little is left of it */
    ASIO_READ_AHEAD = 64 * 1024, /* above it reading stops unless a reader needs more */
};

/* The script neither reads nor writes any more: the close begins. */
void asio_stream_begin_close(struct asio_stream *s);

/* Something has changed: closing may go on, or be over. */
void asio_stream_continue_close(struct asio_stream *s);

/* Closing: n bytes have come, and were thrown away. */
void asio_stream_discard(struct asio_stream *s, size_t n);

/* Gives the handle back at once. Output that is left over is lost, and the end is a reset. */
void asio_stream_finish(struct asio_stream *s);

/* The callback of s->timer. */
void asio_stream_on_close_timer(struct asio_timer *timer);

/* A second reader has to be refused. */
static inline bool asio_stream_is_read(const struct asio_stream *s)
{
    return s->reader || s->tap;
}

#endif
