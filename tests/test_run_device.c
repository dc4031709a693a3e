/* tests/test_run_device.c - gradients of several processes that have a device each. Would catch: a
 * tensor that is left out of the sum or lands in another's place, memory that is taken in a step, a
 * device's error that is stepped over, memory that is taken where nothing passes.
 *
 * The other processes are this one: their gradients are equal.
 */
#include "tests/support/fault.h"
#include "train/net/tensors_cpu.h"
#include "train/run_device.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void __wrap_ranks_sum(const struct ranks *r, float *x, size_t n);
void __wrap_ranks_sum(const struct ranks *r, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] *= (float)r->n;
}

static int error;

static int error_of(struct tensors *t)
{
    (void)t;
    return error;
}

/* Whose memory the host may not touch: the CPU, by another name. */
static struct tensors *open_apart(struct tensors_ops *ops)
{
    struct tensors *on;

    assert_int_equal(tensors_cpu.open(0, &on, NULL), 0);
    *ops = tensors_cpu;
    ops->host = false;
    ops->error = error_of;
    on->ops = ops;
    return on;
}

static void open_tensors(struct optim *o, struct tensors *on)
{
    static const size_t lengths[] = { 3, 100, 7 };

    *o = (struct optim){ .on = on };
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(optim_add(o, "a", lengths[i], true), i);
}

static void set_gradients(struct optim *o)
{
    for (uint32_t i = 0; i < o->n; i++)
        for (size_t k = 0; k < o->t[i].n; k++)
            o->t[i].g[k] = (float)(100 * i + k);
}

static void check_gradients(const struct optim *o, float factor)
{
    for (uint32_t i = 0; i < o->n; i++)
        for (size_t k = 0; k < o->t[i].n; k++)
            assert_true(o->t[i].g[k] == factor * (float)(100 * i + k));
}

static void sums_of_devices(void **state)
{
    const struct ranks ranks = { 0, 3, 0, 3 };
    struct tensors_ops ops;
    struct tensors *on = open_apart(&ops);
    struct optim o;
    float *between;
    uint64_t n;

    (void)state;
    open_tensors(&o, on);
    assert_int_equal(run_device_between(on, &ranks, &o, &between), 0);
    assert_non_null(between);
    n = fault_n_allocations();
    for (int step = 0; step < 3; step++) {
        set_gradients(&o);
        assert_int_equal(run_device_sum(on, &ranks, &o, between), 0);
        check_gradients(&o, 3);
    }
    assert_int_equal(fault_n_allocations(), n);
    error = -EIO;
    assert_int_equal(run_device_sum(on, &ranks, &o, between), -EIO);
    error = 0;
    free(between);
    fault_arm(1);
    assert_int_equal(run_device_between(on, &ranks, &o, &between), -ENOMEM);
    assert_true(fault_disarm(&(struct fault){ 0 }));
    optim_fini(&o);
    on->ops = &tensors_cpu;
    on->ops->close(on);
}

/* On the CPU, and where there is one process, nothing passes. */
static void sums_where_they_are(void **state)
{
    const struct ranks three = { 0, 3, 0, 3 }, one = { 0, 1, 0, 1 };
    struct tensors_ops ops;
    struct tensors *on = open_apart(&ops);
    struct optim o;
    float *between;

    (void)state;
    open_tensors(&o, NULL);
    set_gradients(&o);
    assert_int_equal(run_device_between(NULL, &three, &o, &between), 0);
    assert_null(between);
    assert_int_equal(run_device_sum(NULL, &three, &o, between), 0);
    check_gradients(&o, 3);
    optim_fini(&o);
    open_tensors(&o, on);
    set_gradients(&o);
    assert_int_equal(run_device_between(on, &one, &o, &between), 0);
    assert_null(between);
    assert_int_equal(run_device_sum(on, &one, &o, between), 0);
    check_gradients(&o, 1);
    optim_fini(&o);
    on->ops = &tensors_cpu;
    on->ops->close(on);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(sums_of_devices),
                                        cmocka_unit_test(sums_where_they_are) };

    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
