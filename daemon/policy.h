/* daemon/policy.h - what a session wants to be kept of its older context.
 *
 * Comes from a client and is checked once, here: what is behind it takes a policy as it is.
 *
 * Threads    any; a policy never changes.
 * Ownership  borrows the adapter in spec.
 */
#ifndef DAEMON_POLICY_H
#define DAEMON_POLICY_H

#include "engine/kv/compress.h"

struct served;
struct wire_memory;

/* Tokens of a sequence whose old context is compressed: 4 bytes each. */
#define POLICY_TOKENS_MAX (1u << 20)

#define POLICY_REALM_MAX 127u /* bytes of its name */

struct policy {
    struct compress_spec spec;
    uint32_t seg_len, keep_tail;
    uint32_t budget; /* keys: the largest position, too */
    bool late;       /* raw until the budget is short */
    bool fixed;      /* no rung above the first */
    /* Segments that a prompt may bring back; UINT32_MAX: as many as fit. As long as none is back it
     * has no say in what a sequence holds, but that the text has less of the budget; and what is
     * read behind them others don't get. */
    uint32_t hydrate;
    bool automatic; /* the budget may be lowered where pages are short; no say in what is held */
    /* Not of what is held either, but of who may have it: equal policies are of one realm, so that
     * all that is found by a policy (the tree, the store, whom one waits for) is found within one.
     * "": what the user shares with himself. */
    char realm[POLICY_REALM_MAX + 1];
};

/* Reads what a client wants. segment NULL: as its adapter was trained, without one the preset.
 * -EINVAL: why says what is wrong with it. */
int policy_read(const struct wire_memory *m, const uint32_t *segment, uint32_t preset,
                const struct served *b, struct policy *ret, struct why *why);

/* The next smaller budget of an automatic one, and the tail that goes with it. False: there is
 * none.
 */
bool policy_lower(struct policy *p);

/* What of it has a say in what a sequence holds and who may have it, the rest zero (hydrate: what
 * policy_spare is); and whether that is the same. */
struct policy policy_normal(const struct policy *p);
bool policy_same(const struct policy *a, const struct policy *b);

/* Behind a sentence that names its limit: what would help, or "". context: the largest budget. */
const char *policy_longer(const struct policy *p, uint32_t context);

/* Keys of the budget that are kept for segments that prompts bring back. */
uint32_t policy_spare(const struct policy *p);

/* Tokens that a sequence with this policy may hold. */
uint32_t policy_tokens_max(const struct policy *p);

#endif
