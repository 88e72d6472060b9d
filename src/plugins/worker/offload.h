/* SPDX-License-Identifier: MIT
 *
 * A pool of Lua states: what offload.c, offload_pool.c and offload_serve.c share. The state that has made the pool, its
 * owner, has jobs for it. A state of the pool takes the next one when it is idle, and its answer goes to the owner's
 * mailbox. What starts the states is in offload.lua.
 *
 * Lifetime of a job: made by the owner; referenced by the box of the light thread that waits for it, and until it is
 * answered (or taken out of the queue) by the queue, the state that runs it, or the owner's mailbox in turn; freed by
 * the last of them, on any thread. */
#ifndef ASIO_WORKER_OFFLOAD_H
#define ASIO_WORKER_OFFLOAD_H

#include "plugins/worker/worker.h"

enum job_stage {
    JOB_NEW,
    JOB_QUEUED,
    JOB_RUNNING,
    JOB_LOST, /* its state has ended: in the list of those, until the owner says why */
    JOB_OVER,
};

struct offload_job {
    struct post post;          /* the answer, to the owner */
    struct offload_pool *pool; /* a reference */
    struct message *message;   /* what it is to do; then the answer. Of the thread that has the job */
    struct offload_job *next;  /* under the pool's lock, like these: */
    enum job_stage stage;
    unsigned references;
    bool given_up;          /* the answer is not wanted */
    struct asio_wait *wait; /* of the owner's thread, like these: */
    int status;             /* why there is no answer; 0: there is */
};

struct offload_list {
    struct offload_job *first, *last;
};

struct offload_pool {
    struct shared shared; /* first */
    struct peer *owner;   /* a reference; constant */
    uv_mutex_t lock;      /* guards what follows */
    struct offload_list queue, lost;
    size_t queued, running;
    struct offload_port *idle; /* the one that became idle last is first: its caches are warm */
    bool closed;
    bool left; /* by the owner: its handle has gone */
};

/* What a state that is not the owner has with its handle. */
struct offload_port {
    struct post post; /* there is a job, or the pool is closed */
    struct offload_pool *pool;
    struct peer *peer;
    struct offload_port *next; /* in `idle`, under the pool's lock */
    struct asio_wait *wait;    /* of the own thread, like this: */
    struct offload_job *job;   /* runs */
};

/* NULL: out of memory. Takes the message if not. */
struct offload_job *asio_offload_job_new(struct offload_pool *pool, struct message *m);
void asio_offload_job_drop(struct offload_job *job);
/* The owner gets the job back; the caller's reference goes along. */
void asio_offload_job_send_back(struct offload_job *job);
/* The answer is not wanted: a job that has not begun will not. On the owner's thread. */
void asio_offload_job_give_up(struct offload_job *job);

/* False: the pool is closed. */
bool asio_offload_enqueue(struct offload_pool *pool, struct offload_job *job);
/* The first job of a list is taken out, and will not run; NULL: there is none. */
struct offload_job *asio_offload_refuse_one(struct offload_pool *pool, struct offload_list *list);
void asio_offload_close(struct offload_pool *pool);

/* With the lock held: the first job of a list, taken out; NULL: there is none. */
struct offload_job *asio_offload_list_first(struct offload_list *list);

/* It is idle no more. If it was told of a job and has not taken it, another state is told. */
void asio_offload_port_leave(struct offload_port *port);

void asio_offload_serve_bind(lua_State *L, struct asio_rt *rt, struct peer *peer); /* offload_serve.c */

#endif
