/* daemon/req_cache.c - what is kept on disk of a user's sessions: counted, listed, verified,
 * deleted.
 *
 * A store may hold a hundred thousand records, and everybody's steps wait while one of these
 * requests is at work. So none of them looks at more than a slice of the records at once, and where
 * the last slice ended is kept as a record's id: what comes and goes meanwhile moves nothing.
 *
 *     STAT           walk ............................................ last reply
 *     LIST           walk 64 records, send them, walk ................ last reply
 *     VERIFY         walk (how many there are), then each is read .... last reply
 *     PRUNE          store_prune_some, again and again ............... last reply
 *     FORGET         walk, delete .................................... last reply
 *
 * A verification reads records by store_verify, a few at a time, and its slices only look at what
 * came back. A client has one under way; its others wait for that one, so that sixty of them are no
 * more than one. It ends, cancelled or its client dead, while the disk may still read for it: what
 * the callback needs is therefore a piece of memory of its own, which is freed by who comes last.
 */
#include "base/clock.h"
#include "daemon/prefix.h"
#include "daemon/reply.h"
#include "daemon/sched.h"
#include "store/prune.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WALK_SLICE  1024u
#define CHECKS      2u /* records that are read at once */
#define PROGRESS_NS (250 * CLOCK_MS)

_Static_assert(PREFIX_PUBLIC == STORE_PUBLIC, "one owner");

struct cache;

/* A record that is being read. */
struct check {
    struct cache *cache; /* NULL: nobody waits for it, its callback frees it */
    uint64_t bytes, tokens;
    bool busy, packed;
};

struct cache {
    struct store *store;
    enum wire_cache_verb verb;
    uint32_t owner;
    uint64_t bytes;
    uint64_t first; /* records behind this one */
    uint64_t after; /* the last that was walked over, or taken to be read */
    bool walked;    /* there are none behind that */
    bool counted;   /* VERIFY: the walk is over */
    struct store_pruning *pruning;
    bool moved; /* something came back since the last slice */
    struct wire_cache_rows sum;
    struct wire_cache_row rows[WIRE_CACHE_ROWS_MAX]; /* (sum.n_row) to be sent */
    struct check *checks[CHECKS];
    bool progress; /* numbers are to be sent */
    uint64_t told_ns;
};

/* --- walking ---------------------------------------------------------------------------------- */

static void count(struct cache *c, uint64_t bytes, uint64_t tokens, bool packed)
{
    c->sum.records++;
    c->sum.bytes += bytes;
    c->sum.tokens += tokens;
    c->sum.packed_records += packed;
    c->sum.packed_bytes += packed ? bytes : 0;
}

/* False: there is none, or (not walked) it is further on than one look goes. */
static bool next(struct cache *c, struct store_item *ret)
{
    *ret = (struct store_item){ .id = c->after };
    if (store_next(c->store, c->owner, ret)) {
        c->after = ret->id;
        return true;
    }
    c->walked = ret->id == c->after;
    c->after = ret->id;
    return false;
}

static void walk(struct cache *c)
{
    struct store_item it;

    for (uint32_t i = 0; i < WALK_SLICE && next(c, &it); i++) {
        if (c->verb == WIRE_CACHE_STAT)
            count(c, it.bytes, it.n_tokens, it.kind == STORE_PACKED);
        else
            c->sum.total++;
    }
}

/* A frame of them, and not the whole list: a slow reader has no more than that here. */
static void walk_rows(struct cache *c)
{
    struct store_item it;

    while (c->sum.n_row < WIRE_CACHE_ROWS_MAX && next(c, &it)) {
        count(c, it.bytes, it.n_tokens, it.kind == STORE_PACKED);
        c->rows[c->sum.n_row++] = (struct wire_cache_row){ .id = it.id,
                                                           .bytes = it.bytes,
                                                           .used_s = it.used_s,
                                                           .cost_ns = it.cost_ns,
                                                           .tokens = it.n_tokens,
                                                           .keys = it.n_keys,
                                                           .depth = it.depth,
                                                           .packed = it.kind == STORE_PACKED };
    }
}

/* --- verifying -------------------------------------------------------------------------------- */

static void checked(void *arg, int result)
{
    struct check *k = arg;
    struct cache *c = k->cache;

    if (!c) {
        free(k);
        return;
    }
    k->busy = false;
    c->moved = true;
    if (result == 0 || result == -EBADMSG)
        count(c, k->bytes, k->tokens, k->packed);
    if (result == -EBADMSG) {
        c->sum.bad_records++;
        c->sum.bad_bytes += k->bytes;
    } else if (result < 0 && result != -ENOENT) { /* that one was evicted meanwhile */
        c->sum.unread_records++;
    }
}

/* -EAGAIN: the store has too much to do, this record's turn comes again. */
static int take(struct cache *c, struct check *k)
{
    uint64_t before = c->after;
    struct store_item it;
    int e = -ENOENT;

    while (e == -ENOENT && next(c, &it)) {
        k->bytes = it.bytes;
        k->tokens = it.n_tokens;
        k->packed = it.kind == STORE_PACKED;
        e = store_verify(c->store, it.id, checked, k);
        k->busy = e == 0;
        if (e == -EAGAIN)
            c->after = before;
        else if (e < 0 && e != -ENOENT)
            c->sum.unread_records++;
    }
    return e;
}

/* True: it did something. */
static bool take_more(struct cache *c)
{
    bool any = false;

    for (uint32_t i = 0; i < CHECKS && !c->walked; i++) {
        if (c->checks[i]->busy)
            continue;
        if (take(c, c->checks[i]) == -EAGAIN)
            break;
        any = true;
    }
    return any;
}

static bool reads(const struct cache *c)
{
    for (uint32_t i = 0; i < CHECKS; i++)
        if (c->checks[i] && c->checks[i]->busy)
            return true;
    return false;
}

/* Whether it is the first of its client's verifications. */
static bool in_turn(const struct request *r)
{
    const struct client *c = r->client;

    for (uint32_t i = 0; i < CLIENT_REQUESTS_ALL; i++) {
        const struct request *x = &c->requests[i];
        const struct cache *other = x->state;

        if (x == r || x->phase != REQUEST_WORK || x->ops != r->ops || !other ||
            other->verb != WIRE_CACHE_VERIFY)
            continue;
        if (x->arrived_ns < r->arrived_ns || (x->arrived_ns == r->arrived_ns && x < r))
            return false;
    }
    return true;
}

static void tell_progress(struct cache *c)
{
    uint64_t now = clock_ns();

    if (now - c->told_ns < PROGRESS_NS)
        return;
    c->told_ns = now;
    c->progress = true;
}

/* The same walk from its beginning, now that the number is known that progress is told of. */
static void begin_reading(struct cache *c)
{
    c->counted = true;
    c->walked = false;
    c->after = c->first;
    c->told_ns = clock_ns();
}

static bool verify(const struct request *r, struct cache *c)
{
    bool moved = c->moved;

    if (!in_turn(r))
        return false;
    if (!c->counted) {
        walk(c);
        if (c->walked)
            begin_reading(c);
        return true;
    }
    c->moved = false;
    moved |= take_more(c);
    if (moved)
        tell_progress(c);
    return moved;
}

/* --- the request ------------------------------------------------------------------------------ */

static void finish(struct sched *s, struct request *r, struct cache *c)
{
    c->sum.row = NULL;
    c->sum.n_row = 0;
    r->last = (struct wire_rep){ .kind = WIRE_CACHE_ROWS };
    r->last.u.cache_rows = c->sum;
    request_finish(s, r);
}

static bool deletes(const struct cache *c)
{
    return c->verb == WIRE_CACHE_PRUNE || c->verb == WIRE_CACHE_FORGET;
}

/* Public records are nobody's own, so that nobody deletes them for others but who runs the daemon.
 */
static bool may_delete(struct sched *s, struct request *r, const struct cache *c)
{
    uid_t own = geteuid();

    if (c->owner != STORE_PUBLIC || r->client->uid == 0 || r->client->uid == own)
        return true;
    request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                 "records of public sessions are every user's: only root and the daemon's own user "
                 "(uid %u) can delete them",
                 (unsigned)own);
    return false;
}

static void prune(struct sched *s, struct request *r, struct cache *c)
{
    uint64_t records, bytes;
    bool done = store_prune_some(c->pruning, &records, &bytes);

    c->sum.records += records;
    c->sum.bytes += bytes;
    if (done)
        finish(s, r, c);
}

static void forget(struct sched *s, struct request *r, struct cache *c)
{
    struct store_item it;
    uint64_t bytes;

    for (uint32_t i = 0; i < STORE_PRUNE_SLICE && next(c, &it); i++)
        if (store_delete(c->store, it.id, &bytes))
            count(c, bytes, it.n_tokens, it.kind == STORE_PACKED);
    if (!c->walked)
        return;
    store_forget_unwritten(c->store, c->owner);
    documents_forget(&s->documents, c->owner);
    if (s->served.prefix)
        prefix_forget(s->served.prefix, c->owner);
    if (s->served.tier)
        tier_forget(s->served.tier, c->owner);
    finish(s, r, c);
}

static int send_sum(struct sched *s, struct request *r, struct cache *c)
{
    struct wire_rep rep = { .id = r->id, .kind = WIRE_CACHE_ROWS, .u.cache_rows = c->sum };

    rep.u.cache_rows.row = c->rows;
    return reply_send(s, r, &rep, NULL);
}

/* What waits is sent here, and not only by flush(): where that finds room nobody would know that
 * there is more to do, and the scheduler would go to sleep. */
static bool list(struct sched *s, struct request *r, struct cache *c)
{
    if (c->sum.n_row > 0 && send_sum(s, r, c) < 0)
        return false;
    c->sum.n_row = 0;
    walk_rows(c);
    return true;
}

static bool cache_work(struct sched *s, struct request *r)
{
    struct cache *c = r->state;
    bool any = true;

    switch (c->verb) {
    case WIRE_CACHE_STAT:
        walk(c);
        if (c->walked)
            finish(s, r, c);
        break;
    case WIRE_CACHE_LIST:
        any = list(s, r, c);
        if (c->walked && c->sum.n_row == 0)
            finish(s, r, c);
        break;
    case WIRE_CACHE_VERIFY:
        any = verify(r, c);
        if (c->counted && c->walked && !reads(c))
            finish(s, r, c);
        break;
    case WIRE_CACHE_PRUNE:
        prune(s, r, c);
        break;
    case WIRE_CACHE_FORGET:
        forget(s, r, c);
        break;
    }
    return any || r->phase == REQUEST_LAST;
}

/* Progress that finds no room is out of date by the time that there is some. */
static int cache_flush(struct sched *s, struct request *r)
{
    struct cache *c = r->state;
    int e = 0;

    if (!c || r->last.kind == WIRE_ERROR)
        return 0;
    if (c->sum.n_row > 0)
        e = send_sum(s, r, c);
    else if (c->progress && r->phase == REQUEST_WORK)
        (void)send_sum(s, r, c);
    if (e == 0)
        c->sum.n_row = 0;
    c->progress = false;
    return e;
}

static bool may_ask(struct sched *s, struct request *r)
{
    const struct served *b = &s->served;

    if (!b->store)
        request_fail(s, r, WIRE_E_STORAGE, REQUEST_NO_NUMBERS,
                     "this daemon keeps nothing on disk: %.200s", b->store_why.text);
    else if (r->client->uid == b->stand_in)
        request_fail(s, r, WIRE_E_STORAGE, REQUEST_NO_NUMBERS,
                     "nothing is kept for users whom the kernel cannot tell apart (uid %u)",
                     (unsigned)r->client->uid);
    return r->phase == REQUEST_WORK;
}

static int take_checks(struct cache *c)
{
    for (uint32_t i = 0; i < CHECKS; i++) {
        c->checks[i] = calloc(1, sizeof(*c->checks[i]));
        if (!c->checks[i])
            return -ENOMEM;
        c->checks[i]->cache = c;
    }
    return 0;
}

static int cache_start(struct sched *s, struct request *r, const struct wire_req *m,
                       const uint8_t *bulk)
{
    struct cache *c;

    (void)bulk;
    if (!may_ask(s, r))
        return 0;
    c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    r->state = c;
    c->store = s->served.store;
    c->verb = m->u.cache.verb;
    c->owner = m->u.cache.public_records ? STORE_PUBLIC : r->client->uid;
    c->first = c->after = deletes(c) ? 0 : m->u.cache.after;
    c->bytes = m->u.cache.bytes;
    if (deletes(c) && !may_delete(s, r, c))
        return 0;
    if (c->verb == WIRE_CACHE_PRUNE) {
        c->pruning = store_prune_begin(c->store, c->owner, c->bytes);
        return c->pruning ? 0 : -ENOMEM;
    }
    return c->verb == WIRE_CACHE_VERIFY ? take_checks(c) : 0;
}

static void cache_fini(struct request *r)
{
    struct cache *c = r->state;

    for (uint32_t i = 0; c && i < CHECKS; i++) {
        struct check *k = c->checks[i];

        if (k && k->busy && store_cancel(c->store, k))
            k->cache = NULL; /* the disk still reads for it */
        else
            free(k);
    }
    if (c)
        store_prune_end(c->pruning);
    free(c);
}

const struct request_ops request_cache = { .name = "cache",
                                           .start = cache_start,
                                           .work = cache_work,
                                           .flush = cache_flush,
                                           .fini = cache_fini };
