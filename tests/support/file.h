/* tests/support/file.h - a whole file of test data. */
#ifndef TESTS_SUPPORT_FILE_H
#define TESTS_SUPPORT_FILE_H

#include <stddef.h>
#include <stdint.h>

/* free() it; a NUL stands behind it. Aborts with the path when it can't be read. */
uint8_t *file_read(const char *path, size_t *ret_len);
/* Writes one, in the place of what was there; aborts too. */
void file_write(const char *path, const void *bytes, size_t n);

#endif
