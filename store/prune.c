/* What people have deleted of one owner's: all, or what goes first down to so many bytes.
 *
 * A store may have a hundred thousand records, and everybody's steps wait while they are looked at.
 * So it is done in slices, and where one ended is kept as a record's id: what comes and goes
 * meanwhile moves nothing.
 *
 *     look (a slice, a slice ..) --> the first to go --> delete (a slice ..) --> look again
 */
#include "store/prune.h"

#include "store/inside.h"

#include <stdlib.h>
#include <string.h>

#define VICTIMS 1024u /* that are found by one look at all */

struct victim {
    double value;
    uint64_t used_s, id;
};

struct store_pruning {
    struct store *s;
    uint32_t owner;
    uint64_t bytes;     /* down to which */
    uint64_t at;        /* the last one that was looked at */
    bool looked;        /* at all of them, */
    uint64_t has, more; /* which take so much; what is to go yet */
    uint32_t n, next;   /* of v, the first to go at the beginning */
    uint32_t n_gone;    /* of these */
    struct victim v[VICTIMS];
};

struct store_pruning *store_prune_begin(struct store *s, uint32_t owner, uint64_t bytes)
{
    struct store_pruning *p = malloc(sizeof(*p));

    if (p)
        *p = (struct store_pruning){ .s = s, .owner = owner, .bytes = bytes };
    return p;
}

void store_prune_end(struct store_pruning *p)
{
    free(p);
}

/* Equal values: the one that was not used for longer, then the older record. */
static bool goes_before(const struct victim *a, const struct victim *b)
{
    if (a->value != b->value)
        return a->value < b->value;
    return a->used_s != b->used_s ? a->used_s < b->used_s : a->id < b->id;
}

static void consider(struct store_pruning *p, const struct victim *v)
{
    uint32_t from = 0, to = p->n;

    while (from < to) {
        uint32_t mid = from + (to - from) / 2;

        if (goes_before(&p->v[mid], v))
            from = mid + 1;
        else
            to = mid;
    }
    if (from == VICTIMS)
        return;
    if (p->n < VICTIMS)
        p->n++;
    memmove(&p->v[from + 1], &p->v[from], (p->n - 1 - from) * sizeof(*v));
    p->v[from] = *v;
}

static void look_at(struct store_pruning *p, const struct entry *e, uint64_t now_s)
{
    if (e->r.key.owner != p->owner)
        return;
    p->has += record_len(&e->r);
    if (limits_may_go(e))
        consider(p, &(struct victim){ limits_value(p->s, e, now_s), e->used_s, e->id });
}

static void look(struct store_pruning *p)
{
    uint64_t now_s = when_s();
    uint32_t most = limits_victims(p->s);

    for (uint32_t i = 0; i < STORE_PRUNE_LOOKS; i++) {
        const struct entry *e = index_next(&p->s->index, p->at);

        if (!e) {
            p->looked = true;
            p->more = p->has > p->bytes ? p->has - p->bytes : 0;
            p->n = p->n < most ? p->n : most;
            return;
        }
        p->at = e->id;
        look_at(p, e, now_s);
    }
}

static void delete_some(struct store_pruning *p, uint64_t *ret_records, uint64_t *ret_bytes)
{
    for (uint32_t i = 0; i < STORE_PRUNE_SLICE && p->next < p->n && p->more > 0; i++) {
        const struct victim *v = &p->v[p->next++];
        struct entry *e = limits_still(p->s, v->id, v->used_s);
        uint64_t len = e ? record_len(&e->r) : 0;

        if (!e)
            continue;
        p->more -= len < p->more ? len : p->more;
        p->n_gone++;
        (*ret_records)++;
        *ret_bytes += len;
        limits_delete(p->s, e);
    }
}

bool store_prune_some(struct store_pruning *p, uint64_t *ret_records, uint64_t *ret_bytes)
{
    *ret_records = *ret_bytes = 0;
    if (!p->looked) {
        look(p);
        return p->looked && p->more == 0;
    }
    delete_some(p, ret_records, ret_bytes);
    if (p->more == 0)
        return true;
    if (p->next < p->n)
        return false;
    if (p->n_gone == 0) /* what is left is in use */
        return true;
    *p = (struct store_pruning){ .s = p->s, .owner = p->owner, .bytes = p->bytes };
    return false;
}

void store_prune(struct store *s, uint32_t owner, uint64_t bytes, uint64_t *ret_records,
                 uint64_t *ret_bytes)
{
    struct store_pruning *p = store_prune_begin(s, owner, bytes);
    uint64_t n_records, n_bytes;
    bool done = !p;

    *ret_records = *ret_bytes = 0;
    while (!done) {
        done = store_prune_some(p, &n_records, &n_bytes);
        *ret_records += n_records;
        *ret_bytes += n_bytes;
    }
    store_prune_end(p);
}

void store_forget_unwritten(struct store *s, uint32_t owner)
{
    put_forget(s, owner);
    names_forget(s, owner);
}

/* Deletes what is being read as well: a read whose file is open already goes on to its end. */
void store_forget(struct store *s, uint32_t owner, uint64_t *ret_records, uint64_t *ret_bytes)
{
    struct entry *e;
    uint64_t at = 0;

    *ret_records = *ret_bytes = 0;
    while ((e = index_next(&s->index, at))) {
        at = e->id;
        if (e->r.key.owner != owner)
            continue;
        *ret_bytes += record_len(&e->r);
        (*ret_records)++;
        limits_delete(s, e);
    }
    store_forget_unwritten(s, owner);
}
