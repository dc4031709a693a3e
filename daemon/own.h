/* daemon/own.h - raw keys of a session's packed segments that no ids lead to.
 *
 * What is read behind hydrated segments, or in a private session, is nothing that others may find:
 * the tree of beginnings does not learn it, and it goes to no disk. Nor does the tree learn what
 * stands behind thinned segments, though the disk has that. For the session itself its raw
 * pages are kept when such a segment is packed, in the tree, under marks that nobody else knows.
 * What the disk has of a segment is kept so, too, when it was read for a prompt that is still to
 * come (hydrate_fetch).
 * They count as nobody's: when pages are short they are given up like all that is only kept. Then
 * the segment is computed again, and that is kept too.
 *
 * Threads    the scheduler's.
 * Ownership  marks are the memory's; forks know the same ones.
 * Errors     none: what is not kept is not there.
 */
#ifndef DAEMON_OWN_H
#define DAEMON_OWN_H

#include <stdbool.h>
#include <stdint.h>

struct memory;

struct own_mark {
    uint64_t mark;
    uint32_t segment;
    uint32_t since; /* tokens of the sequence when it was computed again for a prompt; 0: as read */
    bool from_disk; /* it was fetched for a prompt that was still to come */
};

struct own {
    uint32_t n, max;
    struct own_mark *marks;
};

/* A raw segment is to be packed: n_keys of it will be left. */
void own_pack(struct memory *m, uint32_t segment, uint32_t n_keys);
/* A segment that is raw for a prompt was computed again for it. */
void own_computed(struct memory *m, uint32_t segment, uint32_t since);
/* What the disk has may be read before it is asked for: there is a disk, and where to keep it. */
bool own_may_fetch(const struct memory *m);
/* It is kept, and its pages are still there. That counts as a use: it is about to be asked for. */
bool own_has(const struct memory *m, uint32_t segment);
/* That was done with a packed segment, whose raw pages these are. from_disk: else from host memory.
 */
void own_fetched(struct memory *m, uint32_t segment, const uint32_t *pages, bool from_disk);
/* Its raw pages, which stay what they are; false: they are not there. ret_from_disk: they were
 * fetched, and are asked for the first time. */
bool own_find(struct memory *m, uint32_t segment, uint32_t *ret_pages, bool *ret_from_disk);
/* The sequence was taken back to n_tokens, with n_packed segments. */
void own_cut(struct memory *m, uint32_t n_packed, uint32_t n_tokens);
/* dst, of a fork of m's sequence. */
void own_fork(const struct memory *m, struct memory *dst);

#endif
