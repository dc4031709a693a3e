/* daemon/prefix.h - what was read before: pages, by the token ids that led to them.
 *
 * A session is its ids (docs/memory.md), so a session that begins with the ids of an earlier one of
 * the same owner and policy can take over that one's pages. Known prefixes are a tree: a node
 * stands for a page's 16 ids behind its parent's, and is found by comparing ids, never by a hash
 * alone:
 *
 *     root (owner, policy, segment) -- 16 ids -- 16 ids -- 16 ids ...
 *                                   raw page   raw page   raw page
 *                                                         + the compressed pages of the segment
 *                                                           that ends here
 *
 * The tree holds references of its own, so that pages outlive their sessions; when the pool has no
 * page left, raw pages of segments that were compressed since go first, then the longest unused
 * ends of branches, since only what stands behind a page needs it.
 *
 * Invariants
 *   T1  A node is used no later than its parent: the least recently used one has no children.
 *   T2  A root's pages were all computed for one owner: nobody's text reaches another owner. What
 *       sessions read that are marked public belongs to PREFIX_PUBLIC, and only to that.
 *
 * Threads    the scheduler's.
 * Ownership  owns its nodes and page references; borrows the pool. Allocates at prefix_open only.
 * Errors     prefix_open: -ENOMEM.
 */
#ifndef DAEMON_PREFIX_H
#define DAEMON_PREFIX_H

#include "daemon/memory.h"

#define PREFIX_PUBLIC UINT32_MAX /* an owner that is no uid */

struct prefix;

/* Becomes the pool's reclaim: the pages that only the tree holds are the pool's n_cached. */
int prefix_open(struct pool *pool, struct prefix **ret);
void prefix_close(struct prefix *p);

/* Gives the empty sequence of m the longest known beginning of ids that leaves at least one to be
 * read: its length. 0 also when its account has no room for it. */
uint32_t prefix_adopt(struct prefix *p, struct memory *m, const uint32_t *ids, uint32_t n);

/* After a step: remembers the pages that became full, and the segments that were compressed. */
void prefix_learn(struct prefix *p, struct memory *m);

/* Before a segment is compressed: its raw pages, of which the sequence copies what it rewrites, are
 * the first that are given up. */
void prefix_supersede(struct prefix *p, const struct memory *m, uint32_t segment);

#endif
