/* engine/plan.c - runs of a step as flat arrays: rows, pieces, segments, pages.
 *
 * All that a backend has to know is decided here, once and in plain C: which page and slot a key
 * goes to, by what a query is turned, which keys it sees. So no backend knows of gists among
 * tokens, of sinks or of observers, two of them can't disagree about them, and a device gets arrays
 * without a pointer into a host's sequence (but for adapters and soft tokens, which pieces name).
 */
#include "engine/plan.h"

#include "engine/plan_limits.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A piece may be as short as the shortest segment, and each run adds a ragged one at both ends. */
struct plan plan_limits(uint32_t max_rows, uint32_t max_pages)
{
    return (struct plan){ .max_rows = max_rows,
                          .max_pieces = max_rows / SEQ_SEGMENT_MIN + 2 * FORWARD_RUNS_MAX,
                          .max_pages = max_pages };
}

int plan_open(struct plan *p, uint32_t max_rows, uint32_t max_pages)
{
    *p = plan_limits(max_rows, max_pages);
    p->rows = malloc(max_rows * sizeof(*p->rows));
    p->out_rows = malloc(max_rows * sizeof(*p->out_rows));
    p->pieces = malloc(p->max_pieces * sizeof(*p->pieces));
    p->segments = malloc(max_pages * sizeof(*p->segments));
    p->pages = malloc(max_pages * sizeof(*p->pages));
    if (p->rows && p->out_rows && p->pieces && p->segments && p->pages)
        return 0;
    plan_close(p);
    return -ENOMEM;
}

void plan_close(struct plan *p)
{
    free(p->rows);
    free(p->out_rows);
    free(p->pieces);
    free(p->segments);
    free(p->pages);
    *p = (struct plan){ .n_rows = 0 };
}

size_t plan_bytes(const struct plan *p)
{
    return p->max_rows * (sizeof(*p->rows) + sizeof(*p->out_rows)) +
           p->max_pieces * sizeof(*p->pieces) +
           p->max_pages * (sizeof(*p->segments) + sizeof(*p->pages));
}

size_t plan_need(uint32_t max_rows, uint32_t max_pages)
{
    const struct plan p = plan_limits(max_rows, max_pages);

    return plan_bytes(&p);
}

/* What n_x count is of no more use; the arrays stay as long as they are. */
void plan_clear(struct plan *p)
{
    p->n_rows = p->n_pieces = p->n_segments = p->n_pages = p->n_out = 0;
    p->observes = false;
    p->pool = NULL;
}

/* --- what is seen ----------------------------------------------------------------------------- */

/* The pages that hold n_keys, one behind the other. Returns where the first of them stands. Copied:
 * a sequence's own table may grow before the backend reads it, and one array goes to a device
 * whole. */
static uint32_t add_pages(struct plan *p, const uint32_t *pages, uint32_t n_keys)
{
    uint32_t first = p->n_pages, n = seq_n_pages(n_keys);

    memcpy(p->pages + first, pages, n * sizeof(*pages));
    p->n_pages += n;
    return first;
}

/* The first n segments of a sequence; those that were forgotten have no keys, and nothing to list.
 * Returns how many are listed. */
static uint32_t add_segments(struct plan *p, const struct seq *s, uint32_t n)
{
    uint32_t had = p->n_segments;

    for (uint32_t i = 0; i < n; i++) {
        const struct seq_segment *g = &s->segments[i];

        if (g->n_keys)
            p->segments[p->n_segments++] =
                (struct plan_segment){ g->base, g->n_keys,
                                       add_pages(p, seq_pages(s, i), g->n_keys) };
    }
    return p->n_segments - had;
}

static uint32_t n_pages_before(const struct seq *s, uint32_t segment)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < segment; i++)
        n += seq_n_pages(s->segments[i].n_keys);
    return n;
}

static uint32_t stride_of(const struct forward_run *run)
{
    return run->observe.stride ? run->observe.stride : 1;
}

/* Keys of the own segment that are listed for a run beside the tokens. */
static uint32_t own_keys(const struct forward_run *run)
{
    const struct seq *s = run->seq;
    uint32_t end = run->gists.first + run->n_tokens; /* of its gists */

    if (forward_run_observes(run))
        return run->observe.first % s->seg_len + (run->n_tokens - 1) * stride_of(run) + 1;
    if (run->gists.kind == FORWARD_SIDE)
        return run->gists.sinks + end * run->gists.ratio - 1;
    return run->gists.kind == FORWARD_BEHIND ? end : run->gists.sinks + end;
}

/* The segment that rows of a run beside the tokens stand in. */
static uint32_t own_segment(const struct forward_run *run)
{
    if (forward_run_observes(run))
        return run->observe.first / run->seq->seg_len + (run->observe.pages != NULL);
    return run->gists.segment + (run->gists.kind == FORWARD_BEHIND);
}

/* Counted without listing them, so that a batch can be composed to fit. What is counted here is
 * what add_reading, add_observers and add_gists list: a change there is one here. */
uint32_t plan_run_pages(const struct forward_run *run)
{
    const struct seq *s = run->seq;
    uint32_t first = s->n_tokens / s->seg_len,
             last = (s->n_tokens + run->n_tokens - 1) / s->seg_len;

    if (!forward_run_reads(run))
        return n_pages_before(s, own_segment(run)) + seq_n_pages(own_keys(run));
    return n_pages_before(s, first) + (last - first) * seq_n_pages(seq_raw_keys(s, s->seg_len)) +
           seq_n_pages(seq_raw_keys(s, (s->n_tokens + run->n_tokens - 1) % s->seg_len + 1));
}

/* --- rows ------------------------------------------------------------------------------------- */

/* Its page is none until it is placed: an observer's never is. */
static struct plan_row *add_row(struct plan *p, enum plan_kind kind)
{
    struct plan_row *row = &p->rows[p->n_rows++];

    *row = (struct plan_row){ .kind = kind, .id = PLAN_NONE, .page = PLAN_NONE };
    row->piece = p->n_pieces; /* which is added behind its rows */
    return row;
}

static void place_row(struct plan_row *row, const uint32_t *pages, uint32_t key)
{
    row->page = pages[key / PAGE_TOKENS];
    row->slot = key % PAGE_TOKENS;
}

/* A gist whose snippet's last token is id: its own embedding, and that of the token if the adapter
 * says so. */
static struct plan_row *add_gist_row(struct plan *p, const struct adapter *a, uint32_t gist,
                                     uint32_t id)
{
    struct plan_row *row = add_row(p, PLAN_GIST);

    /* Later ones share the last embedding of the adapter. */
    row->gist = gist < a->n_gists ? gist : a->n_gists - 1;
    if (a->embedding == ADAPTER_EMBED_LAST)
        row->id = id;
    return row;
}

static void want_rows(struct plan *p, uint32_t first, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        p->out_rows[p->n_out++] = first + i;
}

/* --- runs that read --------------------------------------------------------------------------- */

/* Row of a raw segment's key at offset off: a token, or the gist that stands behind the last few.
 */
static struct plan_row *add_key_row(struct plan *p, const struct seq *s, uint32_t segment,
                                    uint32_t off)
{
    const uint32_t *ids = s->tokens + (size_t)segment * s->seg_len;
    uint32_t n_gists = s->gist_every ? off / (s->gist_every + 1) : 0; /* before it */
    struct plan_row *row;

    if (s->gist_every && off % (s->gist_every + 1) == s->gist_every)
        return add_gist_row(p, s->adapter, n_gists, ids[off - n_gists - 1]);
    row = add_row(p, PLAN_TOKEN);
    row->id = ids[off - n_gists];
    return row;
}

/* Which of a piece's rows are gists that stand among the tokens. */
static struct plan_gists gists_among(const struct seq *s, const struct plan_piece *piece)
{
    uint32_t every = s->gist_every, skip = every - piece->off % (every + 1);

    if (!every || piece->n <= skip)
        return (struct plan_gists){ .n = 0 };
    return (struct plan_gists){ piece->row + skip, every + 1,
                                (piece->n - skip - 1) / (every + 1) + 1 };
}

/* A piece is in one segment and sees the same segments before it in all its rows: what attention
 * works on at a time. Here the run's tokens [done, done + n) of a segment, with the gists among
 * them. first: where the run's segments are listed, n_before: those before this one. */
static void add_tokens(struct plan *p, const struct forward_run *run, uint32_t done, uint32_t n,
                       uint32_t first, uint32_t n_before)
{
    const struct seq *s = run->seq;
    uint32_t at = s->n_tokens + done, segment = at / s->seg_len;
    uint32_t off = seq_raw_keys(s, at % s->seg_len);
    struct plan_piece piece = { .row = p->n_rows,
                                .n = seq_raw_keys(s, at % s->seg_len + n) - off,
                                .first_segment = first,
                                .n_segments = n_before,
                                .base = s->segments[segment].base,
                                .first_page = p->segments[first + n_before].first_page,
                                .off = off,
                                .stride = 1 };

    if (run->look.shares) {
        piece.shares = run->look.shares;
        piece.n_shares = run->look.n;
        p->observes = true;
    }
    if (run->asked.all && run->asked.segment == segment) {
        assert(!s->gist_every);
        piece.asked = run->asked;
        p->observes = true;
    }
    piece.gists = gists_among(s, &piece);
    piece.adapter = piece.gists.n ? s->adapter : NULL;
    for (uint32_t i = 0; i < piece.n; i++) {
        struct plan_row *row = add_key_row(p, s, segment, off + i);

        row->q_off = row->k_off = off + i;
        place_row(row, seq_pages(s, segment), off + i);
    }
    p->pieces[p->n_pieces++] = piece;
}

/* Cut at segment ends. A segment that the run passes through is one entry of the list: the own one
 * of its piece there, and one of those before for the pieces behind it. */
static int add_reading(struct plan *p, const struct forward_run *run, uint32_t n_vocab)
{
    struct seq *s = run->seq;
    uint32_t row0 = p->n_rows, had = seq_raw_keys(s, s->n_tokens), n, n_before;
    uint32_t wanted = run->want == FORWARD_WANT_ALL ? 0 : run->n_tokens - 1; /* from this one on */
    uint32_t first = p->n_segments;

    assert(s->n_tokens + run->n_tokens <= s->n_reserved);
    for (uint32_t i = 0; i < run->n_tokens; i++) {
        if (run->tokens[i] >= n_vocab)
            return -EINVAL;
        /* Behind the sequence's end: nothing until the step is done, and written again by the next.
         */
        s->tokens[s->n_tokens + i] = run->tokens[i];
    }
    n_before = add_segments(p, s, s->n_tokens / s->seg_len);
    assert(!run->look.shares || run->look.n <= n_before);
    for (uint32_t done = 0; done < run->n_tokens; done += n, n_before++) {
        uint32_t segment = (s->n_tokens + done) / s->seg_len;
        const struct seq_segment *g = &s->segments[segment];

        n = s->seg_len - (s->n_tokens + done) % s->seg_len;
        if (n > run->n_tokens - done)
            n = run->n_tokens - done;
        /* Its keys so far; all of them, for what comes behind it. */
        p->segments[p->n_segments++] = (struct plan_segment){
            g->base, g->n_keys,
            add_pages(p, seq_pages(s, segment),
                      seq_raw_keys(s, (s->n_tokens + done) % s->seg_len + n))
        };
        add_tokens(p, run, done, n, first, n_before);
    }
    /* By tokens: a gist among them has no output. */
    for (uint32_t i = wanted; run->want != FORWARD_WANT_NONE && i < run->n_tokens; i++)
        want_rows(p, row0 + seq_raw_keys(s, s->n_tokens + i) - had, 1);
    return 0;
}

/* --- runs beside the tokens ------------------------------------------------------------------- */

/* The run's piece, for which the segments before its own are listed. C leaves open which
 * initialiser comes first, so first is read before add_segments moves the end. */
static struct plan_piece piece_of(struct plan *p, const struct forward_run *run)
{
    const struct seq *s = run->seq;
    uint32_t first = p->n_segments;

    return (struct plan_piece){ .row = p->n_rows,
                                .n = run->n_tokens,
                                .first_segment = first,
                                .n_segments = add_segments(p, s, own_segment(run)),
                                .stride = 1,
                                .seg_len = s->seg_len };
}

/* Tokens that were read, once more: in their own segment, or, to see all of it, as a segment behind
 * it. */
static void add_observers(struct plan *p, const struct forward_run *run)
{
    const struct seq *s = run->seq;
    uint32_t segment = run->observe.first / s->seg_len, off = run->observe.first % s->seg_len;
    uint32_t stride = stride_of(run);
    uint32_t last = (run->n_tokens - 1) * stride;
    const uint32_t *again = run->observe.pages;
    struct plan_piece piece = piece_of(p, run);

    assert(run->observe.first + last < s->n_tokens && off + last < s->seg_len);
    assert(!again || (stride == 1 && !run->asked.all));
    assert(!run->asked.all || run->asked.segment == segment);
    assert(s->segments[segment].state == SEQ_RAW && run->want == FORWARD_WANT_NONE &&
           !s->gist_every);
    piece.weights = run->observe.weights;
    piece.off = off;
    piece.asked = run->asked;
    piece.stride = stride;
    piece.again = again;
    piece.base = s->segments[segment].base + (again ? s->seg_len : 0);
    piece.first_page = add_pages(p, again ? again : seq_pages(s, segment), own_keys(run));
    for (uint32_t i = 0; i < run->n_tokens; i++) {
        struct plan_row *row = add_row(p, PLAN_TOKEN);

        row->id = s->tokens[run->observe.first + i * stride];
        row->q_off = row->k_off = off + i * stride;
        if (again) /* else an observer's K and V are there */
            place_row(row, again, off + i);
    }
    p->pieces[p->n_pieces++] = piece;
    p->observes = true;
}

/* A side gist's key is kept rotated by its place among the gists, and the gist attends from where
 * its snippet ends. */
static void add_side(struct plan *p, const struct forward_run *run, struct plan_piece *piece)
{
    const struct seq *s = run->seq;
    uint32_t sinks = run->gists.sinks, ratio = run->gists.ratio, first = run->gists.first;
    const uint32_t *ids = s->tokens + (size_t)run->gists.segment * s->seg_len;

    piece->off = sinks + (first + 1) * ratio - 1;
    piece->stride = ratio;
    piece->side = true;
    assert(piece->off > 0 && piece->off + (piece->n - 1) * ratio < s->seg_len);
    piece->first_page = add_pages(p, seq_pages(s, run->gists.segment), own_keys(run));
    for (uint32_t i = 0; i < piece->n; i++) {
        uint32_t off = piece->off + i * ratio;
        struct plan_row *row = add_gist_row(p, run->gists.adapter, first + i, ids[off]);

        row->q_off = off;
        row->k_off = sinks + first + i;
        place_row(row, run->gists.pages, sinks + first + i);
    }
}

/* Gists behind the segment, or soft tokens in its place: keys of a segment of their own. */
static void add_own(struct plan *p, const struct forward_run *run, struct plan_piece *piece)
{
    const struct seq *s = run->seq;
    bool behind = run->gists.kind == FORWARD_BEHIND;
    uint32_t first = run->gists.first;
    const uint32_t *ids = s->tokens + (size_t)run->gists.segment * s->seg_len;

    piece->off = behind ? first : run->gists.sinks + first;
    piece->soft = behind ? NULL : run->gists.hidden;
    piece->first_page = add_pages(p, run->gists.pages, own_keys(run));
    for (uint32_t i = 0; i < piece->n; i++) {
        uint32_t last = (first + i + 1) * run->gists.ratio - 1;
        struct plan_row *row = behind ? add_gist_row(p, run->gists.adapter, first + i, ids[last])
                                      : add_row(p, PLAN_SOFT);

        if (!behind)
            row->id = i;
        row->q_off = row->k_off = piece->off + i;
        place_row(row, run->gists.pages, piece->off + i);
    }
}

static void add_gists(struct plan *p, const struct forward_run *run)
{
    const struct seq *s = run->seq;
    const struct seq_segment *g = &s->segments[run->gists.segment];
    bool behind = run->gists.kind == FORWARD_BEHIND;
    struct plan_piece piece = piece_of(p, run);

    assert((run->gists.segment + 1) * s->seg_len <= s->n_tokens && g->state == SEQ_RAW);
    assert((run->want == FORWARD_WANT_ALL) == (behind && run->gists.hidden));
    piece.base = g->base + (behind ? g->n_keys : 0);
    if (run->gists.kind != FORWARD_SOFT) { /* soft tokens are the base model's */
        piece.adapter = run->gists.adapter;
        piece.gists = (struct plan_gists){ p->n_rows, 1, run->n_tokens };
    }
    if (run->want == FORWARD_WANT_ALL) {
        piece.wanted = (struct plan_gists){ p->n_out, 1, run->n_tokens };
        want_rows(p, p->n_rows, run->n_tokens);
    }
    if (run->gists.kind == FORWARD_SIDE)
        add_side(p, run, &piece);
    else
        add_own(p, run, &piece);
    p->pieces[p->n_pieces++] = piece;
}

/* Room is looked at before anything is listed, so that it is a sum of what is known and no search
 * for what to take back. One pool for all runs, since pages are listed as bare numbers. */
int plan_add(struct plan *p, const struct forward_run *run, uint32_t n_vocab)
{
    assert(!p->pool || p->pool == run->seq->pool);
    if (forward_run_rows(run) > p->max_rows - p->n_rows ||
        plan_run_pages(run) > p->max_pages - p->n_pages)
        return -E2BIG;
    p->pool = run->seq->pool;
    if (forward_run_reads(run))
        return add_reading(p, run, n_vocab);
    if (forward_run_observes(run))
        add_observers(p, run);
    else
        add_gists(p, run);
    return 0;
}
