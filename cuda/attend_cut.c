/* cuda/attend_cut.c - a step's attention, cut into items for a device.
 *
 * A prompt has tiles enough for every processor; a decoding token has one for each KV head, and
 * behind a long context that is not nearly enough, so its pages are cut into parts. Shorter parts
 * keep more processors busy, longer ones cost fewer merges: parts have 16 pages, which is a hundred
 * blocks from about 3,000 tokens on with eight KV heads, and grow where a piece would have more
 * than some 256 of them.
 */
#include "cuda/attend_kernels.h"

#include "engine/plan.h"

#include <errno.h>
#include <string.h>

#define PART_PAGES 16u
#define PARTS      256u
/* Pieces of more tiles have blocks enough. */
#define SPLIT_TILES 8u
/* Rows by which a piece counts as decoding: of one token of a large group, or a few of a small. */
#define DECODE_ROWS 16u

static const uint32_t tile_rows[K_ATTEND__N] = {
    [K_ATTEND_ROWS] = 16, [K_ATTEND_DECODE] = 8, [K_ATTEND_TILE] = 64
};

/* A pass over the plan: the first counts, the second writes. n_part_rows: partial results so far,
 * of which the device has K_ATTEND_PART_ROWS. */
struct cutter {
    const struct k_attend_shape *s;
    const struct plan *plan;
    struct k_attend_table *t;
    uint8_t *block; /* NULL: counts only */
    uint32_t n_part_rows;
};

static uint32_t group_of(const struct k_attend_shape *s)
{
    return s->n_head / s->n_head_kv;
}

#define CASE(HD) case HD:

/* Whether matrix units have a kernel for heads of this size. */
static bool has_units(uint32_t hd)
{
    switch (hd) {
        K_ATTEND_HEADS(CASE)
        return true;
    default:
        return false;
    }
}

static enum k_attend_kind kind_of(const struct k_attend_shape *s, uint32_t n_rows, bool side)
{
    if (s->plain || s->kv == KV_F32 || !has_units(s->head_dim))
        return K_ATTEND_ROWS;
    return n_rows <= DECODE_ROWS && !side ? K_ATTEND_DECODE : K_ATTEND_TILE;
}

/* Pages from the first segment's first to the last one's last. */
static uint32_t n_earlier(const struct plan *plan, const struct plan_piece *p)
{
    const struct plan_segment *s = plan->segments + p->first_segment;
    const struct plan_segment *last = s + p->n_segments - 1;

    return p->n_segments ? last->first_page + seq_n_pages(last->n_keys) - s->first_page : 0;
}

/* Keys of the own segment that are seen by the row of token t. A row beside the text (side) does
 * not see itself. */
static uint32_t own_keys(const struct plan_piece *p, uint32_t t)
{
    return p->off + t * p->stride + !p->side;
}

static uint32_t pages_per_part(uint32_t n_pages, uint32_t n_tiles)
{
    uint32_t n = PART_PAGES;

    /* All in one part: no merging. */
    if (n_tiles > SPLIT_TILES)
        return n_pages;
    while (n * PARTS < n_pages)
        n *= 2;
    return n * n_tiles;
}

/* One entry more of a list of n, which begins at `list`. The first pass counts only. */
static void put(struct cutter *c, size_t list, uint32_t *n, const void *entry, size_t len)
{
    if (c->block)
        memcpy(c->block + list + *n * len, entry, len);
    *n += 1;
}

static void put_look(struct cutter *c, size_t list, uint32_t *n, uint32_t *most,
                     const struct k_attend_look *look)
{
    put(c, list, n, look, sizeof(*look));
    *most = look->n > *most ? look->n : *most;
}

/* One tile, whose item is a template, of so many pages. */
static void cut_tile(struct cutter *c, enum k_attend_kind kind, struct k_attend_item item,
                     uint32_t n_pages, uint32_t per_part)
{
    /* A part leaves a row for each KV head. */
    uint32_t rows = item.n_rows * c->s->n_head_kv, n_parts;

    /* Longer parts, down to a single one, where partials have no room. */
    while (n_pages > per_part &&
           (n_pages + per_part - 1) / per_part * rows > K_ATTEND_PART_ROWS - c->n_part_rows)
        per_part *= 2;
    n_parts = (n_pages + per_part - 1) / per_part;
    if (n_parts > 1) {
        struct k_attend_merge merge = { item.piece, item.row, item.n_rows, c->n_part_rows,
                                        n_parts };

        put(c, c->t->merges, &c->t->n_merges, &merge, sizeof(merge));
    }
    for (uint32_t i = 0; i < n_parts; i++) {
        item.first_page = i * per_part;
        item.n_pages = n_pages - item.first_page < per_part ? n_pages - item.first_page : per_part;
        item.last = i + 1 == n_parts;
        /* A tile in one part writes its result where it belongs; parts write theirs to be merged.
         */
        item.part = n_parts > 1 ? c->n_part_rows + i * rows : K_ATTEND_NONE;
        put(c, c->t->items[kind], &c->t->n_items[kind], &item, sizeof(item));
    }
    if (n_parts > 1)
        c->n_part_rows += n_parts * rows;
}

/* Pieces whose attention is looked at: how it spreads, which keys it weighs, what is asked. */
static void cut_look(struct cutter *c, uint32_t piece)
{
    const struct plan_piece *p = &c->plan->pieces[piece];
    uint32_t n_weighed = p->again ? p->seg_len : own_keys(p, p->n - 1);
    struct k_attend_look shares = { piece, p->n_shares };
    struct k_attend_look weights = { piece, seq_n_pages(n_weighed) };
    struct k_attend_look asked = { piece, p->n };
    struct k_attend_table *t = c->t;

    if (p->shares && p->n_shares)
        put_look(c, t->shares, &t->n_shares, &t->most_shares, &shares);
    if (p->weights)
        put_look(c, t->weights, &t->n_weights, &t->most_weights, &weights);
    if (p->asked.all)
        put_look(c, t->asked, &t->n_asked, &t->most_asked, &asked);
}

static void cut_piece(struct cutter *c, uint32_t piece)
{
    const struct plan_piece *p = &c->plan->pieces[piece];
    uint32_t group = group_of(c->s), n_rows = p->n * group, earlier = n_earlier(c->plan, p);
    enum k_attend_kind kind = kind_of(c->s, n_rows, p->side);
    uint32_t step = tile_rows[kind], n_tiles = (n_rows + step - 1) / step;
    uint32_t per_part = pages_per_part(earlier + seq_n_pages(own_keys(p, p->n - 1)), n_tiles);

    for (uint32_t row = 0; row < n_rows; row += step) {
        struct k_attend_item item = { .piece = piece,
                                      .row = row,
                                      .n_rows = n_rows - row < step ? n_rows - row : step };
        /* Rows are query heads of a group, token by token: the last token sees most. */
        uint32_t last = (row + item.n_rows - 1) / group;

        cut_tile(c, kind, item, earlier + seq_n_pages(own_keys(p, last)), per_part);
    }
    cut_look(c, piece);
}

/* Twice with the same plan, so with the same entries. */
static void cut_all(struct cutter *c)
{
    for (uint32_t i = 0; i < K_ATTEND__N; i++)
        c->t->n_items[i] = 0;
    c->t->n_merges = c->t->n_shares = c->t->n_weights = c->t->n_asked = 0;
    c->t->most_shares = c->t->most_weights = c->t->most_asked = 0;
    c->n_part_rows = 0;
    for (uint32_t i = 0; i < c->plan->n_pieces; i++)
        cut_piece(c, i);
}

/* To powers of two, as a recorded graph's launches have their sizes. */
static uint32_t padded(uint32_t n)
{
    uint32_t to = 1;

    while (to < n)
        to *= 2;
    return n ? to : 0;
}

/* A list of n entries, padded; counts are of a pass that wrote nothing yet. Returns where the list
 * begins. */
static size_t place(size_t *at, uint32_t *n, size_t bytes)
{
    size_t here = *at;

    *n = padded(*n);
    *at += *n * bytes;
    return here;
}

static size_t lay_out(struct k_attend_table *t)
{
    size_t at = 0;

    for (uint32_t i = 0; i < K_ATTEND__N; i++)
        t->items[i] = place(&at, &t->n_items[i], sizeof(struct k_attend_item));
    t->merges = place(&at, &t->n_merges, sizeof(struct k_attend_merge));
    t->shares = place(&at, &t->n_shares, sizeof(struct k_attend_look));
    t->weights = place(&at, &t->n_weights, sizeof(struct k_attend_look));
    t->asked = place(&at, &t->n_asked, sizeof(struct k_attend_look));
    return at;
}

int k_attend_cut(const struct k_attend_shape *s, const struct plan *plan, void *block, size_t n,
                 struct k_attend_table *ret)
{
    struct k_attend_table t, counts;
    struct cutter c = { .s = s, .plan = plan, .t = &t };

    cut_all(&c);
    t.bytes = lay_out(&t);
    /* k_attend_cut_bytes is never less: this is for who counts in another way. */
    if (t.bytes > n)
        return -E2BIG;
    t.most_shares = padded(t.most_shares);
    t.most_weights = padded(t.most_weights);
    t.most_asked = padded(t.most_asked);
    /* The second pass counts again without padding; what kernels get is padded. */
    counts = t;
    memset(block, 0, t.bytes); /* what is padding says that there is nothing to do */
    c.block = block;
    cut_all(&c);
    *ret = counts;
    return 0;
}

/* Twice, for the padding. Items: tiles of the rows, a ragged one a piece; and parts, of which each
 * has a row at least, or all pages of the plan. Of any plan of these limits, so that the block is
 * taken once. */
size_t k_attend_cut_bytes(const struct k_attend_shape *s, const struct plan *plan)
{
    size_t tiles =
        (size_t)plan->max_rows * group_of(s) / tile_rows[K_ATTEND_DECODE] + plan->max_pieces;
    size_t parts = K_ATTEND_PART_ROWS / s->n_head_kv;

    return 2 * ((tiles + parts) * sizeof(struct k_attend_item) +
                (tiles + plan->max_pieces) * sizeof(struct k_attend_merge) +
                3 * (size_t)plan->max_pieces * sizeof(struct k_attend_look)) +
           K_ATTEND__N * sizeof(struct k_attend_item);
}

size_t k_attend_scratch(const struct k_attend_shape *s, uint32_t max_rows)
{
    return ((size_t)K_ATTEND_PART_ROWS * (s->head_dim + 2) + (size_t)max_rows * s->n_head) *
           sizeof(float);
}
