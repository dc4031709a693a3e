/* store/index.h - what is on disk, in memory: by ids, by number, by last use.
 *
 * A place is where a chain of records goes on: the hash of all ids up to there. A record stands
 * between two of them, so records make trees without pointing at each other, and each may come and
 * go on its own:
 *
 *                     record A                  record C
 *     (STORE_ROOT) ---------------> place p ------------------> place q
 *                  ---------------> (the same: raw and packed)  ---> ...
 *                     record B
 *
 * A record is reached when each place on its way has a record that ends there. What is not reached
 * is of no use to who begins at the beginning. A record is an end when nothing goes on at its
 * place, or another record ends there too.
 *
 * Invariants
 *   N1  No two records have the same key and ids, and none marked as a tail has ids that another of
 *       its key begins with (but tails shorter than a page, which stand elsewhere).
 *   N2  by_id is in order of id, lru in order of used_s. What was taken leaves a hole in by_id, so
 *       that taking one moves no other; half of it are holes at most.
 *
 * Threads    one.
 * Ownership  owns its entries from index_add to index_take.
 * Errors     -ENOMEM, -EEXIST.
 */
#ifndef STORE_INDEX_H
#define STORE_INDEX_H

#include "store/record.h"

#include <sys/queue.h>

struct place;

struct entry {
    struct record r;        /* ids and sums lie behind the entry */
    uint64_t id;            /* ascending, never used twice */
    uint64_t used_s;        /* real-time clock */
    bool used_dirty;        /* the file's time is not used_s yet */
    bool taken;             /* no longer in the index */
    bool unlinking, buried; /* its file is being deleted; is gone: freed when n_busy is 0 */
    uint64_t retry_ns;      /* when that is tried again; 0: it was not yet */
    struct store *of;       /* while an operation of limits.c has it */
    uint8_t n_eio;          /* reads that failed */
    uint32_t n_busy;        /* operations that have it open */
    char name[RECORD_NAME];
    /* the index's */
    uint64_t bucket;
    struct place *before, *own; /* before NULL: it is the first */
    LIST_ENTRY(entry) same;     /* of the bucket */
    TAILQ_ENTRY(entry) lru;     /* and afterwards the list of what is being deleted */
};
TAILQ_HEAD(entries, entry);

LIST_HEAD(index_bucket, entry);
LIST_HEAD(index_places, place);

struct index_id {
    uint64_t id;
    struct entry *e; /* NULL: it was taken */
};

struct index {
    const uint8_t *secret;
    struct entries lru; /* the least recently used first */
    struct index_bucket *buckets;
    struct index_places *places;
    uint32_t n_buckets;
    struct index_id *by_id;
    uint32_t n, n_ids, cap;          /* entries; of by_id, with holes */
    uint64_t next_id, bytes, memory; /* bytes: of files; memory: of entries */
    uint32_t n_short[STORE_PAGE_TOKENS];
};

int index_open(struct index *x, const uint8_t secret[SUM_SECRET_LEN]);
void index_close(struct index *x);

/* A copy of r, which is not in the index yet. NULL: no memory. */
struct entry *index_new(const struct index *x, const struct record *r);
void index_free(struct entry *e); /* one that is in no index */

/* Takes e. -EEXIST: its like is there, or one that it is only the beginning of. Older tails that it
 * goes on from are put to ret_replaced, which the caller deletes. */
int index_add(struct index *x, struct entry *e, struct entries *ret_replaced);
void index_take(struct index *x, struct entry *e);

/* That has most of ids [0, n): *ret_n of them. packed, or other than a key a token: all or none. */
struct entry *index_find(struct index *x, const struct store_key *key, const uint32_t *ids,
                         uint32_t n, uint32_t *ret_n);
/* With just these ids, or a longer one that begins with them when they are a tail's. */
struct entry *index_like(struct index *x, const struct store_key *key, const uint32_t *ids,
                         uint32_t n, bool tail);
struct entry *index_by_id(const struct index *x, uint64_t id);
struct entry *index_next(const struct index *x, uint64_t id); /* the first behind it */

/* It was used now. */
void index_use(struct index *x, struct entry *e, uint64_t now_s);
/* Puts the list in order of used_s. */
void index_sort(struct index *x);

bool index_is_end(const struct entry *e);
/* What stands right before it is gone. */
bool index_is_orphan(const struct entry *e);
/* Tokens before it; UINT32_MAX: it is not reached. */
uint32_t index_depth(const struct entry *e);

#endif
