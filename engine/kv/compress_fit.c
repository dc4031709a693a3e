/* engine/kv/compress_fit.c - fit: keys that tokens one segment later would attend to, with values
 * such that what those see of the segment comes out as it was (as arXiv 2602.16284 has it).
 *
 * Who is asked are the segment's own tokens: what their queries would see of it from one segment
 * later, which is not how the text goes on, but of the same kind. They are kept while the segment
 * is read (engine/kv/asked.h); those that are missing, since they were read elsewhere or what stood
 * before them has changed since, come from a second reading. Both give the same bits.
 *
 * How many are asked is what it costs, and from how much of the text they are is what it is good by
 * (docs/memory.md): so of many tokens that are read anyway few heads each, and of few tokens that
 * are read again as many as there are rows for. The last tokens of a segment do worse than as many
 * from all of it.
 */
#include "engine/fit.h"
#include "engine/kv/asked.h"
#include "engine/kv/compress_ops.h"

#include <errno.h>

static int check(const struct compress_spec *c, uint32_t seg_len, struct why *why)
{
    int r = compress_check_ratio(c, seg_len, why);

    return r < 0 ? r : compress_check_no_adapter(c, why);
}

/* --- who is asked ----------------------------------------------------------------------------- */

/* Who packs late has no struct asked: nothing was kept, and some of the tokens are read again. */
static struct asked_shape shape(const struct compress_work *w)
{
    return asked_shape(w->seq->seg_len, w->c->group, w->side->asked != NULL);
}

/* Of a second reading of all of the segment, that nothing was kept for. */
static size_t n_floats(const struct compressor *c, const struct compress_spec *spec,
                       uint32_t seg_len, uint32_t segment)
{
    (void)spec, (void)segment;
    return asked_floats(c, seg_len);
}

/* The last of every so many tokens, of those that are missing. */
static int observe(const struct compress_work *w, uint32_t max, struct forward_run *ret)
{
    uint32_t seg_len = w->seq->seg_len;
    struct asked_shape k = shape(w);

    /* Rows that are missing go to the very places where those would be that were kept: a token's
     * row follows from its place in the segment (engine/run.h). */
    ret->asked = asked_rows(&k, w->segment, compress_asked_floats(w));
    ret->observe.asks = true;
    ret->observe.stride = k.tokens;
    ret->observe.first = w->segment * seg_len + (w->side->n_done + 1) * k.tokens - 1;
    ret->n_tokens = max;
    return 0;
}

/* --- which keys stay, and their values -------------------------------------------------------- */

/* Where there are pages to spare the segment stays as it is until all lists are done, a few of them
 * a call. Else it is rewritten in one go. */
static int finish(const struct compress_work *w)
{
    struct seq *s = w->seq;
    uint32_t n_keys = compress_snippet_keys(w->spec, s->seg_len, w->segment, 0);
    uint32_t *own = seq_pages(s, w->segment);
    struct asked_shape k = shape(w);
    struct backend_fit f = { .pool = s->pool,
                             .from = own,
                             .n_raw = s->seg_len,
                             .n_keys = n_keys,
                             .sinks = compress_n_sinks(w->spec, w->segment),
                             .asked = compress_asked_floats(w),
                             .n_asked = k.n };
    /* Asked anew in each call: what was staged may be gone, and then n_lists is 0 again. */
    bool staged = compress_stage(w, n_keys);
    int r = staged ? 0 : seq_own(s, w->segment, n_keys);

    while (r == 0 && w->side->n_lists < w->c->n_lists) {
        /* In place a list is packed where it was raw, so no list may be done twice; and none is
         * left for another call, since what is half packed is neither. */
        f.to = staged ? w->side->staged : own;
        f.first_list = w->side->n_lists;
        f.n_lists = w->c->n_lists - f.first_list;
        r = w->c->backend->ops->fit(w->c->backend, &f);
        if (r < 0)
            return r;
        w->side->n_lists += (uint32_t)r;
        r = staged && w->side->n_lists < w->c->n_lists ? -EAGAIN : 0;
    }
    if (r < 0)
        return r;
    if (!staged)
        seq_shorten(s, w->segment, n_keys);
    else if (!compress_staged(w, n_keys))
        return -EAGAIN; /* in place, by the next call */
    return 0;
}

/* As gists: what was fitted are values for the keys that stayed, and its queries are gone. */
static int thin(const struct compress_work *w, uint32_t thinned)
{
    struct seq *s = w->seq;

    return compress_keep_later(w, compress_n_rest(w->spec, s->seg_len, w->segment),
                               compress_snippet_keys(w->spec, s->seg_len, w->segment, thinned + 1));
}

const struct compress_ops compress_fit = { .check = check,
                                           .n_keys = compress_snippet_keys,
                                           .asks = true,
                                           .n_floats = n_floats,
                                           .next_pass = observe,
                                           .finish = finish,
                                           .thin = thin };
