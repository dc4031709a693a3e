/* engine/forward.h - the forward pass over a batch of sequences.
 *
 * A batch is a list of runs: some next tokens of one sequence each, a single one while it decodes,
 * a chunk while it reads a prompt. K and V go to the sequences' pages; the normed last hidden
 * states of the wanted tokens stay until the next step, and logits are computed from them on
 * request. A run may also observe: tokens that were read go through the model once more, to see
 * what they attend to. Or it makes gists of a raw segment by an adapter, whose K and V go to pages
 * of their own. Neither changes anything of the sequence. Gists of a sequence with gist_every
 * (engine/kv/seq.h) run among its tokens.
 *
 * Source: Llama (RMSNorm, SwiGLU, rotary embedding, grouped-query attention) and Qwen2 (biases).
 *
 * Threads    one thread, the owner of the workers. stop() is called on it.
 * Ownership  borrows model, kernels and workers; owns its scratch, allocated at open for max_batch
 *            tokens: a step allocates nothing.
 * Errors     forward_step: -ECANCELED (stop said so; sequences are as before), -EINVAL (a token id
 *            past the vocabulary), -E2BIG (more than max_batch rows or FORWARD_RUNS_MAX runs).
 */
#ifndef ENGINE_FORWARD_H
#define ENGINE_FORWARD_H

#include "engine/cpu/kernels.h"
#include "engine/cpu/workers.h"
#include "engine/file/model.h"
#include "engine/kv/rotary.h"
#include "engine/run.h"

struct forward;

int forward_open(const struct model *m, const struct kernels *k, struct workers *w,
                 uint32_t max_batch, struct forward **ret, struct why *why);
void forward_close(struct forward *f);

/* On success each run's tokens belong to its sequence, and the wanted outputs are numbered in the
 * order of runs and tokens: *ret_n_out of them. stop may be NULL. */
int forward_step(struct forward *f, const struct forward_run *runs, uint32_t n_runs,
                 const struct forward_stop *stop, uint32_t *ret_n_out);

/* Logits of outputs [first, first + n) of the last step: ret is (n, n_vocab). */
void forward_logits(struct forward *f, uint32_t first, uint32_t n, float *ret);

/* Angles of this model's rotary embedding. */
const struct rotary *forward_rotary(const struct forward *f);

/* Bytes of scratch, for the memory account. */
size_t forward_bytes(const struct forward *f);

#endif
