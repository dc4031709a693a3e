/* daemon/overlay.h - segments that are raw although the ladder has them compressed, for a while or
 * since they are no segments of the ladder's (memory_adopt_behind).
 *
 * What a question needs may come back raw (hydrated) and go again, while the ladder says, as ever,
 * what the sequence would hold by its length and policy alone. So hydrated segments are not the
 * ladder's: they are a set beside it, and what they hold more is added to its counts.
 *
 *     ladder     | 3 | 2 | 1 | 1 | 0 |   rungs
 *     overlay          x                 segment 1 is raw
 *     keys       as the ladder says, + raw keys of segment 1 - its keys on rung 2
 *
 * When a hydrated segment's turn comes, the ladder takes it up a rung and its keys stay raw: it
 * goes to that rung when it is not wanted any more.
 *
 * Threads    any; nothing is shared.
 * Errors     overlay_add: -ENOSPC, OVERLAY_MAX segments are hydrated.
 */
#ifndef DAEMON_OVERLAY_H
#define DAEMON_OVERLAY_H

#include "daemon/ladder.h"

#define OVERLAY_MAX 24u

struct overlay {
    uint32_t n;
    uint32_t segments[OVERLAY_MAX]; /* ascending, each above rung 0 */
};

bool overlay_has(const struct overlay *o, uint32_t segment);
/* It is not there yet. */
int overlay_add(struct overlay *o, uint32_t segment);
void overlay_remove(struct overlay *o, uint32_t segment); /* if it is there */

/* Forgets those from segment `first` on. */
void overlay_cut(struct overlay *o, uint32_t first);

/* What they hold more than the ladder counts: the more, the further it has climbed without them. */
uint64_t overlay_keys(const struct overlay *o, const struct policy *p, const struct ladder *l);
uint64_t overlay_pages(const struct overlay *o, const struct policy *p, const struct ladder *l);

#endif
