/* SPDX-License-Identifier: MIT
 *
 * What a static program for musl lacks when it is made with the compiler and the libraries of a glibc system: the
 * function by which gcc's unwinder finds the tables of the program, and termcap for libedit. */
#include <link.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "termcap.h"

/* ---- unwinding: glibc's <dlfcn.h> ---------------------------------------------------------- */

struct object {
    unsigned long long flags;
    char *start, *end;
    struct link_map *map;
    void *eh_frame;
    unsigned long long reserved[7];
};

int _dl_find_object(void *address, struct object *result);

static int support_note(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct object *self = arg;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        char *at = (char *)info->dlpi_addr + p->p_vaddr;
        if (p->p_type == PT_GNU_EH_FRAME)
            self->eh_frame = at;
        if (p->p_type != PT_LOAD)
            continue;
        if (!self->start)
            self->start = at;
        self->end = at + p->p_memsz;
    }
    (void)size;
    return 1; /* the program itself comes first, and there is nothing else */
}

int _dl_find_object(void *address, struct object *result)
{
    struct object self = { 0 };
    dl_iterate_phdr(support_note, &self);
    if (!self.eh_frame || (char *)address < self.start || (char *)address >= self.end)
        return -1;
    *result = self;
    return 0;
}

/* ---- termcap: what every terminal of today understands, and no file of terminals is needed ---- */

static const struct {
    char name[3];
    const char *value;
} support_strings[] = {
    { "bl", "\a" },     /* bell */
    { "cd", "\033[J" }, /* clears to the end of the screen */
    { "ce", "\033[K" }, /* ... of the line */
    { "cl", "\033[H\033[2J" },
    { "cr", "\r" },
    { "DC", "\033[%dP" }, /* deletes so many characters */
    { "dc", "\033[P" },
    { "ho", "\033[H" },
    { "IC", "\033[%d@" }, /* inserts */
    { "le", "\b" },       /* to the left */
    { "LE", "\033[%dD" },
    { "nd", "\033[C" }, /* to the right */
    { "RI", "\033[%dC" },
    { "up", "\033[A" },
    { "UP", "\033[%dA" },
    { "me", "\033[m" },
    { "kd", "\033[B" }, /* keys: down, up, left, right, home, end, delete */
    { "ku", "\033[A" },
    { "kl", "\033[D" },
    { "kr", "\033[C" },
    { "kh", "\033[H" },
    { "@7", "\033[F" },
    { "kD", "\033[3~" },
};

int tgetent(char *buffer, const char *terminal)
{
    (void)buffer;
    return terminal && strcmp(terminal, "dumb") != 0;
}

int tgetflag(const char *name)
{
    return strcmp(name, "am") == 0 || strcmp(name, "xn") == 0 || strcmp(name, "km") == 0;
}

int tgetnum(const char *name)
{
    return strcmp(name, "co") == 0 ? 80 : strcmp(name, "li") == 0 ? 24 : -1;
}

char *tgetstr(const char *name, char **area)
{
    for (size_t i = 0; i < sizeof support_strings / sizeof *support_strings; i++) {
        if (strcmp(support_strings[i].name, name) != 0)
            continue;
        char *copy = *area;
        size_t size = strlen(support_strings[i].value) + 1;
        memcpy(copy, support_strings[i].value, size);
        *area += size;
        return copy;
    }
    return NULL;
}

/* All parameters here are counts. */
char *tgoto(const char *capability, int column, int row)
{
    static char result[32];
    const char *number = strstr(capability, "%d");
    (void)column;
    snprintf(result, sizeof result, "%.*s%d%s", number ? (int)(number - capability) : 0, capability, row,
        number ? number + 2 : "");
    return result;
}

int tputs(const char *text, int lines, int (*put)(int))
{
    (void)lines;
    while (*text)
        put((unsigned char)*text++);
    return 0;
}
