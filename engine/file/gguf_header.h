/* engine/file/gguf_header.h - a header that was read, for the files that read it and look it up.
 *
 * gguf.c fills it and checks every byte; gguf_get.c finds things in it afterwards and trusts what
 * was checked.
 *
 * Threads    as engine/file/gguf.h.
 */
#ifndef ENGINE_FILE_GGUF_HEADER_H
#define ENGINE_FILE_GGUF_HEADER_H

#include "engine/file/gguf.h"

#define GGUF_LABEL_MAX 160u

struct gguf_pair {
    struct gguf_str key;
    enum gguf_kind kind;
    const uint8_t *value; /* an array: its element kind */
};

struct gguf {
    char *path;
    char label[GGUF_LABEL_MAX];
    int fd;
    uint8_t *own; /* the header's bytes read so far; NULL when the file is in memory */
    const uint8_t *p;
    size_t have;  /* bytes at p */
    uint64_t len; /* bytes of the file */

    struct gguf_pair *pairs; /* sorted by key */
    size_t n_pairs;
    struct gguf_tensor *tensors; /* in the file's order */
    const struct gguf_tensor **by_name;
    size_t n_tensors;
    size_t header_len;
};

/* Of a value, by its kind; 0: not of one size. */
extern const uint8_t gguf_kind_bytes[GGUF__N];

/* For qsort and bsearch: of struct gguf_pair by key, and of pointers to tensors by name. */
int gguf_compare_pairs(const void *a, const void *b);
int gguf_compare_names(const void *a, const void *b);

#endif
