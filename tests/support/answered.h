/* tests/support/answered.h - the ids of an answer, taken as they come.
 *
 * Errors     a test's helper: what can't go wrong in a test is asserted.
 */
#ifndef TESTS_SUPPORT_ANSWERED_H
#define TESTS_SUPPORT_ANSWERED_H

#include "client/gist.h"

#include <stdbool.h>

#define ANSWERED_MAX 512u

/* margins: by how much each was likelier than the next, in log-probabilities; on a device alone. */
struct answered {
    uint32_t ids[ANSWERED_MAX];
    size_t n;
    bool done; /* the test's: all of it came */
    float margins[ANSWERED_MAX];
    size_t n_margins;
};

/* For gist_generate: arg is a struct answered, n 0 at first. More ids than it holds fail the test.
 */
int answered_take(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids);

/* Asks for n ids, each the likeliest, whatever they are. gist_generate's result: 0, and all came,
 * or an error, and some did; behind those are zeros. */
int answered_greedy(gist_session *s, uint32_t n, struct answered *ret);
int answered_greedy_with(gist_session *s, uint32_t n, struct answered *ret,
                         struct gist_result *ret_result);

/* Whether one is the other; what differs fails the test. But a device computes a row in another way
 * in another step, so that two tokens may change places that are as likely to rounding
 * (tests/support/tolerance.h): false then, as all behind them is another text. */
bool answered_same(const struct answered *found, const struct answered *expected);
/* Of other structs: margins are the expected ids', and not looked at where the daemon is exact. */
bool answered_ids_same(const uint32_t *found, const uint32_t *expected, size_t n,
                       const float *margins);
/* For their on_logprob, of a greedy answer. */
float answered_margin(const struct gist_logprob *token);

/* The session does answer so. */
void answered_as(gist_conn *c, gist_session *s, const struct answered *expected);

/* A new session of c, which has read the text. ret_usage may be NULL. */
gist_session *answered_read(gist_conn *c, const char *text, struct gist_usage *ret_usage);

#endif
