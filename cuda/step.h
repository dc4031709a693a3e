/* cuda/step.h - a plan's rows through the layers of the model, on a device.
 *
 * Of several devices each has some of the layers, and takes the rows up where the one before it
 * left them (cuda/link.h).
 *
 * What engine/cpu/layers.h does, with the same parts of memory under the same names: all work is
 * queued on the computing stream, at most STEP_AHEAD layers before what is done, and stop is asked
 * meanwhile.
 *
 * Threads    one.
 * Ownership  borrows runtime, copies and model.
 * Errors     -ENOMEM, -EIO (cuda/rt.h), -ECANCELED; step_open: -ENOTSUP, with a sentence.
 */
#ifndef CUDA_STEP_H
#define CUDA_STEP_H

#include "cuda/rt.h"
#include "cuda/spread.h"
#include "cuda/stage.h"
#include "engine/backend.h"
#include "engine/plan.h"
#include "engine/run.h"

#define STEP_AHEAD 2u

struct step;

/* Bytes of the device's that it takes, with plans of so many pages (engine/plan.h). */
size_t step_need(const struct model *m, uint32_t max_rows, uint32_t max_pages);
/* m: with the layers that the view has. */
int step_open(struct rt *rt, struct stage *stage, const struct model *m,
              const struct spread_view *v, uint32_t max_rows, struct step **ret, struct why *why);
void step_close(struct step *s);
size_t step_bytes(const struct step *s);

/* Queues the view's layers; end waits for them. r: what begin said, or whoever gives the step up.
 * Of several devices all begin, one after the other, before the first ends. */
int step_begin(struct step *s, const struct plan *plan, const struct forward_stop *stop);
int step_end(struct step *s, const struct forward_stop *stop, int r);

/* What one device's layers leave to the next one's: x, and y that is to be added, of each row. */
struct step_residual {
    float *x, *y; /* (T, n_embd) */
};
struct step_residual step_residual(const struct step *s);

/* Of the outputs of the last step, as struct backend_ops has it. */
int step_logits(struct step *s, uint32_t first, uint32_t n, float *host);
int step_logprobs(struct step *s, uint32_t first, uint32_t n, const uint32_t *ids, float *host);
int step_pick(struct step *s, uint32_t first, uint32_t n, const struct sampler_ask *asks,
              struct sampler_found *ret, struct sampler_candidate *ret_c);
int step_hidden(struct step *s, uint32_t first, uint32_t n, float *to);

/* The angles of positions, for who moves keys. */
struct k_angles step_angles(const struct step *s);

#endif
