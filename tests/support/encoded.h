/* tests/support/encoded.h - a text as ids, at once. */
#ifndef TESTS_SUPPORT_ENCODED_H
#define TESTS_SUPPORT_ENCODED_H

#include "engine/text/vocab.h"

#include <stdbool.h>
#include <stdint.h>

/* The first max ids of it: how many, or a negative errno. */
int encoded_ids(const struct vocab *v, const char *text, bool parse_special, uint32_t *ret,
                uint32_t max);
/* Of a file's text. */
int encoded_file(const struct vocab *v, const char *path, uint32_t *ret, uint32_t max);

#endif
