/* train/net/mat.h - operands of products, and a product, as engine/tensors.h takes them.
 *
 * Threads    as engine/tensors.h.
 */
#ifndef TRAIN_NET_MAT_H
#define TRAIN_NET_MAT_H

#include "engine/tensors.h"

static inline struct tensors_mat mat_floats(const float *p, uint32_t ld)
{
    return (struct tensors_mat){ p, ld, TENSORS_F32, false };
}

/* What lies by rows is read by columns, and the other way round. */
static inline struct tensors_mat mat_turned(struct tensors_mat m)
{
    m.t = !m.t;
    return m;
}

/* c (m, n) = a (m, k) b (k, n), or += */
static inline void mat_multiply(struct tensors *on, uint32_t m, uint32_t n, uint32_t k,
                                struct tensors_mat a, struct tensors_mat b, struct tensors_mat c,
                                bool add)
{
    const struct tensors_product p = { m, n, k, a, b, c, add };

    on->ops->product(on, &p);
}

#endif
