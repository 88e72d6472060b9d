/* SPDX-License-Identifier: MIT
 *
 * Values of a dict: on their way in, kept, on their way out. */
#ifndef ASIO_WORKER_DICT_VALUE_H
#define ASIO_WORKER_DICT_VALUE_H

#include "plugins/worker/dict_entry.h"

enum {
    DICT_SMALL = 512
}; /* up to so many bytes are copied under the lock; longer values are shared with readers */

/* On its way in. Longer ones than DICT_SMALL bring a blob with their bytes, which the dict takes when it succeeds (blob
 * is NULL then). */
struct dict_value {
    enum dict_type type;
    double number;
    const char *bytes;
    size_t length;
    struct dict_blob *blob;
};

/* On its way out: either a copy in `small`, or a reference to a blob, for asio_dict_release. */
struct dict_read {
    enum dict_type type; /* DICT_NONE: absent or expired; DICT_LIST: no value is read */
    double number;
    size_t length;
    struct dict_blob *blob;
    uint64_t version; /* of the entry, or of the item of a list; 0: absent */
    char small[DICT_SMALL];
};

/* NULL: out of memory. The bytes are copied if there are any. */
struct dict_blob *asio_dict_blob_new(const void *bytes, size_t length);
void asio_dict_blob_drop(struct dict_blob *blob);

/* Bytes that belong to a value, beside its struct. */
size_t asio_dict_value_size(const struct dict_value *v);
size_t asio_dict_kept_size(const struct dict_kept *kept);

/* Replaces what is kept, also by a value that is no list. False: out of memory, nothing has changed. */
bool asio_dict_keep(struct dict_kept *kept, struct dict_value *v);
void asio_dict_kept_free(struct dict_kept *kept);

void asio_dict_kept_read(const struct dict_kept *kept, struct dict_read *r);

#endif
