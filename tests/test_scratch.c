/* tests/test_scratch.c - would catch: spans that overlap or are not aligned, room that is not found
 * though it is there, memory that stays after its span went back, or that is taken before it is
 * used.
 */
#include "engine/kv/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define LEN ((size_t)8 << 20)

/* System pages of it that have memory. */
static size_t n_resident(const struct scratch *s)
{
    static unsigned char in[LEN / 4096];
    size_t n = 0;

    assert_int_equal(mincore(s->mem, s->len, in), 0);
    for (size_t i = 0; i < sizeof(in); i++)
        n += in[i] & 1;
    return n;
}

static void spans_are_apart(void **state)
{
    struct {
        unsigned char *at;
        size_t len;
    } held[SCRATCH_SPANS_MAX + 4] = { { NULL, 0 } };
    size_t used = 0, n_refused = 0;
    struct scratch s;
    unsigned seed = 3;

    (void)state;
    assert_int_equal(scratch_open(&s, NULL, LEN), 0);
    for (unsigned step = 0; step < 4000; step++) {
        unsigned i = (unsigned)rand_r(&seed) % (sizeof(held) / sizeof(*held));

        if (held[i].at) {
            for (size_t k = 0; k < held[i].len; k += 997)
                assert_int_equal(held[i].at[k], (unsigned char)i);
            scratch_give(&s, held[i].at);
            used -= (held[i].len + 63) / 64 * 64;
            held[i].at = NULL;
        } else {
            held[i].len = 1 + (size_t)rand_r(&seed) % (LEN / 8);
            held[i].at = scratch_take(&s, held[i].len);
            n_refused += !held[i].at;
            if (!held[i].at)
                continue;
            assert_int_equal((uintptr_t)held[i].at % 64, 0);
            memset(held[i].at, (int)i, held[i].len);
            used += (held[i].len + 63) / 64 * 64;
        }
        assert_int_equal(s.used, used);
    }
    assert_true(n_refused > 10 && n_refused < 3000);
    scratch_close(&s);
}

static void the_whole_is_there(void **state)
{
    struct scratch s;
    void *a, *b, *c;

    (void)state;
    assert_int_equal(scratch_open(&s, NULL, LEN), 0);
    a = scratch_take(&s, LEN / 2);
    b = scratch_take(&s, LEN / 4);
    c = scratch_take(&s, LEN / 4);
    assert_true(a && b && c);
    assert_null(scratch_take(&s, 1));
    scratch_give(&s, b);
    assert_null(scratch_take(&s, LEN / 4 + 1));
    assert_ptr_equal(scratch_take(&s, LEN / 4), b);
    scratch_give(&s, a);
    scratch_give(&s, b);
    scratch_give(&s, c);
    scratch_give(&s, NULL);
    assert_ptr_equal(scratch_take(&s, LEN), a);
    assert_null(scratch_take(&s, 64));
    scratch_close(&s);
}

static void memory_goes_back(void **state)
{
    struct scratch s;
    void *a, *b;

    (void)state;
    assert_int_equal(scratch_open(&s, NULL, LEN), 0);
    assert_int_equal(n_resident(&s), 0);
    a = scratch_take(&s, LEN / 2);
    b = scratch_take(&s, LEN / 2);
    memset(a, 1, LEN / 2);
    memset(b, 1, LEN / 2);
    assert_int_equal(n_resident(&s), LEN / 4096);
    scratch_give(&s, a);
    assert_int_equal(n_resident(&s), LEN / 4096); /* what is behind it is in use */
    scratch_give(&s, b);
    assert_true(n_resident(&s) <= (1 << 20) / 4096);
    scratch_close(&s);
}

static void promised(void **state)
{
    struct scratch s;
    void *a;

    (void)state;
    scratch_promise(&s, NULL, LEN);
    assert_int_equal(s.len, LEN);
    assert_null(s.mem);
    a = scratch_take(&s, LEN / 2);
    assert_non_null(a);
    assert_ptr_equal(a, s.mem);
    assert_true(n_resident(&s) <= 1);
    scratch_close(&s);
    scratch_promise(&s, NULL, LEN);
    scratch_close(&s); /* never used */

    scratch_promise(&s, NULL, SIZE_MAX / 4);
    assert_null(scratch_take(&s, 64));
    assert_int_equal(s.used, 0);
    assert_null(scratch_take(&s, 64)); /* asked for again, and refused again */
    scratch_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(spans_are_apart),
                                        cmocka_unit_test(the_whole_is_there),
                                        cmocka_unit_test(memory_goes_back),
                                        cmocka_unit_test(promised) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
