/* train/file/adapter_write.h - writes a safetensors file: an adapter (docs/adapter.md).
 *
 *     u64 n, little-endian | n bytes of JSON, padded to 8 bytes | tensors in the order given
 *
 * The file appears under its name whole or not at all: it is written beside it under another name,
 * reaches the disk, and is renamed then. An error behind that leaves it: it is whole, but its name
 * may not outlive a power cut.
 *
 * Threads    any, but one a path at a time.
 * Ownership  borrows everything; allocates a few MiB, and the largest tensor that is fetched.
 * Errors     -EEXIST (unless it may replace), -EINVAL (a type that can't be written, two tensors of
 *            one name), -ENOMEM, the errno of the I/O, or what fetch returned. why says which file.
 */
#ifndef TRAIN_FILE_ADAPTER_WRITE_H
#define TRAIN_FILE_ADAPTER_WRITE_H

#include "engine/file/safetensors.h"

#include <stdbool.h>

#define ADAPTER_WRITE_NAME_MAX 63u

struct adapter_write_pair {
    const char *key, *value;
};

struct adapter_write_tensor {
    char name[ADAPTER_WRITE_NAME_MAX + 1];
    enum safetensors_type type; /* F32, F16 or BF16: what data is rounded to, to nearest even */
    uint32_t n_dims;
    uint64_t dims[SAFETENSORS_DIMS_MAX];
    const float *data; /* in order of rows; NULL: to be fetched */
};

struct adapter_write {
    const struct adapter_write_pair *pairs;
    size_t n_pairs;
    const struct adapter_write_tensor *tensors;
    size_t n_tensors;
    /* The values of tensors[i], once, in the order of tensors; for those whose data is NULL. */
    int (*fetch)(void *arg, size_t i, float *ret, struct why *why);
    /* Asked before the file gets its name: what is said to be wrong with it ends the write. NULL:
     * nobody. */
    int (*check)(void *arg, const char *path, struct why *why);
    void *arg;    /* of both */
    bool replace; /* a file of that name */
};

int adapter_write(const char *path, const struct adapter_write *w, struct why *why);

#endif
