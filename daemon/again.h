/* daemon/again.h - raw keys of a packed segment, computed once more from its ids.
 *
 * A sequence of its own goes on with what stands before the segment now, sharing those pages, and
 * reads the segment's ids behind that:
 *
 *     the sequence    | gists | gists | gists | gists | open ..
 *     again           | gists | gists | raw ids ..          segment 2
 *
 * The keys are what they were, bit for bit, where the segment was first read behind just that.
 * Where it was read behind more (a late policy had all before it raw, or others are thinned since)
 * they are as near as what is left of the text allows.
 *
 * Threads    the scheduler's, between steps.
 * Ownership  owns its sequence. The segment's pages are the account's of the sequence it is of; of
 *            what stands before it nobody is charged, since that is there anyway.
 * Errors     again_begin: -ENOMEM; -ENOSPC: there are no pages, or the account may have no more.
 */
#ifndef DAEMON_AGAIN_H
#define DAEMON_AGAIN_H

#include "engine/run.h"

struct again;

/* A full segment of s, which is borrowed and stays as it is before that. */
int again_begin(struct seq *s, uint32_t segment, struct again **ret);
/* The next run, of at most max tokens; it is not done. */
void again_plan(struct again *a, uint32_t max, struct forward_run *ret);
/* All of the segment was read. */
bool again_done(const struct again *a);
/* Then: its pages, of seg_len raw keys, are the caller's in the account of s. */
void again_take(struct again *a, uint32_t *ret_pages);
/* NULL: nothing. */
void again_drop(struct again *a);

#endif
