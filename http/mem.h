/* http/mem.h - what one request needs in memory: pieces that are freed together, and texts that
 * grow.
 *
 * Threads    one at a time an object.
 * Ownership  mem_fini and text_fini free all; zeros are a new object of either.
 * Errors     mem_new gives NULL. A text remembers that memory was short (`lost`): who builds one
 *            asks once, at its end.
 */
#ifndef HTTP_MEM_H
#define HTTP_MEM_H

#include <stdbool.h>
#include <stddef.h>

struct mem {
    struct mem_piece *pieces;
};

void *mem_new(struct mem *m, size_t n, size_t size);          /* zeros; n or size may be 0 */
char *mem_copy(struct mem *m, const char *bytes, size_t len); /* with a NUL behind it */
void mem_fini(struct mem *m);

struct text {
    char *bytes; /* (len) and a NUL; NULL while nothing was added */
    size_t len, cap;
    bool lost;
};

void text_add(struct text *t, const char *bytes, size_t len);
void text_print(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void text_fini(struct text *t);

#endif
