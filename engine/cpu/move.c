/* engine/cpu/move.c - keys go from place to place, list by list.
 *
 * A list is one layer's KV head. Its keys are made f32, turned, and stored again: rounded once more
 * than what stays where it is.
 */
#include "engine/cpu/move.h"

#include "engine/cpu/kv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct move {
    const struct kernels *k;
    struct workers *w;
    const struct rotary *rotary;
    uint32_t n_layer, n_head_kv, hd;
    struct move_scratch *desks; /* one a worker */
};

/* A slice of either job is one layer's KV head: nobody else writes to its tiles. */
struct move_job {
    struct move *v;
    const struct backend_move *m;
};

struct norms_job {
    struct move *v;
    const struct pool *pool;
    const uint32_t *pages;
    uint32_t n_keys;
    float *ret;
};

/* The pool is this machine's memory here, so addresses may be made of it. */
struct move_place move_place_of(const struct pool *p, const uint32_t *pages, uint32_t key,
                                uint32_t list)
{
    uint8_t *page = p->mem + pages[key / POOL_PAGE_TOKENS] * p->page_bytes;
    uint32_t layer = list / p->n_head_kv, head = list % p->n_head_kv;

    return (struct move_place){ page + pool_k_off(p, layer, head),
                                page + pool_v_off(p, layer, head), key };
}

/* by: less than SEQ_SEGMENT_MAX, to either side, so that one row of the fine table has its angles
 * and needs no scratch. Back is forth with other signs of the sines. */
static void turn_key(const struct kernels *k, const struct rotary *rotary, int by, uint32_t hd,
                     struct move_scratch *s)
{
    memcpy(s->angles, rotary_by(rotary, (uint32_t)abs(by), NULL), hd * sizeof(*s->angles));
    for (uint32_t i = hd / 2; by < 0 && i < hd; i++)
        s->angles[i] = -s->angles[i];
    k->rope(s->k, 1, hd, s->angles);
}

/* A key that keeps its place is copied bit for bit: rounding it once more could change it, and then
 * a segment that was written to fresh pages would differ from one that was packed in place. */
void move_key(const struct kernels *k, const struct rotary *rotary, enum kv_type kv, uint32_t hd,
              const struct move_place *from, const struct move_place *to, struct move_scratch *s)
{
    uint32_t slot = from->key % POOL_PAGE_TOKENS;

    if (from->key == to->key) {
        if (from->k != to->k)
            kv_copy(kv, from->k, from->v, to->k, to->v, hd, slot);
        return;
    }
    kv_read(kv, from->k, from->v, hd, slot, s->k, s->v);
    turn_key(k, rotary, (int)to->key - (int)from->key, hd, s);
    k->kv_store[kv](s->k, s->v, hd, to->key % POOL_PAGE_TOKENS, to->k, to->v);
}

static void move_listed(const struct move *v, const struct backend_move *m, uint32_t list,
                        uint32_t from, uint32_t to, struct move_scratch *s)
{
    struct move_place a = move_place_of(m->pool, m->from, from, list);
    struct move_place b = move_place_of(m->pool, m->to, to, list);

    move_key(v->k, v->rotary, m->pool->kv, v->hd, &a, &b, s);
}

/* In the same pages the order matters: towards lower places from the front, towards higher ones
 * from the end, so that no key is written over before it was read. The last key tells which way all
 * of them go (struct backend_move). */
static void move_list(void *arg, uint32_t list, uint32_t worker)
{
    const struct move_job *j = arg;
    const struct backend_move *m = j->m;
    const uint32_t *kept = m->kept + (m->per_head ? (size_t)list * m->n_keys : 0);
    struct move_scratch *s = &j->v->desks[worker];

    if (kept[m->n_keys - 1] < m->n_keys - 1)
        for (uint32_t i = m->n_keys; i-- > m->first;)
            move_listed(j->v, m, list, kept[i], i, s);
    else
        for (uint32_t i = m->first; i < m->n_keys; i++)
            move_listed(j->v, m, list, kept[i], i, s);
}

void move_run(struct move *v, const struct backend_move *m)
{
    struct move_job j = { v, m };

    if (m->first < m->n_keys)
        workers_run(v->w, move_list, &j, v->n_layer * v->n_head_kv);
}

/* Of keys as they are stored: rotation leaves a norm as it is. */
static void norms_list(void *arg, uint32_t list, uint32_t worker)
{
    const struct norms_job *j = arg;
    struct move_scratch *s = &j->v->desks[worker];
    float *ret = j->ret + (size_t)list * j->n_keys;

    for (uint32_t i = 0; i < j->n_keys; i++) {
        struct move_place p = move_place_of(j->pool, j->pages, i, list);

        kv_read(j->pool->kv, p.k, p.v, j->v->hd, i % POOL_PAGE_TOKENS, s->k, s->v);
        ret[i] = 0;
        for (uint32_t c = 0; c < j->v->hd; c++)
            ret[i] += s->k[c] * s->k[c];
    }
}

void move_norms(struct move *v, const struct pool *pool, const uint32_t *pages, uint32_t n_keys,
                float *ret)
{
    struct norms_job j = { v, pool, pages, n_keys, ret };

    if (n_keys)
        workers_run(v->w, norms_list, &j, v->n_layer * v->n_head_kv);
}

int move_open(const struct model *m, const struct kernels *k, struct workers *w,
              const struct rotary *rotary, struct move **ret)
{
    struct move *v = malloc(sizeof(*v));

    if (!v)
        return -ENOMEM;
    *v = (struct move){ .k = k,
                        .w = w,
                        .rotary = rotary,
                        .n_layer = m->n_layer,
                        .n_head_kv = m->n_head_kv,
                        .hd = m->head_dim };
    v->desks = malloc(workers_n(w) * sizeof(*v->desks));
    if (!v->desks) {
        move_close(v);
        return -ENOMEM;
    }
    *ret = v;
    return 0;
}

void move_close(struct move *v)
{
    if (!v)
        return;
    free(v->desks);
    free(v);
}
