/* train/net/optim.h - parameters that are trained: values, gradients, AdamW's moments; checkpoints
 * of them.
 *
 *     m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2
 *     p -= lr (wd p + m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps))     (arXiv 1711.05101)
 *
 * A checkpoint holds everything that the next step depends on but the recipe, of which it has the
 * text: a run that goes on from one is bit for bit the run that was not interrupted, on the same
 * machine.
 *
 *     0       16        24     32                                                     end - 16
 *     | magic | version | step | tokens | recipe length | recipe | n tensors         | xxh3-128 |
 *     tensor    name (64) | n | p | m | v
 *
 * Threads    one at a time; steps use all of OpenMP's.
 * Ownership  owns the arrays; names are copied.
 * Errors     -ENOMEM; files: -EINVAL with a sentence, or the errno of the I/O.
 */
#ifndef TRAIN_NET_OPTIM_H
#define TRAIN_NET_OPTIM_H

#include "engine/tensors.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OPTIM_NAME_MAX 63u

struct optim_tensor {
    char name[OPTIM_NAME_MAX + 1];
    size_t n;
    bool decays, fixed; /* fixed: no step changes it */
    float *p, *m, *v;   /* (n) each, the host's: of a device's as they were at optim_fetch */

    /* Where it is computed. The CPU's p, m and v are the same ones. */
    float *p_on, *g, *m_on, *v_on;
};

struct optim_rule {
    double beta1, beta2, eps, weight_decay, clip;
}; /* clip 0: none */

struct optim {
    struct optim_tensor *t;
    uint32_t n, cap;
    struct tensors *on; /* NULL: the CPU */
};

struct optim_progress {
    uint64_t step, tokens;
};

/* A new tensor of zeros: its index, or -ENOMEM. Where values are computed with a device, what was
 * written to p, m and v is to be put there, of tensors [first, n), and to be fetched before they
 * are read. */
int optim_add(struct optim *o, const char *name, size_t n, bool decays);
void optim_put(struct optim *o, uint32_t first);
int optim_fetch(const struct optim *o); /* -EIO, -ENOMEM: what the device says */
/* The host's values of those at p_on; NULL: of no tensor's. */
const float *optim_host(const struct optim *o, const float *p_on);
void optim_fini(struct optim *o);

void optim_zero_gradients(struct optim *o);
/* Step number `step` >= 1; gradients are scaled to norm clip when theirs is larger. Returns that
 * norm; one that is not finite changes nothing. */
double optim_step(struct optim *o, const struct optim_rule *rule, double lr, uint64_t step);

/* Linear from 0 over warmup steps, then a cosine from lr to lr * floor at n_steps. */
double optim_lr(double lr, double floor, uint64_t warmup, uint64_t n_steps, uint64_t step);

/* Written beside path, synced and renamed, and the name synced. */
int optim_save(const struct optim *o, const char *path, const struct optim_progress *at,
               const char *recipe, struct why *why);
/* Tensors have to be the same. recipe has to be the same text, else -EINVAL. */
int optim_load(struct optim *o, const char *path, const char *recipe, struct optim_progress *ret,
               struct why *why);

#endif
