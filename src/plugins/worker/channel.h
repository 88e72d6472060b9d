/* SPDX-License-Identifier: MIT
 *
 * Channels between Lua states: what their files share. Messages are in one queue under the channel's lock. Each state
 * that has a handle has a port: its light threads that wait for a message, or with one for room. A port is told (a post
 * in its state's mailbox) when it can go on, once for any number of messages; it then serves its light threads on its
 * own thread.
 *
 * Lifetime of a port: made with the state's handle; the handle's finalizer takes it out of the channel. A light thread
 * that runs while the port serves it may have dropped the handle: the port is freed when that is over. */
#ifndef ASIO_WORKER_CHANNEL_H
#define ASIO_WORKER_CHANNEL_H

#include "plugins/worker/worker.h"

enum { WAKES = 4 };

struct shared_channel {
    struct shared shared; /* first */
    uv_mutex_t lock;      /* guards all below, and the fields of ports that say so */
    struct message *first, *last;
    size_t count, capacity;
    size_t
        hungry; /* light threads in all states that wait for a message: for each of them there is room for one */
    struct port *ports, *ports_last;
    unsigned idle_receivers, idle_senders; /* ports with such light threads that were not told */
    struct peer
        *wake[WAKES]; /* references: to be woken once the lock is free, on which they would wait at once */
    unsigned wakes;
    bool closed;
};

/* A light thread that waits for room. Owned by its wait. */
struct sending {
    struct sending *next;
    struct port *port;
    struct asio_wait *wait;
    struct message *message;
};

struct port {
    struct post post;
    struct shared_channel *channel;
    struct peer *peer;
    struct port *next, *prev;        /* under the channel's lock, like these: */
    size_t receiving, sending;       /* light threads in the lists below */
    bool told;                       /* it is to serve them */
    bool soon;                       /* and its loop waited for events when it was told: it will at once */
    struct asio_wait_list receivers; /* of the own thread, like these: */
    struct sending *senders, *senders_last;
    struct message
        *kept; /* a list: taken, but there was no memory to hand them over; the next ones to be received */
    unsigned kept_tries;     /* of the first of them */
    struct message *pushing; /* what the protected call is to push that is being made */
    struct asio_wait
        *giving; /* out of the list, while its message becomes a value: a finalizer may end it then */
    struct message *spare; /* of a send that raised before it could wait */
    bool serving;
    bool gone; /* the handle has; freed when serving ends */
};

/* ---- channel_queue.c: with the lock held ---------------------------------------------------- */

void asio_shared_channel_unlock(struct shared_channel *c); /* and wakes what has to be woken */
bool asio_shared_channel_has_room(const struct shared_channel *c);
void asio_shared_channel_balance(struct shared_channel *c);
void asio_shared_channel_put(struct shared_channel *c, struct message *m);
struct message *asio_shared_channel_take(struct shared_channel *c);
void asio_shared_channel_put_back(struct shared_channel *c, struct message *m);
void asio_shared_channel_count_own(
    struct shared_channel *c, const struct message *m, void (*change)(struct shared *));
void asio_port_tell(struct port *p);
void asio_port_keep(struct port *p, struct message *m, unsigned tries);
struct message *asio_port_take_kept(struct port *p, unsigned *tries);
void asio_port_set_receiving(struct port *p, size_t n);
void asio_port_set_sending(struct port *p, size_t n);
void asio_port_link(struct port *p);
void asio_port_unlink(struct port *p);
void asio_port_uncount(struct port *p);
void asio_port_count(struct port *p);

/* ---- channel_serve.c: on the port's thread --------------------------------------------------- */

void asio_sending_unlink(struct sending *s);
void asio_port_free(struct port *p);
void asio_port_on_told(struct post *post, struct peer *peer, bool open); /* of port->post */

#endif
