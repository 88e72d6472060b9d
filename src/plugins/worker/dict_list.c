/* SPDX-License-Identifier: MIT
 *
 * Lists in a dict; see dict_list.h. */
#include "plugins/worker/dict_list.h"

static int dict_list_at(const struct dict_at *at, struct dict_list **list)
{
    *list = NULL;
    if (at->entry && at->entry->value.type != DICT_LIST)
        return UV_EINVAL;
    if (at->entry)
        *list = at->entry->value.as.list;
    return 0;
}

static void dict_list_add(struct dict_list *list, struct dict_item *item, enum dict_end end)
{
    struct dict_item *neighbour = list->end[end];
    item->next[end] = NULL;
    item->next[!end] = neighbour;
    if (neighbour)
        neighbour->next[end] = item;
    else
        list->end[!end] = item;
    list->end[end] = item;
    list->count++;
    list->bytes += sizeof *item + asio_dict_kept_size(&item->value);
}

/* An empty list goes with its entry. */
static void dict_list_remove(struct dict_at *at, struct dict_list *list, enum dict_end end)
{
    struct dict_item *item = list->end[end];
    size_t size = sizeof *item + asio_dict_kept_size(&item->value);
    if (list->count == 1) {
        asio_dict_remove_entry(at, at->entry);
        return;
    }
    list->end[end] = item->next[!end];
    list->end[end]->next[end] = NULL;
    list->count--;
    list->bytes -= size;
    asio_dict_kept_free(&item->value);
    worker_free(item);
    asio_dict_refund(at, size);
    asio_dict_touch_changed(at);
}

static struct dict_item *dict_item_new(struct dict_value *v)
{
    struct dict_item *item = worker_alloc(sizeof *item);
    if (!item)
        return NULL;
    item->value.type = DICT_NONE;
    if (asio_dict_keep(&item->value, v))
        return item;
    worker_free(item);
    return NULL;
}

/* Charges `size` for an item, and makes an entry with an empty list if there is none; *list is NULL before. */
static int dict_list_make(struct dict_at *at, size_t size, struct dict_list **list)
{
    int status = asio_dict_add_entry(at, sizeof **list + size);
    if (status < 0)
        return status;
    *list = worker_alloc(sizeof **list);
    if (!*list) {
        asio_dict_remove_entry(at, at->entry);
        asio_dict_refund(at, sizeof **list + size);
        return UV_ENOMEM;
    }
    **list = (struct dict_list){ .bytes = sizeof **list };
    at->entry->value.type = DICT_LIST;
    at->entry->value.as.list = *list;
    return 0;
}

static int dict_change_push(struct dict_at *at, void *arg)
{
    struct asio_dict_push *push = arg;
    struct dict_list *list;
    size_t size = sizeof(struct dict_item) + asio_dict_value_size(push->value);
    int status = dict_list_at(at, &list);
    if (status < 0)
        return status;
    size_t before = list ? list->bytes : sizeof *list;
    if (!asio_dict_fits(at->d, sizeof *at->entry + at->key->length + before + size))
        return UV_ENOMEM;
    if (list)
        asio_dict_touch(at); /* so that it is the last one to be evicted */
    status = list ? asio_dict_charge(at, size, 0) : dict_list_make(at, size, &list);
    if (status < 0)
        return status;
    struct dict_item *item = dict_item_new(push->value);
    if (!item) {
        if (list->count == 0)
            asio_dict_remove_entry(at, at->entry);
        asio_dict_refund(at, size);
        return UV_ENOMEM;
    }
    item->version = at->s->versions + 1;
    dict_list_add(list, item, push->end);
    asio_dict_touch_changed(at);
    push->length = list->count;
    return 0;
}

int asio_dict_push(struct dict *d, struct dict_key *key, struct asio_dict_push *push)
{
    return asio_dict_change(d, key, dict_change_push, push);
}

int asio_dict_length(struct dict *d, struct dict_key *key, size_t *length)
{
    struct dict_at at;
    struct dict_list *list;
    asio_dict_enter(&at, d, key);
    int status = dict_list_at(&at, &list);
    *length = list ? list->count : 0;
    asio_dict_leave(&at);
    return status;
}

int asio_dict_peek(struct dict *d, struct dict_key *key, enum dict_end end, struct dict_read *r)
{
    struct dict_at at;
    struct dict_list *list;
    r->type = DICT_NONE;
    r->blob = NULL;
    r->version = 0;
    asio_dict_enter(&at, d, key);
    int status = dict_list_at(&at, &list);
    if (list) {
        asio_dict_kept_read(&list->end[end]->value, r);
        if (r->type == DICT_BOOLEAN || r->type == DICT_NUMBER)
            dict_list_remove(&at, list, end);
        else
            r->version = list->end[end]->version;
    }
    asio_dict_leave(&at);
    return status;
}

bool asio_dict_pop(struct dict *d, struct dict_key *key, enum dict_end end, uint64_t version)
{
    struct dict_at at;
    struct dict_list *list;
    asio_dict_enter(&at, d, key);
    dict_list_at(&at, &list);
    bool is_it = list && list->end[end]->version == version;
    if (is_it)
        dict_list_remove(&at, list, end);
    asio_dict_leave(&at);
    return is_it;
}
