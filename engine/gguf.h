/* engine/gguf.h - the header of a GGUF file: metadata and tensor records, every byte checked.
 *
 * Source: the GGUF specification, versions 2 and 3, little-endian.
 *
 *     magic "GGUF" | u32 version | u64 n_tensors | u64 n_kv | n_kv pairs | n_tensors records |
 *     padding to general.alignment (32) | tensor data
 *
 * The file may come from anywhere: every count, length, type and offset is checked against the
 * file's size before it is used, products against overflow, and array nesting is refused.
 *
 * Threads    immutable after gguf_open.
 * Ownership  struct gguf owns a read-only mapping of the file; strings and arrays point into it, are
 *            not NUL-terminated, and are unaligned.
 * Errors     -EINVAL with a sentence that names file, place, found and expected; or the errno.
 */
#ifndef ENGINE_GGUF_H
#define ENGINE_GGUF_H

#include "engine/why.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum gguf_kind {       /* numbers of the specification */
    GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING,
    GGUF_ARRAY, GGUF_U64, GGUF_I64, GGUF_F64, GGUF__N
};

#define GGUF_DIMS_MAX 4u

struct gguf_str { const char *s; size_t len; };

struct gguf_array {
    enum gguf_kind kind;     /* of the elements */
    uint64_t n;
    const uint8_t *data;     /* first element; strings: u64 length, bytes, ... */
};

struct gguf_tensor {
    struct gguf_str name;
    uint32_t n_dims;
    uint64_t dims[GGUF_DIMS_MAX];    /* dims[0] is the row's length; unused ones are 1 */
    uint32_t type;                   /* ggml's number */
    uint64_t off;                    /* from the start of the file */
};

struct gguf;

int gguf_open(const char *path, struct gguf **ret, struct why *why);
int gguf_open_mem(const void *data, size_t len, const char *label, struct gguf **ret, struct why *why);
void gguf_close(struct gguf *g);

const char *gguf_path(const struct gguf *g);
const uint8_t *gguf_bytes(const struct gguf *g, size_t *ret_len);     /* the whole file */

/* Metadata by key: 0, -ENOENT (no such key) or -EINVAL (another kind). Integers of every width and
 * sign are read as long as the value fits. */
int gguf_get_u32(const struct gguf *g, const char *key, uint32_t *ret);
int gguf_get_f32(const struct gguf *g, const char *key, float *ret);
int gguf_get_bool(const struct gguf *g, const char *key, bool *ret);
int gguf_get_str(const struct gguf *g, const char *key, struct gguf_str *ret);
int gguf_get_array(const struct gguf *g, const char *key, struct gguf_array *ret);

/* Walks an array of strings: *pos starts at 0. The array was checked when the file was opened. */
struct gguf_str gguf_next_str(const struct gguf_array *a, size_t *pos);

size_t gguf_n_tensors(const struct gguf *g);
const struct gguf_tensor *gguf_tensor(const struct gguf *g, size_t i);
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name);   /* or NULL */

#endif
