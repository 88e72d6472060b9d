/* SPDX-License-Identifier: MIT
 *
 * What every file of the core shares: the libraries, the memory seam, and the map of the house.
 * Read the files in this order; each knows only those above it (and module.c knows them all):
 *
 *   asio.h        this page                       mem.c       where memory comes from
 *   error.h/c     status -> nil, message, code    timer.h/c   a heap of deadlines
 *   buffer.h/c    bytes that came, bytes to go    sys.h, sys_*.c  what one system alone has
 *   runtime.h/c   one per Lua state: the loop, protected calls, flush list, shutdown
 *   api.h/c       how files offer functions to Lua
 *   address.h/c   internet addresses
 *   wait.h/c      the wait record and what a wait returns
 *   coroutine.h/c a pool of coroutines, and the table that anchors them
 *   sched.h/c     light threads: the only lua_yield and lua_resume, park, wake, the turn
 *   thread.c      light threads as Lua sees them: spawn, join, sleep, reports
 *   run.c         asio.run, run_once, stop
 *   stream.h, stream.c, stream_read.c, stream_write.c   any byte stream over a transport
 *   conn.h/c      the methods of a connection
 *   tcp.h/c       the TCP transport: connect, socketpair
 *   splice.h/c    pipes of the system            relay.c   asio.relay
 *   listener.c    asio.server
 *   core_api.h/c  what the shared objects beside asio.so may call
 *   names.h/c     asio.resolve                    resolver.c  looking up by getaddrinfo
 *   datagram.h/c  a queue of datagrams
 *   udp.h, udp.c, udp_recv.c, udp_send.c, udp_options.c   datagram sockets
 *   embedded.h    the Lua parts (lua/asio/), as text in the library
 *   module.c      require 'asio'
 *
 * Of shared objects of their own, each with one header as its map:
 *   ares/         asio/ares.so: looking up with c-ares (ares/ares.h)
 */
#ifndef ASIO_H
#define ASIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lua.h>
#include <lauxlib.h>
#include <uv.h>

/* Where the core's own memory comes from. Tests replace it before the first use to make every
 * allocation fail in turn; nobody else touches it. Must be safe to call from any thread. */
struct asio_allocator {
    void *(*malloc)(size_t size);
    void *(*realloc)(void *p, size_t size);
    void (*free)(void *p);
};
extern struct asio_allocator asio_mem;

#define ASIO_CONTAINER(ptr, type, field) ((type *)(void *)((char *)(ptr)-offsetof(type, field)))

#endif
