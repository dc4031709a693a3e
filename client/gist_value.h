/* client/gist_value.h - small conversions between the public structs and the wire's.
 *
 * Errors     -EINVAL, -ENOMEM.
 */
#ifndef CLIENT_GIST_VALUE_H
#define CLIENT_GIST_VALUE_H

#include "client/gist.h"
#include "ipc/wire.h"

/* Ids or bytes that grow. */
struct gist_array {
    void *mem;
    size_t n, cap;
};

/* Copies a caller's struct that begins with its size into ours, which was larger or smaller when
 * the caller was compiled; -EINVAL when it asks for something that we don't know. src NULL:
 * zeros. */
int gist_copy_sized(void *dst, size_t dst_size, const void *src);

/* The other way: into a struct of the caller's, which has dst_size bytes. What we know and he does
 * not is left out, what he knows and we do not is 0. dst may be NULL. */
void gist_copy_out(void *dst, size_t dst_size, const void *src, size_t src_size);

/* The sizes of a program from before there were any. */
struct gist_sizes gist_first_sizes(void);

/* -EINVAL for a compressor that we don't know. src may be NULL. */
int gist_copy_memory(struct wire_memory *dst, const struct gist_memory *src);

void gist_copy_usage(struct gist_usage *dst, const struct wire_usage *src);
void gist_add_usage(struct gist_usage *dst, const struct gist_usage *src);

/* Adds n elements; -ENOMEM. src may be shared memory: it is read once. */
int gist_array_add(struct gist_array *a, const void *src, size_t n, size_t elem);

enum gist_reason gist_reason_of(enum wire_reason r); /* WIRE_REASON__N: GIST_CUT */
enum gist_code gist_code_of(enum wire_error e);
int gist_errno_of(enum gist_code code);

#endif
