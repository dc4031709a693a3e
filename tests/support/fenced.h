/* tests/support/fenced.h - memory that ends where a page nobody may touch begins.
 *
 * A kernel that reads or writes past its buffer dies by SIGSEGV, in every flavour: the sanitizers
 * do not instrument AVX2 kernels.
 */
#ifndef TESTS_SUPPORT_FENCED_H
#define TESTS_SUPPORT_FENCED_H

#include <stddef.h>
#include <stdint.h>

struct fenced {
    uint8_t *mem;
    size_t len;
    void *p; /* the buffer; aligned as its length is */
};

struct fenced fenced_new(size_t len); /* zeroed; a failure ends the test */
void fenced_free(struct fenced *f);

#endif
