#include "train/net/head.h"

#include "train/net/vec.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Rows whose logits stand in memory: for each block the output matrix is packed anew. */
#define BLOCK    1024u
#define ALIGN    64u
#define REST_MIN 1e-6f /* a rest below it is rounding */

struct head {
    const struct base *b;
    struct gemm *gemm;
    void *xn, *dz;  /* typed (BLOCK, n_embd), (BLOCK, n_vocab) */
    float *z, *dxn; /* (BLOCK, n_vocab), (BLOCK, n_embd) */
    float r[BLOCK];
    struct head_loss loss[BLOCK];
};

static void *bytes(size_t n, size_t size)
{
    return aligned_alloc(ALIGN, (n * size + ALIGN - 1) / ALIGN * ALIGN);
}

int head_open(const struct base *b, struct gemm *g, struct head **ret)
{
    struct head *h = calloc(1, sizeof(*h));
    size_t n_embd = (size_t)BLOCK * b->m->n_embd, n_vocab = (size_t)BLOCK * b->m->n_vocab;

    if (!h)
        return -ENOMEM;
    h->b = b;
    h->gemm = g;
    h->xn = bytes(n_embd, gemm_size(b->type));
    h->dz = bytes(n_vocab, gemm_size(b->type));
    h->z = bytes(n_vocab, sizeof(float));
    h->dxn = bytes(n_embd, sizeof(float));
    if (!h->xn || !h->dz || !h->z || !h->dxn) {
        head_close(h);
        return -ENOMEM;
    }
    *ret = h;
    return 0;
}

void head_close(struct head *h)
{
    if (!h)
        return;
    free(h->xn);
    free(h->dz);
    free(h->z);
    free(h->dxn);
    free(h);
}

void head_set_base(struct head *h, const struct base *b)
{
    h->b = b;
}

static void logits(struct head *h, const float *x, const struct head_row *rows, uint32_t n)
{
    const struct base *b = h->b;
    uint32_t n_embd = b->m->n_embd;

#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < n; i++) {
        float *y = h->dxn + (size_t)i * n_embd;

        h->r[i] =
            vec_norm(y, x + (size_t)rows[i].row * n_embd, b->output_norm, b->m->rms_eps, n_embd);
        vec_put(b->type, (uint8_t *)h->xn + i * n_embd * gemm_size(b->type), y, n_embd);
    }
    gemm_run(h->gemm, n, b->m->n_vocab, n_embd, (struct gemm_mat){ h->xn, n_embd, b->type, false },
             base_mat(b, b->output, n_embd, true),
             (struct gemm_mat){ h->z, b->m->n_vocab, GEMM_F32, false }, false);
}

/* The teacher's part of a row, before its weight. exps (n_vocab): exp(z - max), with this sum;
 * picked: z of the teacher's ids. *ret_others: the derivative by the logit of any other id, as a
 * factor of its q. */
static double teacher_loss(const float *exps, double sum, float lse, const struct head_row *row,
                           uint32_t n, const float *picked, float *ret_others)
{
    double loss = 0, p_rest = 1, q_rest = sum;

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
static struct head_loss row_loss(float *z, uint32_t n_vocab, const struct head_row *row,
                                 uint32_t n_teacher, float *ret_logp)
{
    float at = z[row->target], max = vec_max(z, n_vocab), picked[HEAD_TEACHER_MAX], sum, lse;
    float teacher = row->teacher_ids ? row->teacher_weight : 0, others = 0;
    struct head_loss loss = { 0 };

    for (uint32_t k = 0; row->teacher_ids && k < n_teacher; k++)
        picked[k] = z[row->teacher_ids[k]];
    sum = vec_exp(z, max, n_vocab);
    lse = max + logf(sum);
    *ret_logp = at - lse;
    loss.n_right = at >= max;
    loss.targets = ((double)lse - at) * row->weight;
    if (row->teacher_ids)
        loss.teacher = teacher * teacher_loss(z, sum, lse, row, n_teacher, picked, &others);
    vec_scale(z, (row->weight + teacher * others) / sum, n_vocab);
    for (uint32_t k = 0; row->teacher_ids && k < n_teacher; k++) {
        float q = expf(picked[k] - lse);

        z[row->teacher_ids[k]] = row->weight * q + teacher * (q - row->teacher_p[k]);
    }
    z[row->target] -= row->weight;
    return loss;
}

static void back(struct head *h, const float *x, const struct head_row *rows, uint32_t n, float *dx)
{
    const struct base *b = h->b;
    uint32_t n_embd = b->m->n_embd, n_vocab = b->m->n_vocab;
    struct gemm_mat dz = { h->dz, n_vocab, b->type, false };

    gemm_run(h->gemm, n, n_embd, n_vocab, dz, base_mat(b, b->output, n_embd, false),
             (struct gemm_mat){ h->dxn, n_embd, GEMM_F32, false }, false);
    dz.t = true;
    if (b->d_output)
        gemm_run(h->gemm, n_vocab, n_embd, n, dz,
                 (struct gemm_mat){ h->xn, n_embd, b->type, false },
                 (struct gemm_mat){ b->d_output, n_embd, GEMM_F32, false }, true);
    for (uint32_t i = 0; b->d_output_norm && i < n; i++)
        vec_norm_back_weight(b->d_output_norm, h->dxn + (size_t)i * n_embd,
                             x + (size_t)rows[i].row * n_embd, h->r[i], n_embd);
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < n; i++)
        vec_norm_back(dx + (size_t)rows[i].row * n_embd, h->dxn + (size_t)i * n_embd,
                      x + (size_t)rows[i].row * n_embd, b->output_norm, h->r[i], n_embd);
}

int head_run(struct head *h, const float *x, const struct head_row *rows, uint32_t n,
             uint32_t n_teacher, float *ret_logp, float *dx, struct head_loss *ret_loss)
{
    uint32_t n_vocab = h->b->m->n_vocab;
    enum gemm_type type = h->b->type;
    struct head_loss sum = { 0 };

    for (uint32_t at = 0; at < n; at += BLOCK) {
        uint32_t m = n - at < BLOCK ? n - at : BLOCK;

        logits(h, x, rows + at, m);
#pragma omp parallel for schedule(static)
        for (uint32_t i = 0; i < m; i++) {
            float *z = h->z + (size_t)i * n_vocab, logp;

            h->loss[i] = row_loss(z, n_vocab, &rows[at + i], n_teacher, &logp);
            if (ret_logp)
                ret_logp[at + i] = logp;
            if (dx)
                vec_put(type, (uint8_t *)h->dz + (size_t)i * n_vocab * gemm_size(type), z, n_vocab);
        }
        for (uint32_t i = 0; i < m; i++) {
            sum.targets += h->loss[i].targets;
            sum.teacher += h->loss[i].teacher;
            sum.n_right += h->loss[i].n_right;
        }
        if (dx)
            back(h, x, rows + at, m, dx);
    }
    if (ret_loss)
        *ret_loss = sum;
    return gemm_error(h->gemm);
}

/* The n largest of z, by insertion: n is small. z becomes something else. */
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

int head_top(struct head *h, const float *x, const struct head_row *rows, uint32_t n_rows,
             uint32_t n, uint32_t *ret_ids, float *ret_p)
{
    for (uint32_t at = 0; at < n_rows; at += BLOCK) {
        uint32_t m = n_rows - at < BLOCK ? n_rows - at : BLOCK;

        logits(h, x, rows + at, m);
#pragma omp parallel for schedule(static)
        for (uint32_t i = 0; i < m; i++)
            top_of(h->z + (size_t)i * h->b->m->n_vocab, h->b->m->n_vocab, n,
                   ret_ids + (size_t)(at + i) * n, ret_p + (size_t)(at + i) * n);
    }
    return gemm_error(h->gemm);
}
