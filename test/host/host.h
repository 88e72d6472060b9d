/* SPDX-License-Identifier: MIT
 *
 * The test host: a C program that embeds LuaJIT and the core, for what a script cannot see or do:
 * memory that runs out anywhere, several Lua states, signals under every disposition.
 *
 *   main.c      picks a mode, counts, prints          memory.c   allocators that can refuse
 *   state.c     a Lua state with the core in it       system.c   what is asked of the system
 *   alloc.c     mode alloc: every allocation fails in turn (scenarios.lua)
 *   states.c    mode states: several states, closed while everything waits (states.lua)
 *   threads.c   mode threads: two states on two threads at once (states.lua)
 *   signals.c   mode signals: SIGPIPE and SIGINT (signals.lua)
 *   find.c      mode find: looking for delimiters
 *   layers.c    mode layers: streams over streams (layers.lua)
 *   plugins.c   and other things that plugins do, for the same cases
 */
#ifndef HOST_H
#define HOST_H

#include <stdbool.h>
#include <stddef.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

int luaopen_asio(lua_State *L);

/* ---- main.c ------------------------------------------------------------------------------- */

extern const char *host_only;       /* the case asked for on the command line, or NULL: all */
extern long host_number;            /* mode alloc: the one allocation to refuse, or 0: each in turn */
extern bool host_long;              /* ASIO_LONG=1 */
extern int host_share, host_shares; /* mode alloc: ASIO_SHARE=K/N, every Nth scenario from the Kth on */

/* What is going on, for the message of a crash or a hang. */
__attribute__((format(printf, 1, 2))) void host_doing(const char *fmt, ...);

/* Counts one check; prints the message, after what host_doing was told, when it failed. */
__attribute__((format(printf, 2, 3))) bool host_check(bool ok, const char *fmt, ...);

/* After so many seconds the run that is under way gets a SIGINT, which the core turns into an
 * error out of asio.run; as long after that the process dies with a message. 0: no limit. Limits
 * are multiplied where a sanitizer or valgrind slows everything down. */
void host_limit(unsigned seconds);
bool host_late(void); /* the limit was exceeded */

/* Standard error is caught while cases run. Printed, at most its last `max` bytes. */
void host_catch_stderr(void);
void host_print_stderr(size_t max);
bool host_stderr_has(const char *text);
void host_clear_stderr(void);

/* Runs fn(arg) in a process of its own; true if that ended by exit(0). */
bool host_fork(int (*fn)(void *arg), void *arg);

/* ---- memory.c ----------------------------------------------------------------------------- */

/* To be called before libuv and the core are first used. */
void memory_install(void);
bool memory_of_openssl(void); /* it has to be there, and not yet used; its blocks are refused too */
void *memory_lua(void *ud, void *p, size_t old_size, size_t size); /* a lua_Alloc */

/* Refuses the first-th allocation after memory_arm, and count - 1 behind it. */
void memory_plan(long first, long count);
void memory_arm(void);
void memory_disarm(void);
long memory_refused(void); /* how many since memory_plan */

/* Every block was given back; waits a little for the resolver's threads. Prints what is left. */
bool memory_settled(void);

/* ---- system.c ----------------------------------------------------------------------------- */

int system_fds(void);     /* open descriptors of this process */
int system_uv_runs(void); /* calls of uv_run on this thread's stack: 0 unless an error unwound one */

/* Look-ups of "slow.test" wait until they are let go. */
void system_hold_lookups(bool hold);
int system_lookups_held(void);

/* The next send of the core takes nothing and runs fn(arg) instead: whatever can happen between
 * one system call and the next. */
void system_at_next_send(void (*fn)(void *arg), void *arg);

int system_connect(int port); /* a blocking socket, connected to 127.0.0.1 */

/* As if this system had no Unix sockets, but named pipes as Windows has: libuv has to do it all. */
void system_named_pipes(bool named);

/* Opens a listener whose backlog is full, so that connecting to it hangs; its port is for scripts,
 * in the environment: HOST_FULL_PORT. */
void system_full_listener(void);

/* ---- names.c ------------------------------------------------------------------------------ */

/* Starts a name server; its address is for scripts, in the environment: HOST_NAME_SERVER. */
void names_serve(void);

/* ---- state.c ------------------------------------------------------------------------------ */

/* A state with the libraries, `require 'asio'` ready to be called, a global table `host`, and the
 * results of a Lua file of this directory in the global `script`. Ends the process on failure. */
lua_State *state_open(const char *file);

/* Calls script[name](...) with the nargs values at the top. False: an error was raised, see
 * state_error; else nresults results are on the stack. */
bool state_call(lua_State *L, const char *name, int nargs, int nresults);
const char *state_error(void); /* of this thread's last call that failed */

/* The strings in the table that script.names() returns; how many. */
int state_names(const char *file, char names[][64], int max);

/* Closes the state, then checks that no block, descriptor or uv_run is left over. */
bool state_close(lua_State *L, int fds_before);

/* ---- modes -------------------------------------------------------------------------------- */

void mode_alloc(void);
void mode_states(void);
void mode_threads(void);
void mode_signals(void);
void mode_find(void);
void mode_layers(void);

/* ---- layers.c ----------------------------------------------------------------------------- */

int layers_scramble(lua_State *L); /* host.scramble */
int plugins_open(lua_State *L);    /* host.plugin */

#endif
