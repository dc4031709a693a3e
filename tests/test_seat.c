/* Would catch: an owner of the workers that computes on a worker's CPU, one that stays pinned while
 * it sleeps or sleeps far from who wakes it, and one that never leaves, or leaves with every
 * message, the CPU of who spins for it.
 */
#include "base/seat.h"

#include "base/thread.h"
#include "engine/cpu/place.h"
#include "engine/cpu/workers.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static unsigned n_allowed(void)
{
    return thread_n_cpus(); /* of this thread's mask */
}

static void pin_to(uint32_t cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    assert_int_equal(sched_setaffinity(0, sizeof(set), &set), 0);
}

/* Puts this thread on that CPU and lets it go again: it stays there until somebody moves it. */
static void sit_on(uint32_t cpu)
{
    cpu_set_t all;

    assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
    pin_to(cpu);
    assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
}

/* As a daemon that was woken on its client's CPU, which is a worker's. */
static void test_steps_are_computed_at_home(void **state)
{
    struct workers *w;
    struct seat s;
    unsigned n = n_allowed();

    (void)state;
    assert_int_equal(workers_open(n, true, &w), 0);
    seat_init(&s, workers_owner_cpu(w), true);
    assert_int_equal(s.home, place_cpu(0));
    for (uint32_t i = 1; i < n; i++)
        assert_int_not_equal(s.home, place_cpu(i));
    for (uint32_t i = 0; i < 100; i++) {
        sit_on(place_cpu(i % n));
        seat_home(&s);
        assert_int_equal(sched_getcpu(), s.home);
        assert_int_equal(n_allowed(), 1);
        seat_free(&s, -1);
        assert_int_equal(n_allowed(), n);
    }
    workers_close(w);
}

/* Messages from this CPU until it wants to go. Between two of them this thread may lose its CPU for
 * longer than a burst lasts. */
static uint32_t meet_until_it_leaves(struct seat *s)
{
    uint32_t n = 0;

    while (!seat_leaves(s) && n++ < 1000000)
        seat_met(s, true);
    return n;
}

static void test_who_spins_beside_us_is_left(void **state)
{
    struct workers *w;
    struct seat s;
    uint32_t here;

    (void)state;
    assert_int_equal(workers_open(2, true, &w), 0);
    for (uint32_t at = 0; at < 2; at++) { /* home and a worker's */
        seat_init(&s, workers_owner_cpu(w), true);
        sit_on(place_cpu(at));
        for (uint32_t i = 0; i < 100; i++) {
            seat_met(&s, i % 3 == 2); /* now and then is no reason */
            assert_false(seat_leaves(&s));
        }
        seat_met(&s, false);
        assert_true(meet_until_it_leaves(&s) >= 2);
        assert_int_equal(s.at, SEAT_FREE); /* it is for the owner to say when */
        here = (uint32_t)sched_getcpu();
        seat_leave(&s);
        assert_int_equal(s.at, SEAT_AWAY);
        assert_false(seat_leaves(&s));
        assert_int_not_equal(sched_getcpu(), here);

        /* A second one on the new CPU does not chase it away at once. */
        s.moved_ns = UINT64_MAX / 2;
        here = (uint32_t)sched_getcpu();
        pin_to(here);
        for (uint32_t i = 0; i < 100; i++)
            seat_met(&s, true);
        assert_false(seat_leaves(&s));
        assert_int_equal(sched_getcpu(), here);
        seat_free(&s, -1);
    }
    workers_close(w);
}

/* Where a yield does not make way for the sender (two scheduling groups) each message of a burst
 * comes after a sleep. */
static void test_a_burst_outlasts_sleeps(void **state)
{
    struct workers *w;
    struct seat s;
    uint32_t n = 0;

    (void)state;
    assert_int_equal(workers_open(2, true, &w), 0);
    seat_init(&s, workers_owner_cpu(w), true);
    for (; !seat_leaves(&s) && n < 1000000; n++) {
        seat_free(&s, -1);
        seat_met(&s, true);
    }
    assert_in_range(n, 2, 999999);
    workers_close(w);
}

/* Who always has another message there when one is answered is left in the middle of one. */
static void test_patience_ends(void **state)
{
    struct workers *w;
    struct seat s;
    uint32_t n = 0;

    (void)state;
    assert_int_equal(workers_open(2, true, &w), 0);
    seat_init(&s, workers_owner_cpu(w), true);
    for (; s.at == SEAT_FREE && n < 1000000; n++)
        seat_met(&s, true);
    assert_int_equal(s.at, SEAT_AWAY);
    assert_true(n > 4);
    seat_free(&s, -1);
    workers_close(w);
}

/* To sleep beside who will wake it, but not back and forth between two of them. */
static void test_sleeps_beside_who_wakes_it(void **state)
{
    struct workers *w;
    struct seat s;
    unsigned n = n_allowed();

    (void)state;
    assert_int_equal(workers_open(2, true, &w), 0);
    for (uint32_t i = 0; i < 20; i++) {
        uint32_t there = place_cpu(i % 2), here = place_cpu(1 - i % 2);

        seat_init(&s, workers_owner_cpu(w), true);
        pin_to(here); /* nobody but seat_free can move this thread now */
        seat_free(&s, -1);
        seat_free(&s, 1 << 20);
        s.joined_ns = UINT64_MAX / 2; /* a moment ago */
        seat_free(&s, (int)there);
        assert_int_equal(sched_getcpu(), here);
        assert_int_equal(n_allowed(), 1);
        s.joined_ns = 0;
        seat_free(&s, (int)there);
        assert_true(s.joined_ns > 0);
        assert_int_equal(n_allowed(), n); /* it went, and is free */
    }
    workers_close(w);
}

static void test_not_pinned_is_not_moved(void **state)
{
    struct workers *w;
    struct seat s;
    unsigned n = n_allowed();

    (void)state;
    assert_int_equal(workers_open(n, false, &w), 0);
    assert_int_equal(workers_owner_cpu(w), -1);
    seat_init(&s, workers_owner_cpu(w), false);
    for (uint32_t i = 0; i < 100; i++)
        seat_met(&s, true);
    assert_false(seat_leaves(&s));
    seat_home(&s);
    assert_int_equal(s.at, SEAT_FREE);
    assert_int_equal(n_allowed(), n);
    workers_close(w);

    /* More threads than CPUs: nobody is pinned. */
    assert_int_equal(workers_open(n + 1, true, &w), 0);
    assert_int_equal(workers_owner_cpu(w), -1);
    workers_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps_are_computed_at_home),
        cmocka_unit_test(test_who_spins_beside_us_is_left),
        cmocka_unit_test(test_a_burst_outlasts_sleeps),
        cmocka_unit_test(test_patience_ends),
        cmocka_unit_test(test_sleeps_beside_who_wakes_it),
        cmocka_unit_test(test_not_pinned_is_not_moved),
    };

    if (n_allowed() < 2) {
        print_message("skipped: needs two CPUs\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
