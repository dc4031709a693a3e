/* engine/cpu/fit.h - packs segments by their queries, with fitted values (engine/fit.h).
 *
 * Threads    the owner of the workers.
 * Ownership  borrows kernels, workers and angles.
 * Errors     fit_open, fit_run: -ENOMEM.
 */
#ifndef ENGINE_CPU_FIT_H
#define ENGINE_CPU_FIT_H

#include "engine/backend.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/workers.h"
#include "engine/file/model.h"
#include "engine/fit.h"
#include "engine/kv/rotary.h"

struct fit;

int fit_open(const struct model *m, const struct kernels *k, struct workers *w,
             const struct rotary *rotary, struct fit **ret);
void fit_close(struct fit *f);

/* Of the desks that it computes in, which are made when they are first needed: for segments of so
 * many tokens at ratio 2, which is the most that one takes; and so far. */
size_t fit_need(const struct model *m, uint32_t n_workers, uint32_t seg_len);
size_t fit_bytes(const struct fit *f);

int fit_run(struct fit *f, const struct backend_fit *a);

#endif
