#include "daemon/own.h"

#include "daemon/memory.h"

#include <stdlib.h>

static struct own_mark *find(const struct own *o, uint32_t segment)
{
    for (uint32_t i = 0; i < o->n; i++)
        if (o->marks[i].segment == segment)
            return &o->marks[i];
    return NULL;
}

static bool has_room(struct own *o)
{
    uint32_t max = o->max ? 2 * o->max : 16;
    struct own_mark *p;

    if (o->n < o->max)
        return true;
    p = realloc(o->marks, max * sizeof(*p));
    if (!p)
        return false;
    o->marks = p;
    o->max = max;
    return true;
}

/* One whose pages were given up is in the way of a new one. */
static void drop(struct memory *m, struct own_mark *a)
{
    prefix_drop_own(&m->shared, a->mark);
    *a = m->own.marks[--m->own.n];
}

static void keep(struct memory *m, uint32_t segment, uint32_t since)
{
    uint64_t mark;

    if (!has_room(&m->own))
        return;
    mark = prefix_keep_own(&m->shared, seq_n_pages(m->seq->seg_len), seq_pages(m->seq, segment));
    if (mark)
        m->own.marks[m->own.n++] = (struct own_mark){ mark, segment, since };
}

/* Sessions of several documents, and those with gists among their tokens, bring nothing back. */
static bool can(const struct memory *m)
{
    return m->hydrate > 0 && m->shared.prefix && memory_exact(m) && !m->seq->gist_every;
}

/* What others may find is in the tree, or on the disk. */
static bool is_found(const struct memory *m)
{
    return memory_teaches(m) || (memory_lasts(m) && m->kept.tier);
}

/* Gists want pages of their own when the raw ones are kept. Those that are only kept are given up
 * for them, the longest unused first: it is newer than all of these. */
void own_pack(struct memory *m, uint32_t segment, uint32_t n_keys)
{
    if (can(m) && !is_found(m) && !find(&m->own, segment) &&
        pool_make_free(m->seq->pool, seq_n_pages(n_keys)))
        keep(m, segment, 0);
}

void own_computed(struct memory *m, uint32_t segment, uint32_t since)
{
    struct own_mark *had = find(&m->own, segment);

    if (had)
        drop(m, had);
    if (can(m))
        keep(m, segment, since);
}

bool own_find(const struct memory *m, uint32_t segment, uint32_t *ret_pages)
{
    const struct own_mark *a = find(&m->own, segment);

    return a && prefix_own(&m->shared, a->mark, ret_pages);
}

void own_cut(struct memory *m, uint32_t n_packed, uint32_t n_tokens)
{
    for (uint32_t i = m->own.n; i-- > 0;)
        if (m->own.marks[i].segment >= n_packed || m->own.marks[i].since > n_tokens)
            drop(m, &m->own.marks[i]);
    if (m->own.n > 0)
        return;
    free(m->own.marks);
    m->own = (struct own){ .n = 0 };
}

void own_fork(const struct memory *m, struct memory *dst)
{
    for (uint32_t i = 0; i < m->own.n && has_room(&dst->own); i++) {
        prefix_share_own(&m->shared, m->own.marks[i].mark);
        dst->own.marks[dst->own.n++] = m->own.marks[i];
    }
}
