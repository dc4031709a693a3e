/* train/net/loss.c - losses of rows of logits by the CPU, and what they make of the logits in
 * place: z, then exp(z - max), then the derivative.
 */
#include "train/net/loss.h"

#include "train/net/vec.h"

#include <math.h>

#define REST_MIN 1e-6f /* a rest below it is rounding */

/* The teacher's part of a row, before its weight. exps (n_vocab): exp(z - max), with this sum;
 * picked: z of the teacher's ids. *ret_others: the derivative by the logit of any other id, as a
 * factor of its q. */
static double teacher_loss(const float *exps, double sum, float lse, const struct tensors_ask *row,
                           uint32_t n, const float *picked, float *ret_others)
{
    double loss = 0, p_rest = 1, q_rest = sum;

    /* The teacher says n of its probabilities; all other ids are one more, the rest. */
    for (uint32_t k = 0; k < n; k++) {
        double p = row->teacher_p[k];

        loss += p > 0 ? p * (log(p) - ((double)picked[k] - lse)) : 0;
        p_rest -= p;
        q_rest -= exps[row->teacher_ids[k]];
    }
    q_rest = fmax(q_rest / sum, REST_MIN);
    if (p_rest > REST_MIN)
        loss += p_rest * log(p_rest / q_rest);
    else
        p_rest = 0;
    *ret_others = (float)(1 - p_rest / q_rest);
    return loss;
}

/* z (n_vocab) becomes the derivative by the logits. */
static struct tensors_told row_loss(float *z, uint32_t n_vocab, const struct tensors_ask *row,
                                    uint32_t n_teacher)
{
    /* What is needed of z later is taken out before vec_exp writes over it. */
    float at = z[row->target], max = vec_max(z, n_vocab), picked[TENSORS_TOP_MAX], sum, lse;
    float teacher = row->teacher_ids ? row->teacher_weight : 0, others = 0;
    struct tensors_told loss = { 0 };

    for (uint32_t k = 0; row->teacher_ids && k < n_teacher; k++)
        picked[k] = z[row->teacher_ids[k]];
    sum = vec_exp(z, max, n_vocab);
    lse = max + logf(sum);
    loss.logp = at - lse;
    loss.right = at >= max;
    loss.targets = ((double)lse - at) * row->weight;
    if (row->teacher_ids)
        loss.teacher = teacher * teacher_loss(z, sum, lse, row, n_teacher, picked, &others);
    vec_scale(z, (row->weight + teacher * others) / sum, n_vocab);
    /* Ids that the teacher names have derivatives of their own, over what they got as one of the
     * others. */
    for (uint32_t k = 0; row->teacher_ids && k < n_teacher; k++) {
        float q = expf(picked[k] - lse);

        z[row->teacher_ids[k]] = row->weight * q + teacher * (q - row->teacher_p[k]);
    }
    z[row->target] -= row->weight;
    return loss;
}

void loss_rows(const struct tensors_loss *a)
{
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < a->n_rows; i++) {
        float *z = a->z + (size_t)i * a->n_vocab;

        a->ret[i] = row_loss(z, a->n_vocab, &a->asks[i], a->n_teacher);
        if (a->dz)
            vec_put(a->type, (uint8_t *)a->dz + (size_t)i * a->n_vocab * tensors_size(a->type), z,
                    a->n_vocab);
    }
}

/* The n largest of z, by insertion: n is small. z becomes something else. Ties: the lower id. */
static void top_of(float *z, uint32_t n_vocab, uint32_t n, uint32_t *ids, float *p)
{
    uint32_t have = 0;
    float max, sum;

    for (uint32_t i = 0; i < n_vocab; i++) {
        uint32_t at;

        if (have == n && z[i] <= p[n - 1])
            continue;
        at = have < n ? have++ : n - 1;
        for (; at > 0 && p[at - 1] < z[i]; at--) {
            p[at] = p[at - 1];
            ids[at] = ids[at - 1];
        }
        p[at] = z[i];
        ids[at] = i;
    }
    max = p[0];
    sum = vec_exp(z, max, n_vocab);
    for (uint32_t k = 0; k < n; k++)
        p[k] = expf(p[k] - max) / sum;
}

void loss_top(const struct tensors_top *a)
{
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < a->n_rows; i++)
        top_of(a->z + (size_t)i * a->n_vocab, a->n_vocab, a->k, a->ids + (size_t)i * a->k,
               a->p + (size_t)i * a->k);
}
