/* cuda/attend_kernels.h - the launches that k_attend is made of. 0, or -EIO. */
#ifndef CUDA_ATTEND_KERNELS_H
#define CUDA_ATTEND_KERNELS_H

#include "cuda/attend.h"

#ifdef __cplusplus
extern "C" {
#endif

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
