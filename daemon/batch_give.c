/* Outputs lie in the order of the runs, one after the other: first those of who decodes, then those
 * of who reads. A run has none, one, or one for each of its tokens (forward_n_out), and each
 * function here says how many it has passed. */
#include "daemon/batch_inner.h"

#include "daemon/draws.h"
#include "daemon/picks.h"
#include "daemon/sched.h"

#include <string.h>

/* The next guess is a token of the sequence now, as if a step of its own had read it. The run is
 * copied, since the step's own still says where its other guesses lie. */
static void keep_guess(struct memory *m, const struct forward_run *run, uint32_t guess)
{
    struct forward_run own = *run;

    own.tokens += guess;
    own.n_tokens = 1;
    own.n_drafts = 0;
    forward_keep(run);
    memory_ran(m, &own);
}

/* Row by row as long as what comes of one is what was guessed to follow. What lies behind the last
 * of them is not the sequence's, and its pages go back. */
static void give_rows(struct sched *s, struct request *r, const struct forward_run *run,
                      float *logits)
{
    struct memory *m = r->memory; /* the request lets go of it when it ends */
    uint32_t i = 0;

    r->ops->token(s, r, logits);
    while (i < run->n_drafts && r->ops->drafts->follows(s, r, run->tokens[i + 1])) {
        keep_guess(m, run, ++i);
        r->ops->token(s, r, logits + (size_t)i * s->served.model->n_vocab);
    }
    if (run->n_drafts > 0)
        (void)seq_rewind(run->seq, run->seq->n_tokens);
}

/* Answers [first, end), whose outputs are [out, out + n). First tokens are drawn side by side where
 * there are threads for it; what a guess was right about is drawn row by row behind that, since
 * each row's sampler stands where the one before left it. */
static void give_some(struct sched *s, struct batch *b, uint32_t first, uint32_t end, uint32_t out,
                      uint32_t n)
{
    float *logits = s->logits, *rows[SCHED_LOGITS_ROWS];
    int r;

    if (n == end - first && picks_give(s, b->requests + first, out, n)) /* nobody guessed */
        return;
    r = forward_logits(&s->served.forward, out, n, s->logits);
    for (uint32_t i = first; i < end; i++) {
        rows[i - first] = logits;
        logits += (size_t)forward_n_out(&b->runs[i]) * s->served.model->n_vocab;
    }
    if (r == 0)
        draws_make(s, b->requests + first, rows, end - first);
    for (uint32_t i = first; i < end; i++) {
        if (r < 0)
            request_fail_step(s, b->requests[i], r);
        else
            give_rows(s, b->requests[i], &b->runs[i], rows[i - first]);
    }
}

/* The output matrix is a fifth and more of a small model's weights: one pass over it makes the
 * logits of as many answers as there are rows of scratch. Returns how many outputs they had. */
static uint32_t give_decoded(struct sched *s, struct batch *b)
{
    uint32_t out = 0;

    _Static_assert(SCHED_LOGITS_ROWS >= DRAFT_ROWS, "an answer's rows are made at once");
    for (uint32_t first = 0, end; first < b->n_decode; first = end) {
        uint32_t n = 0, more;

        for (end = first; end < b->n_decode; end++, n += more) {
            more = forward_n_out(&b->runs[end]);
            if (n + more > SCHED_LOGITS_ROWS)
                break;
        }
        give_some(s, b, first, end, out, n);
        out += n;
    }
    return out;
}

/* Scores of several requests that stand side by side are made by one pass over the output
 * matrix. */
static bool is_scored(const struct batch *b, uint32_t run)
{
    return run < b->n && b->requests[run]->ops->scored && !b->upkeep[run];
}

/* Of run i and those behind it that want the same: so many outputs, from `out` on. */
static uint32_t give_scored(struct sched *s, const struct batch *b, uint32_t i, uint32_t out,
                            uint32_t *ret_n_runs)
{
    uint32_t n = 0, end = i, at = 0;
    int e;

    for (; is_scored(b, end); end++) {
        const struct request *r = b->requests[end];

        memcpy(s->next_ids + n, r->ops->next(r), b->runs[end].n_tokens * sizeof(*s->next_ids));
        n += b->runs[end].n_tokens;
    }
    e = forward_logprobs(&s->served.forward, out, n, s->next_ids, s->logprobs);
    for (uint32_t k = i; k < end; k++) {
        struct request *r = b->requests[k];
        uint32_t n_tokens = b->runs[k].n_tokens;

        if (e < 0)
            request_fail_step(s, r, e);
        else if (request_finite(s, r, s->logprobs + at, n_tokens))
            r->ops->scored(s, r, n_tokens, s->logprobs + at);
        at += n_tokens;
    }
    *ret_n_runs = end - i;
    return n;
}

/* Outputs lie in the order of the runs, from out on those of who reads. What was read for a
 * memory's own upkeep is the memory's (memory_ran), and the request hears nothing of it. */
static void give_read(struct sched *s, struct batch *b, uint32_t out)
{
    for (uint32_t i = b->n_decode; i < b->n; i++) {
        const struct forward_run *run = &b->runs[i];
        uint32_t n_out = forward_n_out(run), n_runs;
        struct request *r = b->requests[i];

        if (is_scored(b, i)) {
            out += give_scored(s, b, i, out, &n_runs);
            i += n_runs - 1;
            continue;
        }
        if (!b->upkeep[i])
            r->ops->rows(s, r, out, n_out, run->n_tokens);
        out += n_out;
    }
}

void batch_give(struct sched *s, struct batch *b)
{
    give_read(s, b, give_decoded(s, b));
}
