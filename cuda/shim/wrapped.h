/* cuda/shim/wrapped.h - cuda/dev.cuh's own names, on the shim; on a GPU: cuda/nv/device.h. */
#ifndef CUDA_SHIM_WRAPPED_H
#define CUDA_SHIM_WRAPPED_H

#include "cuda/shim/device.h"

/* f16's bits. The way back rounds to nearest, ties to even; what is too large becomes infinite. */
static inline float half_to_float(uint16_t h)
{
    uint32_t rest = (uint32_t)(h & 0x7fff) << 13;
    float f = __uint_as_float(rest) * 0x1p112f; /* the bias, also of what is denormal */

    if ((h & 0x7c00) == 0x7c00)
        f = __uint_as_float(0x7f800000u | rest);
    return __uint_as_float(__float_as_uint(f) | (uint32_t)(h & 0x8000) << 16);
}
static inline uint16_t float_to_half(float x)
{
    uint32_t u = __float_as_uint(x), sign = u >> 16 & 0x8000u, mag = u & 0x7fffffffu;

    if (mag > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (mag >= 0x477ff000u) /* half way to 65536, which is not there */
        return (uint16_t)(sign | 0x7c00u);
    if (mag < 0x38800000u) /* denormal: the sum's rounding is to its last bit */
        return (uint16_t)(sign | (__float_as_uint(__uint_as_float(mag) + 0.5f) - 0x3f000000u));
    return (uint16_t)(sign | ((mag + 0xfffu + (mag >> 13 & 1u) - 0x38000000u) >> 13));
}

static inline void grid_wait(void)
{
    shim_grid_wait();
}
static inline void grid_trigger(void)
{
}
static inline void prefetch(const void *)
{
}

/* The bytes arrive when they are waited for, not before: until then they are NaN. */
static inline void cp_async16(void *to, const void *from)
{
    struct shim_thread *t = shim_self;

    if ((uintptr_t)to % 16 || (uintptr_t)from % 16)
        shim_fail("cp.async of 16 bytes that are not aligned");
    if (t->n_copies == SHIM_COPIES_MAX)
        shim_fail("more copies under way than the shim has room for");
    t->copies[t->n_copies++] = { to, from, t->n_groups };
    memset(to, 0xff, 16);
}
static inline void cp_async_commit(void)
{
    shim_self->n_groups++;
}
template <unsigned left> static inline void cp_async_wait(void)
{
    struct shim_thread *t = shim_self;
    unsigned n = 0;

    for (unsigned i = 0; i < t->n_copies; i++) {
        struct shim_copy c = t->copies[i];

        if (c.group + left < t->n_groups)
            memcpy(c.to, c.from, 16);
        else
            t->copies[n++] = c;
    }
    t->n_copies = n;
}

/* --- of whole warps --------------------------------------------------------------------------- */

static inline void shim_ldmatrix(uint32_t r[4], const void *row, enum shim_op op)
{
    uint32_t mine[4];

    if ((uintptr_t)row % 16)
        shim_fail("ldmatrix of a row that is not aligned");
    memcpy(mine, row, sizeof(mine));
    shim_together(~0u, op, 0, mine, 4, r, 4);
}

/* d += a b */
template <typename T>
static inline void shim_mma(T d[4], const uint32_t *a, unsigned n_a, const uint32_t *b,
                            unsigned n_b, enum shim_op op)
{
    uint32_t in[SHIM_REGS], out[4];

    memcpy(in, a, n_a * sizeof(*a));
    memcpy(in + n_a, b, n_b * sizeof(*b));
    memcpy(in + n_a + n_b, d, sizeof(out));
    shim_together(~0u, op, 0, in, n_a + n_b + 4, out, 4);
    memcpy(d, out, sizeof(out));
}

static inline void ldmatrix_x4(uint32_t r[4], const void *row)
{
    shim_ldmatrix(r, row, SHIM_ROWS);
}
static inline void ldmatrix_x4_trans(uint32_t r[4], const void *row)
{
    shim_ldmatrix(r, row, SHIM_ROWS_TRANS);
}
static inline void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    shim_mma(d, a, 4, b, 2, SHIM_MMA_F16);
}
static inline void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    shim_mma(d, a, 4, b, 2, SHIM_MMA_BF16);
}
static inline void mma_s8_k16(int32_t d[4], const uint32_t a[2], const uint32_t b[1])
{
    shim_mma(d, a, 2, b, 1, SHIM_MMA_S8_K16);
}
static inline void mma_s8_k32(int32_t d[4], const uint32_t a[4], const uint32_t b[2])
{
    shim_mma(d, a, 4, b, 2, SHIM_MMA_S8_K32);
}

/* Every parameter by value, as the kernel has it. */
template <typename... A, typename... B>
static int launch(dim3 grid, dim3 dim, size_t shared, void *stream, void (*kernel)(A...), B... b)
{
    shim_call<A...> c{ kernel, shim_args<A...>(b...) };

    return shim_launch(stream, grid, dim, shared, shim_apply<A...>, &c, sizeof(c)) == 0 ? 0 : -EIO;
}

#endif
