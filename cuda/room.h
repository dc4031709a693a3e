/* cuda/room.h - the device memory that steps compute in, laid out once.
 *
 * Ownership  room_open's caller closes.
 * Errors     -ENOMEM, -EIO (cuda/rt.h).
 */
#ifndef CUDA_ROOM_H
#define CUDA_ROOM_H

#include "cuda/attend.h"
#include "cuda/matvec.h"
#include "cuda/pick.h"
#include "cuda/rt.h"
#include "engine/file/model.h"
#include "engine/sampler.h"

/* Rows of a product that matvec makes; of more the weights become bf16, slab by slab. */
#define ROOM_FEW_ROWS   K_MATVEC_ROWS
#define ROOM_SLAB_BYTES ((size_t)128 << 20)

/* Outputs whose logits are made at a time: each is two rows of the product. */
#define ROOM_HEAD_ROWS (K_MATVEC_ROWS / 2)

/* Outputs that are sampled from at a time. */
#define ROOM_PICKS 32u

struct room {
    struct rt *rt;
    void *mem;
    size_t len;
    uint32_t max_rows; /* T */
    uint32_t widest;   /* columns of any product's input */
    float *x;          /* (T, n_embd) the residual stream */
    float *xn;         /* (T, n_embd) normed */
    float *y;          /* (T, n_embd) what is added to x next */
    float *q, *att;    /* (T, n_head * head_dim) */
    float *kk, *vv;    /* (T, n_head_kv * head_dim) */
    float *gate, *up;  /* (T, n_ff) */
    float *out;        /* (T, n_embd) normed outputs, kept until the next step */
    struct k_q8 *q8;   /* (T, widest / 32), and twice the head's rows at least */
    uint16_t *bf16;    /* (T, widest) */
    uint16_t *slab;    /* weights as bf16: ROOM_SLAB_BYTES, or all of the largest */
    /* What bf16 leaves over of both; no bytes where no matrix of the layers is of floats. */
    uint16_t *bf16_low, *slab_low;
    float *low;                           /* (K_MATVEC_ROWS, ADAPTER_RANK_MAX) */
    float *head;                          /* (K_MATVEC_ROWS, n_vocab) */
    float *logits;                        /* (ROOM_HEAD_ROWS, n_vocab) */
    uint32_t *ids;                        /* (T) */
    float *logprobs;                      /* (T) */
    struct k_pick_ask *asks;              /* (ROOM_PICKS) */
    uint32_t *ask_ids;                    /* (ROOM_PICKS, SAMPLER_REPEAT_MAX) */
    struct k_pick_found *found;           /* (ROOM_PICKS) */
    struct sampler_candidate *candidates; /* (ROOM_PICKS, SAMPLER_CANDIDATES_MAX) */
    void *pick;                           /* k_pick_scratch of ROOM_HEAD_ROWS */
    void *attend;                         /* k_attend_scratch */
    void *gemm;                           /* gemm_workspace */
};

struct k_attend_shape room_attend_shape(const struct model *m, uint32_t kv);

/* Bytes that room_open takes: of m only the shapes are looked at. */
size_t room_need(const struct model *m, uint32_t max_rows);
int room_open(struct rt *rt, const struct model *m, uint32_t max_rows, struct room *ret);
void room_close(struct room *r);

#endif
