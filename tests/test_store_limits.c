/* tests/test_store_limits.c - what the store may take. Would catch: a limit of bytes, of a day's
 * writing, of age that is passed, also over a restart; a valuable record that goes before a
 * worthless one, a beginning before its end, a name at all; what was forgotten that is still there.
 *
 * The Makefile's WRAP_test_store_limits has time pass as this test says.
 */
#include "base/clock.h"
#include "store/prune.h"
#include "tests/support/made_store.h"
#include "tests/support/store_names.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define HOUR UINT64_C(3600)
#define DAY  (24 * HOUR)

static uint64_t passed_s; /* beyond the clock's own time */

uint64_t __real_when_s(void);
uint64_t __wrap_when_s(void);
uint64_t __wrap_when_s(void)
{
    return __real_when_s() + passed_s;
}

uint64_t __real_when_ns(void);
uint64_t __wrap_when_ns(void);
uint64_t __wrap_when_ns(void)
{
    return __real_when_ns() + passed_s * CLOCK_S;
}

static struct store_rig rig;

static int open_rig(void **state)
{
    static char name[16];
    static int n;

    (void)state;
    passed_s = 0;
    (void)snprintf(name, sizeof(name), "s%d", n++);
    store_rig_init(&rig, name);
    return store_rig_open(&rig);
}

static int close_rig(void **state)
{
    (void)state;
    store_rig_close(&rig);
    return 0;
}

/* --- limits ----------------------------------------------------------------------------------- */

static void never_passes_the_limit(void **state)
{
    struct rig_record r = { .n = 256 };
    uint64_t len = rig_len(&r);

    (void)state;
    store_rig_close(&rig);
    rig.limits.bytes = 10 * len + 100;
    assert_int_equal(store_rig_open(&rig), 0);
    for (uint32_t i = 1; i <= 40; i++) {
        uint32_t n = rig.n_called;

        r.seed = i;
        assert_int_equal(rig_put_later(&rig, &r), 0);
        while (rig.n_called == n) {
            (void)io_wait(rig.io);
            (void)store_pump(rig.store);
            assert_true(rig_stats(&rig).bytes <= rig.limits.bytes);
            assert_true(rig_files(&rig, "v1/1000") <= 10);
        }
        assert_int_equal(rig.result, 0);
    }
    assert_int_equal(rig_stats(&rig).records, 10);
    assert_int_equal(rig_stats(&rig).evicted, 30);
    r.n = 1024;
    rig.limits.bytes = 5 * len;
    store_rig_again(&rig);
    rig_settle(&rig);
    assert_int_equal(rig_stats(&rig).records, 5);
    assert_int_equal(rig_files(&rig, "v1/1000"), 5);
    store_set_limit(rig.store, 2 * len);
    rig_settle(&rig);
    assert_int_equal(rig_stats(&rig).records, 2);
    assert_int_equal(rig_put(&rig, &r), -EDQUOT); /* larger than all */
}

/* What is left of these when there is room for n. */
static uint32_t kept(const struct rig_record *r, uint32_t n)
{
    uint32_t bits = 0;

    for (uint32_t i = 0; i < n; i++)
        bits |= rig_has(&rig, &r[i]) ? 1u << i : 0;
    return bits;
}

static void prune_to(uint64_t records)
{
    uint64_t n, bytes, len = rig_len(&(struct rig_record){ .n = 64 });

    store_prune(rig.store, RIG_OWNER, records * len, &n, &bytes);
    assert_int_equal(bytes, n * len);
    assert_int_equal(rig_stats(&rig).records, records);
}

static void what_costs_least_goes_first(void **state)
{
    struct rig_record r[4] = { { .n = 64, .seed = 1, .cost_ns = 4000000000 },
                               { .n = 64, .seed = 2, .cost_ns = 1000000000 },
                               { .n = 64, .seed = 3, .cost_ns = 3000000000 },
                               { .n = 64, .seed = 4, .cost_ns = 2000000000 } };

    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(rig_put(&rig, &r[i]), 0);
    store_rig_again(&rig); /* the costs are in the files */
    prune_to(3);
    assert_int_equal(kept(r, 4), 0xd);
    prune_to(2);
    assert_int_equal(kept(r, 4), 0x5);
    prune_to(1);
    assert_int_equal(kept(r, 4), 0x1);
}

static void what_is_old_goes_first(void **state)
{
    struct rig_record r[4] = { { .n = 64, .seed = 1, .cost_ns = 2000000000 },
                               { .n = 64, .seed = 2 },
                               { .n = 64, .seed = 3 },
                               { .n = 64, .seed = 4 } };

    (void)state;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(rig_put(&rig, &r[i]), 0);
        passed_s += 2 * HOUR;
    }
    /* The second is used, and the start knows it. */
    assert_int_equal(rig_get(&rig, &r[1]), 64);
    store_rig_again(&rig);
    passed_s += HOUR;
    prune_to(3);
    assert_int_equal(kept(r, 4), 0xb);
    /* The first cost twice as much, and is 9 hours old where the last one is 3. */
    prune_to(2);
    assert_int_equal(kept(r, 4), 0xa);
    prune_to(1);
    assert_int_equal(kept(r, 4), 0x2);
}

static void ends_go_before_beginnings(void **state)
{
    struct rig_record r[4] = { { .n = 64, .seed = 1, .cost_ns = 100000000 },
                               { .n = 64, .seed = 2, .cost_ns = 4000000000 },
                               { .n = 64, .seed = 3, .cost_ns = 4000000000 },
                               { .n = 64, .seed = 4, .cost_ns = 5000000000 } };

    (void)state;
    /* 0 - 1 - 2, of which the beginning was cheap, and 3 behind something that is not there. */
    r[1].before = rig_hash(&rig, &r[0]);
    r[2].before = rig_hash(&rig, &r[1]);
    r[3].before = (struct store_hash){ 1, 2 };
    for (int i = 3; i >= 0; i--)
        assert_int_equal(rig_put(&rig, &r[i]), 0);
    {
        struct store_item it = { 0 };
        uint32_t depth = 0;

        while (store_next(rig.store, RIG_OWNER, &it))
            depth += it.depth;
        assert_int_equal(depth, 64 + 128);
    }
    prune_to(3);
    assert_int_equal(kept(r, 4), 0x7);
    prune_to(2);
    assert_int_equal(kept(r, 4), 0x3);
    prune_to(1);
    assert_int_equal(kept(r, 4), 0x1);
}

static void a_twin_may_go(void **state)
{
    struct rig_record raw = { .n = 64, .seed = 1, .cost_ns = 1000000000 }, packed = raw;
    struct rig_record next = { .n = 64, .seed = 2, .cost_ns = 9000000000 };
    uint64_t n, bytes;

    (void)state;
    packed.kind = STORE_PACKED;
    next.before = rig_hash(&rig, &raw);
    assert_int_equal(rig_put(&rig, &raw), 0);
    assert_int_equal(rig_put(&rig, &packed), 0);
    assert_int_equal(rig_put(&rig, &next), 0);
    /* Raw and packed are the same place: the raw one may go, what stands behind them stays. */
    store_prune(rig.store, RIG_OWNER, rig_len(&packed) + rig_len(&next), &n, &bytes);
    assert_int_equal(n, 1);
    assert_int_equal(rig_get(&rig, &raw), 0);
    assert_int_equal(rig_get(&rig, &packed), 64);
    assert_int_equal(rig_get(&rig, &next), 64);
}

static void writes_no_more_than_a_day_has(void **state)
{
    struct rig_record r = { .n = 256 };
    uint64_t len = rig_len(&r), n, bytes;

    (void)state;
    store_rig_close(&rig);
    rig.limits.write_a_day = 5 * len;
    assert_int_equal(store_rig_open(&rig), 0);
    for (r.seed = 1; r.seed <= 4; r.seed++) /* under way together: each one counts from its begin */
        assert_int_equal(rig_put_later(&rig, &r), 0);
    assert_int_equal(rig_put_later(&rig, &r), -EDQUOT);
    rig_wait(&rig, 4);
    assert_int_equal(rig_put(&rig, &r), -EDQUOT); /* a sixteenth is for names */
    assert_non_null(strstr(rig_stats(&rig).degraded, "24 hours"));
    /* Neither a restart nor deleting what was written gives it back. */
    store_forget(rig.store, RIG_OWNER, &n, &bytes);
    assert_int_equal(n, 4);
    store_rig_again(&rig);
    assert_int_equal(rig_stats(&rig).written_today, 4 * len);
    assert_int_equal(rig_put(&rig, &r), -EDQUOT);
    passed_s += DAY - HOUR;
    assert_int_equal(rig_put(&rig, &r), -EDQUOT);
    assert_non_null(strstr(rig_stats(&rig).degraded, "24 hours"));
    passed_s += 2 * HOUR;
    assert_string_equal(rig_stats(&rig).degraded, "");
    assert_int_equal(rig_put(&rig, &r), 0);
    assert_string_equal(rig_stats(&rig).degraded, "");
    /* The count is gone: what is there was written, all the same. */
    {
        char path[SCRATCH_PATH_MAX];

        store_rig_close(&rig);
        assert_int_equal(unlink(rig_path(&rig, path, "v1/written")), 0);
        assert_int_equal(store_rig_open(&rig), 0);
        assert_int_equal(rig_stats(&rig).written_today, len);
    }
}

static void forgets_what_is_old(void **state)
{
    struct rig_record a = { .n = 64, .seed = 1 }, b = { .n = 64, .seed = 2 };

    (void)state;
    store_rig_close(&rig);
    rig.limits.age_s = 10 * DAY;
    assert_int_equal(store_rig_open(&rig), 0);
    assert_int_equal(rig_put(&rig, &a), 0);
    assert_int_equal(rig_put(&rig, &b), 0);
    passed_s += 9 * DAY;
    assert_int_equal(rig_get(&rig, &a), 64);
    passed_s += 2 * DAY;
    rig_settle(&rig);
    assert_int_equal(rig_get(&rig, &b), 0);
    assert_int_equal(rig_get(&rig, &a), 64);
    assert_int_equal(rig_stats(&rig).expired, 1);
    /* A beginning is as young as what stands behind it. */
    b.before = rig_hash(&rig, &a);
    assert_int_equal(rig_put(&rig, &b), 0);
    passed_s += 9 * DAY;
    assert_int_equal(rig_get(&rig, &b), 64);
    passed_s += 2 * DAY;
    rig_settle(&rig);
    assert_int_equal(rig_get(&rig, &a), 64);
    passed_s += 11 * DAY;
    store_rig_again(&rig);
    assert_int_equal(rig_get(&rig, &b), 0);
    passed_s += 2;
    rig_settle(&rig);
    assert_int_equal(rig_get(&rig, &a), 0);
    rig_settle(&rig);
    assert_int_equal(rig_files(&rig, "v1/1000"), 0);
}

static void forgets_an_owner(void **state)
{
    struct rig_record a = { .n = 64, .seed = 1 }, b = a, late = { .n = 64, .seed = 3 };
    struct store_named name = { 0 };
    uint64_t n, bytes;
    uint32_t called;

    (void)state;
    b.owner = 1001;
    assert_int_equal(rig_put(&rig, &a), 0);
    assert_int_equal(rig_put(&rig, &b), 0);
    assert_int_equal(
        store_name_put(rig.store, RIG_OWNER, 1, "n", "b", 1, rig_count, &(struct rig_called){ 0 }),
        0);
    assert_true(store_flush(rig.store, 60 * CLOCK_S));
    called = rig.n_called;
    assert_int_equal(rig_put_later(&rig, &late), 0);
    store_forget(rig.store, RIG_OWNER, &n, &bytes);
    assert_int_equal(n, 1);
    assert_int_equal(bytes, rig_len(&a));
    assert_int_equal(rig_put(&rig, &late), -EAGAIN); /* its file is still to be deleted */
    rig_wait(&rig, called + 1);
    rig_settle(&rig);
    assert_int_equal(rig_files(&rig, "v1/1000"), 0);
    assert_int_equal(rig_files(&rig, "v1/1000/names"), 0);
    assert_false(store_name_next(rig.store, RIG_OWNER, 1, &name));
    assert_int_equal(rig_get(&rig, &late), 0);
    assert_int_equal(rig_get(&rig, &b), 64);
    assert_int_equal(rig_stats(&rig).bytes, rig_len(&b));
}

/* --- owners ----------------------------------------------------------------------------------- */

static uint32_t records_of(uint32_t owner)
{
    struct store_item it = { 0 };
    uint32_t n = 0;

    while (store_next(rig.store, owner, &it))
        n++;
    return n;
}

static void open_with(uint64_t bytes, uint64_t owner_bytes, bool shared)
{
    store_rig_close(&rig);
    rig.limits.bytes = bytes;
    rig.limits.owner_bytes = owner_bytes;
    rig.limits.shared = shared;
    assert_int_equal(store_rig_open(&rig), 0);
}

/* Records of an owner, with seeds [first, first + n), that take a second to compute. */
static void put_some(uint32_t owner, uint32_t first, uint32_t n, uint64_t cost_ns)
{
    struct rig_record r = { .owner = owner, .n = 64, .seed = first, .cost_ns = cost_ns };

    for (; r.seed < first + n; r.seed++)
        assert_int_equal(rig_put(&rig, &r), 0);
}

/* Also what is being written counts. */
static void an_owner_has_a_limit(void **state)
{
    struct rig_record r = { .n = 64, .seed = 50 }, large = { .n = 512, .seed = 60 };
    uint64_t len = rig_len(&r), most;
    uint32_t called;

    (void)state;
    open_with(10 * len, 3 * len, false);
    put_some(1000, 1, 6, CLOCK_S);
    assert_int_equal(records_of(1000), 3);
    assert_int_equal(rig_put(&rig, &large), -EDQUOT);
    called = rig.n_called;
    for (; r.seed < 54; r.seed++)
        assert_int_equal(rig_put_later(&rig, &r), 0);
    rig_wait(&rig, called + 4);
    assert_in_range(records_of(1000), 1, 3);
    put_some(1001, 1, 3, CLOCK_S); /* another one's is not its */
    assert_int_equal(records_of(1001), 3);
    store_rig_again(&rig); /* and who has what is known */
    put_some(1000, 100, 2, 9 * CLOCK_S);
    assert_int_equal(records_of(1000), 3);
    assert_int_equal(records_of(1001), 3);
    assert_int_equal(store_bytes_of(rig.store, 1000, &most), 3 * len);
    assert_int_equal(most, 3 * len);
    assert_int_equal(store_bytes_of(rig.store, 1002, &most), 0);
}

/* Where others may come, one can't have it all. */
static void leaves_room_for_another(void **state)
{
    uint64_t len = rig_len(&(struct rig_record){ .n = 64 }), n, bytes;

    (void)state;
    open_with(16 * len, 0, true);
    put_some(1000, 1, 20, CLOCK_S);
    assert_int_equal(records_of(1000), 15);
    put_some(1001, 1, 1, 1);
    assert_int_equal(records_of(1000), 15);
    open_with(16 * len, 0, false);
    store_forget(rig.store, 1001, &n, &bytes);
    put_some(1000, 100, 9, CLOCK_S);
    assert_int_equal(records_of(1000), 16);
    store_set_shared(rig.store);
    put_some(1000, 200, 2, CLOCK_S);
    assert_int_equal(records_of(1000), 15);
}

/* Whatever what they have is worth: of who has less than half nothing goes for who has more. */
static void who_has_more_than_his_share_makes_room(void **state)
{
    uint64_t len = rig_len(&(struct rig_record){ .n = 64 });

    (void)state;
    open_with(10 * len, 0, false);
    put_some(1001, 1, 1, 1); /* worthless, and the oldest */
    passed_s += HOUR;
    put_some(1000, 1, 9, CLOCK_S);
    assert_int_equal(rig_stats(&rig).records, 10);
    put_some(1000, 10, 20, 2 * CLOCK_S); /* its own go */
    assert_int_equal(records_of(1000), 9);
    assert_int_equal(records_of(1001), 1);
    put_some(1001, 2, 4, 1); /* the other's go, up to half, though they are worth more */
    assert_int_equal(records_of(1000), 5);
    assert_int_equal(records_of(1001), 5);
    put_some(1001, 20, 5, 9 * CLOCK_S);
    assert_int_equal(records_of(1000), 5);
    assert_int_equal(records_of(1001), 5);
    put_some(1002, 1, 3, 1); /* a third one */
    assert_int_equal(records_of(1002), 3);
    assert_int_equal(records_of(1000) + records_of(1001), 7);
    assert_true(records_of(1000) >= 3 && records_of(1001) >= 3);
}

/* Names are never evicted, but they are limited, and count. */
static void limits_names(void **state)
{
    struct rig_record r = { .n = 256 };
    char text[5000], name[16];
    uint32_t n = 0;

    (void)state;
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    store_rig_close(&rig);
    rig.limits.bytes = 4 * rig_len(&r);
    assert_int_equal(store_rig_open(&rig), 0);
    for (r.seed = 1; r.seed <= 4; r.seed++)
        assert_int_equal(rig_put(&rig, &r), 0);
    for (;; n++) {
        int err;

        (void)snprintf(name, sizeof(name), "n%u", n);
        err = rig_put_name(&rig, 1000, 1, name, text);
        assert_true(rig_stats(&rig).bytes <= rig.limits.bytes);
        if (err == -EDQUOT)
            break;
        assert_int_equal(err, 0);
    }
    assert_int_equal(n, rig.limits.bytes / 4 / 8192);
    assert_int_equal(rig_stats(&rig).records, 3);
    for (r.seed = 11; r.seed < 20; r.seed++)
        assert_int_equal(rig_put(&rig, &r), 0);
    assert_int_equal(rig_stats(&rig).names, n);
    rig_assert_name(&rig, 1000, 1, "n0", text);
}

/* Hundreds that are too much, or too old, all at once: other work waits for no more than a few of
 * them. */
static void goes_in_slices(void **state)
{
    struct rig_record r = { .n = 16 };
    uint64_t n;

    (void)state;
    store_rig_close(&rig);
    rig.limits.age_s = DAY;
    assert_int_equal(store_rig_open(&rig), 0);
    for (r.seed = 1; r.seed <= 600; r.seed++)
        assert_int_equal(rig_put(&rig, &r), 0);
    store_set_limit(rig.store, 400 * rig_len(&r));
    n = rig_stats(&rig).records;
    assert_int_equal(n, 600);
    assert_true(store_pump(rig.store));
    assert_true(rig_stats(&rig).records < n);
    assert_true(rig_stats(&rig).records >= n - 64);
    rig_settle(&rig);
    n = rig_stats(&rig).records;
    assert_true(n <= 400 && n > 300);
    passed_s = 2 * DAY;
    assert_true(store_pump(rig.store));
    assert_true(rig_stats(&rig).records >= n - 64);
    rig_settle(&rig);
    assert_int_equal(rig_stats(&rig).records, 0);
    assert_int_equal(rig_stats(&rig).expired, n);
}

/* What one owner has is deleted in short slices, however much it is, and no more than was asked. */
static void prunes_in_slices(void **state)
{
    enum { N = STORE_PRUNE_LOOKS + 900, OTHERS = 50, LEFT = 100 };
    struct store_pruning *p;
    uint64_t records, bytes, all = 0;
    bool done = false;

    (void)state;
    store_rig_close(&rig);
    made_store(rig.path, RIG_OWNER, 0, N, 0);
    made_store(rig.path, 1001, 0, OTHERS, 0);
    rig.limits.bytes = UINT64_C(1) << 30;
    assert_int_equal(store_rig_open(&rig), 0);
    assert_int_equal(rig_stats(&rig).records, N + OTHERS);
    p = store_prune_begin(rig.store, RIG_OWNER, LEFT * MADE_BYTES);
    assert_non_null(p);
    assert_false(store_prune_some(p, &records, &bytes)); /* not all were looked at */
    assert_int_equal(records, 0);
    while (!done) {
        done = store_prune_some(p, &records, &bytes);
        assert_true(records <= STORE_PRUNE_SLICE);
        assert_int_equal(bytes, records * MADE_BYTES);
        all += records;
    }
    store_prune_end(p);
    assert_int_equal(all, N - LEFT);
    assert_int_equal(rig_stats(&rig).records, LEFT + OTHERS);
    store_prune(rig.store, RIG_OWNER, 0, &records, &bytes);
    assert_int_equal(records, LEFT);
    assert_int_equal(rig_stats(&rig).records, OTHERS);
}

/* One owner's are limited, so that others have some; and each is found, in order, whatever came
 * and went before. */
static void an_owner_leaves_names_to_others(void **state)
{
    struct store_named it = { .id = 0 };
    struct rig_called c = { 0 };
    char name[16], last[16] = "";
    uint32_t n = 0;

    (void)state;
    store_rig_close(&rig);
    rig.limits.bytes = UINT64_C(1) << 30;
    assert_int_equal(store_rig_open(&rig), 0);
    for (uint32_t i = 0; i < STORE_NAMES_MAX;) {
        int err;

        (void)snprintf(name, sizeof(name), "n%u", i * 7919u % STORE_NAMES_MAX);
        err = store_name_put(rig.store, 1000, 1, name, "x", 1, rig_count, &c);
        if (err == -EAGAIN)
            (void)store_pump(rig.store);
        else
            assert_int_equal(err, 0);
        i += err == 0;
    }
    assert_true(store_flush(rig.store, 60 * CLOCK_S));
    assert_int_equal(rig_put_name(&rig, 1000, 2, "more", "y"), -EMFILE);
    assert_int_equal(rig_put_name(&rig, 1001, 2, "more", "y"), 0);
    assert_int_equal(rig_put_name(&rig, 1000, 1, "n0", "again"), 0); /* one that it has */
    assert_int_equal(store_name_delete(rig.store, 1000, 1, "n1"), 0);
    assert_int_equal(rig_put_name(&rig, 1000, 2, "more", "y"), 0);
    store_rig_again(&rig);
    while (store_name_next(rig.store, 1000, 1, &it)) {
        assert_true(strcmp(last, it.name) < 0);
        (void)snprintf(last, sizeof(last), "%.15s", it.name);
        n++;
    }
    assert_int_equal(n, STORE_NAMES_MAX - 1);
    rig_assert_name(&rig, 1000, 1, "n0", "again");
    rig_assert_name(&rig, 1000, 1, "n1", NULL);
    rig_assert_name(&rig, 1000, 1, "n4095", "x");
    rig_assert_name(&rig, 1001, 2, "more", "y");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_rig, close_rig)
    const struct CMUnitTest tests[] = {
        TEST(never_passes_the_limit),
        TEST(what_costs_least_goes_first),
        TEST(what_is_old_goes_first),
        TEST(ends_go_before_beginnings),
        TEST(a_twin_may_go),
        TEST(writes_no_more_than_a_day_has),
        TEST(forgets_what_is_old),
        TEST(forgets_an_owner),
        TEST(limits_names),
        TEST(an_owner_leaves_names_to_others),
        TEST(an_owner_has_a_limit),
        TEST(leaves_room_for_another),
        TEST(goes_in_slices),
        TEST(prunes_in_slices),
        TEST(who_has_more_than_his_share_makes_room),
    };

    /* Nothing here is about what a disk keeps, or how fast. */
    if (access("/dev/shm", W_OK) == 0)
        (void)setenv("TMPDIR", "/dev/shm", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
