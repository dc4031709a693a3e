/* tests/support/tensors_rig.h - a device's operations of training (cuda/train.h) over the shim, for
 * tests of them: values there and back, held to doubles, and everything in both orders of blocks.
 */
#ifndef TESTS_SUPPORT_TENSORS_RIG_H
#define TESTS_SUPPORT_TENSORS_RIG_H

#include "cuda/shim/shim.h"
#include "cuda/train.h"
#include "tests/support/bf16.h"
#include "tests/support/counted.h"
#include "tests/support/near.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct tensors *on;
static const struct tensors_ops *ops;

/* --- numbers ---------------------------------------------------------------------------------- */

static uint64_t seed;

static inline uint32_t random_u32(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 11);
}

/* As values of the type are. */
static inline float *randoms(enum tensors_type type, size_t n, float by)
{
    float *ret = malloc((n + 1) * sizeof(*ret));

    for (size_t i = 0; i < n; i++) {
        ret[i] = ((float)(random_u32() & 0xffffff) / 8388608.0f - 1) * by;
        if (type == TENSORS_BF16)
            ret[i] = of_bf16(bf16(ret[i]));
    }
    return ret;
}

/* --- the device ------------------------------------------------------------------------------- */

static inline void *device(size_t n)
{
    void *p = ops->alloc(on, n);

    assert_non_null(p);
    return p;
}

static inline float *to_device(const float *x, size_t n)
{
    float *p = device(n * sizeof(*x));

    ops->put(on, p, x, n * sizeof(*x));
    return p;
}

static inline void *typed_to_device(enum tensors_type type, const float *x, size_t n)
{
    uint16_t *h;
    void *p;

    if (type == TENSORS_F32)
        return to_device(x, n);
    h = malloc(n * sizeof(*h));
    for (size_t i = 0; i < n; i++)
        h[i] = bf16(x[i]);
    p = device(n * sizeof(*h));
    ops->put(on, p, h, n * sizeof(*h));
    free(h);
    return p;
}

/* Bits of all results in the first order of blocks, to be compared with those in the other. */
static uint64_t kept[4096];
static unsigned n_kept, n_compared;
static bool backwards;
static bool rough; /* what is f32 was made of bf16 */

static inline void same_bits(const void *p, size_t n)
{
    const unsigned char *b = p;
    uint64_t h = 14695981039346656037ull;

    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * 1099511628211ull;
    if (!backwards) {
        assert_true(n_kept < sizeof(kept) / sizeof(*kept));
        kept[n_kept++] = h;
        return;
    }
    assert_true(n_compared < n_kept);
    assert_true(kept[n_compared++] == h);
}

static inline float *from_device(enum tensors_type type, const void *p, size_t n)
{
    float *ret = malloc(n * sizeof(*ret));
    uint16_t *h = malloc(n * sizeof(*h));

    ops->get(on, type == TENSORS_F32 ? (void *)ret : h, p, n * tensors_size(type));
    assert_int_equal(ops->error(on), 0);
    for (size_t i = 0; type == TENSORS_BF16 && i < n; i++)
        ret[i] = of_bf16(h[i]);
    free(h);
    same_bits(ret, n * sizeof(*ret));
    return ret;
}

/* What is on the device is near `want`, and is given back. */
static inline void check(const char *what, enum tensors_type type, void *p, const double *want,
                         size_t n)
{
    float *got = from_device(type, p, n);
    double most = 1e-3, worst = 0, limit = type == TENSORS_F32 && !rough ? 2e-5 : 2e-2;

    for (size_t i = 0; i < n; i++)
        most = fabs(want[i]) > most ? fabs(want[i]) : most;
    for (size_t i = 0; i < n; i++)
        worst = near_worse(worst, got[i], want[i]);
    if (!(worst <= limit * most))
        fail_msg("%s: differs by %.3g, the largest is %.3g", what, worst, most);
    free(got);
    ops->free(on, p);
}

static inline double *doubles(size_t n)
{
    return calloc(n + 1, sizeof(double));
}

/* --- both orders ------------------------------------------------------------------------------ */

static inline int open_device(void **state)
{
    struct why why = { "" };

    (void)state;
    seed = 88172645463325252ull;
    ops = gistd_tensors();
    shim_set_order(backwards);
    shim_set_late(backwards);
    return ops->open(0, &on, &why);
}

static inline int close_device(void **state)
{
    (void)state;
    ops->close(on);
    return 0;
}

/* All of them in one order of blocks, then in the other. */
#define rig_run(tests)                                                                             \
    ({                                                                                             \
        int failed_ = cmocka_run_group_tests_name("in order", tests, open_device, close_device);   \
        backwards = true;                                                                          \
        failed_ += cmocka_run_group_tests_name("backwards", tests, open_device, close_device);     \
        failed_ + (n_compared != n_kept);                                                          \
    })

#endif
