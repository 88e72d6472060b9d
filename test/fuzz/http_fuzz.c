/* SPDX-License-Identifier: MIT
 *
 * http_fuzz request|response|multipart|url [ROUNDS [SEED]]: feeds what reads messages (src/plugins/http/input.c,
 * check.c), and what reads forms and URLs (http/targets.lua), with the inputs in http/TARGET/, some of them mangled
 * with the words of http/TARGET.dict. A message comes whole, byte by byte, and in pieces, each look in a block of
 * exactly its size: all have to say the same. The sanitizers find what reads elsewhere. With -DLIBFUZZER, and clang's
 * -fsanitize=fuzzer, libFuzzer makes the inputs, and the target is the name of the program. */
#include "plugins/http/check.c"
#include "plugins/http/head.c"
#include "plugins/http/input.c"

#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

struct target {
    const char *name;
    size_t most;       /* bytes of an input */
    unsigned together; /* at most so many inputs one behind the other */
    void (*attempt)(const char *bytes, size_t n);
};

static lua_State *L;
static const struct target *target;

/* xorshift: the same on every machine, and in each attempt with an input the same pieces. */
enum { SEED = 88172645 };
static uint64_t making = SEED, cutting = SEED;

static unsigned number(uint64_t *state, unsigned below)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (unsigned)(*state >> 33) % below;
}

static void check(bool holds, const char *what)
{
    if (holds)
        return;
    printf("%s\n", what);
    fflush(stdout);
    abort();
}

#include "http/messages.c"

/* ---- what is written in Lua --------------------------------------------------------------- */

enum { LUA_TRACE = 1, LUA_TARGETS }; /* where these are on the stack */

static int l_trace(lua_State *T)
{
    luaL_traceback(T, T, lua_tostring(T, 1), 1);
    return 1;
}

/* number(below) -> a random number */
static int l_number(lua_State *T)
{
    lua_pushinteger(T, (lua_Integer)number(&cutting, (unsigned)luaL_checkinteger(T, 1)));
    return 1;
}

static void call(int arguments, int results)
{
    if (lua_pcall(L, arguments, results, LUA_TRACE) != 0)
        check(false, lua_tostring(L, -1));
}

static void open_targets(void)
{
    lua_settop(L, 0);
    lua_pushcfunction(L, l_trace);
    if (luaL_loadfile(L, ASIO_ROOT "test/fuzz/http/targets.lua") != 0)
        check(false, lua_tostring(L, -1));
    lua_pushliteral(L, ASIO_ROOT);
    lua_pushcfunction(L, l_number);
    call(2, 1);
}

static void try_in_lua(const char *bytes, size_t n)
{
    if (lua_gettop(L) < LUA_TARGETS)
        open_targets();
    lua_getfield(L, LUA_TARGETS, target->name);
    lua_pushlstring(L, bytes, n);
    call(1, 0);
    check(lua_gc(L, LUA_GCCOUNT, 0) < 16384, "Lua's memory grows");
}

/* ---- attempts ----------------------------------------------------------------------------- */

static const struct target targets[] = { { "request", MOST, 3, try_request },
    { "response", MOST, 3, try_response }, { "multipart", 12000, 1, try_in_lua },
    { "url", MOST, 1, try_in_lua } };

static void begin(const char *name)
{
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
        if (strcmp(targets[i].name, name) == 0)
            target = &targets[i];
    check(target, "request, response, multipart or url expected");
    L = luaL_newstate();
    luaL_openlibs(L);
    asio_http_head_open(L, NULL);
    asio_http_input_open(L, NULL);
    lua_settop(L, 0);
}

static void attempt(const char *bytes, size_t n)
{
    cutting = SEED + n;
    target->attempt(bytes, n);
}

#ifdef LIBFUZZER

#include <luajit.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* libFuzzer counts these as it counts the branches in C. */
__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t steps[1 << 15];

/* A line of Lua behind another one. Their files would be slow to tell, and few pairs have the same numbers. */
static void on_line(lua_State *T, lua_Debug *at)
{
    static uint32_t before;
    uint32_t place = ((uint32_t)at->currentline * 2654435761u) >> 16;
    steps[(place ^ before) % sizeof steps]++;
    before = place >> 1;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *slash = strrchr((*argv)[0], '/');
    begin(slash ? slash + 1 : (*argv)[0]);
    luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF); /* compiled code calls no hook */
    lua_sethook(L, on_line, LUA_MASKLINE, 0);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (n <= target->most)
        attempt((const char *)bytes, n);
    return 0;
}

#else

#include <dirent.h>

/* ---- inputs and words --------------------------------------------------------------------- */

enum { LIST = 256 };

struct text {
    char *bytes;
    size_t n;
};

static struct list {
    struct text texts[LIST];
    unsigned count;
} inputs, words;

static void put(struct list *list, const char *bytes, size_t n)
{
    check(list->count < LIST, "too many inputs or words");
    struct text *text = &list->texts[list->count++];
    text->bytes = malloc(n ? n : 1);
    text->n = n;
    memcpy(text->bytes, bytes, n);
}

static void read_input(const char *directory, const char *name)
{
    static char bytes[1 << 16];
    snprintf(bytes, sizeof bytes, "%s/%s", directory, name);
    FILE *file = fopen(bytes, "rb");
    check(file, bytes);
    put(&inputs, bytes, fread(bytes, 1, sizeof bytes, file));
    fclose(file);
}

static int compare(const void *a, const void *b)
{
    const struct text *one = a, *other = b;
    int order = memcmp(one->bytes, other->bytes, one->n < other->n ? one->n : other->n);
    return order != 0 ? order : (one->n > other->n) - (one->n < other->n);
}

/* Directories are in no order. */
static void read_inputs(const char *path)
{
    DIR *directory = opendir(path);
    check(directory, path);
    for (struct dirent *entry = readdir(directory); entry; entry = readdir(directory))
        if (entry->d_name[0] != '.')
            read_input(path, entry->d_name);
    closedir(directory);
    check(inputs.count > 0, "no inputs");
    qsort(inputs.texts, inputs.count, sizeof *inputs.texts, compare);
}

/* "a word": with the escapes \\, \" and \xNN */
static void read_word(const char *line)
{
    char bytes[256];
    size_t n = 0;
    for (const char *c = line + 1; *c && *c != '"' && n < sizeof bytes; c++) {
        char digits[3] = { 0 };
        if (*c == '\\' && c[1] == 'x') {
            memcpy(digits, c + 2, 2);
            bytes[n++] = (char)strtol(digits, NULL, 16);
            c += 3;
        } else {
            c += *c == '\\';
            bytes[n++] = *c;
        }
    }
    put(&words, bytes, n);
}

static void read_words(const char *path)
{
    char line[1024];
    FILE *file = fopen(path, "r");
    check(file, path);
    while (fgets(line, sizeof line, file))
        if (line[0] == '"')
            read_word(line);
    fclose(file);
}

static void free_texts(struct list *list)
{
    for (unsigned i = 0; i < list->count; i++)
        free(list->texts[i].bytes);
}

/* ---- making ------------------------------------------------------------------------------- */

static const struct text *one_of(const struct list *list)
{
    return &list->texts[number(&making, list->count)];
}

static void insert(struct text *to, size_t at, const char *what, size_t length)
{
    if (to->n + length > target->most)
        return;
    memmove(to->bytes + at + length, to->bytes + at, to->n - at);
    memcpy(to->bytes + at, what, length);
    to->n += length;
}

static void make(struct text *to)
{
    to->n = 0;
    for (unsigned i = 1 + number(&making, target->together); i > 0; i--) {
        const struct text *input = one_of(&inputs);
        insert(to, to->n, input->bytes, input->n);
    }
}

static void mangle(struct text *to)
{
    for (unsigned i = number(&making, 5); i > 0 && to->n > 1; i--) {
        size_t at = number(&making, (unsigned)to->n), length = 1 + number(&making, 8);
        const struct text *word = one_of(&words);
        char byte = (char)number(&making, 256), copy[8];
        length = length < to->n - at ? length : to->n - at;
        switch (number(&making, 5)) {
        case 0:
            to->bytes[at] = byte;
            break;
        case 1:
            insert(to, at, &byte, 1);
            break;
        case 2:
            insert(to, at, word->bytes, word->n);
            break;
        case 3:
            memmove(to->bytes + at, to->bytes + at + length, to->n - at - length);
            to->n -= length;
            break;
        default:
            memcpy(copy, to->bytes + at, length);
            insert(to, number(&making, (unsigned)to->n), copy, length);
        }
    }
}

int main(int argc, char **argv)
{
    static char bytes[1 << 16];
    char path[4096];
    struct text input = { .bytes = bytes };
    long rounds = argc > 2 ? atol(argv[2]) : 20000;
    begin(argc > 1 ? argv[1] : "");
    making += argc > 3 ? (uint64_t)atol(argv[3]) : 0;
    snprintf(path, sizeof path, ASIO_ROOT "test/fuzz/http/%s", target->name);
    read_inputs(path);
    snprintf(path, sizeof path, ASIO_ROOT "test/fuzz/http/%s.dict", target->name);
    read_words(path);
    for (long round = 0; round < rounds; round++) {
        make(&input);
        mangle(&input);
        attempt(input.bytes, input.n);
    }
    lua_close(L);
    free_texts(&inputs);
    free_texts(&words);
    printf("%ld rounds\n", rounds);
    if (getenv("HTTP_FUZZ_COUNTS"))
        printf("%lu accepted, %lu refused\n", accepted, refused);
    return 0;
}

#endif
