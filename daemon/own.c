#include "daemon/own.h"

#include "daemon/memory.h"

#include <stdlib.h>

/* Marks are in no order: a session has as many as there are segments that it could not leave to the
 * tree. */
static struct own_mark *find(const struct own *o, uint32_t segment)
{
    for (uint32_t i = 0; i < o->n; i++)
        if (o->marks[i].segment == segment)
            return &o->marks[i];
    return NULL;
}

/* Doubles, and is freed with the last mark: most sessions have none. */
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

/* The tree shares the pages, so who gave them may let go of them. */
static void keep(struct memory *m, const struct own_mark *what, const uint32_t *pages)
{
    struct own_mark a = *what;

    if (!has_room(&m->own))
        return;
    a.mark = prefix_keep_own(&m->shared, seq_n_pages(m->seq->seg_len), pages);
    if (a.mark)
        m->own.marks[m->own.n++] = a;
}

/* Sessions of several documents, and those with gists among their tokens, bring nothing back. A
 * private session can: marks are found by nobody else. */
static bool can(const struct memory *m)
{
    return m->hydrate > 0 && m->shared.prefix && memory_exact(m) && !m->seq->gist_every;
}

/* Not what the tree has learned; but also what is on a disk: that is to be read only when memory
 * had no room for it any more. Gists want pages of their own when the raw ones are kept. Those that
 * are only kept are given up for them, the longest unused first: it is newer than all of these. */
void own_pack(struct memory *m, uint32_t segment, uint32_t n_keys)
{
    const struct own_mark a = { .segment = segment };

    if (can(m) && !memory_teaches(m) && !find(&m->own, segment) &&
        pool_make_free(m->seq->pool, seq_n_pages(n_keys)))
        keep(m, &a, seq_pages(m->seq, segment));
}

/* What was kept before was given up, or it would not have been computed: the new pages take its
 * place. */
void own_computed(struct memory *m, uint32_t segment, uint32_t since)
{
    const struct own_mark a = { .segment = segment, .since = since };
    struct own_mark *had = find(&m->own, segment);

    if (had)
        drop(m, had);
    if (can(m))
        keep(m, &a, seq_pages(m->seq, segment));
}

bool own_may_fetch(const struct memory *m)
{
    return can(m) && m->kept.tier;
}

bool own_has(const struct memory *m, uint32_t segment)
{
    uint32_t pages[SEQ_SEGMENT_MAX / POOL_PAGE_TOKENS];
    const struct own_mark *a = find(&m->own, segment);

    return a && prefix_own(&m->shared, a->mark, pages);
}

void own_fetched(struct memory *m, uint32_t segment, const uint32_t *pages, bool from_disk)
{
    const struct own_mark a = { .segment = segment, .from_disk = from_disk };
    struct own_mark *had = find(&m->own, segment);

    if (had)
        drop(m, had);
    keep(m, &a, pages);
}

bool own_find(struct memory *m, uint32_t segment, uint32_t *ret_pages, bool *ret_from_disk)
{
    struct own_mark *a = find(&m->own, segment);

    if (!a || !prefix_own(&m->shared, a->mark, ret_pages))
        return false;
    *ret_from_disk = a->from_disk;
    a->from_disk = false;
    return true;
}

/* Backwards, since drop() moves the last mark into the gap. One that was computed for a prompt was
 * read behind what is cut away now: its keys are another text's. */
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
