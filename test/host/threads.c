/* SPDX-License-Identifier: MIT
 *
 * Mode threads: two Lua states on two threads at once. Each serves the other's clients; then both
 * are closed with everything waiting, or one of them in the middle of it. */
#include "host.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

enum { SECONDS = 20, CLIENTS = 5, MESSAGES = 50 };

enum ending {
    BOTH_FINISH,     /* and are closed with everything waiting */
    ONE_GOES,        /* in the middle of it */
    CLOSED_ELSEWHERE /* by the main thread */
};

struct side {
    pthread_t thread;
    pthread_barrier_t *met;
    struct side *other;
    enum ending ending;
    lua_State *L;
    int port;
    bool goes;           /* ONE_GOES: this one */
    atomic_bool arrived; /* its clients have come to an end */
};

static void call(struct side *s, const char *name, int nargs)
{
    host_check(state_call(s->L, name, nargs, 0), "%s: %s", name, state_error());
}

static int call_number(struct side *s, const char *name)
{
    int n = -1;
    if (host_check(state_call(s->L, name, 0, 1), "%s: %s", name, state_error())) {
        n = (int)lua_tointeger(s->L, -1);
        lua_pop(s->L, 1);
    }
    return n;
}

static void start_clients(struct side *s)
{
    lua_pushinteger(s->L, s->other->port);
    lua_pushinteger(s->L, CLIENTS);
    lua_pushinteger(s->L, MESSAGES);
    call(s, "clients", 3);
}

/* Until its own clients and those of the other side have come to an end. */
static void converse(struct side *s)
{
    start_clients(s);
    while (!host_late() && !(s->arrived && s->other->arrived)) {
        call(s, "step", 0);
        if (call_number(s, "over") == CLIENTS)
            s->arrived = true;
    }
    host_check(!host_late(), "hangs");
    if (s->ending != ONE_GOES)
        host_check(call_number(s, "finished") == CLIENTS, "clients failed");
}

static void leave_in_the_middle(struct side *s)
{
    start_clients(s);
    for (int i = 0; i < 20; i++)
        call(s, "step", 0);
    s->arrived = true;
}

static void *side_main(void *arg)
{
    struct side *s = arg;
    if (!s->L)
        s->L = state_open("states.lua");
    s->port = call_number(s, "serve");
    pthread_barrier_wait(s->met);
    if (s->goes)
        leave_in_the_middle(s);
    else
        converse(s);
    lua_pushinteger(s->L, 1);
    call(s, "start_all", 1);
    if (s->ending != CLOSED_ELSEWHERE)
        lua_close(s->L);
    return NULL;
}

static void round_of(enum ending ending, int number)
{
    pthread_barrier_t met;
    struct side sides[2] = { { .other = &sides[1] }, { .other = &sides[0] } };
    host_clear_stderr();
    host_doing("threads, ending %d, round %d", ending, number);
    host_limit(SECONDS);
    system_hold_lookups(true);
    int fds = system_fds();
    pthread_barrier_init(&met, NULL, 2);
    for (int i = 0; i < 2; i++) {
        sides[i].met = &met;
        sides[i].ending = ending;
        sides[i].goes = ending == ONE_GOES && i == number % 2;
        if (ending == CLOSED_ELSEWHERE)
            sides[i].L = state_open("states.lua");
        pthread_create(&sides[i].thread, NULL, side_main, &sides[i]);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(sides[i].thread, NULL);
    for (int i = 0; i < 2 && ending == CLOSED_ELSEWHERE; i++)
        lua_close(sides[(i + number) % 2].L);
    pthread_barrier_destroy(&met);
    system_hold_lookups(false);
    host_check(memory_settled(), "memory left over");
    host_check(system_fds() == fds, "descriptors: %d before, %d after", fds, system_fds());
    host_limit(0);
}

void mode_threads(void)
{
    int rounds = host_long ? 200 : 6;
    system_full_listener();
    lua_close(state_open("states.lua")); /* what libuv and libc make once and keep */
    for (int i = 0; i < rounds; i++)
        for (int ending = BOTH_FINISH; ending <= CLOSED_ELSEWHERE; ending++)
            round_of((enum ending)ending, i);
}
