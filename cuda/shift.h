/* cuda/shift.h - keys of a segment moved, measured or fitted: a compressor's lists on their way to
 * the device.
 *
 * Threads    one.
 * Ownership  borrows runtime, copies and angles.
 * Errors     -ENOMEM, -EIO (cuda/rt.h).
 */
#ifndef CUDA_SHIFT_H
#define CUDA_SHIFT_H

#include "cuda/pages.h"
#include "cuda/rt.h"
#include "cuda/spread.h"
#include "cuda/stage.h"
#include "engine/backend.h"
#include "engine/file/model.h"
#include "engine/fit.h"

struct shift;

/* Bytes of the device's that it takes. */
size_t shift_need(const struct model *m);
/* m: with the layers that the view has. */
int shift_open(struct rt *rt, struct stage *stage, const struct model *m,
               const struct spread_view *v, struct k_angles angles, struct shift **ret);
void shift_close(struct shift *s);
size_t shift_bytes(const struct shift *s);

/* Queued when it returns. */
int shift_move(struct shift *s, const struct backend_move *m);
/* host: of the lists of all layers, of which these are written. */
int shift_norms(struct shift *s, const struct pool *p, const uint32_t *pages, uint32_t n_keys,
                float *host);

/* So many lists at once it has room for; queues n of them, from one on that is counted among the
 * view's. Which f counts is not looked at. */
uint32_t shift_fits(const struct shift *s, const struct backend_fit *f);
int shift_fit(struct shift *s, const struct backend_fit *f, uint32_t first, uint32_t n);

/* The view's part of the pool as kernels get it. */
struct k_pool shift_pool(const struct spread_view *v, const struct pool *p);

#endif
