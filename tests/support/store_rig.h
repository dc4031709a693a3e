/* tests/support/store_rig.h - a store in a scratch folder, and records whose pages follow from
 * their ids.
 *
 * What page i of a record must hold is computed from the owner, `before` and the ids up to its
 * last: whatever a store gives back for some ids is right or wrong without anybody having kept it.
 *
 * Threads    the test's.
 * Ownership  owns io and store.
 */
#ifndef TESTS_SUPPORT_STORE_RIG_H
#define TESTS_SUPPORT_STORE_RIG_H

#include "store/io.h"
#include "store/store.h"
#include "tests/support/scratch.h"

#define RIG_PAGE    4096u /* bytes */
#define RIG_OWNER   1000u
#define RIG_IDS_MAX 1024u

struct store_rig {
    char path[SCRATCH_PATH_MAX];
    struct io *io;
    struct store *store;
    struct store_limits limits;
    struct why why;
    uint32_t n_called; /* callbacks so far */
    int result;        /* of the last one */
};

/* A record by the numbers that ids are made of: `n` ids, the first `same` of them from `stem`, the
 * others from `seed`. */
struct rig_record {
    uint32_t owner, n, same, stem, seed;
    struct store_hash before;
    enum store_kind kind;
    uint64_t cost_ns;
    bool tail;
};

void store_rig_init(struct store_rig *r, const char *name);
/* store_open's result. */
int store_rig_open(struct store_rig *r);
void store_rig_close(struct store_rig *r);
void store_rig_again(struct store_rig *r); /* closed and opened */

void rig_ids(const struct rig_record *rec, uint32_t ret[RIG_IDS_MAX]);
struct store_key rig_key(const struct rig_record *rec);
struct store_hash rig_hash(const struct store_rig *r, const struct rig_record *rec);
/* Bytes on the disk. */
uint64_t rig_len(const struct rig_record *rec);

/* store_put's result, or that of its callback, which is waited for. */
int rig_put(struct store_rig *r, const struct rig_record *rec);
/* The same without waiting: the callback adds to n_called. Pages are the rig's until then. */
int rig_put_later(struct store_rig *r, const struct rig_record *rec);
/* How many of the record's tokens are found, read and right; -errno, or -EINVAL for wrong pages. */
int rig_get(struct store_rig *r, const struct rig_record *rec);
bool rig_has(struct store_rig *r, const struct rig_record *rec); /* all of it is found */
/* Pumps until so many callbacks came, and asserts that they do. */
void rig_wait(struct store_rig *r, uint32_t n_called);
/* Regular files in a folder of the store; -1: there is none. */
int rig_files(const struct store_rig *r, const char *folder);
/* Pumps until what needs no callback is done: deletions. */
void rig_settle(struct store_rig *r);
struct store_stats rig_stats(const struct store_rig *r);

/* What page i of the record holds. */
void rig_page(const struct rig_record *rec, uint32_t i, uint8_t ret[RIG_PAGE]);

#endif
