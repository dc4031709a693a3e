#include "engine/pieces.h"

#include <assert.h>
#include <errno.h>

/* from->gists.n rows of it, if any, are gists. */
static void add_piece(struct pieces *b, const struct piece_source *from,
                      const struct attend_piece *p)
{
    b->from[b->n] = *from;
    b->at[b->n++] = *p;
}

/* Outputs of n rows from row `first` on. */
static void want_rows(struct pieces *b, uint32_t first, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        b->out_rows[b->n_out++] = first + i;
}

static void add_observers(struct pieces *b, const struct forward_run *run)
{
    const struct seq *s = run->seq;
    uint32_t segment = run->observe.first / s->seg_len, off = run->observe.first % s->seg_len;
    struct attend_piece p = { .seq = s,
                              .segment = segment,
                              .base = s->segments[segment].base,
                              .pages = seq_pages(s, segment),
                              .off = off,
                              .row = b->n_rows,
                              .n = run->n_tokens,
                              .stride = 1,
                              .weights = run->observe.weights };
    struct piece_source from = { .run = run };

    assert(run->observe.first + run->n_tokens <= s->n_tokens && off + run->n_tokens <= s->seg_len);
    assert(s->segments[segment].state == SEQ_RAW && run->want == FORWARD_WANT_NONE &&
           !s->gist_every);
    if (run->observe.pages) {
        p.segment = segment + 1;
        p.base += s->seg_len;
        p.pages = run->observe.pages;
        p.again = true;
    }
    add_piece(b, &from, &p);
    b->observes = true;
}

static void add_gists(struct pieces *b, const struct forward_run *run)
{
    const struct seq *s = run->seq;
    uint32_t segment = run->gists.segment, first = run->gists.first, n = run->n_tokens;
    uint32_t sinks = run->gists.sinks, ratio = run->gists.ratio;
    size_t at = (size_t)b->n_rows * b->n_kv;
    const struct seq_segment *g = &s->segments[segment];
    struct attend_piece p = { .seq = s,
                              .segment = segment,
                              .base = g->base,
                              .pages = run->gists.pages,
                              .off = sinks + first,
                              .row = b->n_rows,
                              .n = n,
                              .stride = 1 };
    struct piece_source from = { .run = run, .gists = { run->gists.adapter, b->n_rows, 1, n } };

    assert((segment + 1) * s->seg_len <= s->n_tokens && g->state == SEQ_RAW);
    if (run->gists.kind == FORWARD_SIDE) {
        p.pages = seq_pages(s, segment);
        p.off = sinks + (first + 1) * ratio - 1;
        p.stride = ratio;
        p.self_k = b->kk + at;
        p.self_v = b->vv + at;
        assert(p.off > 0 && p.off + (n - 1) * ratio < s->seg_len);
    } else if (run->gists.kind == FORWARD_BEHIND) {
        p.segment = segment + 1;
        p.base += g->n_keys;
        p.off = first;
    } else {
        from.gists = (struct gist_rows){ .n = 0 }; /* soft tokens are the base model's */
    }
    assert((run->want == FORWARD_WANT_ALL) ==
           (run->gists.kind == FORWARD_BEHIND && run->gists.hidden));
    if (run->want == FORWARD_WANT_ALL) {
        from.wanted = (struct gist_rows){ run->gists.adapter, b->n_out, 1, n };
        want_rows(b, b->n_rows, n);
    }
    add_piece(b, &from, &p);
}

/* The run's tokens [done, done + n) of one segment, with the gists among them. */
static void add_tokens(struct pieces *b, const struct forward_run *run, uint32_t done, uint32_t n)
{
    const struct seq *s = run->seq;
    uint32_t at = s->n_tokens + done, segment = at / s->seg_len, every = s->gist_every;
    uint32_t off = seq_raw_keys(s, at % s->seg_len);
    struct attend_piece p = { .seq = s,
                              .segment = segment,
                              .base = s->segments[segment].base,
                              .pages = seq_pages(s, segment),
                              .off = off,
                              .row = b->n_rows + seq_raw_keys(s, at) - seq_raw_keys(s, s->n_tokens),
                              .n = seq_raw_keys(s, at % s->seg_len + n) - off,
                              .stride = 1 };
    struct piece_source from = { .run = run };
    uint32_t skip = every - off % (every + 1); /* rows to the first gist */

    if (every && p.n > skip)
        from.gists = (struct gist_rows){ s->adapter, p.row + skip, every + 1,
                                         (p.n - skip - 1) / (every + 1) + 1 };
    add_piece(b, &from, &p);
}

/* Cut at segment ends. */
static int add_reading(struct pieces *b, const struct forward_run *run)
{
    struct seq *s = run->seq;
    uint32_t had = seq_raw_keys(s, s->n_tokens), n;
    uint32_t wanted = run->want == FORWARD_WANT_ALL ? 0 : run->n_tokens - 1; /* from this one on */

    assert(s->n_tokens + run->n_tokens <= s->n_reserved);
    for (uint32_t i = 0; i < run->n_tokens; i++) {
        if (run->tokens[i] >= b->n_vocab)
            return -EINVAL;
        s->tokens[s->n_tokens + i] = run->tokens[i];
    }
    for (uint32_t i = wanted; run->want != FORWARD_WANT_NONE && i < run->n_tokens; i++)
        want_rows(b, b->n_rows + seq_raw_keys(s, s->n_tokens + i) - had, 1);
    for (uint32_t done = 0; done < run->n_tokens; done += n) {
        n = s->seg_len - (s->n_tokens + done) % s->seg_len;
        if (n > run->n_tokens - done)
            n = run->n_tokens - done;
        add_tokens(b, run, done, n);
    }
    return 0;
}

int pieces_add(struct pieces *b, const struct forward_run *run)
{
    int r = 0;

    if (forward_run_reads(run))
        r = add_reading(b, run);
    else if (run->observe.weights)
        add_observers(b, run);
    else
        add_gists(b, run);
    if (r == 0)
        b->n_rows += forward_run_rows(run);
    return r;
}
