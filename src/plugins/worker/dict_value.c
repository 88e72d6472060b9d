/* SPDX-License-Identifier: MIT
 *
 * Values of a dict; see dict_value.h. */
#include "plugins/worker/dict_value.h"

#include "plugins/worker/worker.h"

#include <string.h>

struct dict_blob *asio_dict_blob_new(const void *bytes, size_t length)
{
    struct dict_blob *blob = length > SIZE_MAX - sizeof *blob ? NULL : worker_alloc(sizeof *blob + length);
    if (!blob)
        return NULL;
    blob->length = length;
    blob->references = 1;
    if (bytes)
        memcpy(blob->bytes, bytes, length);
    return blob;
}

void asio_dict_blob_drop(struct dict_blob *blob)
{
    if (--blob->references == 0)
        worker_free(blob);
}

static inline bool dict_has_bytes(enum dict_type type)
{
    return type == DICT_STRING || type == DICT_MESSAGE;
}

size_t asio_dict_value_size(const struct dict_value *v)
{
    return dict_has_bytes(v->type) ? sizeof(struct dict_blob) + v->length : 0;
}

size_t asio_dict_kept_size(const struct dict_kept *kept)
{
    if (dict_has_bytes(kept->type))
        return sizeof(struct dict_blob) + (size_t)kept->as.blob->length;
    return kept->type == DICT_LIST ? kept->as.list->bytes : 0;
}

static void dict_list_free(struct dict_list *list)
{
    while (list->end[0]) {
        struct dict_item *item = list->end[0];
        list->end[0] = item->next[1];
        asio_dict_kept_free(&item->value);
        worker_free(item);
    }
    worker_free(list);
}

void asio_dict_kept_free(struct dict_kept *kept)
{
    if (dict_has_bytes(kept->type))
        asio_dict_blob_drop(kept->as.blob);
    else if (kept->type == DICT_LIST)
        dict_list_free(kept->as.list);
    kept->type = DICT_NONE;
}

/* Values of one length follow one another often: their bytes serve again. */
static bool dict_keep_again(struct dict_kept *kept, const struct dict_value *v)
{
    if (v->blob || !dict_has_bytes(kept->type) || kept->as.blob->length != v->length ||
        kept->as.blob->references > 1)
        return false;
    memcpy(kept->as.blob->bytes, v->bytes, v->length);
    kept->type = v->type;
    return true;
}

bool asio_dict_keep(struct dict_kept *kept, struct dict_value *v)
{
    struct dict_kept made = { .as.number = v->number, .type = v->type };
    if (dict_has_bytes(v->type)) {
        if (dict_keep_again(kept, v))
            return true;
        made.as.blob = v->blob ? v->blob : asio_dict_blob_new(v->bytes, v->length);
        if (!made.as.blob)
            return false;
        v->blob = NULL;
    }
    asio_dict_kept_free(kept);
    *kept = made;
    return true;
}

void asio_dict_kept_read(const struct dict_kept *kept, struct dict_read *r)
{
    r->type = kept->type;
    if (kept->type == DICT_BOOLEAN || kept->type == DICT_NUMBER)
        r->number = kept->as.number;
    if (!dict_has_bytes(kept->type))
        return;
    struct dict_blob *blob = kept->as.blob;
    r->length = (size_t)blob->length;
    if (kept->type == DICT_STRING && r->length <= DICT_SMALL) {
        memcpy(r->small, blob->bytes, r->length);
        return;
    }
    blob->references++;
    r->blob = blob;
}
