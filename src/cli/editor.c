/* SPDX-License-Identifier: MIT
 *
 * A line typed at a terminal, by libedit, which is fed when there is something to read: nothing here waits. The
 * exception are the bytes behind an escape, which belong to one key: for them it waits 50 ms at most.
 *
 * There is one terminal, and so one editor in the process: made when the prompt begins, freed by cli_editor_close. */
#include "cli/cli.h"

#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>
#include <wchar.h>

#include <lauxlib.h>

enum { KEY_MS = 50, HISTORY_MAX = 1000, CONTROL_D = 4 };

static struct {
    EditLine *line;
    History *history;
    char prompt[80];
    struct termios found; /* the terminal's settings before us */
    bool editing;
    bool gone; /* the terminal */
} editor;

static char *editor_prompt(EditLine *line)
{
    (void)line;
    return editor.prompt;
}

static bool editor_can_read(int ms)
{
    struct pollfd set = { STDIN_FILENO, POLLIN, 0 };
    return poll(&set, 1, ms) > 0;
}

/* A character of libedit: 1; 0: there is none. */
static int editor_get(EditLine *line, wchar_t *c)
{
    mbstate_t state = { 0 };
    (void)line;
    for (;;) {
        char byte;
        if (!editor_can_read(KEY_MS))
            return 0;
        ssize_t n = read(STDIN_FILENO, &byte, 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            editor.gone = true;
            return 0;
        }
        size_t length = mbrtowc(c, &byte, 1, &state);
        if (length == (size_t)-2)
            continue;
        if (length == (size_t)-1)
            *c = L'?';
        else if (length == 0)
            *c = 0;
        return 1;
    }
}

/* editor.start(prompt): shows it, begins a line. */
static int l_editor_start(lua_State *L)
{
    snprintf(editor.prompt, sizeof editor.prompt, "%s", luaL_checkstring(L, 1));
    editor.editing = true;
    el_set(editor.line, EL_UNBUFFERED, 1);
    return 0;
}

/* editor.stop(): the line is given up, the terminal is as the script expects it. */
static int l_editor_stop(lua_State *L)
{
    (void)L;
    if (editor.editing)
        el_set(editor.line, EL_UNBUFFERED, 0);
    editor.editing = false;
    return 0;
}

/* editor.feed(): takes what has been typed. -> the line if it is complete; false: the end; nil: not yet. Second, how
 * many bytes the line has. */
static int l_editor_feed(lua_State *L)
{
    int n = 0;
    do {
        const char *text = el_gets(editor.line, &n);
        if (editor.gone || (text && n == 1 && text[0] == CONTROL_D)) {
            lua_pushboolean(L, 0);
            return 1;
        }
        if (text && n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r')) {
            lua_pushlstring(L, text, (size_t)n - 1);
            return 1;
        }
    } while (editor_can_read(0));
    lua_pushnil(L);
    lua_pushinteger(L, n > 0 ? n : 0);
    return 2;
}

/* editor.gone() -> whether the terminal is. */
static int l_editor_gone(lua_State *L)
{
    struct pollfd set = { STDIN_FILENO, POLLIN, 0 };
    if (poll(&set, 1, 0) > 0 && (set.revents & (POLLHUP | POLLERR | POLLNVAL)))
        editor.gone = true;
    lua_pushboolean(L, editor.gone);
    return 1;
}

/* editor.resize(): the window has another size. editor.resume(): the program was stopped by Ctrl-Z. */
static int l_editor_resize(lua_State *L)
{
    (void)L;
    el_resize(editor.line);
    return 0;
}

static int l_editor_resume(lua_State *L)
{
    (void)L;
    if (editor.editing) {
        el_set(editor.line, EL_PREP_TERM, 1);
        el_set(editor.line, EL_REFRESH);
    }
    return 0;
}

/* editor.remember(line) */
static int l_editor_remember(lua_State *L)
{
    HistEvent event;
    history(editor.history, &event, H_ENTER, luaL_checkstring(L, 1));
    return 0;
}

/* editor.load(path), editor.save(path): the history. A file that cannot be read or written is none. */
static int l_editor_load(lua_State *L)
{
    HistEvent event;
    history(editor.history, &event, H_LOAD, luaL_checkstring(L, 1));
    return 0;
}

static int l_editor_save(lua_State *L)
{
    HistEvent event;
    history(editor.history, &event, H_SAVE, luaL_checkstring(L, 1));
    return 0;
}

static void editor_set_up(void)
{
    HistEvent event;
    history(editor.history, &event, H_SETSIZE, HISTORY_MAX);
    history(editor.history, &event, H_SETUNIQUE, 1);
    el_set(editor.line, EL_SIGNAL, 0);
    el_set(editor.line, EL_HIST, history, editor.history);
    el_set(editor.line, EL_PROMPT, editor_prompt);
    el_set(editor.line, EL_EDITOR, "emacs");
    el_set(editor.line, EL_GETCFN, editor_get);
    el_set(editor.line, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_set(editor.line, EL_BIND, "\\e[3~", "ed-delete-next-char", NULL);
    el_set(editor.line, EL_BIND, "\\e[1~", "ed-move-to-beg", NULL);
    el_set(editor.line, EL_BIND, "\\e[4~", "ed-move-to-end", NULL);
    el_source(editor.line, NULL); /* ~/.editrc */
}

/* editor.open() -> whether it can: standard input and output are a terminal. */
static int l_editor_open(lua_State *L)
{
    bool able = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && tcgetattr(STDIN_FILENO, &editor.found) == 0;
    if (able) {
        setlocale(LC_CTYPE, "");
        editor.line = el_init("asio", stdin, stdout, stderr);
        editor.history = history_init();
        able = editor.line && editor.history;
    }
    if (able)
        editor_set_up();
    lua_pushboolean(L, able);
    return 1;
}

static const luaL_Reg editor_functions[] = { { "open", l_editor_open }, { "start", l_editor_start },
    { "stop", l_editor_stop }, { "feed", l_editor_feed }, { "gone", l_editor_gone },
    { "resize", l_editor_resize }, { "resume", l_editor_resume }, { "remember", l_editor_remember },
    { "load", l_editor_load }, { "save", l_editor_save }, { NULL, NULL } };

void cli_editor_open(lua_State *L)
{
    lua_newtable(L);
    luaL_register(L, NULL, editor_functions);
    lua_setfield(L, -2, "editor");
}

void cli_editor_close(void)
{
    if (editor.line)
        tcsetattr(STDIN_FILENO, TCSANOW, &editor.found);
}
