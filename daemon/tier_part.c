/* Records on their way into pages of an account: a line of parts, each with pages that the store
 * reads to, or that its bytes are copied to from the staging area.
 *
 * A line that is dropped may have reads under way: their pages are the tier's until the disk is
 * done with them, and the line is freed by the last of them.
 */
#include "daemon/tier_inner.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The scope has the layout's pages in it; that a record keeps to it is for its file to say, and
 * what is read goes straight to pages of the pool. */
bool tier_find(const struct tier_user *u, struct store_hash before, enum store_kind kind,
               const uint32_t *ids, uint32_t n, struct store_found *ret)
{
    struct store_key key = { .owner = u->owner, .before = before, .kind = kind };

    memcpy(key.scope, u->scope, sizeof(key.scope));
    return store_find(u->tier->store, &key, ids, n, ret) &&
           ret->page_bytes == u->tier->pool->page_bytes;
}

int tier_line_take(struct tier_line *l, uint32_t n_parts, uint32_t n_pages)
{
    l->parts = calloc(n_parts + 1, sizeof(*l->parts));
    l->pages = malloc((n_pages + 1) * sizeof(*l->pages));
    l->mem = malloc((n_pages + 1) * sizeof(*l->mem));
    if (!l->parts || !l->pages || !l->mem) {
        tier_line_fini(l);
        return -ENOMEM;
    }
    l->n_parts = n_parts;
    return 0;
}

void tier_line_fini(struct tier_line *l)
{
    free(l->parts);
    free(l->pages);
    free(l->mem);
    l->parts = NULL;
    l->pages = NULL;
    l->mem = NULL;
    l->n_parts = l->window = 0;
}

static void give_stage(struct tier_part *p)
{
    if (!p->line->tier->host)
        tier_stage_give(&p->line->tier->stage, p->n_pages, p->mem);
}

/* The part has pages no more, in whatever way it has them. */
static void give_pages(struct tier_part *p)
{
    struct tier *t = p->line->tier;

    pool_give(t->pool, p->pinned_busy ? &t->busy : p->line->account, p->n_pages, p->pages);
}

/* From store_pump. */
static void on_get(void *arg, int result)
{
    struct tier_part *p = arg;
    struct tier_line *l = p->line;

    l->n_out--;
    p->state = TIER_PART_READ;
    p->result = result;
    if (!l->dropped)
        return;
    give_stage(p);
    give_pages(p);
    if (l->n_out == 0) {
        TAILQ_REMOVE(&l->tier->dropped, l, link);
        l->free(l);
    }
}

int tier_part_ask(struct tier_part *p)
{
    struct tier_line *l = p->line;
    struct tier *t = l->tier;
    int e = pool_take(t->pool, l->account, p->n_pages, p->pages);

    if (e < 0)
        return e;
    if (t->host) {
        for (uint32_t i = 0; i < p->n_pages; i++)
            p->mem[i] = t->host + (size_t)p->pages[i] * t->pool->page_bytes;
    } else if (p->n_pages > t->stage.n_slots) {
        e = -E2BIG;
    } else if (!tier_stage_take(&t->stage, p->n_pages, p->mem)) {
        e = -EAGAIN;
    }
    if (e == 0) {
        e = store_get(t->store, p->id, p->n_pages, p->mem, on_get, p);
        if (e < 0)
            give_stage(p);
    }
    if (e < 0) {
        pool_give(t->pool, l->account, p->n_pages, p->pages);
        return e;
    }
    p->state = TIER_PART_READING;
    l->n_out++;
    l->window += p->n_pages;
    return 0;
}

/* What the store has read goes on to the device. 0, or the errno of the copy. */
static int put_part(struct tier_part *p)
{
    struct tier *t = p->line->tier;
    int e = 0;

    p->ticket = 0; /* none was made: done at once */
    for (uint32_t i = 0; e == 0 && i < p->n_pages; i++)
        e = t->backend->ops->put(t->backend, tier_page(t, p->pages[i]), p->mem[i],
                                 t->pool->page_bytes, &p->ticket);
    p->state = TIER_PART_PUTTING;
    t->n_fetching++;
    return e;
}

static void end_putting(struct tier_part *p)
{
    p->line->tier->n_fetching--;
    give_stage(p);
    p->state = TIER_PART_READY;
}

int tier_part_look(struct tier_part *p)
{
    struct tier *t = p->line->tier;
    int done;

    if (p->state == TIER_PART_READ && p->result == 0 && t->host)
        p->state = TIER_PART_READY;
    else if (p->state == TIER_PART_READ && p->result == 0)
        p->result = put_part(p);
    done = p->state == TIER_PART_PUTTING ? t->backend->ops->done(t->backend, p->ticket) : 0;
    if (done < 0 && p->result == 0)
        p->result = done;
    if (done != 0)
        end_putting(p);
    if (p->state == TIER_PART_READY || p->state == TIER_PART_READ)
        return p->result;
    return -EAGAIN;
}

void tier_part_took(struct tier_part *p)
{
    assert(p->state == TIER_PART_READY);
    p->state = TIER_PART_TAKEN;
    p->line->window -= p->n_pages;
}

void tier_part_to_busy(struct tier_part *p)
{
    struct tier *t = p->line->tier;
    int e = pool_share(t->pool, &t->busy, p->n_pages, p->pages);

    assert(e == 0); /* no limit */
    (void)e;
    pool_give(t->pool, p->line->account, p->n_pages, p->pages);
}

bool tier_part_forget(struct tier_part *p)
{
    struct tier_line *l = p->line;

    if (p->state == TIER_PART_PLANNED || p->state == TIER_PART_TAKEN || p->n_pages == 0)
        return true;
    if (p->state == TIER_PART_READING && store_cancel(l->tier->store, p))
        return false;
    l->n_out -= p->state == TIER_PART_READING;
    if (p->state == TIER_PART_PUTTING) /* the queue of copies may still read the slots */
        while (!l->tier->backend->ops->done(l->tier->backend, p->ticket))
            ;
    if (p->state == TIER_PART_PUTTING)
        end_putting(p);
    else if (p->state != TIER_PART_READY)
        give_stage(p);
    give_pages(p);
    p->state = TIER_PART_PLANNED;
    return true;
}

void tier_line_drop(struct tier_line *l)
{
    struct tier *t = l->tier;

    /* The callbacks of these are to come: their pages are the tier's until then. */
    for (uint32_t i = 0; i < l->n_parts; i++) {
        struct tier_part *p = &l->parts[i];

        if (tier_part_forget(p))
            continue;
        tier_part_to_busy(p);
        p->pinned_busy = true;
    }
    l->dropped = true;
    if (l->n_out == 0)
        l->free(l);
    else
        TAILQ_INSERT_TAIL(&t->dropped, l, link);
}

uint32_t tier_read_coming(const struct tier *t)
{
    const struct tier_line *l;
    uint32_t n = 0;

    TAILQ_FOREACH (l, &t->dropped, link)
        for (uint32_t i = 0; i < l->n_parts; i++)
            n += l->parts[i].pinned_busy && l->parts[i].state == TIER_PART_READING
                     ? l->parts[i].n_pages
                     : 0;
    return n;
}
