/* daemon/shelf.h - records in host memory: pages that a device's pool had, found again by ids.
 *
 * One piece of memory, cut into slots of a page each, which the device copies from and to and a
 * disk reads and writes. A slot is free, taken (somebody copies there), or kept: part of a record,
 * which means what the store's do (store/store.h) and is found as they are.
 *
 *     |<-------------- slots --------------->|
 *     | kept, at most keep_max | taken, free |        shelf_take: free slots alone
 *                   ^               |                 shelf_add:  taken ones become a record's
 *                   +---- add ------+
 *
 * So what is only passing through never waits for what is kept, and the other way round. All of it,
 * with the ids and tables of its records, is no more than the bytes that it was opened with.
 *
 * What goes first is the end of a text that was not used for the longest: a restore has no use for
 * what stands behind a hole. None goes for the one that follows it: of a text that is too long the
 * beginning stays.
 *
 * Invariants
 *   S1  free + taken + kept = slots; kept <= keep_max.
 *   S2  A record that others follow is not evicted, nor one that is pinned.
 *   S3  A pinned record's slots stay what they are, also when it is found no more.
 *
 * Threads    one, the scheduler's.
 * Ownership  owns the memory; who takes slots gives them back or adds them.
 * Errors     shelf_open: -ENOMEM; -EINVAL: no two pages have room. Serving allocates nothing.
 */
#ifndef DAEMON_SHELF_H
#define DAEMON_SHELF_H

#include "store/store.h"

struct shelf;

struct shelf_options {
    size_t page_bytes; /* a multiple of 4096 */
    uint64_t bytes;    /* of all; passes: of pages */
    uint32_t n_stage;  /* slots that are never kept, at most half of all */
    bool passes;       /* nothing is kept */
};

int shelf_open(const struct shelf_options *o, struct shelf **ret);
/* Nothing is taken, nothing pinned. NULL: nothing. */
void shelf_close(struct shelf *s);

/* All slots lie in it. */
void *shelf_memory(const struct shelf *s, size_t *ret_len);
/* Pages that a record may have. */
uint32_t shelf_longest(const struct shelf *s);
bool shelf_keeps(const struct shelf *s);

/* n free slots; false: there are not so many now. */
bool shelf_take(struct shelf *s, uint32_t n, void **ret_mem);
void shelf_give(struct shelf *s, uint32_t n, void *const *mem);

/* Slots that were taken, with the record's pages, become a record, or are free again where one has
 * all of that already: its id. own: the hash of before and all its ids. 0: no room could be made,
 * the slots are still taken. */
uint64_t shelf_add(struct shelf *s, const struct store_record *r, struct store_hash own,
                   void *const *mem);

/* As store_find, which says what is found; id is the shelf's. It counts as no use. */
bool shelf_find(const struct shelf *s, const struct store_key *key, const uint32_t *ids, uint32_t n,
                struct store_found *ret);
/* The first n pages of a record, which stay there until shelf_unpin; that is a use. False: it is
 * gone. */
bool shelf_pin(struct shelf *s, uint64_t id, uint32_t n, void **ret_mem);
void shelf_unpin(struct shelf *s, uint64_t id);

/* All records of an owner are found no more. */
void shelf_forget(struct shelf *s, uint32_t owner, uint64_t *ret_records, uint64_t *ret_bytes);

struct shelf_stats {
    uint64_t bytes, limit; /* of pages: kept, and the most that may be */
    uint32_t records, n_slots, n_free, n_kept;
    uint64_t evicted, refused; /* records; refused: no room could be made */
};
void shelf_stats(const struct shelf *s, struct shelf_stats *ret);

#endif
