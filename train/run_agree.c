/* train/run_agree.c - each question is a number that processes share or add up. */
#include "train/run_agree.h"

#include <errno.h>
#include <xxhash.h>

enum tensors_type run_agree_type(const struct ranks *ranks, enum tensors_type own,
                                 uint32_t *ret_n_f32)
{
    double wide = own == TENSORS_F32;

    ranks_sum_double(ranks, &wide, 1);
    *ret_n_f32 = (uint32_t)wide;
    return wide > 0 ? TENSORS_F32 : own;
}

void run_agree_share(const struct ranks *ranks, struct optim *o, struct optim_progress *at)
{
    ranks_share(ranks, at, sizeof(*at));
    for (uint32_t i = 0; i < o->n; i++) {
        ranks_share(ranks, o->t[i].p, o->t[i].n * sizeof(float));
        ranks_share(ranks, o->t[i].m, o->t[i].n * sizeof(float));
        ranks_share(ranks, o->t[i].v, o->t[i].n * sizeof(float));
    }
    /* The others' devices still have what each of them had. */
    if (ranks->n > 1)
        optim_put(o, 0);
}

/* Of the bits: -0 and 0 are two, since a step may part there. */
static int sum_state(const struct optim *o, const struct optim_progress *at, uint64_t *ret)
{
    XXH3_state_t *hash = XXH3_createState();

    if (!hash)
        return -ENOMEM;
    XXH3_64bits_reset(hash);
    XXH3_64bits_update(hash, at, sizeof(*at));
    for (uint32_t i = 0; i < o->n; i++) {
        XXH3_64bits_update(hash, o->t[i].p, o->t[i].n * sizeof(float));
        XXH3_64bits_update(hash, o->t[i].m, o->t[i].n * sizeof(float));
        XXH3_64bits_update(hash, o->t[i].v, o->t[i].n * sizeof(float));
    }
    *ret = XXH3_64bits_digest(hash);
    XXH3_freeState(hash);
    return 0;
}

int run_agree_state(const struct ranks *ranks, struct optim *o, struct optim_progress *at,
                    uint32_t *ret_n_other)
{
    uint64_t own = 0, first;
    double others;
    int r;

    *ret_n_other = 0;
    if (ranks->n == 1)
        return 0;
    r = optim_fetch(o);
    if (r == 0)
        r = sum_state(o, at, &own);
    if (r < 0)
        return r;
    first = own;
    ranks_share(ranks, &first, sizeof(first));
    others = own != first;
    ranks_sum_double(ranks, &others, 1);
    *ret_n_other = (uint32_t)others;
    if (others > 0)
        run_agree_share(ranks, o, at);
    return 0;
}
