/* tests/test_policy.c - what is made of a client's wish for memory. Would catch: automatic memory
 * that changes what was said, or that is no policy which a session could have; an adapter that is
 * taken without a record, or left although it has one; a budget that can't be lowered, or for ever.
 */
#include "daemon/policy.h"

#include "daemon/ladder.h"
#include "daemon/served.h"
#include "ipc/wire.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define PRESET 512u

static struct served b = { .context_max = 8192 };

static struct policy read_wish(const struct wire_memory *m)
{
    struct policy p = { .seg_len = 0 };
    struct why why = { "" };

    if (policy_read(m, NULL, PRESET, &b, &p, &why) < 0)
        fail_msg("%s", why.text);
    return p;
}

static void fits(const struct policy *p)
{
    struct ladder l = { 0 };

    ladder_climb(p, &l, 0, p->budget - 1, NULL, NULL);
    assert_int_equal(l.n_at[1], 0);
    ladder_climb(p, &l, p->budget - 1, p->budget + p->seg_len, NULL, NULL);
    assert_true(l.n_at[1] > 0);
}

static void nothing_said(void **state)
{
    struct policy p = read_wish(&(struct wire_memory){ .automatic = true });

    (void)state;
    assert_int_equal(p.spec.method, COMPRESS_FIT);
    assert_int_equal(p.spec.ratio, 4);
    assert_int_equal(p.spec.sinks, COMPRESS_SINKS);
    assert_int_equal(p.seg_len, PRESET);
    assert_int_equal(p.budget, 8192);
    assert_int_equal(p.keep_tail, PRESET);
    assert_int_equal(p.hydrate, UINT32_MAX);
    assert_true(p.late && p.automatic && !p.fixed);
    p = read_wish(&(struct wire_memory){ .compressor = WIRE_COMPRESSOR_UNSAID });
    assert_true(p.spec.method == COMPRESS_FULL && !p.late && !p.automatic && p.hydrate == 0);
}

/* From the least budget on there are segments to pack and room to read the next one; and a text
 * that fits, with a token of its answer, is not packed. */
static void any_budget(void **state)
{
    struct wire_memory m = { .automatic = true, .has_budget = true };

    (void)state;
    for (m.budget = 192; m.budget <= 8192; m.budget += 13) {
        struct policy p = read_wish(&m);

        assert_int_equal(p.budget, m.budget);
        assert_true(p.seg_len <= m.budget / 8 || p.seg_len == SEQ_SEGMENT_MIN);
        assert_true(2ull * p.seg_len + p.keep_tail <= p.budget);
        assert_true(p.keep_tail >= 64 || p.budget < 3 * p.seg_len + 64);
        fits(&p);
    }
}

/* What comes back comes in segments: where that is wanted, and no length is said, a small budget
 * has room for several. */
static void segments_of_hydrate(void **state)
{
    struct wire_memory m = { .compressor = WIRE_FIT, .has_budget = true, .budget = 1040 };
    const uint32_t said = PRESET;
    struct why why = { "" };
    struct policy p;

    (void)state;
    for (int on = 0; on < 2; on++) {
        m.hydrate = on ? UINT32_MAX : 0;
        assert_int_equal(policy_read(&m, NULL, PRESET, &b, &p, &why), 0);
        assert_int_equal(p.seg_len, on ? 128 : PRESET);
        assert_true(!on || policy_spare(&p) >= p.seg_len);
        assert_int_equal(policy_read(&m, &said, PRESET, &b, &p, &why), 0);
        assert_int_equal(p.seg_len, PRESET);
    }
}

static void what_is_said(void **state)
{
    const struct wire_memory m = { .automatic = true,
                                   .compressor = WIRE_FINE_KV,
                                   .has_ratio = true,
                                   .ratio = 8,
                                   .has_sinks = true,
                                   .keep_tail = 48,
                                   .has_budget = true,
                                   .budget = 3000,
                                   .has_hydrate = true,
                                   .fixed = true };
    const uint32_t segment = 128;
    struct why why = { "" };
    struct policy p;

    (void)state;
    assert_int_equal(policy_read(&m, &segment, PRESET, &b, &p, &why), 0);
    assert_int_equal(p.spec.method, COMPRESS_FINE_KV);
    assert_int_equal(p.spec.ratio, 8);
    assert_int_equal(p.spec.sinks, 0);
    assert_int_equal(p.keep_tail, 48);
    assert_int_equal(p.budget, 3000);
    assert_int_equal(p.seg_len, 128);
    assert_int_equal(p.hydrate, 0);
    assert_true(p.fixed);
}

static void adapters_on_record(void **state)
{
    struct adapter none = { .name = "none", .segment = 256, .sinks = 2 };
    struct adapter high = { .name = "high", .segment = 256, .better = { 16, 32 }, .n_better = 2 };
    struct adapter good = {
        .name = "good", .segment = 256, .sinks = 2, .better = { 4, 8 }, .n_better = 2
    };
    struct wire_memory m = { .automatic = true };
    struct policy p;

    (void)state;
    b.adapters[0] = &none;
    b.adapters[1] = &high;
    b.n_adapters = 2;
    assert_null(read_wish(&m).spec.adapter);
    b.adapters[2] = &good;
    b.n_adapters = 3;
    p = read_wish(&m);
    assert_ptr_equal(p.spec.adapter, &good);
    assert_int_equal(p.spec.method, COMPRESS_FINE_KV);
    assert_int_equal(p.seg_len, 256);
    assert_int_equal(p.spec.sinks, 2);
    m.has_ratio = true;
    m.ratio = 16;
    assert_ptr_equal(read_wish(&m).spec.adapter, &high);
    m.ratio = 64;
    assert_null(read_wish(&m).spec.adapter);
    /* Its segments would be most of the budget. */
    m = (struct wire_memory){ .automatic = true, .has_budget = true, .budget = 1000 };
    assert_null(read_wish(&m).spec.adapter);
    assert_int_equal(read_wish(&m).spec.method, COMPRESS_FIT);
    m = (struct wire_memory){ .automatic = true, .compressor = WIRE_SELECT };
    assert_null(read_wish(&m).spec.adapter);
    b.n_adapters = 0;
}

static void lowered(void **state)
{
    struct policy p = read_wish(&(struct wire_memory){ .automatic = true }), was = p, full;
    unsigned n = 0;

    (void)state;
    for (; policy_lower(&p); was = p, n++) {
        assert_true(p.budget < was.budget && p.keep_tail <= was.keep_tail);
        assert_true(2ull * p.seg_len + p.keep_tail <= p.budget);
        assert_int_equal(p.seg_len, PRESET);
        fits(&p);
    }
    assert_true(n > 3 && p.budget < 2048);
    assert_memory_equal(&p, &was, sizeof(p));
    full = read_wish(&(struct wire_memory){ .compressor = WIRE_COMPRESSOR_UNSAID });
    assert_false(policy_lower(&full));
    full = read_wish(&(struct wire_memory){ .compressor = WIRE_SELECT, .late = true });
    assert_false(policy_lower(&full));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_said),        cmocka_unit_test(any_budget),
        cmocka_unit_test(segments_of_hydrate), cmocka_unit_test(what_is_said),
        cmocka_unit_test(adapters_on_record),  cmocka_unit_test(lowered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
