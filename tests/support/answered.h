/* tests/support/answered.h - the ids of an answer, taken as they come.
 *
 * Errors     a test's helper: what can't go wrong in a test is asserted.
 */
#ifndef TESTS_SUPPORT_ANSWERED_H
#define TESTS_SUPPORT_ANSWERED_H

#include "client/gist.h"

#include <stdbool.h>

#define ANSWERED_MAX 64u

struct answered {
    uint32_t ids[ANSWERED_MAX];
    size_t n;
    bool done; /* the test's: all of it came */
};

/* For gist_generate: arg is a struct answered, n 0 at first. More ids than it holds fail the test.
 */
int answered_take(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids);

/* Asks for n ids, each the likeliest, whatever they are. gist_generate's result: 0, and all came,
 * or an error, and some did; behind those are zeros. */
int answered_greedy(gist_session *s, uint32_t n, struct answered *ret);

/* The session does answer so. */
void answered_as(gist_conn *c, gist_session *s, const struct answered *expected);

/* A new session of c, which has read the text. ret_usage may be NULL. */
gist_session *answered_read(gist_conn *c, const char *text, struct gist_usage *ret_usage);

#endif
