/* Records on their way into pages of an account: a line of parts, each with pages that the store
 * reads to, or that its bytes are copied to from host memory. What the store has read for a device
 * stays on the shelf, if it has room.
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
 * what is read goes straight to pages of the pool. The store is asked in any case: what is used in
 * memory is not to be too old on the disk. */
bool tier_find(const struct tier_user *u, struct store_hash before, enum store_kind kind,
               const uint32_t *ids, uint32_t n, struct tier_found *ret)
{
    const struct tier *t = u->tier;
    struct store_key key = { .owner = u->owner, .before = before, .kind = kind };
    struct store_found there;

    memcpy(key.scope, u->scope, sizeof(key.scope));
    ret->is.n_tokens = 0;
    ret->shelved = t->shelf && shelf_find(t->shelf, &key, ids, n, &ret->is);
    if (!t->store || !store_find(t->store, &key, ids, n, &there) ||
        there.page_bytes != t->pool->page_bytes || there.n_tokens <= ret->is.n_tokens)
        return ret->shelved;
    *ret = (struct tier_found){ there, false };
    return true;
}

/* p->n_pages, n_tokens and n_keys are set: what is wanted. The record may have one token more in
 * the same pages (a restore leaves one to be read), and is to be kept on the shelf with all that it
 * has. */
void tier_part_is(struct tier_part *p, const struct tier_found *f, struct store_hash before,
                  const uint32_t *ids)
{
    p->id = f->is.id;
    p->shelved = f->shelved;
    p->cost_ns = f->is.cost_ns;
    p->before = before;
    p->ids = ids;
    p->n_ids = f->is.n_pages == p->n_pages ? f->is.n_tokens : p->n_tokens;
    p->n_ids_keys = f->is.n_pages == p->n_pages ? f->is.n_keys : p->n_keys;
    p->own = tier_hash(p->line->tier, before, ids, p->n_ids);
    p->line->n_disk += !f->shelved;
}

void tier_line_init(struct tier_line *l, const struct tier_user *u, void (*fn)(struct tier_line *l))
{
    *l = (struct tier_line){ .tier = u->tier,
                             .account = u->memory->seq->account,
                             .owner = u->owner,
                             .seg_len = u->memory->policy.seg_len,
                             .free = fn };
    memcpy(l->scope, u->scope, sizeof(l->scope));
}

/* One of each more than is wanted: malloc(0) may return NULL, which would look like no memory. */
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
    l->n_parts = l->window = l->n_disk = 0;
}

/* Of the memory that pages are copied from or read to: pinned records are the shelf's, slots are
 * ours. With a pool in host memory there is neither. */
static void give_stage(struct tier_part *p)
{
    struct tier *t = p->line->tier;

    if (p->shelved)
        shelf_unpin(t->shelf, p->id);
    else if (!t->host)
        shelf_give(t->shelf, p->n_pages, p->mem);
}

/* What the store has read for the device is found on the shelf the next time. Whoever waits for it
 * may have gone on to other ids since: by these it would be found wrongly. */
static void keep_stage(struct tier_part *p)
{
    const struct tier_line *l = p->line;
    struct tier *t = l->tier;
    struct store_record r = { .key = { .owner = l->owner,
                                       .before = p->before,
                                       .kind = p->packed ? STORE_PACKED : STORE_RAW },
                              .ids = p->ids,
                              .n_tokens = p->n_ids,
                              .n_keys = p->n_ids_keys,
                              .n_pages = p->n_pages,
                              .page_bytes = t->pool->page_bytes,
                              .cost_ns = p->cost_ns,
                              .tail = !p->packed && p->n_ids < l->seg_len };

    memcpy(r.key.scope, l->scope, sizeof(r.key.scope));
    if (p->shelved || p->result < 0 ||
        !sum_equal(tier_hash(t, p->before, p->ids, p->n_ids), p->own) ||
        shelf_add(t->shelf, &r, p->own, p->mem) == 0)
        give_stage(p);
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

/* What the store has read, or the shelf has, goes on to the device. 0, or the errno of the copy. */
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

/* Copies have no end to be told of: their ticket is asked in tier_part_look. An error of the copy
 * is its result there, like the disk's, so it is not returned. */
static int ask_shelf(struct tier_part *p)
{
    if (!shelf_pin(p->line->tier->shelf, p->id, p->n_pages, p->mem))
        return -ENOENT;
    p->result = put_part(p);
    return 0;
}

/* -E2BIG can't be waited for, -EAGAIN can: slots come back as others' copies are done. */
static int ask_store(struct tier_part *p)
{
    struct tier *t = p->line->tier;
    int e;

    if (t->host) {
        for (uint32_t i = 0; i < p->n_pages; i++)
            p->mem[i] = t->host + (size_t)p->pages[i] * t->pool->page_bytes;
    } else if (p->n_pages > shelf_longest(t->shelf)) {
        return -E2BIG;
    } else if (!shelf_take(t->shelf, p->n_pages, p->mem)) {
        return -EAGAIN;
    }
    e = store_get(t->store, p->id, p->n_pages, p->mem, on_get, p);
    if (e < 0) {
        give_stage(p);
        return e;
    }
    p->state = TIER_PART_READING;
    p->line->n_out++;
    return 0;
}

/* Pages first, and of the account of who will have them: who may have no more asks neither disk nor
 * device. */
int tier_part_ask(struct tier_part *p)
{
    struct tier_line *l = p->line;
    int e = pool_take(l->tier->pool, l->account, p->n_pages, p->pages);

    if (e < 0)
        return e;
    e = p->shelved ? ask_shelf(p) : ask_store(p);
    if (e < 0) {
        pool_give(l->tier->pool, l->account, p->n_pages, p->pages);
        return e;
    }
    l->window += p->n_pages;
    return 0;
}

/* The device is done with the slots, well or not. */
static void end_putting(struct tier_part *p, bool is_wanted)
{
    p->line->tier->n_fetching--;
    if (is_wanted)
        keep_stage(p);
    else
        give_stage(p);
    p->state = TIER_PART_READY;
}

/* One look may take a part through several states: what the disk has read is handed to the device
 * here, whose copy may be done at once. */
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
        end_putting(p, true);
    if (p->state == TIER_PART_READY || p->state == TIER_PART_READ)
        return p->result;
    return -EAGAIN;
}

void tier_part_took(struct tier_part *p)
{
    assert(p->state == TIER_PART_READY);
    p->state = TIER_PART_TAKEN;
    p->line->window -= p->n_pages;
    if (p->shelved)
        p->line->tier->stats.host_tokens += p->n_tokens;
}

/* First shared, then given: between the two the pages have a table, and are not free for a
 * moment. */
void tier_part_to_busy(struct tier_part *p)
{
    struct tier *t = p->line->tier;
    int e = pool_share(t->pool, &t->busy, p->n_pages, p->pages);

    assert(e == 0); /* no limit */
    (void)e;
    pool_give(t->pool, p->line->account, p->n_pages, p->pages);
}

/* From any state. A read that has begun can't be taken back, and the disk will write to those
 * pages. */
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
        end_putting(p, false);
    else if (p->state != TIER_PART_READY)
        give_stage(p);
    give_pages(p);
    l->window -= p->n_pages;
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

/* Pages of dropped lines alone: what others wait for they get. */
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
