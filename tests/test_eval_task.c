/* tests/test_eval_task.c - texts that hide something. Would catch: a text that is another one the
 * next time, a needle that is not where the item says, an answer that stands in the text twice or
 * in the question, keys that are alike, a fit that passes its length or stays far below it.
 */

#include "base/draw.h"
#include "eval/metrics.h"
#include "eval/prose.h"
#include "eval/task.h"
#include "tests/support/count.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct task_spec spec_of(enum task_kind kind, uint64_t seed, uint32_t n_units)
{
    uint32_t most = task_traits(kind)->asks_max;
    struct task_spec s = { .kind = kind, .seed = seed, .n_units = n_units };

    s.n_asks = most < 4 ? most : 4;
    for (uint32_t i = 0; i < s.n_asks; i++)
        s.depth[i] = s.n_asks == 1 ? (uint32_t)(seed * 25 % 101) : 5 + 30 * i;
    return s;
}

/* Each want stands where the ask says and nowhere else, and its question does not tell it. */
static void check_asks(const struct task *t)
{
    for (uint32_t i = 0; i < t->n_asks; i++) {
        const struct task_ask *a = &t->asks[i];

        assert_true(a->n_wants > 0);
        assert_true(strlen(a->question) > 20 && strlen(a->question) + 1 < sizeof(a->question));
        for (uint32_t k = 0; k < a->n_wants; k++) {
            assert_true(a->at[k] < t->len);
            assert_memory_equal(t->text + a->at[k], a->want[k], strlen(a->want[k]));
            assert_int_equal(count_of(t->text, a->want[k]), 1);
            assert_null(strstr(a->question, a->want[k]));
        }
    }
}

static void check_depths(const struct task_spec *s, const struct task *t)
{
    for (uint32_t i = 0; i < t->n_asks && s->kind != TASK_MULTIVALUE; i++) {
        double at = 100.0 * (double)t->asks[i].at[0] / (double)t->len;
        double off = at - s->depth[i];

        if (!(off < 12 && off > -12))
            fail_msg("%s: depth %u stands at %.1f", task_traits(s->kind)->name, s->depth[i], at);
    }
}

static void test_texts(void **state)
{
    (void)state;
    for (enum task_kind k = 0; k < TASK__N; k++) {
        for (uint64_t seed = 0; seed < 8; seed++) {
            struct task_spec s = spec_of(k, seed, 200);
            struct task a, b, c;

            assert_int_equal(task_make(&s, &a), 0);
            assert_int_equal(task_make(&s, &b), 0);
            assert_string_equal(a.text, b.text);
            assert_memory_equal(a.asks, b.asks, sizeof(a.asks));
            assert_int_equal(strlen(a.text), a.len);
            check_asks(&a);
            check_depths(&s, &a);
            s.seed += 100;
            assert_int_equal(task_make(&s, &c), 0);
            assert_string_not_equal(a.text, c.text);
            task_fini(&a);
            task_fini(&b);
            task_fini(&c);
        }
    }
}

/* A digest of all texts: an item's name is its parameters, so what they make must not change
 * between two versions that add to one results file. Who changes a generator changes FORMAT in
 * eval/results.c, too. */
static void test_texts_stay(void **state)
{
    uint64_t sum = 0;

    (void)state;
    for (enum task_kind k = 0; k < TASK__N; k++) {
        struct task_spec s = spec_of(k, 3, 60);
        struct task t;

        assert_int_equal(task_make(&s, &t), 0);
        for (size_t i = 0; i < t.len; i++)
            sum = draw_mix(sum + (unsigned char)t.text[i]);
        task_fini(&t);
    }
    assert_int_equal(sum, UINT64_C(0x7d1973e1d22524f2));
}

/* The paper changes the subject of one sentence, and nothing else. */
static void test_surprise(void **state)
{
    struct task_spec s = spec_of(TASK_NUMBER, 5, 100);
    struct task a, b;

    (void)state;
    assert_int_equal(task_make(&s, &a), 0);
    s.kind = TASK_NUMBER_SURPRISE;
    assert_int_equal(task_make(&s, &b), 0);
    assert_string_equal(a.asks[0].want[0], b.asks[0].want[0]);
    assert_non_null(strstr(b.asks[0].question, "Mr. Tree"));
    assert_int_equal(count_of(b.text, "Mr. Tree"), 1);
    assert_null(strstr(a.text, "Mr. Tree"));
    assert_string_equal(a.text + a.asks[0].at[0], b.text + b.asks[0].at[0]);
    task_fini(&a);
    task_fini(&b);
}

static void test_refused(void **state)
{
    struct task_spec s = spec_of(TASK_NEEDLE, 1, 1);
    struct task t;

    (void)state;
    assert_int_equal(task_make(&s, &t), -EINVAL);
    s.n_units = 10;
    s.n_asks = 2;
    assert_int_equal(task_make(&s, &t), -EINVAL);
    assert_int_equal(task_find("needle", 6), TASK_NEEDLE);
    assert_int_equal(task_find("needles", 7), TASK__N);
    assert_int_equal(task_find("need", 4), TASK__N);
}

/* A token for each four bytes. */
static int count_bytes(void *arg, const char *text, size_t len, size_t *ret)
{
    (void)text;
    ++*(unsigned *)arg;
    *ret = (len + 3) / 4;
    return 0;
}

static int count_fails(void *arg, const char *text, size_t len, size_t *ret)
{
    (void)text;
    (void)len;
    (void)ret;
    return --*(int *)arg == 0 ? -EPIPE : (*ret = 1000, 0);
}

static void test_fit(void **state)
{
    (void)state;
    for (enum task_kind k = 0; k < TASK__N; k++) {
        for (size_t n = 500; n < 40000; n *= 3) {
            struct task_spec s = spec_of(k, 2, 0);
            unsigned calls = 0;
            struct task t, more;
            size_t got;

            assert_int_equal(task_fit(&s, n, count_bytes, &calls, &t), 0);
            assert_true(calls <= 12);
            (void)count_bytes(&calls, t.text, t.len, &got);
            assert_true(got <= n);
            s.n_units = t.n_units + 1;
            assert_int_equal(task_make(&s, &more), 0);
            (void)count_bytes(&calls, more.text, more.len, &got);
            assert_true(got > n); /* the longest */
            task_fini(&t);
            task_fini(&more);
        }
    }
}

static void test_fit_errors(void **state)
{
    struct task_spec s = spec_of(TASK_JSON, 2, 0);
    struct task t;
    unsigned calls = 0;

    (void)state;
    assert_int_equal(task_fit(&s, 1, count_bytes, &calls, &t), -EINVAL);
    for (int n = 1; n <= 3; n++) {
        int left = n;

        assert_int_equal(task_fit(&s, 5000, count_fails, &left, &t), -EPIPE);
    }
}

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void test_keys(void **state)
{
    enum { N = 10000 };
    char(*keys)[PROSE_KEY_CAP] = calloc(N, sizeof(*keys));

    (void)state;
    assert_non_null(keys);
    for (size_t i = 0; i < N; i++)
        (void)prose_key(7, i, keys[i]);
    qsort(keys, N, sizeof(*keys), compare);
    for (size_t i = 1; i < N; i++)
        assert_string_not_equal(keys[i - 1], keys[i]);
    free(keys);
}

static void test_prose(void **state)
{
    char s[PROSE_SENTENCE_CAP], uuid[PROSE_UUID_CAP], number[PROSE_KEY_CAP];

    (void)state;
    for (uint64_t i = 0; i < 2000; i++) {
        size_t len = strlen(i % 2 ? prose_sentence(1, i, s) : prose_life("Ada Leo Quill", 1, i, s));

        assert_true(len > 15 && len + 1 < sizeof(s));
        assert_true(s[len - 1] == '.' && strcspn(s, "0123456789%") == len);
        assert_null(strstr(s, "special"));
        assert_int_equal(strlen(prose_uuid(1, i, uuid)), 36);
        assert_int_equal(strlen(prose_number(1, i, 1 + i % 18, number)), 1 + i % 18);
        assert_true(number[0] != '0');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),    cmocka_unit_test(test_texts_stay),
        cmocka_unit_test(test_surprise), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_fit),      cmocka_unit_test(test_fit_errors),
        cmocka_unit_test(test_keys),     cmocka_unit_test(test_prose),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
