/* Three ways to an entry: a hash table by key and first ids (`buckets`), an array in order of id
 * (`by_id`), and a list by last use (`lru`). Places are in a hash table of the same size, and tell
 * by two counters whether something stands before or behind a record, without a pointer from one
 * record to another.
 *
 * A removal moves what stands behind it in by_id, 8 bytes for each: little beside the removal of
 * the file. */
#include "store/index.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 1024u  /* at first; a power of two */
#define WAY_MAX 65536u /* records one behind the other */

/* Both counters together are the references to it: an entry has one as the record that ends here
 * (`own`), another one where it begins (`before`). scope, owner and at are compared whole, since
 * the hash in front of them is 64 bits only. */
struct place {
    LIST_ENTRY(place) same;
    uint64_t hash;
    uint32_t n_ending, n_going_on; /* records; with neither it goes */
    uint32_t n_tokens;             /* of the record that ends here */
    struct place *before;          /* where that one begins; valid while n_ending > 0 */
    uint8_t scope[STORE_SCOPE_LEN];
    uint32_t owner;
    struct store_hash at;
};

int index_open(struct index *x, const uint8_t secret[SUM_SECRET_LEN])
{
    *x = (struct index){ .secret = secret, .n_buckets = BUCKETS, .next_id = 1 };
    TAILQ_INIT(&x->lru);
    x->buckets = calloc(BUCKETS, sizeof(*x->buckets));
    x->places = calloc(BUCKETS, sizeof(*x->places));
    if (x->buckets && x->places)
        return 0;
    index_close(x);
    return -ENOMEM;
}

void index_close(struct index *x)
{
    struct entry *e;

    while (x->buckets && x->places && (e = TAILQ_FIRST(&x->lru))) {
        index_take(x, e);
        index_free(e);
    }
    free(x->buckets);
    free(x->places);
    free(x->by_id);
    *x = (struct index){ 0 };
}

/* --- entries ---------------------------------------------------------------------------------- */

/* One allocation: the entry, its sums, its ids. Sums come first, for they need the larger
 * alignment. */
static size_t entry_len(const struct record *r)
{
    return sizeof(struct entry) + (size_t)r->n_pages * sizeof(*r->sums) +
           (size_t)r->n_tokens * sizeof(*r->ids);
}

/* r->sums may be NULL: a put fills them while its pages are hashed. */
struct entry *index_new(const struct index *x, const struct record *r)
{
    struct entry *e = malloc(entry_len(r));
    struct store_hash *sums;
    uint32_t *ids;

    if (!e)
        return NULL;
    *e = (struct entry){ .r = *r };
    sums = (struct store_hash *)(e + 1);
    ids = (uint32_t *)(sums + r->n_pages);
    if (r->sums)
        memcpy(sums, r->sums, (size_t)r->n_pages * sizeof(*sums));
    memcpy(ids, r->ids, (size_t)r->n_tokens * sizeof(*ids));
    e->r.sums = sums;
    e->r.ids = ids;
    record_name(x->secret, &r->key, ids, r->n_tokens, e->name);
    return e;
}

void index_free(struct entry *e)
{
    free(e);
}

/* --- places ----------------------------------------------------------------------------------- */

/* No padding is hashed: the owner has 8 bytes for that. */
static uint64_t place_hash(const struct index *x, const struct store_key *key, struct store_hash at)
{
    struct {
        uint8_t scope[STORE_SCOPE_LEN];
        struct store_hash at;
        uint64_t owner;
    } k = { .at = at, .owner = key->owner };

    memcpy(k.scope, key->scope, sizeof(k.scope));
    return sum_keyed(x->secret, &k, sizeof(k), NULL, 0).lo;
}

static bool is_root(struct store_hash h)
{
    return sum_equal(h, STORE_ROOT);
}

/* Makes it if it is not there. With both counters at zero it is the caller's to count up, or to
 * drop. */
static struct place *place_get(struct index *x, const struct store_key *key, struct store_hash at)
{
    uint64_t hash = place_hash(x, key, at);
    struct index_places *list = &x->places[hash & (x->n_buckets - 1)];
    struct place *p;

    LIST_FOREACH(p, list, same)
    {
        if (p->hash == hash && sum_equal(p->at, at) && p->owner == key->owner &&
            memcmp(p->scope, key->scope, sizeof(p->scope)) == 0)
            return p;
    }
    p = malloc(sizeof(*p));
    if (!p)
        return NULL;
    *p = (struct place){ .hash = hash, .owner = key->owner, .at = at };
    memcpy(p->scope, key->scope, sizeof(p->scope));
    LIST_INSERT_HEAD(list, p, same);
    return p;
}

/* Goes with the last that refers to it. */
static void place_drop(struct place *p)
{
    if (p && p->n_ending == 0 && p->n_going_on == 0) {
        LIST_REMOVE(p, same);
        free(p);
    }
}

/* Two that end here are twins, raw and packed: either may go, the other still leads on. */
bool index_is_end(const struct entry *e)
{
    return e->own->n_going_on == 0 || e->own->n_ending > 1;
}

bool index_is_orphan(const struct entry *e)
{
    return e->before && e->before->n_ending == 0;
}

/* The way back is as long as a session has segments. Nobody can make a hash that leads back to
 * itself, but nothing here loops without end for having believed so. */
uint32_t index_depth(const struct entry *e)
{
    const struct place *p = e->before;
    uint32_t depth = 0;

    for (uint32_t steps = 0; p; steps++) {
        if (p->n_ending == 0 || steps == WAY_MAX)
            return UINT32_MAX;
        depth += p->n_tokens;
        p = p->before;
    }
    return depth;
}

/* --- by ids ----------------------------------------------------------------------------------- */

/* Of the first page's ids only, since a request may share no more than that with a record. */
static uint64_t bucket_hash(const struct index *x, const struct store_key *key, const uint32_t *ids,
                            uint32_t n)
{
    struct {
        uint8_t scope[STORE_SCOPE_LEN];
        struct store_hash before;
        uint32_t owner, kind;
    } k = { .before = key->before, .owner = key->owner, .kind = key->kind };

    memcpy(k.scope, key->scope, sizeof(k.scope));
    return sum_keyed(x->secret, &k, sizeof(k), ids, (size_t)n * sizeof(*ids)).lo;
}

static uint32_t first_page(uint32_t n)
{
    return n < STORE_PAGE_TOKENS ? n : STORE_PAGE_TOKENS;
}

static bool same_key(const struct store_key *a, const struct store_key *b)
{
    return a->owner == b->owner && a->kind == b->kind && sum_equal(a->before, b->before) &&
           memcmp(a->scope, b->scope, sizeof(a->scope)) == 0;
}

static uint32_t common(const uint32_t *a, const uint32_t *b, uint32_t n)
{
    uint32_t i = 0;

    while (i < n && a[i] == b[i])
        i++;
    return i;
}

/* Of ids [0, n), how many e can give. All of it, or of a raw record with a key a token its whole
 * pages: only there can pages be told apart by tokens. */
static uint32_t usable(const struct entry *e, const uint32_t *ids, uint32_t n)
{
    const struct record *r = &e->r;
    uint32_t c = common(r->ids, ids, n < r->n_tokens ? n : r->n_tokens);

    if (c == r->n_tokens)
        return c;
    if (r->key.kind != STORE_RAW || r->n_keys != r->n_tokens)
        return 0;
    return c / STORE_PAGE_TOKENS * STORE_PAGE_TOKENS;
}

static struct index_bucket *bucket_of(struct index *x, uint64_t hash)
{
    return &x->buckets[hash & (x->n_buckets - 1)];
}

/* Longer beginnings first, down to single ids; n_short says which lengths are worth a look. The
 * first length that has anything ends the search. */
struct entry *index_find(struct index *x, const struct store_key *key, const uint32_t *ids,
                         uint32_t n, uint32_t *ret_n)
{
    struct entry *best = NULL, *e;
    uint32_t most = 0;

    /* Records shorter than a page stand in buckets of their own, by all of their ids. */
    for (uint32_t len = first_page(n); len > 0 && !best; len--) {
        uint64_t hash;

        if (len < STORE_PAGE_TOKENS && x->n_short[len] == 0)
            continue;
        hash = bucket_hash(x, key, ids, len);
        LIST_FOREACH(e, bucket_of(x, hash), same)
        {
            uint32_t got = e->bucket == hash && same_key(&e->r.key, key) ? usable(e, ids, n) : 0;

            if (got > most) {
                most = got;
                best = e;
            }
        }
    }
    if (best)
        *ret_n = most;
    return best;
}

/* Where a tail is asked for, a longer record that begins with it makes it needless (N1). */
struct entry *index_like(struct index *x, const struct store_key *key, const uint32_t *ids,
                         uint32_t n, bool tail)
{
    uint64_t hash = bucket_hash(x, key, ids, first_page(n));
    struct entry *e;

    LIST_FOREACH(e, bucket_of(x, hash), same)
    {
        const struct record *r = &e->r;

        if (e->bucket == hash && same_key(&r->key, key) &&
            (r->n_tokens == n || (tail && r->n_tokens > n)) && common(r->ids, ids, n) == n)
            return e;
    }
    return NULL;
}

/* Tails that e goes on from. A tail shorter than a page may stand in another bucket: it is of no
 * use to who finds e, and goes by age. e is in no bucket yet, but its places are counted: they do
 * not go with a tail that shared them. */
static void take_tails(struct index *x, const struct entry *e, struct entries *ret)
{
    struct entry *t, *next;

    for (t = LIST_FIRST(bucket_of(x, e->bucket)); t; t = next) {
        next = LIST_NEXT(t, same);
        if (t->r.tail && t->r.n_tokens < e->r.n_tokens && same_key(&t->r.key, &e->r.key) &&
            common(t->r.ids, e->r.ids, t->r.n_tokens) == t->r.n_tokens) {
            index_take(x, t);
            TAILQ_INSERT_TAIL(ret, t, lru);
        }
    }
}

/* --- in and out ------------------------------------------------------------------------------- */

/* All at once: it happens once for each doubling. Entries and places keep their hashes, so nothing
 * is hashed again. */
static int grow_buckets(struct index *x)
{
    uint32_t n = x->n_buckets * 2;
    struct index_bucket *buckets = calloc(n, sizeof(*buckets));
    struct index_places *places = calloc(n, sizeof(*places));

    if (!buckets || !places) {
        free(buckets);
        free(places);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < x->n_buckets; i++) {
        struct entry *e;
        struct place *p;

        while ((e = LIST_FIRST(&x->buckets[i]))) {
            LIST_REMOVE(e, same);
            LIST_INSERT_HEAD(&buckets[e->bucket & (n - 1)], e, same);
        }
        while ((p = LIST_FIRST(&x->places[i]))) {
            LIST_REMOVE(p, same);
            LIST_INSERT_HEAD(&places[p->hash & (n - 1)], p, same);
        }
    }
    free(x->buckets);
    free(x->places);
    x->buckets = buckets;
    x->places = places;
    x->n_buckets = n;
    return 0;
}

static int make_room(struct index *x)
{
    if (x->n_ids == x->cap) {
        uint32_t cap = x->cap ? x->cap * 2 : 256;
        struct index_id *by_id = realloc(x->by_id, cap * sizeof(*by_id));

        if (!by_id)
            return -ENOMEM;
        x->by_id = by_id;
        x->cap = cap;
    }
    /* Without memory for more buckets the lists become longer, no more. */
    if (x->n >= x->n_buckets)
        (void)grow_buckets(x);
    return 0;
}

/* Counts e at both of its places; on failure nothing is counted. n_tokens and before of a place are
 * the same for all that end there, because its hash is of just these. */
static int put_places(struct index *x, struct entry *e)
{
    const struct record *r = &e->r;

    e->own = place_get(x, &r->key, r->own);
    if (!e->own)
        return -ENOMEM;
    e->own->n_ending++;
    if (is_root(r->key.before)) {
        e->before = NULL;
    } else {
        e->before = place_get(x, &r->key, r->key.before);
        if (!e->before) {
            e->own->n_ending--;
            place_drop(e->own);
            return -ENOMEM;
        }
        e->before->n_going_on++;
    }
    e->own->n_tokens = r->n_tokens;
    e->own->before = e->before;
    return 0;
}

/* What may fail comes first. From take_tails on nothing does, so the index is never left half
 * changed. */
int index_add(struct index *x, struct entry *e, struct entries *ret_replaced)
{
    const struct record *r = &e->r;
    int err;

    if (index_like(x, &r->key, r->ids, r->n_tokens, r->tail))
        return -EEXIST;
    err = make_room(x);
    if (err == 0)
        err = put_places(x, e);
    if (err < 0)
        return err;
    e->bucket = bucket_hash(x, &r->key, r->ids, first_page(r->n_tokens));
    take_tails(x, e, ret_replaced);
    LIST_INSERT_HEAD(bucket_of(x, e->bucket), e, same);
    TAILQ_INSERT_TAIL(&x->lru, e, lru);
    e->id = x->next_id++;
    x->by_id[x->n_ids++] = (struct index_id){ e->id, e };
    x->n++;
    x->bytes += record_len(r);
    x->memory += entry_len(r);
    if (r->n_tokens < STORE_PAGE_TOKENS)
        x->n_short[r->n_tokens]++;
    return 0;
}

/* Where id is in by_id, or would be. */
static uint32_t by_id_at(const struct index *x, uint64_t id)
{
    uint32_t from = 0, to = x->n_ids;

    while (from < to) {
        uint32_t mid = from + (to - from) / 2;

        if (x->by_id[mid].id < id)
            from = mid + 1;
        else
            to = mid;
    }
    return from;
}

/* Each is moved once for each that was taken, at most. */
static void close_holes(struct index *x)
{
    uint32_t to = 0;

    for (uint32_t i = 0; i < x->n_ids; i++)
        if (x->by_id[i].e)
            x->by_id[to++] = x->by_id[i];
    x->n_ids = to;
}

/* The entry stays the caller's. Its list link `lru` is free for other lists from here on (dying,
 * replaced). */
void index_take(struct index *x, struct entry *e)
{
    uint32_t at = by_id_at(x, e->id);

    assert(at < x->n_ids && x->by_id[at].e == e);
    x->by_id[at].e = NULL;
    x->n--;
    if (x->n < x->n_ids / 2)
        close_holes(x);
    LIST_REMOVE(e, same);
    TAILQ_REMOVE(&x->lru, e, lru);
    x->bytes -= record_len(&e->r);
    x->memory -= entry_len(&e->r);
    if (e->r.n_tokens < STORE_PAGE_TOKENS)
        x->n_short[e->r.n_tokens]--;
    e->own->n_ending--;
    place_drop(e->own);
    if (e->before)
        e->before->n_going_on--;
    place_drop(e->before);
    e->own = e->before = NULL;
    e->taken = true;
}

struct entry *index_by_id(const struct index *x, uint64_t id)
{
    uint32_t at = by_id_at(x, id);

    return at < x->n_ids && x->by_id[at].id == id ? x->by_id[at].e : NULL;
}

struct entry *index_next(const struct index *x, uint64_t id)
{
    uint32_t at = by_id_at(x, id + 1);

    while (at < x->n_ids && !x->by_id[at].e)
        at++;
    return at < x->n_ids ? x->by_id[at].e : NULL;
}

/* --- by last use ------------------------------------------------------------------------------ */

void index_use(struct index *x, struct entry *e, uint64_t now_s)
{
    e->used_s = now_s;
    e->used_dirty = true;
    TAILQ_REMOVE(&x->lru, e, lru);
    TAILQ_INSERT_TAIL(&x->lru, e, lru);
}

static int by_use(const void *a, const void *b)
{
    const struct entry *x = ((const struct index_id *)a)->e, *y = ((const struct index_id *)b)->e;

    return x->used_s != y->used_s ? (x->used_s > y->used_s) - (x->used_s < y->used_s)
                                  : (x->id > y->id) - (x->id < y->id);
}

static int by_number(const void *a, const void *b)
{
    const struct index_id *x = a, *y = b;

    return (x->id > y->id) - (x->id < y->id);
}

/* by_id is the one array of all of them: it is sorted by use, read, and sorted back. For the start
 * alone, where entries come in the order of folders. */
void index_sort(struct index *x)
{
    if (x->n == 0)
        return;
    close_holes(x);
    qsort(x->by_id, x->n, sizeof(*x->by_id), by_use);
    TAILQ_INIT(&x->lru);
    for (uint32_t i = 0; i < x->n; i++)
        TAILQ_INSERT_TAIL(&x->lru, x->by_id[i].e, lru);
    qsort(x->by_id, x->n, sizeof(*x->by_id), by_number);
}
