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

int fit_run(struct fit *f, const struct backend_fit *a);

#endif
