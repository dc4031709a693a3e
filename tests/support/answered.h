/* tests/support/answered.h - the ids of an answer, taken as they come.
 */
#ifndef TESTS_SUPPORT_ANSWERED_H
#define TESTS_SUPPORT_ANSWERED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ANSWERED_MAX 64u

struct answered {
    uint32_t ids[ANSWERED_MAX];
    size_t n;
    bool done; /* the test's: all of it came */
};

/* For gist_generate: arg is a struct answered, n 0 at first. More ids than it holds fail the test.
 */
int answered_take(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids);

#endif
