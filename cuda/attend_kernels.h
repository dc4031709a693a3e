/* cuda/attend_kernels.h - the launches that k_attend is made of, and what they can take. */
#ifndef CUDA_ATTEND_KERNELS_H
#define CUDA_ATTEND_KERNELS_H

#include "cuda/attend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Heads that the matrix units' kernels are made for: DO(their size). */
#define K_ATTEND_HEADS(DO) DO(64) DO(80) DO(96) DO(128)

/* 0, or -EIO. */
int k_attend_rows(void *stream, const struct k_attend *a);
int k_attend_decode(void *stream, const struct k_attend *a);
int k_attend_tile(void *stream, const struct k_attend *a);
int k_attend_merge(void *stream, const struct k_attend *a);
/* Behind those: weights, shares, queries that are kept. */
int k_attend_look(void *stream, const struct k_attend *a);

#ifdef __cplusplus
}
#endif
#endif
