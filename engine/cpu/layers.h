/* engine/cpu/layers.h - one forward pass over a plan, on the CPU.
 *
 * Layer by layer, all rows together: norms, products and attention are jobs of the workers, one
 * after the other. K and V go to the plan's pages; the normed last hidden states of the wanted rows
 * stay until the next step, and logits are computed from them on request.
 *
 * Source     Llama (RMSNorm, SwiGLU, rotary embedding, grouped-query attention) and Qwen2 (biases).
 *
 * Threads    one thread, the owner of the workers. stop is called on it, between layers.
 * Ownership  borrows model, kernels and workers; owns its scratch, allocated at open for max_batch
 *            rows: a step allocates nothing.
 * Errors     layers_open: -ENOMEM. layers_run: -ECANCELED (stop said so). Of a streamed model also
 *            those of engine/file/stream.h, where a weight is needed.
 */
#ifndef ENGINE_CPU_LAYERS_H
#define ENGINE_CPU_LAYERS_H

#include "engine/cpu/kernels.h"
#include "engine/cpu/workers.h"
#include "engine/file/model.h"
#include "engine/kv/rotary.h"
#include "engine/plan.h"

struct layers;

int layers_open(const struct model *m, const struct kernels *k, struct workers *w,
                uint32_t max_batch, struct layers **ret, struct why *why);
void layers_close(struct layers *f);

int layers_run(struct layers *f, const struct plan *plan, const struct forward_stop *stop);

/* Of outputs [first, first + n) of the last step: logits (n, n_vocab); log p(ids[i]) of output
 * first + i; the outputs themselves (n, n_embd). */
int layers_logits(struct layers *f, uint32_t first, uint32_t n, float *ret);
int layers_logprobs(struct layers *f, uint32_t first, uint32_t n, const uint32_t *ids, float *ret);
void layers_hidden(const struct layers *f, uint32_t first, uint32_t n, float *ret);

/* Angles of this model's rotary embedding. */
const struct rotary *layers_rotary(const struct layers *f);

/* Bytes of scratch, for the memory account. */
size_t layers_bytes(const struct layers *f);
/* The same before it is opened: of m only the shapes are looked at. */
size_t layers_need(const struct model *m, const struct kernels *k, uint32_t n_workers,
                   uint32_t max_batch);

#endif
