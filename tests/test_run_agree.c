/* tests/test_run_agree.c - what processes of a training run have in common. Would catch: products
 * in bf16 beside others in f32, parameters that part from another process' without a word, or stay
 * apart, a run of one that is compared with nobody, a state that is sent where all have it.
 *
 * Process 0 speaks first, and what it says is kept; process 1 hears it then.
 */
#include "tests/support/fault.h"
#include "train/run_agree.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct {
    uint8_t said[4096];
    size_t n_said, n_heard;
    double others; /* what other processes add to a sum */
    unsigned n_calls;
} mpi;

void __wrap_ranks_share(const struct ranks *r, void *x, size_t n);
void __wrap_ranks_share(const struct ranks *r, void *x, size_t n)
{
    mpi.n_calls++;
    if (r->rank == 0) {
        assert_true(n <= sizeof(mpi.said) - mpi.n_said);
        memcpy(mpi.said + mpi.n_said, x, n);
        mpi.n_said += n;
        return;
    }
    assert_true(n <= mpi.n_said - mpi.n_heard);
    memcpy(x, mpi.said + mpi.n_heard, n);
    mpi.n_heard += n;
}

void __wrap_ranks_sum_double(const struct ranks *r, double *x, size_t n);
void __wrap_ranks_sum_double(const struct ranks *r, double *x, size_t n)
{
    (void)r;
    mpi.n_calls++;
    for (size_t i = 0; i < n; i++)
        x[i] += mpi.others;
}

static const struct ranks alone = { 0, 1, 0, 1 }, first = { 0, 2, 0, 2 }, second = { 1, 2, 1, 2 };

static void types(void **state)
{
    const enum tensors_type f32 = TENSORS_F32, bf16 = TENSORS_BF16;
    uint32_t n;

    (void)state;
    mpi.others = 0; /* in f32 */
    assert_int_equal(run_agree_type(&first, bf16, &n), bf16);
    assert_int_equal(n, 0);
    assert_int_equal(run_agree_type(&first, f32, &n), f32);
    assert_int_equal(n, 1);
    mpi.others = 1;
    assert_int_equal(run_agree_type(&first, bf16, &n), f32);
    assert_int_equal(n, 1);
    assert_int_equal(run_agree_type(&first, f32, &n), f32);
    assert_int_equal(n, 2);
}

/* --- state ------------------------------------------------------------------------------------ */

struct trained {
    struct optim o;
    struct optim_progress at;
};

static void make(struct trained *t)
{
    *t = (struct trained){ .at = { 5, 1000 } };
    assert_int_equal(optim_add(&t->o, "a", 10, true), 0);
    assert_int_equal(optim_add(&t->o, "b", 3, false), 1);
    for (size_t i = 0; i < 10; i++) {
        t->o.t[0].p[i] = (float)i;
        t->o.t[0].m[i] = 0.5f * (float)i;
        t->o.t[0].v[i] = 0.25f * (float)i;
    }
}

static bool same(const struct trained *a, const struct trained *b)
{
    bool r = a->at.step == b->at.step && a->at.tokens == b->at.tokens;

    for (uint32_t i = 0; i < a->o.n; i++) {
        size_t len = a->o.t[i].n * sizeof(float);

        r = r && memcmp(a->o.t[i].p, b->o.t[i].p, len) == 0 &&
            memcmp(a->o.t[i].m, b->o.t[i].m, len) == 0 &&
            memcmp(a->o.t[i].v, b->o.t[i].v, len) == 0;
    }
    return r;
}

/* Process 0, beside others of which so many differ; then process 1. */
static uint32_t compare(struct trained *zero, struct trained *one, uint32_t n_differ)
{
    uint32_t n;

    mpi.n_said = mpi.n_heard = 0;
    mpi.others = n_differ;
    assert_int_equal(run_agree_state(&first, &zero->o, &zero->at, &n), 0);
    assert_int_equal(n, n_differ);
    mpi.others = 0; /* process 0 is no other than itself */
    assert_int_equal(run_agree_state(&second, &one->o, &one->at, &n), 0);
    assert_int_equal(mpi.n_heard, mpi.n_said);
    return n;
}

static void states(void **state)
{
    struct trained zero, one, was;
    float *values[4];

    (void)state;
    make(&zero);
    make(&was);
    make(&one);
    assert_int_equal(compare(&zero, &one, 0), 0);
    assert_int_equal(mpi.n_said, sizeof(uint64_t)); /* no more than a sum */
    values[0] = &one.o.t[0].p[9];
    values[1] = &one.o.t[0].m[0];
    values[2] = &one.o.t[1].v[2];
    values[3] = &one.o.t[1].p[0];
    for (int i = 0; i < 4; i++) {
        *values[i] = i == 3 ? -0.0f : 17;
        assert_int_equal(compare(&zero, &one, 1), 1);
        assert_true(same(&one, &zero));
    }
    one.at.tokens++;
    assert_int_equal(compare(&zero, &one, 1), 1);
    assert_true(same(&one, &zero));
    assert_true(same(&was, &zero));
    optim_fini(&zero.o);
    optim_fini(&one.o);
    optim_fini(&was.o);
}

static void alone_or_without_memory(void **state)
{
    struct trained t;
    uint32_t n = 7;

    (void)state;
    make(&t);
    mpi.n_calls = 0;
    assert_int_equal(run_agree_state(&alone, &t.o, &t.at, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(mpi.n_calls, 0);
    fault_arm(1);
    assert_int_equal(run_agree_state(&first, &t.o, &t.at, &n), -ENOMEM);
    assert_true(fault_disarm(&(struct fault){ 0 }));
    optim_fini(&t.o);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(types), cmocka_unit_test(states),
                                        cmocka_unit_test(alone_or_without_memory) };

    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
