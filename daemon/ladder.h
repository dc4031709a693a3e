/* daemon/ladder.h - how far the past of a sequence is compressed, in counts: no KV, no pages.
 *
 * A full segment stands on a rung: 0 raw, 1 compressed at the policy's ratio, and each rung above
 * thinned once more, to half as many keys. Older segments never stand below younger ones:
 *
 *     | segment 0 | 1 | 2 | 3 | 4 | 5 | open |
 *     rung  3       2   1   1   1   0   raw           n_at[1] = 5, n_at[2] = 2, n_at[3] = 1
 *
 * Segments climb at checks only, one check a segment: when keep_tail tokens stand behind its end.
 * First it goes to rung 1 itself, unless the policy is late. Then, as long as another segment's
 * tokens would not fit the budget, the rung with the most keys gives its oldest segment to the next
 * one: so all rungs hold about as many keys, and the further back, the coarser. What a sequence
 * holds follows from its number of tokens and its policy.
 *
 * Threads    any; nothing is shared.
 * Errors     none: a budget that does not suffice shows in ladder_room.
 */
#ifndef DAEMON_LADDER_H
#define DAEMON_LADDER_H

#include "daemon/policy.h"

#define LADDER_RUNGS 7u /* raw, ratio 2 and its halves up to COMPRESS_RATIO_MAX */

struct ladder {
    uint32_t n_checked;          /* checks that are done */
    uint32_t n_at[LADDER_RUNGS]; /* [j > 0]: segments on rung j or above */
};

struct ladder_step {
    uint32_t segment, rung;
}; /* it goes to this rung, from the one below */

/* Keys of a full segment. */
uint32_t ladder_segment_keys(const struct policy *p, uint32_t segment, uint32_t rung);

/* The rung that a segment stands on. */
uint32_t ladder_rung(const struct ladder *l, uint32_t segment);

/* Tokens at which the next check is due; UINT64_MAX: never. */
uint64_t ladder_due_at(const struct policy *p, const struct ladder *l);

/* The next step of a check that is due. false: there is none, ladder_check ends it. */
bool ladder_next(const struct policy *p, const struct ladder *l, uint64_t n_tokens,
                 struct ladder_step *ret);
/* A step that no budget asks for: the rung with the most gists gives its oldest segment to the
 * next. false: none can. */
bool ladder_thinner(const struct policy *p, const struct ladder *l, struct ladder_step *ret);
void ladder_take(struct ladder *l, const struct ladder_step *step);
void ladder_check(struct ladder *l);

/* Keys and pages of n_tokens. */
uint64_t ladder_keys(const struct policy *p, const struct ladder *l, uint64_t n_tokens);
uint64_t ladder_pages(const struct policy *p, const struct ladder *l, uint64_t n_tokens);

/* Keys of the budget that are kept from the text for hydrated segments now (policy_spare). As long
 * as nothing is compressed there is nothing to bring back, and who compresses late has all. */
uint32_t ladder_spare(const struct policy *p, const struct ladder *l);

/* Tokens that fit the budget behind n_tokens, whatever checks come. */
uint64_t ladder_room(const struct policy *p, const struct ladder *l, uint64_t n_tokens);

bool ladder_equal(const struct ladder *a, const struct ladder *b);

/* Segments that were compressed go back to being none of the first n tokens. */
void ladder_rewind(const struct policy *p, struct ladder *l, uint64_t n_tokens);

/* Segments from `first` on are raw, and their checks come again. */
void ladder_cut(struct ladder *l, uint32_t first);

/* Does all checks that are due with n_tokens, without any KV. ret_keys, ret_pages (may be NULL):
 * the most that there are on the way from n_had tokens, at the end included. */
void ladder_climb(const struct policy *p, struct ladder *l, uint64_t n_had, uint64_t n_tokens,
                  uint64_t *ret_keys, uint64_t *ret_pages);

/* What a fresh sequence of n_tokens holds. */
struct ladder ladder_of(const struct policy *p, uint64_t n_tokens);

/* The most of the first n_tokens that leave no segment above rung 1. */
uint64_t ladder_unthinned(const struct policy *p, uint64_t n_tokens);

#endif
