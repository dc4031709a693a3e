/* engine/file/gguf.h - the header of a GGUF file: metadata and tensor records, every byte checked.
 *
 * Source: the GGUF specification, versions 2 and 3, little-endian.
 *
 *     magic "GGUF" | u32 version | u64 n_tensors | u64 n_kv | n_kv pairs | n_tensors records |
 *     padding to general.alignment (32) | tensor data
 *
 * The file may come from anywhere: every count, length, type and offset is checked against the
 * file's size before it is used, products against overflow; nested arrays, keys and tensors that
 * come twice, and tensors that overlap are refused. What is allocated is bounded by the file's size
 * and GGUF_HEADER_MAX.
 *
 * The header is read into private memory, not mapped: a file that is cut or rewritten under us
 * (a download that starts again) can neither raise SIGBUS nor change a length after its check.
 *
 * Threads    immutable after gguf_open.
 * Ownership  struct gguf owns the header's bytes and an open descriptor; strings and arrays point
 *            into the header, are not NUL-terminated, and are unaligned.
 * Errors     -EINVAL with a sentence that names file, place, found and expected; -ENOMEM; or the
 *            errno of the I/O.
 */
#ifndef ENGINE_FILE_GGUF_H
#define ENGINE_FILE_GGUF_H

#include "base/why.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum gguf_kind { /* numbers of the specification */
                 GGUF_U8,
                 GGUF_I8,
                 GGUF_U16,
                 GGUF_I16,
                 GGUF_U32,
                 GGUF_I32,
                 GGUF_F32,
                 GGUF_BOOL,
                 GGUF_STRING,
                 GGUF_ARRAY,
                 GGUF_U64,
                 GGUF_I64,
                 GGUF_F64,
                 GGUF__N
};

#define GGUF_DIMS_MAX   4u
#define GGUF_NAME_MAX   64u          /* bytes of a tensor's name */
#define GGUF_HEADER_MAX (256u << 20) /* real ones: 2 to 10 MiB, nearly all of it the vocabulary */

struct gguf_str {
    const char *s;
    size_t len;
};

struct gguf_array {
    enum gguf_kind kind; /* of the elements */
    uint64_t n;
    const uint8_t *data; /* first element; strings: u64 length, bytes, ... */
};

struct gguf_tensor {
    struct gguf_str name;
    uint32_t n_dims;
    uint64_t dims[GGUF_DIMS_MAX]; /* dims[0] is the row's length; unused ones are 1 */
    uint32_t type;                /* ggml's number */
    uint64_t off;                 /* from the start of the file */
    uint64_t len;                 /* bytes; 0 for a type that engine/file/quant.h does not have */
};

struct gguf;

int gguf_open(const char *path, struct gguf **ret, struct why *why);
/* data is a whole file, borrowed until gguf_close. */
int gguf_open_mem(const void *data, size_t len, const char *label, struct gguf **ret,
                  struct why *why);
void gguf_close(struct gguf *g);

const char *gguf_path(const struct gguf *g);
const char *gguf_label(const struct gguf *g); /* the path, shortened for a sentence */
uint64_t gguf_len(const struct gguf *g);      /* of the file */
int gguf_fd(const struct gguf *g);            /* borrowed; -1 for one in memory */
/* The bytes before the tensor data, as they were checked. */
const uint8_t *gguf_header(const struct gguf *g, size_t *ret_len);

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
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name); /* or NULL */

/* For sentences: ggml's name of a tensor type ("Q5_K"), and a string from the file in printable
 * ASCII, shortened, in quotes. Returns ret. */
const char *gguf_type_name(uint32_t type);
#define GGUF_SHOW_MAX 72u
const char *gguf_show(struct gguf_str s, char ret[GGUF_SHOW_MAX]);

#endif
