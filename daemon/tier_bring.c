/* Single segments back from host memory or the store: raw ones, each for itself. One that can't be
 * had is not there; the others come all the same.
 */
#include "daemon/tier_inner.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct tier_bring {
    struct tier_line line; /* first, so that it is freed by it */
    TAILQ_ENTRY(tier_bring) early;
    void (*fn)(void *arg); /* NULL: its owner goes on with it */
    void *arg;
};

/* Called by tier_line_drop or, where reads are under way, by the last of them: long after its owner
 * has gone. */
static void free_bring(struct tier_line *l)
{
    tier_line_fini(l);
    free(l);
}

/* The record has all of the segment's tokens, and their keys. */
static bool find(const struct tier_user *u, struct store_hash before, uint32_t segment,
                 struct tier_found *ret)
{
    const struct seq *s = u->memory->seq;

    return tier_find(u, before, STORE_RAW, s->tokens + (size_t)segment * s->seg_len, s->seg_len,
                     ret) &&
           ret->is.n_tokens == s->seg_len && ret->is.n_keys >= s->seg_len;
}

/* Hashes of all ids up to the last segment: a millisecond for a million. Ascending segments let one
 * walk hash for all of them. Parts that were found stand side by side, those that were not have
 * none. */
static uint32_t find_all(struct tier_bring *b, const struct tier_user *u, const uint32_t *segments,
                         uint32_t n)
{
    const struct seq *s = u->memory->seq;
    uint32_t n_pages = seq_n_pages(s->seg_len), n_found = 0;
    struct store_hash before = STORE_ROOT;

    for (uint32_t i = 0, k = 0; i < n; i++) {
        struct tier_part *p = &b->line.parts[n_found];
        struct tier_found f;

        for (; k < segments[i]; k++)
            before = tier_hash(u->tier, before, s->tokens + (size_t)k * s->seg_len, s->seg_len);
        if (!find(u, before, k, &f))
            continue;
        *p = (struct tier_part){ .line = &b->line,
                                 .segment = k,
                                 .n_tokens = s->seg_len,
                                 .n_keys = f.is.n_keys,
                                 .n_pages = n_pages,
                                 .pages = b->line.pages + (size_t)n_found * n_pages,
                                 .mem = b->line.mem + (size_t)n_found * n_pages };
        tier_part_is(p, &f, before, s->tokens + (size_t)k * s->seg_len);
        n_found++;
    }
    return n_found;
}

struct tier_bring *tier_bring_begin(struct tier_user *u, const uint32_t *segments, uint32_t n)
{
    struct tier_bring *b;

    if (!u->tier || n == 0)
        return NULL;
    b = calloc(1, sizeof(*b));
    if (!b)
        return NULL;
    tier_line_init(&b->line, u, free_bring);
    if (tier_line_take(&b->line, n, n * seq_n_pages(u->memory->seq->seg_len)) < 0) {
        free(b);
        return NULL;
    }
    b->line.n_parts = find_all(b, u, segments, n);
    if (b->line.n_parts > 0)
        return b;
    free_bring(&b->line);
    return NULL;
}

/* 0: it came or can't be had. Each part goes its way alone: that one fails, or waits for pages,
 * keeps no other one. */
static int go_part(struct tier_part *p)
{
    struct tier_line *l = p->line;
    int e;

    if (p->result < 0 && p->state == TIER_PART_PLANNED)
        return 0; /* it has failed */
    if (p->state == TIER_PART_PLANNED) {
        /* Without pages it waits as long as any are on their way back, its own among them; with
         * none coming it would wait for ever. */
        e = tier_part_ask(p);
        if (e == -EAGAIN || (e == -ENOSPC && (l->n_out || tier_coming(l->tier))))
            return -EAGAIN;
        if (e == 0)
            return -EAGAIN; /* a copy may have failed at once, which its result says */
        p->result = e;
        return 0;
    }
    e = tier_part_look(p);
    if (e >= 0 || e == -EAGAIN)
        return e;
    (void)tier_part_forget(p); /* the store is done with it */
    p->result = e;
    return 0;
}

int tier_bring_go(struct tier_bring *b)
{
    int r = 0;

    /* What is not there by now stays the tier's until the disk is done with it (tier_line_drop). */
    if (b->line.n_disk > 0 && tier_silent(b->line.tier))
        return 0;
    for (uint32_t i = 0; i < b->line.n_parts; i++)
        if (go_part(&b->line.parts[i]) == -EAGAIN)
            r = -EAGAIN;
    return r;
}

bool tier_bring_has(const struct tier_bring *b, uint32_t segment)
{
    for (uint32_t i = 0; b && i < b->line.n_parts; i++)
        if (b->line.parts[i].segment == segment)
            return true;
    return false;
}

uint32_t tier_bring_last(const struct tier_bring *b)
{
    return b->line.parts[b->line.n_parts - 1].segment;
}

uint32_t tier_bring_pages(const struct tier_bring *b)
{
    return b->line.window;
}

/* --- those that nobody waits for -------------------------------------------------------------- */

/* arg is borrowed until fn was called, or the bring is dropped. */
void tier_bring_leave(struct tier_bring *b, void (*fn)(void *arg), void *arg)
{
    b->fn = fn;
    b->arg = arg;
    TAILQ_INSERT_TAIL(&b->line.tier->early, b, early);
}

static void unlist(struct tier_bring *b)
{
    if (b->fn)
        TAILQ_REMOVE(&b->line.tier->early, b, early);
    b->fn = NULL;
}

/* What fn does may drop others, but none of another sequence: the next one stays. */
bool tier_bring_pump(struct tier *t)
{
    struct tier_bring *b, *next;
    bool any = false;

    for (b = TAILQ_FIRST(&t->early); b; b = next) {
        void (*fn)(void *arg) = b->fn;
        void *arg = b->arg;

        next = TAILQ_NEXT(b, early);
        if (tier_bring_go(b) == -EAGAIN)
            continue;
        /* Before fn, which may drop it. */
        unlist(b);
        fn(arg);
        any = true;
    }
    return any;
}

/* --- the end ---------------------------------------------------------------------------------- */

const uint32_t *tier_bring_take(struct tier_bring *b, uint32_t segment, bool *ret_from_disk)
{
    for (uint32_t i = 0; i < b->line.n_parts; i++) {
        struct tier_part *p = &b->line.parts[i];

        if (p->segment != segment || p->state != TIER_PART_READY)
            continue;
        tier_part_took(p);
        *ret_from_disk = !p->shelved;
        return p->pages;
    }
    return NULL;
}

void tier_bring_drop(struct tier_bring *b)
{
    if (!b)
        return;
    unlist(b);
    tier_line_drop(&b->line);
}

/* Asks without using: what is only looked at gets no younger. */
static bool is_stored(const struct tier *t, const struct store_key *key, const uint32_t *ids,
                      uint32_t n)
{
    struct store_found f;

    if (t && t->shelf && shelf_find(t->shelf, key, ids, n, &f) && f.n_tokens == n)
        return true;
    return t && t->store && store_has(t->store, key, ids, n);
}

void tier_stored(const struct tier_user *u, uint32_t n, bool *ret)
{
    const struct seq *s = u->memory->seq;
    struct store_key key = { .owner = u->owner, .before = STORE_ROOT, .kind = STORE_RAW };

    memcpy(key.scope, u->scope, sizeof(key.scope));
    for (uint32_t k = 0; k < n; k++) {
        const uint32_t *ids = s->tokens + (size_t)k * s->seg_len;

        ret[k] = is_stored(u->tier, &key, ids, s->seg_len);
        if (u->tier)
            key.before = tier_hash(u->tier, key.before, ids, s->seg_len);
    }
}
