/* engine/kv/compress_gist.c - fine-kv, coarse-kv and coarse-rec: keys that stand for what is around
 * them.
 *
 * Where an adapter makes them, gists go through the model in passes of their own over the raw
 * segment, and their keys to pages beside it, which then become the segment:
 *
 *     fine-kv    | sinks | gist | gist | .. | rest |   one pass, each beside its snippet; sinks and
 *                                                      rest are moved there
 *     coarse-kv  | gist | gist | .. |                  one pass behind the segment; then gists make
 *                                                      room for the sinks
 *     coarse-rec | sinks | soft | soft | .. |          gists, whose keys are written over: only
 *                                                      their hidden states stay, and are read as
 *                                                      soft tokens behind the sinks
 *
 * An adapter of mask in-segment had its gists among the tokens while they were read: they are keys
 * of the segment like all, and are kept as fine-kv without an adapter keeps a snippet's last token.
 */

#include "base/least.h"
#include "engine/kv/compress_ops.h"
#include "engine/kv/rotary.h"

#include <errno.h>

/* The list of the first n_keys places. */
static uint32_t *first_places(const struct compress_work *w, uint32_t n_keys)
{
    uint32_t *kept = compress_list(w, false, n_keys);

    for (uint32_t i = 0; i < n_keys; i++)
        kept[i] = i;
    return kept;
}

/* Keys [first, n_keys) of the pages beside the segment get what stands at kept in other pages. */
static int move_beside(const struct compress_work *w, const uint32_t *from, const uint32_t *kept,
                       uint32_t first, uint32_t n_keys)
{
    const struct backend_move m = { .pool = w->seq->pool,
                                    .from = from,
                                    .to = w->side->pages,
                                    .kept = kept,
                                    .first = first,
                                    .n_keys = n_keys };

    return first < n_keys ? w->c->backend->ops->move(w->c->backend, &m) : 0;
}

/* They keep their places, so they are copied bit for bit. */
static int copy_sinks(const struct compress_work *w)
{
    uint32_t n = compress_n_sinks(w->spec, w->segment);
    uint32_t *kept = first_places(w, n);
    int r = move_beside(w, seq_pages(w->seq, w->segment), kept, 0, n);

    scratch_give(&w->c->desk, kept);
    return r;
}

/* The pages beside the segment become it, if all is well. r: the result of the steps before this
 * one; an error is passed on. */
static int take_over(const struct compress_work *w, int r, uint32_t n_keys)
{
    if (r < 0)
        return r;
    seq_replace(w->seq, w->segment, n_keys, w->side->pages);
    /* The sequence's from now on: compress_drop comes next, and would give them back. */
    w->side->n_pages = 0;
    return 0;
}

/* --- fine ------------------------------------------------------------------------------------- */

/* 0: gists are made when the segment is packed. */
static uint32_t fine_every(const struct compress_spec *c)
{
    return c->adapter && c->adapter->mask == ADAPTER_IN_SEGMENT ? c->ratio : 0;
}

static int fine_check(const struct compress_spec *c, uint32_t seg_len, struct why *why)
{
    int r = compress_check_ratio(c, seg_len, why);

    if (r == 0)
        r = compress_check_adapter(c, why);
    if (r < 0 || !fine_every(c))
        return r;
    /* Sinks are kept as keys of their own: a gist among them would be kept twice. */
    if (c->sinks > c->ratio)
        return why_set(why, -EINVAL,
                       "%u sinks are too many: at most %u can stand before the first gist",
                       c->sinks, c->ratio);
    /* Offsets inside a segment are turned by one table's rows. */
    if (seg_len + seg_len / c->ratio > ROTARY_FINE)
        return why_set(
            why, -EINVAL,
            "segments of %u tokens with %u gists among them are too long: at most %u in all "
            "are allowed",
            seg_len, seg_len / c->ratio, ROTARY_FINE);
    return 0;
}

/* Gists among the tokens stand for the whole segment, sinks included. */
static uint32_t fine_gists(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    return fine_every(c) ? seg_len / c->ratio : compress_n_snippets(c, seg_len, segment);
}

/* seg_len is a multiple of the ratio (compress_check_ratio), so gists among the tokens leave
 * nothing. */
static uint32_t fine_rest(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    return fine_every(c) ? 0 : compress_n_rest(c, seg_len, segment);
}

static uint32_t fine_keys(const struct compress_spec *c, uint32_t seg_len, uint32_t segment,
                          uint32_t thinned)
{
    return compress_n_sinks(c, segment) +
           compress_halved(fine_gists(c, seg_len, segment), thinned) +
           fine_rest(c, seg_len, segment);
}

static uint32_t fine_raw(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    return compress_n_sinks(c, segment) + fine_rest(c, seg_len, segment);
}

/* None also where the sinks leave no whole snippet of the first segment. */
static uint32_t fine_rows(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    return c->adapter && !fine_every(c) ? fine_gists(c, seg_len, segment) : 0;
}

/* Room for sinks and rest as well: the pages beside the segment become all of it. */
static uint32_t fine_beside(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    return fine_rows(c, seg_len, segment) ? fine_keys(c, seg_len, segment, 0) : 0;
}

/* Gists [first, first + n) of the segment. Only coarse-rec has floats: the hidden states of all
 * gists. */
static void plan_gists(const struct compress_work *w, enum forward_gists kind, uint32_t first,
                       uint32_t n, struct forward_run *ret)
{
    ret->n_tokens = n;
    ret->gists.kind = kind;
    ret->gists.adapter = w->spec->adapter;
    ret->gists.segment = w->segment;
    ret->gists.first = first;
    ret->gists.sinks = compress_n_sinks(w->spec, w->segment);
    ret->gists.ratio = w->spec->ratio;
    ret->gists.pages = w->side->pages;
    if (w->side->floats)
        ret->gists.hidden = w->side->floats + (size_t)first * w->c->n_embd;
}

static int fine_pass(const struct compress_work *w, uint32_t max, struct forward_run *ret)
{
    plan_gists(w, FORWARD_SIDE, w->side->n_done, max, ret);
    return 0;
}

/* Sinks, each gist where it stands among the raw keys (or the last token of each snippet), rest. */
static uint32_t *fine_places(const struct compress_work *w, uint32_t n_keys)
{
    const struct compress_spec *c = w->spec;
    uint32_t sinks = compress_n_sinks(c, w->segment), n = sinks;
    uint32_t n_gists = fine_gists(c, w->seq->seg_len, w->segment);
    uint32_t step = fine_every(c) ? c->ratio + 1 : c->ratio, from = fine_every(c) ? 0 : sinks;
    uint32_t *kept = first_places(w, n_keys);

    for (uint32_t i = 1; i <= n_gists; i++)
        kept[n++] = from + i * step - 1;
    for (uint32_t i = from + n_gists * step; n < n_keys; i++)
        kept[n++] = i;
    return kept;
}

/* Without pages beside it, nothing was run: the segment's own keys are chosen from. With them the
 * gists stand where they belong, and what stays raw joins them. */
static int fine_finish(const struct compress_work *w)
{
    uint32_t seg_len = w->seq->seg_len, n = fine_keys(w->spec, seg_len, w->segment, 0);
    const uint32_t *raw = seq_pages(w->seq, w->segment);
    uint32_t *kept = fine_places(w, n);
    int r;

    if (w->side->n_pages == 0)
        return compress_keep(w, kept, false, n);
    r = move_beside(w, raw, kept, 0, compress_n_sinks(w->spec, w->segment));
    if (r == 0)
        r = move_beside(w, raw, kept, n - fine_rest(w->spec, seg_len, w->segment), n);
    scratch_give(&w->c->desk, kept);
    return take_over(w, r, n);
}

static int fine_thin(const struct compress_work *w, uint32_t thinned)
{
    uint32_t seg_len = w->seq->seg_len;

    return compress_keep_later(w, fine_rest(w->spec, seg_len, w->segment),
                               fine_keys(w->spec, seg_len, w->segment, thinned + 1));
}

/* --- coarse ----------------------------------------------------------------------------------- */

static int coarse_check(const struct compress_spec *c, uint32_t seg_len, struct why *why)
{
    int r = compress_check_ratio(c, seg_len, why);

    if (r == 0 && !c->adapter)
        r = why_set(why, -EINVAL, "%s needs an adapter that makes its gists",
                    compress_name(c->method));
    return r < 0 ? r : compress_check_adapter(c, why);
}

/* They stand for the whole segment, sinks included, which are kept all the same. */
static uint32_t coarse_gists(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    (void)segment;
    return seg_len / c->ratio;
}

static uint32_t coarse_keys(const struct compress_spec *c, uint32_t seg_len, uint32_t segment,
                            uint32_t thinned)
{
    return compress_n_sinks(c, segment) + compress_halved(seg_len / c->ratio, thinned);
}

static uint32_t coarse_beside(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    return coarse_keys(c, seg_len, segment, 0);
}

static int coarse_pass(const struct compress_work *w, uint32_t max, struct forward_run *ret)
{
    plan_gists(w, FORWARD_BEHIND, w->side->n_done, max, ret);
    return 0;
}

/* Gists ran as the first keys of their pages, since they saw the segment itself, sinks included;
 * they are moved up before the sinks are put where they stood. */
static int coarse_finish(const struct compress_work *w)
{
    uint32_t sinks = compress_n_sinks(w->spec, w->segment);
    uint32_t n = coarse_keys(w->spec, w->seq->seg_len, w->segment, 0);
    uint32_t *kept = first_places(w, n);
    int r = 0;

    for (uint32_t i = sinks; i < n; i++)
        kept[i] = i - sinks;
    if (sinks)
        /* Towards higher places in the same pages, which the backend does from the end. */
        r = move_beside(w, w->side->pages, kept, sinks, n);
    if (r == 0)
        r = copy_sinks(w);
    scratch_give(&w->c->desk, kept);
    return take_over(w, r, n);
}

static int coarse_thin(const struct compress_work *w, uint32_t thinned)
{
    return compress_keep_later(w, 0,
                               coarse_keys(w->spec, w->seq->seg_len, w->segment, thinned + 1));
}

/* --- coarse-rec ------------------------------------------------------------------------------- */

static uint32_t rec_rows(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    return 2 * coarse_gists(c, seg_len, segment);
}

static size_t rec_hidden(const struct compressor *c, const struct compress_spec *spec,
                         uint32_t seg_len, uint32_t segment)
{
    return (size_t)coarse_gists(spec, seg_len, segment) * c->n_embd;
}

/* The first half of the rows are gists, the second their hidden states. A pass does not go past the
 * middle: soft tokens read what all gists left, and their keys take the pages of the gists' keys,
 * which are of no more use then. */
static int rec_pass(const struct compress_work *w, uint32_t max, struct forward_run *ret)
{
    uint32_t n = coarse_gists(w->spec, w->seq->seg_len, w->segment), done = w->side->n_done;

    if (done < n) {
        plan_gists(w, FORWARD_BEHIND, done, min_u32(max, n - done), ret);
        ret->want = FORWARD_WANT_ALL;
        return 0;
    }
    plan_gists(w, FORWARD_SOFT, done - n, max, ret);
    /* Soft tokens see the sinks in the segment that they make. */
    return done == n ? copy_sinks(w) : 0;
}

/* Sinks and soft tokens stand in the side's pages as they are to be. */
static int rec_finish(const struct compress_work *w)
{
    return take_over(w, 0, coarse_keys(w->spec, w->seq->seg_len, w->segment, 0));
}

const struct compress_ops compress_fine_kv = { .check = fine_check,
                                               .n_keys = fine_keys,
                                               .n_raw = fine_raw,
                                               .gist_every = fine_every,
                                               .n_rows = fine_rows,
                                               .n_beside = fine_beside,
                                               .next_pass = fine_pass,
                                               .finish = fine_finish,
                                               .thin = fine_thin };
const struct compress_ops compress_coarse_kv = { .check = coarse_check,
                                                 .n_keys = coarse_keys,
                                                 .n_rows = coarse_gists,
                                                 .n_beside = coarse_beside,
                                                 .next_pass = coarse_pass,
                                                 .finish = coarse_finish,
                                                 .thin = coarse_thin };
const struct compress_ops compress_coarse_rec = { .check = coarse_check,
                                                  .n_keys = coarse_keys,
                                                  .n_rows = rec_rows,
                                                  .n_beside = coarse_beside,
                                                  .n_floats = rec_hidden,
                                                  .next_pass = rec_pass,
                                                  .finish = rec_finish,
                                                  .thin = coarse_thin };
