/* Would catch: a slice that runs twice or never; a job that returns before its slices are done; a
 * late worker that takes a slice of the next job with the last one's arguments; a wake-up that is
 * lost (the test then hangs and is killed); an idle pool that uses CPU.
 */
#include "base/thread.h"
#include "engine/cpu/workers.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define SLICES_MAX 600u

struct job {
    uint32_t number, n_slices, n_workers;
    uint32_t ran[SLICES_MAX]; /* not atomic: the pool must order these for us */
    uint32_t by_worker[WORKERS_MAX];
    _Atomic uint32_t bad;
    uint32_t spin;
};

static void run_slice(void *arg, uint32_t slice, uint32_t worker)
{
    struct job *j = arg;

    if (slice >= j->n_slices || worker >= j->n_workers) {
        atomic_fetch_add(&j->bad, 1);
        return;
    }
    for (volatile uint32_t i = 0; i < j->spin; i++)
        ;
    j->ran[slice] += j->number;
    j->by_worker[worker]++;
}

static void check_job(struct workers *w, struct job *j, uint32_t number, uint32_t n_slices)
{
    uint32_t sum = 0;

    *j = (struct job){
        .number = number, .n_slices = n_slices, .n_workers = workers_n(w), .spin = number % 7 * 20
    };
    workers_run(w, run_slice, j, n_slices);
    assert_int_equal(j->bad, 0);
    for (uint32_t i = 0; i < n_slices; i++)
        assert_int_equal(j->ran[i], number);
    for (uint32_t i = 0; i < WORKERS_MAX; i++)
        sum += j->by_worker[i];
    assert_int_equal(sum, n_slices);
}

/* Two jobs in turn, so that a late worker would write into the other one. */
static void check_many(uint32_t n, bool pin, uint32_t n_jobs)
{
    static struct job jobs[2];
    struct workers *w;

    assert_int_equal(workers_open(n, pin, &w), 0);
    assert_int_equal(workers_n(w), n);
    for (uint32_t i = 1; i <= n_jobs; i++)
        check_job(w, &jobs[i % 2], i, i % 5 ? i % 17 : i % SLICES_MAX);
    workers_close(w);
}

static void test_one(void **state)
{
    (void)state;
    check_many(1, true, 500);
}

static void test_two(void **state)
{
    (void)state;
    check_many(2, true, 20000);
    check_many(2, false, 5000);
}

/* More threads than CPUs: nobody may spin while others want to run. */
static void test_crowded(void **state)
{
    (void)state;
    check_many(thread_n_cpus() + 1, true, 2000);
    check_many(4 * thread_n_cpus() + 3, true, 300);
}

static void nap(long us)
{
    struct timespec t = { 0, us * 1000 };

    (void)nanosleep(&t, NULL);
}

/* Gaps around the time that workers spin: some are awake, some asleep, some about to sleep. */
static void test_gaps(void **state)
{
    static struct job job;
    struct workers *w;

    (void)state;
    assert_int_equal(workers_open(3, true, &w), 0);
    for (uint32_t i = 1; i <= 300; i++) {
        check_job(w, &job, i, 1 + i % 9);
        if (i % 10 == 0)
            workers_rest(w);
        if (i % 3 == 0)
            nap((long)(i % 60));
    }
    workers_close(w);
}

static double cpu_seconds(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void test_idle_uses_no_cpu(void **state)
{
    static struct job job;
    struct workers *w;
    double start;

    (void)state;
    assert_int_equal(workers_open(2, true, &w), 0);
    check_job(w, &job, 1, 10);
    workers_rest(w);
    nap(50000);
    start = cpu_seconds();
    nap(300000);
    assert_true(cpu_seconds() - start < 0.01);
    check_job(w, &job, 2, 10);
    workers_close(w);
}

static void test_open_and_close(void **state)
{
    struct workers *w;

    (void)state;
    assert_int_equal(workers_open(0, true, &w), -EINVAL);
    assert_int_equal(workers_open(WORKERS_MAX + 1, true, &w), -EINVAL);
    workers_close(NULL);
    for (uint32_t i = 0; i < 100; i++) { /* closed before all have begun */
        assert_int_equal(workers_open(1 + i % 4, i % 2, &w), 0);
        workers_close(w);
    }
}

struct order {
    uint32_t a[3], sum;
};

static void first(void *arg, uint32_t slice, uint32_t worker)
{
    struct order *o = arg;

    (void)worker;
    o->a[slice] = slice + 1;
}

static void second(void *arg, uint32_t slice, uint32_t worker)
{
    struct order *o = arg;

    (void)worker;
    if (slice == 2)
        o->sum = o->a[0] + o->a[1] + o->a[2];
}

/* What one job wrote, on whatever thread, the next one sees. */
static void test_jobs_follow_each_other(void **state)
{
    struct workers *w;

    (void)state;
    assert_int_equal(workers_open(2, true, &w), 0);
    for (int i = 0; i < 5000; i++) {
        struct order o = { { 0 }, 0 };

        workers_run(w, first, &o, 3);
        workers_run(w, second, &o, 3);
        assert_int_equal(o.sum, 6);
    }
    workers_run(w, first, NULL, 0);
    workers_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_and_close),
        cmocka_unit_test(test_one),
        cmocka_unit_test(test_two),
        cmocka_unit_test(test_crowded),
        cmocka_unit_test(test_gaps),
        cmocka_unit_test(test_jobs_follow_each_other),
        cmocka_unit_test(test_idle_uses_no_cpu),
    };

    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
