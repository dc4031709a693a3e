/* tests/support/wire_sample.h - a message of each kind with every field set, and what it has to be
 * when it comes back.
 *
 * Ownership  what a sample points to is static.
 */
#ifndef TESTS_SUPPORT_WIRE_SAMPLE_H
#define TESTS_SUPPORT_WIRE_SAMPLE_H

#include "ipc/wire.h"

#include <stdbool.h>

/* Numbers in the kinds that stand for no message yet. */
bool sample_no_req(int kind);
bool sample_no_rep(int kind);

struct wire_req sample_req(enum wire_req_kind kind);
struct wire_rep sample_rep(enum wire_rep_kind kind);

/* Fail the test that calls them where the two differ. */
void sample_same_req(const struct wire_req *a, const struct wire_req *b);
void sample_same_rep(const struct wire_rep *a, const struct wire_rep *b);

#endif
