/* store/store.h - pages on disk, found again by the token ids that led to them.
 *
 * It knows no models and no sequences: what pages mean is the business of who asks, and has a name,
 * the scope. A record is the pages of one segment, or of the beginning of one:
 *
 *     scope, owner     whose, and of what: model, adapter, layout and policy, hashed by who asks
 *     before           the hash of all ids in front of it (STORE_ROOT: it is the first)
 *     ids              n_tokens of them
 *     kind             raw: 16 tokens a page, so a part of it is of use too (not where it has
 *                      other than a key a token); packed: all or nothing
 *     pages            n_pages of page_bytes, each with a checksum of its own
 *
 * Records make trees, as daemon/prefix.h has them in memory: the hash of a full one is `before` of
 * those that follow. store_find compares ids, always; the hash alone finds nothing. It is seeded
 * with a random number of the store's own, so nobody can make two texts that meet.
 *
 * docs/store.md has the format. A record is a file of its own, in a folder an owner, mode 0600. It
 * is written under another name, synced, renamed and its folder synced: it is there whole or not at
 * all. What does not verify when it is read is deleted and counted, and is a miss.
 *
 * An I/O error never is more than a miss: store_put comes back with it, `degraded` in the stats has
 * a sentence for people, and the store writes again when the disk takes writes again.
 *
 * Threads    one, the scheduler's. Nothing here waits for a disk but store_open, store_flush and
 *            store_close; call store_pump when the io's eventfd is readable, and once a step.
 * Ownership  borrows the io. Pages of a put or a get are borrowed until its callback, which comes
 *            from store_pump (or store_flush, store_close), never from inside the call itself.
 * Errors     below; all others are answered as misses.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "base/why.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct io;
struct store;

#define STORE_SCOPE_LEN   16u
#define STORE_TOKENS_MAX  8192u      /* of a record */
#define STORE_PAGE_TOKENS 16u        /* of a raw record's page */
#define STORE_PUBLIC      UINT32_MAX /* an owner that is no uid */

struct store_hash {
    uint64_t lo, hi;
};
#define STORE_ROOT ((struct store_hash){ 0, 0 })

enum store_kind { STORE_RAW, STORE_PACKED };

struct store_limits {
    uint64_t bytes;       /* on disk */
    uint64_t owner_bytes; /* of an owner's records; 0: all of it, or what `shared` leaves */
    bool shared;          /* there are others: of one owner's not more than 15 sixteenths */
    uint64_t write_a_day; /* bytes written in any 24 hours; 0: no limit */
    uint64_t age_s;       /* what was not used for so long goes; 0: never */
};

/* The folder at path is made if it is not there (mode 0700). -EWOULDBLOCK: another daemon has it.
 * An older or newer format is no error: the store starts empty beside it (store_note). */
int store_open(const char *path, struct io *io, const struct store_limits *limits,
               struct store **ret, struct why *why);
const char *store_note(const struct store *s); /* what that found, for the log; "": nothing */
void store_set_limit(struct store *s, uint64_t bytes); /* over it: with the next store_pump */
void store_set_shared(struct store *s); /* others than one owner may come from now on */
/* Ends what is under way: puts are finished, gets called back with -ECANCELED. False: the disk does
 * not answer, and may still use memory and io; nothing was freed. */
bool store_close(struct store *s);

bool store_pump(struct store *s); /* results; true: call again before you sleep */
/* Something is out for 30 seconds: nothing is found, read or put until it came back. Don't wait. */
bool store_silent(const struct store *s);
/* Until store_pump is to be called though nothing rings; -1: never. */
int store_timeout_ms(const struct store *s);
/* Waits until all puts are done, up to ns. False: time was up. */
bool store_flush(struct store *s, uint64_t ns);

/* The hash of `before` and a full record's ids: `before` of what follows. */
struct store_hash store_hash(const struct store *s, struct store_hash before, const uint32_t *ids,
                             uint32_t n);

/* What a record is of. */
struct store_key {
    uint8_t scope[STORE_SCOPE_LEN];
    uint32_t owner; /* a uid, or STORE_PUBLIC */
    struct store_hash before;
    enum store_kind kind;
};

struct store_found {
    uint64_t id;         /* of the record; may be gone when it is asked for */
    uint32_t n_tokens;   /* that are the record's; of a raw one whole pages, or all of it */
    uint32_t n_keys;     /* that the record's pages hold */
    uint32_t n_pages;    /* that have those n_tokens: the record's first */
    uint32_t page_bytes; /* of each: a file may say anything */
    uint64_t cost_ns;    /* what it took to compute the record */
};

/* The record that has most of ids [0, n), of these its beginning. packed: only all of a record's
 * ids. False: none has a page of them. store_has: all of ids is there; that counts as no use. */
bool store_find(struct store *s, const struct store_key *key, const uint32_t *ids, uint32_t n,
                struct store_found *ret);
bool store_has(struct store *s, const struct store_key *key, const uint32_t *ids, uint32_t n);
/* result: 0, all pages are there as they were put; -EBADMSG: they were not, and the record is gone;
 * -ENOENT, -ECANCELED or the errno of the I/O. */
typedef void store_done_fn(void *arg, int result);

/* Reads the first n_pages of a record, page i to pages[i] (host memory at a multiple of 4096).
 * -EAGAIN: too much is under way, ask again after store_pump. -ENOENT. */
int store_get(struct store *s, uint64_t id, uint32_t n_pages, void *const *pages,
              store_done_fn *done, void *arg);
/* Of a get, a put or a verify. The callback comes no more; pages are free when this returns false.
 * True: the disk still has to do with them, and the callback comes later, with -ECANCELED (a put
 * that was about to be done may still be there afterwards). */
bool store_cancel(struct store *s, void *arg);

struct store_record {
    struct store_key key;
    const uint32_t *ids; /* copied */
    uint32_t n_tokens, n_keys, n_pages;
    size_t page_bytes; /* a multiple of 4096 */
    uint64_t cost_ns;  /* what it took to compute this */
    bool tail; /* of a segment that may grow: the put of a longer one with these ids first replaces
                  it */
};

/* Writes a record; one that is there already only becomes young. 0: the callback will come;
 * -EEXIST: it is there, no callback; -EAGAIN: too much is under way; -EDQUOT: the write budget of
 * today, or the record is larger than the store may be; -EROFS: the store does not write at
 * present; -EINVAL: no segment has such numbers; -ENOMEM. The callback may come with -EBUSY: all
 * that could make room is being read. */
int store_put(struct store *s, const struct store_record *r, const void *const *pages,
              store_done_fn *done, void *arg);

/* --- names: small files that are the owner's, sessions and documents ------------------------ */

#define STORE_NAME_MAX  128u        /* bytes, any but NUL and '/' */
#define STORE_NAMED_MAX (64u << 20) /* bytes of one */
#define STORE_NAMES_MAX 4096u       /* of an owner: one user must leave room for others */

struct store_named {
    uint32_t owner;
    uint32_t kind; /* the caller's */
    char name[STORE_NAME_MAX + 1];
    uint64_t len, at_s; /* at_s: when it was written, seconds of the real-time clock */
    uint64_t id;        /* for the next call of store_name_next */
};

/* Writes name's bytes (copied), synced when done comes; an older one is replaced then, not before.
 * Never evicted. -EAGAIN, -EDQUOT, -EMFILE (STORE_NAMES_MAX), -EROFS, -ENOMEM, -EINVAL (name). */
int store_name_put(struct store *s, uint32_t owner, uint32_t kind, const char *name,
                   const void *bytes, size_t len, store_done_fn *done, void *arg);
/* -ENOENT; -EBADMSG: its bytes are not what was written (it is left for people to look at); -EIO,
 * -ENOMEM. *ret_bytes is malloc'ed. Waits for the disk: names are small. */
int store_name_get(struct store *s, uint32_t owner, uint32_t kind, const char *name,
                   void **ret_bytes, size_t *ret_len);
/* Whether there is one, readable or not. Touches no disk. */
bool store_name_has(const struct store *s, uint32_t owner, uint32_t kind, const char *name);
int store_name_delete(struct store *s, uint32_t owner, uint32_t kind, const char *name);
/* One after the other by name: n->id 0 for the first. False: no more. */
bool store_name_next(struct store *s, uint32_t owner, uint32_t kind, struct store_named *n);

/* --- for people ------------------------------------------------------------------------------ */
struct store_stats {
    uint64_t bytes, limit, records, names;
    uint64_t written, written_today, write_a_day; /* bytes */
    uint64_t puts, gets, hits, misses;            /* since the start */
    uint64_t refused;                             /* did not verify */
    uint64_t evicted, expired;                    /* records */
    uint64_t read_bytes, read_ns;                 /* of gets: the disk's measured speed */
    char degraded[256];                           /* empty: all is well; else a sentence */
};
void store_stats(const struct store *s, struct store_stats *ret);
/* Of an owner's records, those being written too; and what they may be. */
uint64_t store_bytes_of(const struct store *s, uint32_t owner, uint64_t *ret_most);
struct store_item {
    uint64_t id, bytes, cost_ns, used_s;     /* used_s: when last, seconds of the real-time clock */
    uint32_t owner, n_tokens, n_keys, depth; /* depth: tokens before it, 0 when that is not known */
    enum store_kind kind;
};
/* In order of id: it->id 0 for the first. owner: STORE_PUBLIC and a uid as they are. Looks at
 * STORE_NEXT_LOOKS records at most: false with another it->id says that the next one is further on.
 */
#define STORE_NEXT_LOOKS 4096u
bool store_next(struct store *s, uint32_t owner, struct store_item *it);
/* Reads all of a record and compares its checksums; a bad one is deleted. done as store_get's. */
int store_verify(struct store *s, uint64_t id, store_done_fn *done, void *arg);
/* Deletes what goes first of this owner until `bytes` or less are left; prune.h does it slowly. */
void store_prune(struct store *s, uint32_t owner, uint64_t bytes, uint64_t *ret_records,
                 uint64_t *ret_bytes);
/* Deletes one. False: it is gone. */
bool store_delete(struct store *s, uint64_t id, uint64_t *ret_bytes);
/* Deletes all records of an owner, with those that are being written, and its names. */
void store_forget(struct store *s, uint32_t owner, uint64_t *ret_records, uint64_t *ret_bytes);

#endif
