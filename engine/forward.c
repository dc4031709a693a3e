/* engine/forward.c - a step: runs become a plan, the backend computes it, sequences move on.
 *
 * In this order, and the last only when all went well: a step that is given up or fails leaves
 * every sequence at the length it had, so that whoever asked can ask again, and those who shared
 * the batch lose nothing but time. Token ids and keys that it wrote lie behind those lengths, where
 * nothing looks before something else is written there. (A device that is lost while hidden states
 * are fetched is the exception: all that was on it is read again anyway, daemon/lost.h.)
 */
#include "engine/forward.h"

#include <assert.h>
#include <errno.h>

/* For FORWARD_POOLS times the pages, since forks list what they share each for itself. */
int forward_open(struct forward *f, const struct model *m, struct backend *b, uint32_t max_batch,
                 uint32_t n_pages)
{
    *f = (struct forward){ .model = m, .backend = b };
    return plan_open(&f->plan, max_batch, FORWARD_POOLS * n_pages);
}

/* Rows of outputs that are fetched at once. */
#define HIDDEN_ROWS 32u

static size_t hidden_bytes(const struct forward *f, uint32_t n)
{
    return (size_t)n * f->model->n_embd * sizeof(float);
}

/* The plan is the process's memory and stays. */
void forward_leave(struct forward *f)
{
    if (f->hidden)
        backend_free(f->backend, f->hidden, hidden_bytes(f, HIDDEN_ROWS));
    f->hidden = NULL;
}

void forward_close(struct forward *f)
{
    forward_leave(f);
    plan_close(&f->plan);
}

/* LAST is one row, also of a run that is longer. */
uint32_t forward_n_out(const struct forward_run *run)
{
    return run->want == FORWARD_WANT_ALL ? run->n_tokens : run->want == FORWARD_WANT_LAST;
}

/* The step is done: sequences have their tokens, and who wanted them the hidden states. Guesses lie
 * behind the length that it gets, until forward_keep takes them. */
static int finish_run(struct forward *f, const struct forward_run *run, uint32_t out)
{
    if (forward_run_reads(run))
        run->seq->n_tokens += run->n_tokens - run->n_drafts;
    else if (run->want == FORWARD_WANT_ALL)
        return f->backend->ops->hidden(f->backend, out, run->n_tokens, run->gists.hidden);
    return 0;
}

int forward_step(struct forward *f, const struct forward_run *runs, uint32_t n_runs,
                 const struct forward_stop *stop, uint32_t *ret_n_out)
{
    uint32_t out = 0;
    int r = 0;

    if (n_runs > FORWARD_RUNS_MAX)
        return -E2BIG;
    plan_clear(&f->plan);
    for (uint32_t i = 0; i < n_runs && r == 0; i++)
        /* A run of no tokens has no row that an output, or a length, could follow from. */
        r = runs[i].n_tokens ? plan_add(&f->plan, &runs[i], f->model->n_vocab) : -EINVAL;
    if (r == 0)
        r = f->backend->ops->step(f->backend, &f->plan, stop);
    for (uint32_t i = 0; i < n_runs && r == 0; i++) {
        r = finish_run(f, &runs[i], out);
        out += forward_n_out(&runs[i]);
    }
    if (r < 0)
        return r;
    *ret_n_out = f->plan.n_out;
    return 0;
}

void forward_keep(const struct forward_run *run)
{
    struct seq *s = run->seq;

    assert(run->n_drafts > 0 && s->n_tokens < s->n_reserved);
    s->n_tokens++;
}

int forward_logits(struct forward *f, uint32_t first, uint32_t n, float *ret)
{
    return f->backend->ops->logits(f->backend, first, n, ret);
}

int forward_logprobs(struct forward *f, uint32_t first, uint32_t n, const uint32_t *ids, float *ret)
{
    return f->backend->ops->logprobs(f->backend, first, n, ids, ret);
}

int forward_pick(struct forward *f, uint32_t first, uint32_t n, const struct sampler_ask *asks,
                 struct sampler_found *ret, struct sampler_candidate *ret_c)
{
    return f->backend->ops->pick(f->backend, first, n, asks, ret, ret_c);
}

/* By way of memory of the backend's, taken when it is first asked for: most daemons never are. */
int forward_hidden(struct forward *f, uint32_t first, uint32_t n, float *ret)
{
    struct backend *b = f->backend;
    int r = b->ops->hidden ? 0 : -ENOTSUP;

    if (r == 0 && !f->hidden)
        r = backend_alloc(b, hidden_bytes(f, HIDDEN_ROWS), &f->hidden);
    for (uint32_t done = 0, k; done < n && r == 0; done += k) {
        k = n - done < HIDDEN_ROWS ? n - done : HIDDEN_ROWS;
        r = b->ops->hidden(b, first + done, k, f->hidden);
        if (r == 0)
            r = backend_get(b, ret + (size_t)done * f->model->n_embd, f->hidden,
                            hidden_bytes(f, k));
    }
    return r;
}
