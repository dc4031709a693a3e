/* Kernels for test_cuda_shim.c: each right in one way, and wrong in the others. */
#include "tests/cuda_faults.h"

#include "cuda/atomic.cuh"
#include "cuda/dev.cuh"

#define N 128u

static __global__ void mirror(int how, const float *x, float *y, uint32_t n)
{
    SHARED_STATIC(float, all, [N]);
    unsigned i = threadIdx.x, past = how == MIRROR_PAST_STATIC ? 1 : 0;

    grid_wait();
    if (how != MIRROR_UNWRITTEN || i != 5)
        all[i + past] = x[i];
    if (how == MIRROR_ONE_AT_BARRIER && i > 0)
        __syncwarp();
    else if (how != MIRROR_NO_BARRIER)
        __syncthreads();
    if (how == MIRROR_ONE_AT_BARRIER && i > 0)
        __shfl_sync(~0u, i, 0);
    y[(how == MIRROR_PAST_GLOBAL ? 1 : 0) + i] = all[n - 1 - i];
}

static __global__ void mirror_dynamic(int how, const float *x, float *y, uint32_t n)
{
    SHARED_DYNAMIC(float, all);
    unsigned i = threadIdx.x;

    grid_wait();
    all[i + (how == MIRROR_PAST_DYNAMIC ? 1 : 0)] = x[i];
    if (how != MIRROR_NO_BARRIER)
        __syncthreads();
    y[i] = all[n - 1 - i];
}

static __global__ void sum_warps(int how, const float *x, float *y)
{
    SHARED_STATIC(float, all, [N]);
    unsigned i = threadIdx.x, lane = i % WARP;
    float v = x[i];

    grid_wait();
    if (how == WARP_ENDED && lane == 31)
        return;
    if (how == WARP_DIVERGENT) {
        if (lane < 16)
            v = warp_sum(v);
    } else if (how == WARP_HALVES) { /* each half with its own mask: allowed */
        unsigned mask = lane < 16 ? 0xffffu : 0xffff0000u;

        for (int by = 8; by > 0; by /= 2)
            v += __shfl_xor_sync(mask, v, by);
        v += __shfl_xor_sync(~0u, v, 16);
    } else if (how == WARP_NO_SYNC || how == WARP_RIGHT) {
        all[i] = v;
        if (how == WARP_RIGHT)
            __syncwarp();
        v = warp_sum(all[i ^ 1]);
    } else {
        v = warp_sum(v);
    }
    if (lane == 0)
        y[i / WARP] = v;
}

static __global__ void copy_async(int how, const float *x, float *y)
{
    SHARED_STATIC(float4, all, [2][N]);
    unsigned i = threadIdx.x;

    grid_wait();
    cp_async16(&all[0][i], (const float4 *)x + i);
    cp_async_commit();
    cp_async16(&all[1][i], (const float4 *)x + N + i);
    cp_async_commit();
    if (how == COPY_ONE_LESS)
        cp_async_wait<1>();
    else if (how != COPY_NOT_WAITED && how != COPY_LEFT)
        cp_async_wait<0>();
    if (how != COPY_NO_SYNC)
        __syncthreads();
    if (how != COPY_LEFT) {
        ((float4 *)y)[N - 1 - i] = all[0][N - 1 - i];
        ((float4 *)y)[N + N - 1 - i] = all[1][N - 1 - i];
    }
    if (how == COPY_NOT_WAITED || how == COPY_ONE_LESS)
        cp_async_wait<0>();
}

static __global__ void add_one(float *x, uint32_t n, bool wait)
{
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;

    if (wait)
        grid_wait();
    if (i < n)
        x[i] += 1;
    if (!wait)
        grid_wait();
}

static __global__ void last_block(uint32_t *y)
{
    grid_wait();
    *y = blockIdx.x;
}

static __global__ void mma_16(bool bf16, const uint16_t *a, const uint16_t *b, float *c)
{
    unsigned g = threadIdx.x / 4, t = threadIdx.x % 4;
    uint32_t ra[4], rb[2];
    float d[4];

    grid_wait();
    for (int i = 0; i < 4; i++) {
        ra[i] = *(const uint32_t *)&a[(g + 8 * (i % 2)) * 16 + 2 * t + 8 * (i / 2)];
        d[i] = c[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2];
    }
    for (int i = 0; i < 2; i++)
        rb[i] = *(const uint32_t *)&b[g * 16 + 2 * t + 8 * i];
    if (bf16)
        mma_bf16(d, ra, rb);
    else
        mma_f16(d, ra, rb);
    for (int i = 0; i < 4; i++)
        c[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = d[i];
}

static __global__ void mma_s8(uint32_t k, const int8_t *a, const int8_t *b, int32_t *c)
{
    unsigned g = threadIdx.x / 4, t = threadIdx.x % 4;
    uint32_t ra[4], rb[2];
    int32_t d[4];

    grid_wait();
    for (unsigned i = 0; i < 4; i++) {
        ra[i] = i < k / 8 ? *(const uint32_t *)&a[(g + 8 * (i % 2)) * k + 4 * t + 16 * (i / 2)] : 0;
        d[i] = c[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2];
    }
    for (unsigned i = 0; i < 2; i++)
        rb[i] = i < k / 16 ? *(const uint32_t *)&b[g * k + 4 * t + 16 * i] : 0;
    if (k == 32)
        mma_s8_k32(d, ra, rb);
    else
        mma_s8_k16(d, ra, rb);
    for (int i = 0; i < 4; i++)
        c[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = d[i];
}

static __global__ void load_matrix(bool trans, const uint16_t *rows, uint32_t *to)
{
    SHARED_STATIC(uint4, all, [WARP]);
    uint32_t r[4];

    grid_wait();
    all[threadIdx.x] = ((const uint4 *)rows)[threadIdx.x];
    __syncwarp();
    if (trans)
        ldmatrix_x4_trans(r, &all[threadIdx.x]);
    else
        ldmatrix_x4(r, &all[threadIdx.x]);
    for (int i = 0; i < 4; i++)
        to[threadIdx.x * 4 + i] = r[i];
}

int faults_mirror(void *stream, enum faults_mirror how, const float *x, float *y, uint32_t n)
{
    return launch(1, N, 0, stream, mirror, (int)how, x, y, n);
}

int faults_mirror_dynamic(void *stream, enum faults_mirror how, const float *x, float *y,
                          uint32_t n)
{
    return launch(1, n, n * sizeof(float), stream, mirror_dynamic, (int)how, x, y, n);
}

int faults_warp(void *stream, enum faults_warp how, const float *x, float *y, uint32_t n_warps)
{
    return launch(1, n_warps * WARP, 0, stream, sum_warps, (int)how, x, y);
}

int faults_copy(void *stream, enum faults_copy how, const float *x, float *y, uint32_t n)
{
    return launch(1, n, 0, stream, copy_async, (int)how, x, y);
}

int faults_add(void *stream, float *x, uint32_t n, bool wait)
{
    return launch((n + 31) / 32 * 2, 32, 0, stream, add_one, x, n, wait);
}

int faults_last_block(void *stream, uint32_t *y, uint32_t n_blocks)
{
    return launch(n_blocks, 1, 0, stream, last_block, y);
}

static __global__ void count(bool atomic, unsigned *y)
{
    grid_wait();
    if (atomic)
        atomicAdd(y, 1u);
    else
        ++*y;
}

int faults_count(void *stream, bool atomic, unsigned *y, uint32_t n)
{
    return launch(1, n, 0, stream, count, atomic, y);
}

int faults_mma_16(void *stream, bool bf16, const uint16_t *a, const uint16_t *b, float *c)
{
    return launch(1, WARP, 0, stream, mma_16, bf16, a, b, c);
}

int faults_mma_s8(void *stream, uint32_t k, const int8_t *a, const int8_t *b, int32_t *c)
{
    return launch(1, WARP, 0, stream, mma_s8, k, a, b, c);
}

int faults_ldmatrix(void *stream, bool trans, const uint16_t *rows, uint32_t *to)
{
    return launch(1, WARP, 0, stream, load_matrix, trans, rows, to);
}
