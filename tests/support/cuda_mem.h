/* tests/support/cuda_mem.h - the device's memory, for tests of kernels over the shim.
 *
 * A failure ends the test. What nobody wrote is NaN, and an allocation is as long as was asked for,
 * to the byte: so ASan knows its end.
 */
#ifndef TESTS_SUPPORT_CUDA_MEM_H
#define TESTS_SUPPORT_CUDA_MEM_H

#include "cuda/shim/cuda_runtime_api.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static inline void *cuda_new(size_t n)
{
    void *ret = NULL;

    if (cudaMalloc(&ret, n) != cudaSuccess)
        fail_msg("no device memory: %zu bytes", n);
    return ret;
}

static inline void *cuda_put(const void *host, size_t n)
{
    void *ret = cuda_new(n);

    if (cudaMemcpy(ret, host, n, cudaMemcpyHostToDevice) != cudaSuccess)
        fail_msg("a copy to the device failed");
    return ret;
}

/* Behind all work of the default stream. */
static inline void cuda_get(void *host, const void *from, size_t n)
{
    if (cudaMemcpy(host, from, n, cudaMemcpyDeviceToHost) != cudaSuccess)
        fail_msg("a copy from the device failed");
}

static inline void cuda_give(void *mem)
{
    if (cudaFree(mem) != cudaSuccess)
        fail_msg("device memory that can't be given back");
}

#endif
