/* engine/file/safetensors.h - the header of a safetensors file: tensors and string metadata, every
 * byte checked.
 *
 * Source: the format's description (huggingface/safetensors, README, "Format").
 *
 *     u64 n, little-endian | n bytes of JSON | tensor data
 *     {"__metadata__": {"key": "value", ...},
 *      "name": {"dtype": "F16", "shape": [r, c], "data_offsets": [begin, end]}, ...}
 *
 * Offsets count from the first byte after the JSON. The file may come from anywhere: shape times
 * size of the type must be the span's length, spans must lie in the file and leave no byte without
 * an owner, no name comes twice. Only this much JSON is understood: an object of objects of strings
 * and lists of whole numbers.
 *
 * Threads    immutable after safetensors_open; safetensors_read from any thread.
 * Ownership  owns the header and an open descriptor; names and values point into the header.
 * Errors     -EINVAL with a sentence (file, place, found, expected), -ENOMEM, or the errno of the
 *            I/O.
 */
#ifndef ENGINE_FILE_SAFETENSORS_H
#define ENGINE_FILE_SAFETENSORS_H

#include "base/digest.h"
#include "base/why.h"
#include "engine/file/quant.h"

#include <stddef.h>
#include <stdint.h>

#define SAFETENSORS_HEADER_MAX (32u << 20)
#define SAFETENSORS_DIMS_MAX   4u

enum safetensors_type { SAFETENSORS_F32, SAFETENSORS_F16, SAFETENSORS_BF16, SAFETENSORS_OTHER };

struct safetensors_tensor {
    const char *name;
    enum safetensors_type type;
    uint32_t n_dims;
    uint64_t dims[SAFETENSORS_DIMS_MAX]; /* unused ones are 1 */
    uint64_t off, len;                   /* from the start of the file; bytes */
};

/* Not of OTHER. */
enum quant safetensors_quant(enum safetensors_type type);

struct safetensors;

int safetensors_open(const char *path, struct safetensors **ret, struct why *why);
/* data is a whole file, borrowed until safetensors_close. */
int safetensors_open_mem(const void *data, size_t len, struct safetensors **ret, struct why *why);
void safetensors_close(struct safetensors *s);

/* A value of __metadata__, or NULL. */
const char *safetensors_meta(const struct safetensors *s, const char *key);
size_t safetensors_n_metas(const struct safetensors *s);
const char *safetensors_meta_at(const struct safetensors *s, size_t i, const char **ret_key);

size_t safetensors_n(const struct safetensors *s);
const struct safetensors_tensor *safetensors_at(const struct safetensors *s, size_t i);
const struct safetensors_tensor *safetensors_find(const struct safetensors *s,
                                                  const char *name); /* or NULL */

/* Of all bytes of the file, read by the descriptor that tensors are read by: another file that was
 * moved to its path meanwhile is none of it. */
int safetensors_digest(const struct safetensors *s, char ret_digest[DIGEST_LEN], struct why *why);

/* All t->len bytes. */
int safetensors_read(const struct safetensors *s, const struct safetensors_tensor *t, void *ret,
                     struct why *why);

#endif
