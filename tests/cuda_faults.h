/* tests/cuda_faults.h - kernels that are right, or wrong in one way each, for test_cuda_shim.c. */
#ifndef TESTS_CUDA_FAULTS_H
#define TESTS_CUDA_FAULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* y[i] = x of the thread opposite, through shared memory: static or dynamic. */
enum faults_mirror {
    MIRROR_RIGHT,
    MIRROR_NO_BARRIER,
    MIRROR_PAST_STATIC,
    MIRROR_PAST_DYNAMIC,
    MIRROR_ONE_AT_BARRIER, /* the others never come */
    MIRROR_PAST_GLOBAL,
    MIRROR_UNWRITTEN /* one place of shared memory is not written */
};
int faults_mirror(void *stream, enum faults_mirror how, const float *x, float *y, uint32_t n);
int faults_mirror_dynamic(void *stream, enum faults_mirror how, const float *x, float *y,
                          uint32_t n);

/* y[w] = sum over a warp's x. */
enum faults_warp { WARP_RIGHT, WARP_DIVERGENT, WARP_ENDED, WARP_HALVES, WARP_NO_SYNC };
int faults_warp(void *stream, enum faults_warp how, const float *x, float *y, uint32_t n_warps);

/* y = x by cp.async, read by another lane than the one that copied. */
enum faults_copy { COPY_RIGHT, COPY_NOT_WAITED, COPY_ONE_LESS, COPY_NO_SYNC, COPY_LEFT };
int faults_copy(void *stream, enum faults_copy how, const float *x, float *y, uint32_t n);

/* x += 1, twice as many blocks as it needs; wait: with grid_wait first. */
int faults_add(void *stream, float *x, uint32_t n, bool wait);
/* y = the largest of x so far, as blocks come: their order is seen. */
int faults_last_block(void *stream, uint32_t *y, uint32_t n_blocks);

/* *y += n, by so many threads of one block. */
int faults_count(void *stream, bool atomic, unsigned *y, uint32_t n);

/* C (16, 8) += A (16, k) B (8, k): of whole warps. */
int faults_mma_16(void *stream, bool bf16, const uint16_t *a, const uint16_t *b, float *c);
int faults_mma_s8(void *stream, uint32_t k, const int8_t *a, const int8_t *b, int32_t *c);
/* to (32, 4) registers of ldmatrix of (32, 8) halves. */
int faults_ldmatrix(void *stream, bool trans, const uint16_t *rows, uint32_t *to);

#ifdef __cplusplus
}
#endif

#endif
