/* SPDX-License-Identifier: MIT
 *
 * The entries of a stripe of a dict that expire; see dict_expiry.h. */
#include "plugins/worker/dict_expiry.h"

#include "plugins/worker/worker.h"

enum { LEAST_SLOTS = 4 };

uint32_t asio_dict_expiry_wants(const struct dict_expiry *x, bool adding)
{
    if (adding)
        return x->count < x->size ? 0 : x->size ? x->size * 2 : LEAST_SLOTS;
    return x->size > LEAST_SLOTS && x->count < x->size / 4 ? x->size / 2 : 0;
}

bool asio_dict_expiry_resize(struct dict_expiry *x, uint32_t slots)
{
    if (slots == 0) {
        worker_free(x->slots);
        *x = (struct dict_expiry){ NULL, 0, 0 };
        return true;
    }
    void *p = asio_worker_core->mem->allocator->realloc(x->slots, slots * sizeof *x->slots);
    if (!p)
        return false;
    x->slots = p;
    x->size = slots;
    return true;
}

static void expiry_place(struct dict_expiry *x, uint32_t i, struct dict_expiry_slot slot)
{
    x->slots[i] = slot;
    slot.entry->expiry = i + 1;
}

static void expiry_up(struct dict_expiry *x, uint32_t i, struct dict_expiry_slot slot)
{
    for (; i > 0 && x->slots[(i - 1) / 2].at > slot.at; i = (i - 1) / 2)
        expiry_place(x, i, x->slots[(i - 1) / 2]);
    expiry_place(x, i, slot);
}

static void expiry_down(struct dict_expiry *x, uint32_t i, struct dict_expiry_slot slot)
{
    for (uint32_t child; (child = 2 * i + 1) < x->count; i = child) {
        if (child + 1 < x->count && x->slots[child + 1].at < x->slots[child].at)
            child++;
        if (x->slots[child].at >= slot.at)
            break;
        expiry_place(x, i, x->slots[child]);
    }
    expiry_place(x, i, slot);
}

void asio_dict_expiry_set(struct dict_expiry *x, struct dict_entry *e)
{
    struct dict_expiry_slot slot = { e->expires, e };
    if (!e->expiry)
        expiry_up(x, x->count++, slot);
    else if (e->expires < x->slots[e->expiry - 1].at)
        expiry_up(x, e->expiry - 1, slot);
}

void asio_dict_expiry_remove(struct dict_expiry *x, struct dict_entry *e)
{
    if (!e->expiry)
        return;
    uint32_t i = e->expiry - 1;
    struct dict_expiry_slot last = x->slots[--x->count];
    e->expiry = 0;
    if (i == x->count)
        return;
    if (i > 0 && x->slots[(i - 1) / 2].at > last.at)
        expiry_up(x, i, last);
    else
        expiry_down(x, i, last);
}

struct dict_entry *asio_dict_expiry_first(struct dict_expiry *x, uint64_t now)
{
    while (x->count && x->slots[0].at <= now) {
        struct dict_entry *e = x->slots[0].entry;
        if (!e->expires)
            asio_dict_expiry_remove(x, e);
        else if (e->expires <= now)
            return e;
        else
            expiry_down(x, 0, (struct dict_expiry_slot){ e->expires, e });
    }
    return NULL;
}
