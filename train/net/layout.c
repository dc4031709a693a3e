/* train/net/layout.c - which row sees which, for a sequence of each kind. A text is cut into
 * segments, of which each has raw rows, then its gists; what it leaves to later ones is memory, a
 * list that only grows: a segment's is the first n_memory of it.
 *
 *     raw     tokens 0 .. n_tokens, segment by segment       (coarse-rec: each segment's gists, and
 * then gists   those of segment 0, 1, ...                      its soft tokens, behind its own
 * tokens)
 */
#include "train/net/layout.h"

#include <errno.h>
#include <stdlib.h>

/* Gists stand among the tokens and count them from the segment's start. */
static bool in_segment(const struct layout_shape *s)
{
    return s->kind == LAYOUT_GISTS && s->method == ADAPTER_FINE_KV && s->mask == ADAPTER_IN_SEGMENT;
}

static bool coarse(const struct layout_shape *s)
{
    return s->method != ADAPTER_FINE_KV;
}

static bool soft(const struct layout_shape *s)
{
    return s->kind == LAYOUT_GISTS && s->method == ADAPTER_COARSE_REC;
}

/* The text's first tokens alone are sinks. */
static uint32_t sinks_of(const struct layout_shape *s, uint32_t text)
{
    return text == 0 ? s->sinks : 0;
}

/* Tokens of a segment of text that no gist stands for before the first snippet. Sinks stay raw, so
 * a snippet need not have them; kinds that compress whole segments begin at 0. */
static uint32_t lead(const struct layout_shape *s, uint32_t text)
{
    return in_segment(s) || coarse(s) ? 0 : sinks_of(s, text);
}

static uint32_t n_texts(const struct layout_shape *s)
{
    return (s->n_tokens + s->seg_len - 1) / s->seg_len;
}

static uint32_t text_len(const struct layout_shape *s, uint32_t text)
{
    uint32_t left = s->n_tokens - text * s->seg_len;

    return left < s->seg_len ? left : s->seg_len;
}

/* Nothing comes behind the last segment that could see its gists, but in_segment, whose own tokens
 * do. */
static uint32_t gists_of(const struct layout_shape *s, uint32_t text)
{
    if (s->kind != LAYOUT_GISTS || (text + 1 == n_texts(s) && !in_segment(s)))
        return 0;
    return (text_len(s, text) - lead(s, text)) / s->ratio;
}

/* ratio: of a whole segment, so that a snippet never lies across two. */
static bool suits(const struct layout_shape *s)
{
    return s->n_tokens > 0 && s->seg_len > 0 && s->sinks < s->seg_len &&
           (s->kind != LAYOUT_GISTS || (s->ratio >= 2 && s->seg_len % s->ratio == 0));
}

static int allocate(struct layout *l)
{
    const struct layout_shape *s = &l->shape;
    size_t n = n_texts(s), n_segments = soft(s) ? 2 * n : n;

    for (uint32_t i = 0; i < n; i++)
        l->n_gists += gists_of(s, i);
    /* A soft token is another row of a gist. */
    l->n_rows = s->n_tokens + (soft(s) ? 2 : 1) * l->n_gists;
    l->rows = calloc(l->n_rows, sizeof(*l->rows));
    l->memory = calloc(l->n_rows, sizeof(*l->memory));
    l->segments = calloc(n_segments, sizeof(*l->segments));
    l->stages = calloc(n_segments, sizeof(*l->stages));
    /* One more than there are: none is no error. */
    l->gists = calloc((size_t)l->n_gists + 1, sizeof(*l->gists));
    l->tokens = calloc(s->n_tokens, sizeof(*l->tokens));
    return l->rows && l->memory && l->segments && l->stages && l->gists && l->tokens ? 0 : -ENOMEM;
}

/* --- rows ------------------------------------------------------------------------------------- */

static void place_raw(struct layout *l, const struct sight_segment *g, uint32_t text, uint32_t base)
{
    const struct layout_shape *s = &l->shape;

    for (uint32_t o = 0; o < g->n_raw; o++) {
        /* Full gists of the segment before it, which it sees. */
        uint32_t token = text * s->seg_len + o, before = in_segment(s) ? o / s->ratio : 0;

        l->tokens[token] = g->raw + o;
        l->rows[g->raw + o] = (struct sight_row){ .pos = base + o + before,
                                                  .raw_end = o + 1,
                                                  .gist_end = before,
                                                  .token = token,
                                                  .from = SIGHT_NO_ROW };
    }
}

/* first: number of the segment's first gist. */
static void place_gists(struct layout *l, const struct sight_segment *g, uint32_t text,
                        uint32_t base, uint32_t first)
{
    const struct layout_shape *s = &l->shape;

    for (uint32_t j = 0; j < g->n_gists; j++) {
        uint32_t end = lead(s, text) + (j + 1) * s->ratio;
        struct sight_row r = { .gist_end = j + 1,
                               .token = text * s->seg_len + end - 1,
                               .from = SIGHT_NO_ROW };

        /* Behind the segment, of which they see all. */
        if (coarse(s)) {
            r.pos = base + g->n_raw + j;
            r.raw_end = g->n_raw;
            /* Each directly behind its snippet, with all before it. */
        } else if (in_segment(s)) {
            r.pos = base + end + j;
            r.raw_end = end;
            /* A copy of the snippet's last token, where that stands, which sees itself as a gist
             * instead of it, and no other gist of its segment. */
        } else {
            r.pos = base + end - 1;
            r.raw_end = end - 1;
            r.gist_first = j;
        }
        l->rows[g->gist + j] = r;
        l->gists[first + j] = (struct layout_gist){ g->gist + j, g->gist + j, j };
    }
}

static void place_soft(struct layout *l, const struct sight_segment *g, uint32_t base,
                       uint32_t first)
{
    for (uint32_t j = 0; j < g->n_raw; j++) {
        struct layout_gist *gist = &l->gists[first + j];

        /* What is remembered of the gist is its soft token's keys. */
        gist->kv = g->raw + j;
        l->rows[g->raw + j] =
            (struct sight_row){ .pos = base + j, .raw_end = j + 1, .from = gist->row };
    }
}

/* Keys in memory have positions without holes: other ones than where they were computed. */
static uint32_t keep(struct layout *l, uint32_t row, uint32_t pos)
{
    l->memory[l->n_memory++] = (struct sight_key){ row, pos };
    return pos + 1;
}

/* --- segments --------------------------------------------------------------------------------- */

static void add_stage(struct layout *l, uint32_t first, uint32_t end, uint32_t gists,
                      uint32_t segment)
{
    l->stages[l->n_stages++] = (struct layout_stage){ first, end, gists, segment, segment + 1 };
}

/* Soft tokens of a segment of text at `row`: a segment, a stage, and memory. */
static uint32_t add_soft(struct layout *l, uint32_t row, uint32_t pos, uint32_t first, uint32_t n)
{
    struct sight_segment *g = &l->segments[l->n_segments];

    *g = (struct sight_segment){ row, n, row + n, 0, l->n_memory };
    place_soft(l, g, pos, first);
    add_stage(l, row, row + n, row + n, l->n_segments++);
    for (uint32_t j = 0; j < n; j++)
        pos = keep(l, row + j, pos);
    return pos;
}

/* What the segment of text leaves, from position `pos` on; returns the position behind it. */
static uint32_t remember(struct layout *l, const struct sight_segment *g, uint32_t text,
                         uint32_t pos, uint32_t first)
{
    const struct layout_shape *s = &l->shape;
    /* From where on tokens stay raw, since no gist stands for them: the rest of the division. Of
     * LAYOUT_NONE none do. */
    uint32_t rest = s->kind == LAYOUT_NONE ? g->n_raw : lead(s, text) + g->n_gists * s->ratio;

    for (uint32_t i = 0; i < sinks_of(s, text); i++)
        pos = keep(l, g->raw + i, pos);
    /* The tokens behind the last snippet are left out: seg_len is a multiple of the ratio, and lead
     * is 0. */
    if (soft(s))
        return add_soft(l, g->gist + g->n_gists, pos, first, g->n_gists);
    for (uint32_t j = 0; j < g->n_gists; j++)
        pos = keep(l, g->gist + j, pos);
    for (uint32_t o = rest; o < g->n_raw; o++)
        pos = keep(l, g->raw + o, pos);
    return pos;
}

/* One segment of text after the other, each behind what those before it left. */
static void fill(struct layout *l)
{
    const struct layout_shape *s = &l->shape;
    uint32_t n = n_texts(s), base = 0, row = 0, gist_row = s->n_tokens, first = 0;

    for (uint32_t text = 0; text < n; text++) {
        struct sight_segment g = { .n_raw = text_len(s, text),
                                   .n_gists = gists_of(s, text),
                                   .n_memory = l->n_memory };

        g.raw = soft(s) ? row : text * s->seg_len;
        g.gist = soft(s) ? row + g.n_raw : gist_row;
        place_raw(l, &g, text, base);
        place_gists(l, &g, text, base, first);
        if (base + g.n_raw + g.n_gists > l->max_pos)
            l->max_pos = base + g.n_raw + g.n_gists;
        if (g.n_memory + g.n_raw + g.n_gists > l->max_keys)
            l->max_keys = g.n_memory + g.n_raw + g.n_gists;
        if (soft(s))
            add_stage(l, g.raw, g.gist + g.n_gists, g.gist, l->n_segments);
        l->segments[l->n_segments++] = g;
        /* The last leaves nothing to anybody. */
        if (text + 1 < n)
            base = remember(l, &g, text, base, first);
        row = g.gist + 2 * g.n_gists;
        gist_row += g.n_gists;
        first += g.n_gists;
    }
    l->n_kept = l->n_gists - gists_of(s, n - 1);
    /* Without soft tokens no row needs another one's hidden state, and all are one stage. */
    if (!soft(s))
        l->stages[l->n_stages++] =
            (struct layout_stage){ 0, l->n_rows, s->n_tokens, 0, l->n_segments };
}

int layout_make(struct layout *l, const struct layout_shape *shape)
{
    int r;

    *l = (struct layout){ .shape = *shape };
    /* One segment of everything, which sees itself causally. */
    if (shape->kind == LAYOUT_FULL)
        l->shape.seg_len = shape->n_tokens;
    if (!suits(&l->shape))
        return -EINVAL;
    r = allocate(l);
    if (r < 0) {
        layout_fini(l);
        return r;
    }
    fill(l);
    /* The first segment's tokens are computed by the base alone, and see nothing that is trained.
     */
    l->n_frozen =
        l->shape.base_trains || (in_segment(&l->shape) && l->n_gists) ? 0 : l->segments[0].n_raw;
    return 0;
}

void layout_fini(struct layout *l)
{
    free(l->rows);
    free(l->memory);
    free(l->segments);
    free(l->stages);
    free(l->gists);
    free(l->tokens);
    *l = (struct layout){ 0 };
}
