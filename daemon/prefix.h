/* daemon/prefix.h - what was read before: pages, by the token ids that led to them.
 *
 * A session is its ids (docs/memory.md), so a session that begins with the ids of an earlier one of
 * the same owner and policy can take over that one's pages. Known prefixes are trees: a node
 * stands for a page's 16 ids behind its parent's, and is found by comparing ids, never by a hash
 * alone:
 *
 *     root (owner, policy, segment) -- 16 ids -- 16 ids -- 16 ids ...
 *                                   raw page   raw page   raw page
 *                                                         + the compressed pages of the segment
 *                                                           that ends here
 *
 * A client chooses its policy, and with it its root. There are PREFIX_ROOTS of them: when all are
 * taken, the owner who has most of them gives up the one that it has not used for the longest, so
 * that no owner keeps another from sharing. What stood below that root is not found any more, and
 * goes as what is not used goes.
 *
 * The tree holds references of its own, so that pages outlive their sessions; when the pool has no
 * page left, raw pages of segments that were compressed since go first, then the longest unused
 * ends of branches, since only what stands behind a page needs it. Last come pages in the middle of
 * a branch that nobody else has: all that is cached can be had.
 *
 * Pages that are no function of ids lie here too, so that they are given up in one order with all
 * others: under a mark, a number that is never given twice, and that only the session knows which
 * it was given to.
 *
 * Invariants
 *   T1  A node is used no later than its parent: the least recently used one has no children.
 *   T2  A root's pages were all computed for one owner: nobody's text reaches another owner. What
 *       sessions read that are marked public belongs to PREFIX_PUBLIC, and only to that.
 *   T3  What lies under a mark is found by no ids.
 *
 * Threads    the scheduler's.
 * Ownership  owns its nodes and page references; borrows the pool. Allocates at prefix_open only.
 * Errors     prefix_open: -ENOMEM.
 */
#ifndef DAEMON_PREFIX_H
#define DAEMON_PREFIX_H

#include "daemon/ladder.h"
#include "engine/kv/seq.h"

#define PREFIX_PUBLIC UINT32_MAX /* an owner that is no uid */
#define PREFIX_ROOTS  256u

struct prefix;

/* What a sequence has to do with the tree. */
struct prefix_user {
    struct prefix *prefix;      /* NULL: it shares nothing */
    uint32_t owner;             /* a uid, or PREFIX_PUBLIC */
    bool keeps_nothing;         /* it takes over what is known, and leaves no trace of its own */
    uint32_t n_pages, n_packed; /* that the tree knows of it; pages of ids, compressed segments */
};

/* Becomes a reclaimer of the pool: the pages that only the tree holds are its n_cached. */
int prefix_open(struct pool *pool, struct prefix **ret);
void prefix_close(struct prefix *p);

/* Gives the empty sequence the longest known beginning of ids that leaves at least one to be read:
 * its length, and in l how far that is compressed. 0 also when its account has no room for it. */
uint32_t prefix_adopt(struct prefix_user *u, struct seq *s, struct ladder *l,
                      const struct policy *policy, const uint32_t *ids, uint32_t n);

/* How many pages prefix_adopt would find for it, whether its account has room for them or not. */
uint32_t prefix_known_pages(const struct prefix_user *u, const struct policy *policy,
                            const uint32_t *ids, uint32_t n);

/* The raw pages of a full segment of the sequence, seg_len / 16 of them, which stay the tree's.
 * False: it does not have them all. */
bool prefix_raw(const struct prefix_user *u, const struct seq *s, const struct policy *policy,
                uint32_t segment, uint32_t *ret_pages);

/* Keeps the n pages of a full segment for this user alone. The mark; 0: the tree has no room. */
uint64_t prefix_keep_own(const struct prefix_user *u, uint32_t n, const uint32_t *pages);
/* These pages, which stay the tree's. False: they were given up. */
bool prefix_own(const struct prefix_user *u, uint64_t mark, uint32_t *ret_pages);
/* Another one knows the mark, too; somebody does not need it any more. */
void prefix_share_own(const struct prefix_user *u, uint64_t mark);
void prefix_drop_own(const struct prefix_user *u, uint64_t mark);

/* After a step: remembers the pages that became full, and the segments that were compressed. Not of
 * a sequence that holds other than what a fresh one of its ids would. */
void prefix_learn(struct prefix_user *u, const struct seq *s, const struct ladder *l,
                  const struct policy *policy);

/* Before a segment is compressed: its raw pages, of which the sequence copies what it rewrites, are
 * the first that are given up. */
void prefix_supersede(const struct prefix_user *u, const struct seq *s, const struct policy *policy,
                      uint32_t segment);

/* What an owner's sequences have read is not found any more, and its pages that no session holds
 * are free. Walks over all nodes. */
void prefix_forget(struct prefix *p, uint32_t owner);

/* The same of all owners, marks and all, whoever holds the pages: there is nothing in them. */
void prefix_forget_all(struct prefix *p);

/* What was learned is to be learned anew: the sequence was taken back. */
void prefix_unlearn(struct prefix_user *u);

#endif
