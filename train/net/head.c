/* train/net/head.c - rows of the last layer to logits and losses, in blocks: logits of a whole
 * sequence, with a vocabulary of 128,256, would be gigabytes.
 */
#include "train/net/head.h"

#include "train/net/mat.h"

#include <errno.h>
#include <stdlib.h>

/* Rows whose logits stand in memory: for each block the output matrix is packed anew. */
#define BLOCK 1024u

struct head {
    const struct base *b;
    struct tensors *on;
    const struct tensors_ops *ops; /* on's */
    void *xn, *dz;                 /* typed (BLOCK, n_embd), (BLOCK, n_vocab) */
    float *z, *dxn, *r;            /* (BLOCK, n_vocab), (BLOCK, n_embd), (BLOCK) */
    /* Of the block at hand, the host's. */
    uint32_t index[BLOCK];
    struct tensors_ask asks[BLOCK];
    struct tensors_told told[BLOCK];
};

/* As head_open has it. */
size_t head_room(const struct base *b)
{
    size_t n_embd = b->m->n_embd, n_vocab = b->m->n_vocab, typed = tensors_size(b->type);

    return BLOCK * ((n_embd + n_vocab) * (typed + sizeof(float)) + sizeof(float));
}

int head_open(const struct base *b, struct head **ret)
{
    struct head *h = calloc(1, sizeof(*h));
    size_t n_embd = (size_t)BLOCK * b->m->n_embd, n_vocab = (size_t)BLOCK * b->m->n_vocab;

    if (!h)
        return -ENOMEM;
    h->b = b;
    h->on = b->on;
    h->ops = b->on->ops;
    /* All are asked for, then looked at: head_close takes those that are there. */
    h->xn = h->ops->alloc(h->on, n_embd * tensors_size(b->type));
    h->dz = h->ops->alloc(h->on, n_vocab * tensors_size(b->type));
    h->z = h->ops->alloc(h->on, n_vocab * sizeof(float));
    h->dxn = h->ops->alloc(h->on, n_embd * sizeof(float));
    h->r = h->ops->alloc(h->on, BLOCK * sizeof(float));
    if (!h->xn || !h->dz || !h->z || !h->dxn || !h->r) {
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
    void *all[] = { h->xn, h->dz, h->z, h->dxn, h->r };

    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        if (all[i])
            h->ops->free(h->on, all[i]);
    free(h);
}

void head_set_base(struct head *h, const struct base *b)
{
    h->b = b;
}

/* xn and r stay for back. */
static void logits(struct head *h, const float *x, const struct head_row *rows, uint32_t n)
{
    const struct base *b = h->b;
    uint32_t n_embd = b->m->n_embd;
    struct tensors_norm norm = { .x = x,
                                 .w = b->output_norm,
                                 .rows = h->index,
                                 .n_rows = n,
                                 .n = n_embd,
                                 .eps = b->m->rms_eps,
                                 .y = h->xn,
                                 .type = b->type,
                                 .r = h->r };

    for (uint32_t i = 0; i < n; i++)
        h->index[i] = rows[i].row;
    h->ops->norm(h->on, &norm);
    mat_multiply(h->on, n, b->m->n_vocab, n_embd, base_mat(b, h->xn, n_embd, false),
                 base_mat(b, b->output, n_embd, true), mat_floats(h->z, b->m->n_vocab), false);
}

/* Of the rows that h->index has from logits. */
static void back(struct head *h, const float *x, uint32_t n, float *dx)
{
    const struct base *b = h->b;
    uint32_t n_embd = b->m->n_embd, n_vocab = b->m->n_vocab;
    struct tensors_mat dz = base_mat(b, h->dz, n_vocab, false);
    struct tensors_norm_back norm = { x, b->output_norm, h->r, h->index, n, n_embd, h->dxn, dx };
    struct tensors_sum weight = { h->dxn, h->r, x, h->index, n, n_embd, 0, b->d_output_norm };

    mat_multiply(h->on, n, n_embd, n_vocab, dz, base_mat(b, b->output, n_embd, false),
                 mat_floats(h->dxn, n_embd), false);
    /* With train-base alone. */
    if (b->d_output)
        mat_multiply(h->on, n_vocab, n_embd, n, mat_turned(dz), base_mat(b, h->xn, n_embd, false),
                     mat_floats(b->d_output, n_embd), true);
    if (b->d_output_norm)
        h->ops->sum_rows(h->on, &weight);
    h->ops->norm_back(h->on, &norm);
}

/* Lists of the teacher's are the caller's, and read before loss returns. */
static void ask(struct head *h, const struct head_row *rows, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        h->asks[i] = (struct tensors_ask){ rows[i].target, rows[i].weight, rows[i].teacher_weight,
                                           rows[i].teacher_ids, rows[i].teacher_p };
}

int head_run(struct head *h, const float *x, const struct head_row *rows, uint32_t n,
             uint32_t n_teacher, float *ret_logp, float *dx, struct head_loss *ret_loss)
{
    /* In double over rows, in their order. */
    struct head_loss sum = { 0 };

    /* Rows that carry no loss are in no block. */
    for (uint32_t at = 0; at < n; at += BLOCK) {
        uint32_t m = n - at < BLOCK ? n - at : BLOCK;
        struct tensors_loss loss = { h->z,      h->asks,           m,          h->b->m->n_vocab,
                                     n_teacher, dx ? h->dz : NULL, h->b->type, h->told };

        logits(h, x, rows + at, m);
        ask(h, rows + at, m);
        /* Waits for the block: what it says is added up here. */
        h->ops->loss(h->on, &loss);
        for (uint32_t i = 0; i < m; i++) {
            sum.targets += h->told[i].targets;
            sum.teacher += h->told[i].teacher;
            sum.n_right += h->told[i].right;
            if (ret_logp)
                ret_logp[at + i] = h->told[i].logp;
        }
        /* Before the next block's logits take the place of these. */
        if (dx)
            back(h, x, m, dx);
    }
    if (ret_loss)
        *ret_loss = sum;
    return h->ops->error(h->on);
}

/* The teacher's side: probabilities of the base, no losses. */
int head_top(struct head *h, const float *x, const struct head_row *rows, uint32_t n_rows,
             uint32_t n, uint32_t *ret_ids, float *ret_p)
{
    for (uint32_t at = 0; at < n_rows; at += BLOCK) {
        uint32_t m = n_rows - at < BLOCK ? n_rows - at : BLOCK;
        struct tensors_top top = {
            h->z, m, h->b->m->n_vocab, n, ret_ids + (size_t)at * n, ret_p + (size_t)at * n
        };

        logits(h, x, rows + at, m);
        h->ops->top(h->on, &top);
    }
    return h->ops->error(h->on);
}
