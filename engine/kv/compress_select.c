/* engine/kv/compress_select.c - select and select-reread: for each layer and head the keys that
 * received most attention.
 *
 * Attention is not recorded while tokens are read, which would cost every token and a table beside
 * the KV, and would depend on how they came in. Instead some tokens of the segment go through the
 * model once more when it is due, as observers, and the step adds up what they look at
 * (engine/cpu/attend.h): 64 of 512 tokens, an eighth of the reading. The two differ only in who
 * observes.
 */

#include "engine/kv/compress_ops.h"
#include "engine/kv/largest.h"

#define OBSERVERS 64u

static int check(const struct compress_spec *c, uint32_t seg_len, struct why *why)
{
    int r = compress_check_ratio(c, seg_len, why);

    return r < 0 ? r : compress_check_adapter(c, why);
}

/* --- who observes ----------------------------------------------------------------------------- */

/* Segments may have 64 tokens and more: of the shortest all observe. */
static uint32_t last_ones(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    (void)c, (void)segment;
    return seg_len < OBSERVERS ? seg_len : OBSERVERS;
}

static uint32_t all(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    (void)c, (void)segment;
    return seg_len;
}

/* (n_lists, seg_len): what each key of each head receives. */
static size_t n_weights(const struct compressor *c, const struct compress_spec *spec,
                        uint32_t seg_len, uint32_t segment)
{
    (void)spec, (void)segment;
    return (size_t)c->n_lists * seg_len;
}

/* Observers are the last tokens of the segment, as many as there are rows. Those with pages beside
 * the segment stand behind it, where the whole of it is in their sight. In order, by how many are
 * left: so weights are sums in one order, in whatever parts they run. */
static int observe(const struct compress_work *w, uint32_t max, struct forward_run *ret)
{
    uint32_t end = (w->segment + 1) * w->seq->seg_len;

    ret->observe.weights = w->side->floats;
    ret->observe.pages = w->side->pages;
    ret->observe.first = end - compress_rows_left(w->spec, w->seq, w->segment, w->side);
    ret->n_tokens = max;
    return 0;
}

/* --- which keys stay -------------------------------------------------------------------------- */

/* Each head chooses for itself: place i of the packed segment holds another token in every head.
 * The smallest are the largest of what is turned round, so that ties and NaNs have one rule
 * (largest_keep). */
int compress_keep_ranked(const struct compress_work *w, const float *numbers, uint32_t had,
                         bool smallest, uint32_t n_keys)
{
    uint32_t sinks = compress_n_sinks(w->spec, w->segment);
    struct largest k = { sinks, had - sinks, compress_list(w, false, had),
                         compress_list(w, false, had) };
    uint32_t *kept = compress_list(w, true, n_keys);

    for (uint32_t list = 0; list < w->c->n_lists; list++) {
        const float *x = numbers + (size_t)list * had + sinks;

        for (uint32_t i = 0; i < k.len; i++)
            k.weights[i] = smallest ? -x[i] : x[i];
        largest_keep(&k, n_keys, kept + (size_t)list * n_keys);
    }
    scratch_give(&w->c->desk, k.weights);
    scratch_give(&w->c->desk, k.order);
    return compress_keep(w, kept, true, n_keys);
}

static int finish(const struct compress_work *w)
{
    uint32_t seg_len = w->seq->seg_len;
    float *weights;
    int r = compress_observed(w, &weights);

    if (r < 0)
        return r;
    r = compress_keep_ranked(w, weights, seg_len, false,
                             compress_snippet_keys(w->spec, seg_len, w->segment, 0));
    scratch_give(&w->c->desk, weights);
    return r;
}

/* Weights of attention are not kept when a segment is packed, and its raw queries are gone: short
 * keys are taken for those that draw it (engine/kv/compress.h). */
static int thin(const struct compress_work *w, uint32_t thinned)
{
    struct seq *s = w->seq;
    uint32_t had = s->segments[w->segment].n_keys;
    float *norms = compress_list(w, true, had);
    int r;

    r = w->c->backend->ops->norms(w->c->backend, s->pool, seq_pages(s, w->segment), had, norms);
    if (r == 0)
        r = compress_keep_ranked(
            w, norms, had, true,
            compress_snippet_keys(w->spec, s->seg_len, w->segment, thinned + 1));
    scratch_give(&w->c->desk, norms);
    return r;
}

const struct compress_ops compress_select = { .check = check,
                                              .n_keys = compress_snippet_keys,
                                              .n_rows = last_ones,
                                              .n_floats = n_weights,
                                              .next_pass = observe,
                                              .finish = finish,
                                              .thin = thin };
const struct compress_ops compress_select_reread = { .check = check,
                                                     .n_keys = compress_snippet_keys,
                                                     .n_rows = all,
                                                     .n_beside = all,
                                                     .n_floats = n_weights,
                                                     .next_pass = observe,
                                                     .finish = finish,
                                                     .thin = thin };
