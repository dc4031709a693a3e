/* engine/forward.h - the forward pass over a batch of sequences, by whoever computes.
 *
 * The runs of a batch (engine/run.h) become a plan, the backend computes it, and what was read
 * belongs to its sequences then. The normed last hidden states of the wanted tokens stay until the
 * next step, and logits are computed from them on request.
 *
 * Threads    one thread, the backend's. stop() is called on it.
 * Ownership  borrows model and backend; owns the plan: a step allocates nothing.
 * Errors     forward_step: -ECANCELED (stop said so; sequences are as before), -EINVAL (a token id
 *            past the vocabulary), -E2BIG (more than max_batch rows, FORWARD_RUNS_MAX runs, or
 *            FORWARD_POOLS times the pool's pages: one run always fits), -EIO (the backend).
 */
#ifndef ENGINE_FORWARD_H
#define ENGINE_FORWARD_H

#include "engine/backend.h"
#include "engine/file/model.h"
#include "engine/plan.h"

struct forward {
    const struct model *model;
    struct backend *backend; /* that has the model */
    struct plan plan;        /* of the last step */
    void *hidden;            /* the backend's, of forward_hidden; NULL: nobody has asked yet */
};

/* A plan lists pages up to so many times the pool's, since forks list what they share each for
 * itself: who composes a batch keeps one pool's worth free for the run that is added last. */
#define FORWARD_POOLS 3u

/* For batches of max_batch rows over a pool of n_pages. -ENOMEM. */
int forward_open(struct forward *f, const struct model *m, struct backend *b, uint32_t max_batch,
                 uint32_t n_pages);
void forward_close(struct forward *f);
/* Without what it has of a device that was lost. */
void forward_leave(struct forward *f);

/* On success each run's tokens, but for n_drafts, belong to its sequence, and the wanted outputs
 * are numbered in the order of runs and tokens: *ret_n_out of them. stop may be NULL. */
int forward_step(struct forward *f, const struct forward_run *runs, uint32_t n_runs,
                 const struct forward_stop *stop, uint32_t *ret_n_out);

/* The next guess of a run of the last step is a token of its sequence, too. */
void forward_keep(const struct forward_run *run);

/* Logits of outputs [first, first + n) of the last step: ret is (n, n_vocab). */
int forward_logits(struct forward *f, uint32_t first, uint32_t n, float *ret);
/* log p(ids[i]) under output first + i: ret is (n). */
int forward_logprobs(struct forward *f, uint32_t first, uint32_t n, const uint32_t *ids,
                     float *ret);

/* Instead of their logits, as engine/backend.h has it; where it has pick. */
int forward_pick(struct forward *f, uint32_t first, uint32_t n, const struct sampler_ask *asks,
                 struct sampler_found *ret, struct sampler_candidate *ret_c);

/* Outputs [first, first + n) as they are: ret is (n, n_embd). -ENOMEM; -ENOTSUP: this backend does
 * not give them. */
int forward_hidden(struct forward *f, uint32_t first, uint32_t n, float *ret);

/* Outputs that a run has. */
uint32_t forward_n_out(const struct forward_run *run);

#endif
