/* engine/kv/pool.h - the paged KV pool: one arena of equal pages, fixed at start.
 *
 * A page holds 16 tokens of K and V of all layers and KV heads of one model:
 *
 *     layer 0                                            layer 1
 *     +----------+----------+-- .. --+----------+-- .. --+--
 *     | K head 0 | V head 0 | K head 1  V head 1 | ...    |
 *     +----------+----------+-- .. --+----------+-- .. --+--
 *     K tile (head_dim, 16), V tile (16, head_dim); f16, f32 or q8_0 (engine/kv/page.h)
 *
 * It is padded to a multiple of 4096 bytes, and the arena begins at one: a page can be read from
 * and written to a file past the page cache (O_DIRECT). What its bytes mean has a name, the layout:
 * a file of pages is of use to a pool of the same layout only.
 *
 * A page may stand in several tables (a fork shares what it was made from): it counts them, and
 * each table's account is charged for it. Who writes to a shared page copies it first.
 *
 * Invariants
 *   P1  A page is free when it stands in no table, and only then. An account's used is the entries
 *       of its tables.
 *   P2  An account never holds more than its limit.
 *   P3  Nothing is allocated after pool_open.
 *   P4  n_cached counts the pages with refs == kept > 0, those that only reclaimers' tables hold:
 *       with n_free it is what can be had.
 *   P5  A page in tables of accounts that have an owner is charged once to the one that was first
 *       to have it, as long as there are any: forks and sessions that share it cost their owner
 *       nothing more. No owner holds more than its limit.
 *   P6  The last `reserve` pages that can be had are taken only for owners that have no more than
 *       so many themselves; a page that only reclaimers' tables hold can be had until it is shared.
 *
 * Threads    one thread takes and gives pages; only the backend reads and writes their bytes.
 * Errors     pool_open: -ENOMEM, -EINVAL (less than one page). pool_take, pool_share: -ENOSPC, all
 *            or nothing.
 */
#ifndef ENGINE_KV_POOL_H
#define ENGINE_KV_POOL_H

#include "base/digest.h"
#include "engine/backend.h"
#include "engine/file/model.h"
#include "engine/kv/page.h"

#define POOL_PAGE_TOKENS PAGE_TOKENS

#define POOL_PAGE_ALIGN     4096u
#define POOL_LAYOUT_VERSION 1u /* changes when the same fields would mean other bytes */
#define POOL_LAYOUT_MAX     128u

/* Of several accounts together, see P5. It outlives them, and the pages that were charged to it. */
struct pool_owner {
    uint32_t used, limit; /* pages */
};

struct pool_account {
    uint32_t used, limit;     /* entries of its tables */
    bool kept;                /* a reclaimer's */
    struct pool_owner *owner; /* NULL: nobody's */
};

/* Who holds pages that it can do without, in tables that are charged to `account`. fn wants n_free
 * to be n and gives back what it can towards it. */
struct pool_reclaimer {
    void (*fn)(void *arg, uint32_t n);
    void *arg;
    struct pool_account *account;
    struct pool_reclaimer *next;
};

struct pool {
    struct backend *backend;
    uint8_t *mem; /* the backend's */
    size_t mem_len, page_bytes;
    size_t head_bytes; /* K and V tile of one head of one layer */
    enum kv_type kv;
    uint32_t n_layer, n_head_kv, head_dim;
    char layout[DIGEST_LEN]; /* the digest of pool_layout's text */
    uint32_t n_pages, n_free;
    uint32_t *free;                    /* stack of n_free page ids */
    uint32_t *refs;                    /* (n_pages) tables that a page stands in; 0: free */
    struct pool_reclaimer *reclaimers; /* asked in this order */
    uint32_t *kept;                    /* (n_pages) of refs, those of reclaimers' accounts */
    uint32_t n_cached;                 /* see P4 */
    uint32_t *owned;                   /* (n_pages) of refs, those of accounts with an owner */
    struct pool_owner **by;            /* (n_pages) whom a page is charged to; NULL: nobody */
    uint32_t reserve;                  /* see P6; 0: nothing is kept for anybody */
    bool *away;                        /* (n_pages) free, and its memory is the machine's, see */
    uint32_t n_away;                   /* pool_discard */
};

/* Bytes of one page of this model. */
size_t pool_page_bytes(const struct model *m, enum kv_type kv);

/* Pages that a pool of so many bytes has, and the bytes of the process that their tables take. */
uint32_t pool_pages_in(uint64_t bytes, size_t page_bytes);
size_t pool_tables_bytes(uint32_t n_pages);

/* All that the meaning of a page's bytes depends on, as a line of text: version, type, layers, KV
 * heads, head_dim, tokens and bytes of a page. */
void pool_layout(const struct pool *p, char ret[POOL_LAYOUT_MAX]);

/* In memory of b, which is borrowed; NULL: of the process. */
int pool_open(struct pool *p, struct backend *b, const struct model *m, enum kv_type kv,
              uint64_t bytes, struct why *why);
void pool_close(struct pool *p);

/* Of a device that was lost: its memory is given back, and taken anew when it came back. Pages stay
 * whose they are, and have nothing in them then. */
void pool_leave(struct pool *p);
int pool_again(struct pool *p, struct why *why); /* -ENOMEM */

/* The memory of free pages goes back to the machine, and is taken again when they are used: bytes
 * that it got; 0: it has all of that already, or the backend gives no part back. refill takes all
 * of it now: -ENOMEM where a first use would end the process later. */
uint64_t pool_discard(struct pool *p);
int pool_refill(struct pool *p);

/* From now on r is asked when pages are short, after those that were there before; borrowed until
 * it is dropped. Its account is empty when it comes, and is to be emptied after it went. Dropping
 * one that was never added does nothing. */
void pool_add_reclaimer(struct pool *p, struct pool_reclaimer *r);
void pool_drop_reclaimer(struct pool *p, struct pool_reclaimer *r);

/* Has reclaimers give up pages until n are free. False: there are fewer, all that could be had. */
bool pool_make_free(struct pool *p, uint32_t n);
/* How many pages more the account might have, by its own limit, its owner's and P6, were there
 * `coming` more to be had than now. There may be fewer in the pool. */
uint32_t pool_room(const struct pool *p, const struct pool_account *a, uint32_t coming);
/* The same of copies (pool_own), which its own limit has nothing to do with; and of pages that
 * other tables have, too, which are taken from nobody. */
uint32_t pool_room_copies(const struct pool *p, const struct pool_account *a, uint32_t coming);
uint32_t pool_room_shared(const struct pool_account *a);
/* What sharing pages would cost: those that are charged to nobody now, and those that can be had
 * until then. */
struct pool_cost {
    uint32_t n, n_new, n_cached;
};
void pool_cost_add(const struct pool *p, struct pool_cost *c, uint32_t n, const uint32_t *pages);
/* pool_share of all that was counted, in parts or at once, will succeed. */
bool pool_may_share(const struct pool *p, const struct pool_account *a, const struct pool_cost *c);
/* Takes n pages for the account, or none. */
int pool_take(struct pool *p, struct pool_account *a, uint32_t n, uint32_t *ret_pages);
/* One table less: a page that stands in no other is free. */
void pool_give(struct pool *p, struct pool_account *a, uint32_t n, const uint32_t *pages);
/* n of a's entries are b's from now on, which pages they are. Neither is kept, and both are of one
 * owner. -ENOSPC: b. */
int pool_account_move(struct pool_account *a, struct pool_account *b, uint32_t n);
/* One table more, of this account: all of them, or -ENOSPC. */
int pool_share(struct pool *p, struct pool_account *a, uint32_t n, const uint32_t *pages);

/* Exchanges a page that stands in other tables too for a copy, in a table of a: that is charged
 * nothing, its owner a page. -ENOSPC. */
int pool_own(struct pool *p, const struct pool_account *a, uint32_t *page);
/* Whether that needs room (pool_room_copies), for a page that stands in other tables, too. */
bool pool_copy_costs(const struct pool *p, const struct pool_account *a, uint32_t page);

static inline bool pool_shared(const struct pool *p, uint32_t page)
{
    return p->refs[page] > 1;
}

/* Offsets of a layer's and head's tiles inside a page. */
size_t pool_k_off(const struct pool *p, uint32_t layer, uint32_t head);
size_t pool_v_off(const struct pool *p, uint32_t layer, uint32_t head);

#endif
