/* engine/kv/compress_fit.c - fit: keys that tokens one segment later would attend to, with values
 * such that what those see of the segment comes out as it was (as arXiv 2602.16284 has it).
 *
 * The tokens asked are the segment's own: every so many goes through the model once more when the
 * segment is due, as an observer, and what its queries see of the segment from one segment later is
 * recorded while it does (engine/cpu/attend.h): not how the text goes on, but of the same kind.
 * Then the keys with most attention stay, and the backend fits their values to the records.
 *
 * Observers are what it costs, each as much as reading a token, and what it is good by: at ratio 8
 * 58, 61, 67, 73 and 72 of 100 parts of the gap to full attention were kept with 32, 64, 128, 256
 * and 512 of 512 tokens observing (docs/memory.md). The last 128 tokens of a segment do worse than
 * 128 from all of it.
 */

#include "engine/kv/compress_ops.h"

static int check(const struct compress_spec *c, uint32_t seg_len, struct why *why)
{
    int r = compress_check_ratio(c, seg_len, why);

    return r < 0 ? r : compress_check_no_adapter(c, why);
}

/* --- who observes ----------------------------------------------------------------------------- */

/* The last of every so many tokens. */
static uint32_t stride(uint32_t seg_len)
{
    return (seg_len + BACKEND_FIT_OBSERVERS - 1) / BACKEND_FIT_OBSERVERS;
}

static uint32_t n_observers(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    (void)c, (void)segment;
    return seg_len / stride(seg_len);
}

/* --- what they leave: weights of the keys, then records --------------------------------------- */

static uint32_t n_records(const struct compressor *c, uint32_t seg_len)
{
    return n_observers(NULL, seg_len, 0) * c->group;
}

static size_t n_weights(const struct compressor *c, uint32_t seg_len)
{
    return (size_t)c->n_lists * seg_len;
}

static size_t n_floats(const struct compressor *c, const struct compress_spec *spec,
                       uint32_t seg_len, uint32_t segment)
{
    (void)spec, (void)segment;
    return n_weights(c, seg_len) +
           (size_t)c->n_lists * n_records(c, seg_len) * RECORD_FLOATS(c->head_dim);
}

static int observe(const struct compress_work *w, uint32_t max, struct forward_run *ret)
{
    uint32_t seg_len = w->seq->seg_len, done = w->side->n_done;

    ret->observe.weights = w->side->floats;
    ret->observe.stride = stride(seg_len);
    ret->observe.first = w->segment * seg_len + (done + 1) * stride(seg_len) - 1;
    ret->observe.records = (struct observe_records){ w->side->floats + n_weights(w->c, seg_len),
                                                     n_records(w->c, seg_len), done * w->c->group,
                                                     compress_n_sinks(w->spec, w->segment) };
    ret->n_tokens = max;
    return 0;
}

/* --- which keys stay, and their values -------------------------------------------------------- */

static int finish(const struct compress_work *w)
{
    struct seq *s = w->seq;
    uint32_t n_keys = compress_snippet_keys(w->spec, s->seg_len, w->segment, 0);
    struct backend_fit f = { .pool = s->pool,
                             .first = compress_n_sinks(w->spec, w->segment),
                             .n_keys = n_keys,
                             .records = w->side->floats + n_weights(w->c, s->seg_len),
                             .n_records = n_records(w->c, s->seg_len) };
    float *weights;
    int r = compress_observed(w, &weights);

    if (r < 0)
        return r;
    r = compress_keep_ranked(w, weights, s->seg_len, false, n_keys);
    scratch_give(&w->c->desk, weights);
    if (r < 0)
        return r;
    /* On the pages that the keys have now, fresh ones or not: what is fitted is what is stored. */
    f.pages = seq_pages(s, w->segment);
    return w->c->backend->ops->fit(w->c->backend, &f);
}

static int thin(const struct compress_work *w, uint32_t thinned)
{
    struct seq *s = w->seq;

    return compress_keep_later(w, compress_n_rest(w->spec, s->seg_len, w->segment),
                               compress_snippet_keys(w->spec, s->seg_len, w->segment, thinned + 1));
}

const struct compress_ops compress_fit = { .check = check,
                                           .n_keys = compress_snippet_keys,
                                           .n_rows = n_observers,
                                           .n_floats = n_floats,
                                           .next_pass = observe,
                                           .finish = finish,
                                           .thin = thin };
