/* SPDX-License-Identifier: MIT
 * What the files of the program share. */
#ifndef CLI_H
#define CLI_H

#include <stddef.h>

#include <lua.h>

/* The Lua parts, as text: cmake/program.cmake. */
struct cli_chunk {
    const char *name;
    const unsigned char *text;
    size_t length;
};
extern const struct cli_chunk cli_main_lua, cli_script_lua, cli_prompt_lua;

/* Adds a table `editor` to the table on the stack; without a library for editing lines it adds none. */
void cli_editor_open(lua_State *L);

/* Gives the terminal back as it was found. Safe at any time, also in a handler of signals. */
void cli_editor_close(void);

/* Adds `catch_interrupts`, `busy`, `interrupted` to the table on the stack. */
void cli_interrupt_open(lua_State *L);

#endif
