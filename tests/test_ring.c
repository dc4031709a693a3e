/* Would catch: a ring or arena that loses, doubles or reorders a message, hands out a span that is
 * still the peer's, follows an index that the peer made up, or loses a wake-up. */
#include "ipc/arena.h"
#include "ipc/ring.h"
#include "tests/support/hostile.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SLOTS 16u

struct pair {
    void *mem;
    struct ring_tx tx;
    struct ring_rx rx;
};

static void pair_init(struct pair *p, uint32_t slots)
{
    p->mem = aligned_alloc(64, RING_BYTES(slots));
    assert_non_null(p->mem);
    memset(p->mem, 0, RING_BYTES(slots));
    assert_int_equal(ring_tx_init(&p->tx, p->mem, RING_BYTES(slots), slots), 0);
    assert_int_equal(ring_rx_init(&p->rx, p->mem, RING_BYTES(slots), slots), 0);
}

static uint32_t *word(struct pair *p, size_t w)
{
    return (uint32_t *)(void *)((char *)p->mem + w);
}

static void test_init_checks(void **state)
{
    _Alignas(64) static char mem[RING_BYTES(SLOTS)];
    struct ring_tx tx;

    (void)state;
    assert_int_equal(ring_tx_init(&tx, mem, sizeof(mem), 0), -EINVAL);
    assert_int_equal(ring_tx_init(&tx, mem, sizeof(mem), 12), -EINVAL);
    assert_int_equal(ring_tx_init(&tx, mem, sizeof(mem), 2 * RING_SLOTS_MAX), -EINVAL);
    assert_int_equal(ring_tx_init(&tx, mem, sizeof(mem) - 1, SLOTS), -EINVAL);
    assert_int_equal(ring_tx_init(&tx, mem + 8, sizeof(mem) - 8, 1), -EINVAL);
    assert_int_equal(ring_tx_init(&tx, mem, sizeof(mem), SLOTS), 0);
}

static void test_full_and_empty(void **state)
{
    struct ring_desc d = { 0 };
    const uint8_t *small;
    struct pair p;
    uint32_t back;

    (void)state;
    pair_init(&p, SLOTS);
    assert_int_equal(ring_peek(&p.rx, &d, &small), -EAGAIN);
    assert_false(ring_readable(&p.rx));
    for (uint32_t lap = 0; lap < 5; lap++) {
        for (uint32_t i = 0; i < SLOTS; i++) {
            memset(ring_small(&p.tx), (int)i, RING_SMALL);
            assert_int_equal(ring_put(&p.tx, &(struct ring_desc){ lap, i + 1, i * 64 }), 0);
        }
        assert_true(ring_full(&p.tx));
        assert_int_equal(ring_put(&p.tx, &d), -EAGAIN);
        for (uint32_t i = 0; i < SLOTS; i++) {
            assert_int_equal(ring_peek(&p.rx, &d, &small), 0);
            assert_int_equal(d.off, i * 64);
            assert_int_equal(d.len, i + 1);
            assert_int_equal(d.frame_len, lap);
            assert_true(small[0] == i && small[RING_SMALL - 1] == i);
            ring_release(&p.rx);
        }
        assert_int_equal(ring_peek(&p.rx, &d, &small), -EAGAIN);
        assert_true(ring_came_back(&p.tx));
        assert_int_equal(ring_look(&p.tx, &back), 0);
        assert_int_equal(back, SLOTS);
        assert_false(ring_came_back(&p.tx));
    }
    free(p.mem);
}

/* head is modulo 2^32, and so are the laps; a ring that lives long passes 0 again. */
static void wrap(uint64_t start)
{
    const uint8_t *small;
    struct ring_desc d;
    struct pair p;
    uint32_t back;

    pair_init(&p, SLOTS);
    p.tx.tail = p.rx.head = start;
    p.tx.head = *word(&p, HOSTILE_HEAD) = (uint32_t)start;
    for (uint64_t i = start - SLOTS; i < start; i++)
        *word(&p, HOSTILE_TURN + 64 * (i % SLOTS)) = (uint32_t)(i / SLOTS) + 1;
    for (uint32_t i = 0; i < 100; i++) {
        assert_int_equal(ring_peek(&p.rx, &d, &small), -EAGAIN);
        assert_int_equal(ring_put(&p.tx, &(struct ring_desc){ 1, 1, i }), 0);
        assert_int_equal(ring_peek(&p.rx, &d, &small), 0);
        assert_int_equal(d.off, i);
        ring_release(&p.rx);
        assert_int_equal(ring_look(&p.tx, &back), 0);
        assert_int_equal(back, 1);
    }
    free(p.mem);
}

static void test_wraps(void **state)
{
    (void)state;
    wrap((1ull << 32) - 3);
    wrap((1ull << 32) * SLOTS - 3);
}

static void test_wrong_indices(void **state)
{
    const uint32_t heads[] = { 4, 100, UINT32_MAX, 0x80000000u, SLOTS };
    const uint32_t turns[] = { 2, 3, 0x80000000u, UINT32_MAX };
    struct ring_desc d = { 0 };
    const uint8_t *small;
    struct pair p;
    uint32_t back;

    (void)state;
    pair_init(&p, SLOTS);
    for (int i = 0; i < 3; i++)
        assert_int_equal(ring_put(&p.tx, &d), 0);
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        *word(&p, HOSTILE_HEAD) = heads[i];
        assert_int_equal(ring_look(&p.tx, &back), -EPROTO);
    }
    *word(&p, HOSTILE_HEAD) = 2;
    assert_int_equal(ring_look(&p.tx, &back), 0);
    *word(&p, HOSTILE_HEAD) = 1; /* it ran back, though 1 is in [0, tail] */
    assert_int_equal(ring_look(&p.tx, &back), -EPROTO);

    for (size_t i = 0; i < sizeof(turns) / sizeof(turns[0]); i++) {
        *word(&p, HOSTILE_TURN) = turns[i];
        assert_int_equal(ring_peek(&p.rx, &d, &small), -EPROTO);
        assert_true(ring_readable(&p.rx));
    }
    free(p.mem);
}

static void test_sleep_flags(void **state)
{
    struct ring_desc d = { 0 };
    struct pair p;
    uint32_t back;

    (void)state;
    pair_init(&p, SLOTS);
    assert_false(ring_take_sleeper(&p.tx));
    assert_false(ring_rx_sleep(&p.rx));
    assert_int_equal(ring_put(&p.tx, &d), 0);
    assert_true(ring_take_sleeper(&p.tx));
    assert_false(ring_take_sleeper(&p.tx)); /* one sleep, one wake-up */
    assert_true(ring_rx_sleep(&p.rx));      /* there is something: don't */
    ring_rx_wake(&p.rx);
    assert_false(ring_take_sleeper(&p.tx));

    assert_false(ring_take_waiter(&p.rx));
    assert_false(ring_tx_sleep(&p.tx));
    ring_release(&p.rx);
    assert_true(ring_take_waiter(&p.rx));
    assert_false(ring_take_waiter(&p.rx));
    assert_true(ring_tx_sleep(&p.tx));
    ring_tx_wake(&p.tx);
    assert_int_equal(ring_look(&p.tx, &back), 0);
    free(p.mem);
}

/* --- two threads ------------------------------------------------------------------------------ */

#define MESSAGES 200000u

static void *produce(void *arg)
{
    struct ring_tx *tx = arg;
    uint32_t back;

    for (uint64_t i = 0; i < MESSAGES;) {
        if (ring_put(tx, &(struct ring_desc){ ~(uint32_t)i, (uint32_t)i, (uint32_t)i }) == 0)
            i++;
        else if (ring_look(tx, &back) == 0 && back == 0)
            sched_yield();
    }
    return NULL;
}

static void test_two_threads(void **state)
{
    struct ring_desc d;
    const uint8_t *small;
    struct pair p;
    pthread_t t;

    (void)state;
    pair_init(&p, SLOTS);
    assert_int_equal(pthread_create(&t, NULL, produce, &p.tx), 0);
    for (uint64_t i = 0; i < MESSAGES;) {
        if (ring_peek(&p.rx, &d, &small) < 0) {
            sched_yield();
            continue;
        }
        assert_int_equal(d.off, i);
        assert_int_equal(d.len, (uint32_t)i);
        assert_int_equal(d.frame_len, ~(uint32_t)i);
        ring_release(&p.rx);
        i++;
    }
    pthread_join(t, NULL);
    free(p.mem);
}

/* Both sides sleep as often as they can, on a word instead of a doorbell: a lost wake-up would
 * leave this test asleep for good. */
struct sleepers {
    struct pair pair;
    atomic_int rx_bell, tx_bell;
};

static void wait_bell(atomic_int *bell)
{
    while (!atomic_exchange(bell, 0))
        sched_yield();
}

static void *produce_asleep(void *arg)
{
    struct sleepers *s = arg;
    struct ring_tx *tx = &s->pair.tx;
    uint32_t back;

    for (uint32_t i = 0; i < MESSAGES / 10; i++) {
        while (ring_put(tx, &(struct ring_desc){ 1, 1, i }) < 0) {
            assert_int_equal(ring_look(tx, &back), 0);
            if (back > 0)
                continue;
            if (!ring_tx_sleep(tx))
                wait_bell(&s->tx_bell);
            ring_tx_wake(tx);
        }
        if (ring_take_sleeper(tx))
            atomic_store(&s->rx_bell, 1);
    }
    return NULL;
}

static void test_no_wake_up_is_lost(void **state)
{
    struct sleepers s = { 0 };
    struct ring_desc d;
    const uint8_t *small;
    pthread_t t;

    (void)state;
    pair_init(&s.pair, 4);
    assert_int_equal(pthread_create(&t, NULL, produce_asleep, &s), 0);
    for (uint32_t i = 0; i < MESSAGES / 10; i++) {
        while (ring_peek(&s.pair.rx, &d, &small) == -EAGAIN) {
            if (!ring_rx_sleep(&s.pair.rx))
                wait_bell(&s.rx_bell);
            ring_rx_wake(&s.pair.rx);
        }
        assert_int_equal(d.off, i);
        ring_release(&s.pair.rx);
        if (ring_take_waiter(&s.pair.rx))
            atomic_store(&s.tx_bell, 1);
    }
    pthread_join(t, NULL);
    free(s.pair.mem);
}

/* --- the arena -------------------------------------------------------------------------------- */

static void test_arena_limits(void **state)
{
    struct arena a;
    uint64_t off;

    (void)state;
    assert_int_equal(arena_init(&a, 100, 4), -EINVAL);
    assert_int_equal(arena_init(&a, 1024, 3), -EINVAL);
    assert_int_equal(arena_init(&a, 1024, 4), 0);
    assert_int_equal(arena_find(&a, 1025, &off), -EMSGSIZE);
    assert_int_equal(arena_find(&a, UINT32_MAX, &off), -EMSGSIZE);
    assert_int_equal(arena_find(&a, 1024, &off), 0);
    assert_int_equal(off, 0);
    arena_lend(&a, off, 1024);
    assert_int_equal(arena_find(&a, 1, &off), -EAGAIN);
    arena_give_back(&a, 1);
    assert_int_equal(arena_find(&a, 1024, &off), 0);
    arena_fini(&a);
    arena_fini(NULL);
}

/* Against a plain list of who has which byte. */
static void test_arena_never_overlaps(void **state)
{
    enum { SIZE = 4096, N = 16 };
    struct {
        uint64_t off;
        uint32_t len;
    } out[N];
    uint32_t first = 0, n_out = 0, full = 0;
    uint8_t owned[SIZE / 64] = { 0 };
    uint64_t seed = 1, off;
    struct arena a;

    (void)state;
    assert_int_equal(arena_init(&a, SIZE, N), 0);
    for (int step = 0; step < 20000; step++) {
        uint32_t len = hostile_random(&seed) % (step % 7 ? 700 : SIZE + 1);

        if (n_out < N && arena_find(&a, len, &off) == 0) {
            uint32_t units = (len + 63) / 64;

            assert_true(off % 64 == 0 && off + len <= SIZE);
            for (uint32_t i = 0; i < units; i++)
                assert_int_equal(owned[off / 64 + i]++, 0);
            arena_lend(&a, off, len);
            out[(first + n_out) % N].off = off;
            out[(first + n_out++) % N].len = units;
        } else {
            uint32_t k = n_out ? 1 + hostile_random(&seed) % n_out : 0;

            full++;
            assert_true(n_out > 0); /* an empty arena takes every length up to its size */
            for (uint32_t j = 0; j < k; j++, first++)
                for (uint32_t i = 0; i < out[first % N].len; i++)
                    owned[out[first % N].off / 64 + i]--;
            first %= N;
            n_out -= k;
            arena_give_back(&a, k);
        }
    }
    assert_true(full > 1000);
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_init_checks),
        cmocka_unit_test(test_full_and_empty),
        cmocka_unit_test(test_wraps),
        cmocka_unit_test(test_wrong_indices),
        cmocka_unit_test(test_sleep_flags),
        cmocka_unit_test(test_two_threads),
        cmocka_unit_test(test_no_wake_up_is_lost),
        cmocka_unit_test(test_arena_limits),
        cmocka_unit_test(test_arena_never_overlaps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
