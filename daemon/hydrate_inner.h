/* daemon/hydrate_inner.h - what the files of hydration share: hydrate.c chooses and fetches, which
 * hydrate_stand.c puts in place and takes back.
 *
 * Threads    the scheduler's, between steps.
 */
#ifndef DAEMON_HYDRATE_INNER_H
#define DAEMON_HYDRATE_INNER_H

#include "daemon/hydrate.h"

/* The prompt points to it, and it does not come. */
void hydrate_miss(struct memory *m, uint32_t segment);

/* Raw pages, which are the account's, take the place of the segment's gists on a rung. False: there
 * is no room for both, and they went back. */
bool hydrate_stand_in(struct memory *m, const struct hydrated *what, const uint32_t *pages);

/* Its gists are the sequence's again. */
void hydrate_go_back(struct memory *m, struct hydrated *d);

#endif
