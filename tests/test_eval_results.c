/* tests/test_eval_results.c - the file that a run adds to. Would catch: an item that is lost, or
 * not found again, and so measured twice; a number that comes back as another; a torn line that
 * spoils the file; a file of someone's own that is cut; results of two models in one file.
 */

#include "eval/results.h"

#include "tests/support/file.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct results_item make_item(uint64_t index)
{
    struct results_item it;

    results_item_init(&it);
    it.kind = index % 2 ? RESULTS_PPL : RESULTS_RECALL;
    (void)snprintf(it.task, sizeof(it.task), "t \"%llu\"", (unsigned long long)(index / 8));
    it.cell = (struct grid_cell){ .compressor = GIST_SELECT,
                                  .ratio = 8,
                                  .segment = 512,
                                  .keep_tail = (uint32_t)index,
                                  .hydrate = index % 3 ? GIST_HYDRATE_AUTO : 0,
                                  .part = 4 };
    it.length = 4096;
    it.asks = 2;
    it.index = index;
    it.seed = UINT64_C(1) << 62;
    it.score = index % 4 == 0 ? NAN : 0.1 * (double)index;
    it.first_token_ns = UINT64_C(123456789012345) + index;
    it.nll = index % 2 ? 2.0 / 3 : NAN;
    it.by_segment[3] = index % 2 ? 1.0 / 7 : NAN;
    it.answer = strdup("a \"b\" \n\t\\ \x01 \xe6\xbc\xa2");
    assert_non_null(it.answer);
    return it;
}

static void same_number(double a, double b)
{
    assert_true(isnan(a) == isnan(b) && (isnan(a) || fabs(a - b) < 1e-15));
}

static void expect_item(const struct results *r, uint64_t index)
{
    struct results_item it = make_item(index);
    const struct results_item *got = results_find(r, &it);

    assert_non_null(got);
    same_number(got->score, it.score);
    same_number(got->nll, it.nll);
    for (size_t i = 0; i < RESULTS_BINS; i++)
        same_number(got->by_segment[i], it.by_segment[i]);
    assert_int_equal(got->first_token_ns, it.first_token_ns);
    assert_string_equal(got->answer, it.answer);
    free(it.answer);
}

static void open_it(const char *path, struct results *ret)
{
    struct why why = { "" };

    if (results_open(path, "the model", "d1", ret, &why) < 0)
        fail_msg("%s", why.text);
}

static void add(struct results *r, uint64_t index)
{
    struct results_item it = make_item(index);

    assert_int_equal(results_add(r, &it, NULL), 0);
}

static void test_goes_on(void **state)
{
    char path[SCRATCH_PATH_MAX];
    struct results r;
    size_t len, again;
    uint8_t *text;

    (void)state;
    (void)scratch_path(path, "on.jsonl");
    for (uint64_t i = 0; i < 20; i++) {
        struct results_item it = make_item(i);

        open_it(path, &r);
        assert_int_equal(r.n, i);
        assert_null(results_find(&r, &it));
        free(it.answer);
        add(&r, i);
        expect_item(&r, i);
        results_close(&r);
        if (i % 5 == 4) { /* a line that a killed run left */
            text = file_read(path, &len);
            text = realloc(text, len + 40);
            assert_non_null(text);
            memcpy(text + len, "{\"kind\":\"recall\",\"task\":\"nee", 28);
            file_write(path, text, len + 28);
            free(text);
        }
    }
    open_it(path, &r);
    assert_int_equal(r.n, 20);
    for (uint64_t i = 0; i < 20; i++)
        expect_item(&r, i);
    results_close(&r);
    text = file_read(path, &len);
    open_it(path, &r);
    results_close(&r);
    free(text);
    free(file_read(path, &again));
    assert_int_equal(len, again); /* opening it changed nothing */
}

static void test_names(void **state)
{
    struct results r;
    struct results_item it, other;

    (void)state;
    open_it("", &r); /* kept nowhere */
    add(&r, 1);
    it = make_item(1);
    assert_non_null(results_find(&r, &it));
    for (int i = 0; i < 12; i++) {
        other = it;
        switch (i) {
        case 0:
            other.kind = RESULTS_BOUNDARY;
            break;
        case 1:
            other.task[0] = 'x';
            break;
        case 2:
            other.cell.compressor = GIST_NONE;
            break;
        case 3:
            other.cell.ratio++;
            break;
        case 4:
            other.cell.segment++;
            break;
        case 5:
            other.cell.hydrate--;
            break;
        case 6:
            other.cell.part++;
            break;
        case 7:
            other.length++;
            break;
        case 8:
            other.asks++;
            break;
        case 9:
            other.depth++;
            break;
        case 10:
            other.seed++;
            break;
        default:
            other.offset++;
            break;
        }
        assert_null(results_find(&r, &other));
    }
    it.score = 5; /* what was found is no part of the name */
    assert_non_null(results_find(&r, &it));
    free(it.answer);
    results_close(&r);
}

static void expect_refused(const char *text, int err, const char *sentence)
{
    char path[SCRATCH_PATH_MAX];
    struct why why = { "" };
    struct results r;
    size_t len;
    uint8_t *after;

    file_write(scratch_path(path, "bad.jsonl"), text, strlen(text));
    assert_int_equal(results_open(path, "the model", "d1", &r, &why), err);
    if (!strstr(why.text, sentence))
        fail_msg("'%s' does not say '%s'", why.text, sentence);
    after = file_read(path, &len);
    assert_string_equal((const char *)after, text);
    free(after);
}

#define HEAD "{\"gist-eval\":1,\"model\":\"m\",\"digest\":\"d1\"}\n"

static void test_refused(void **state)
{
    struct why why = { "" };
    struct results r;

    (void)state;
    expect_refused("my notes, without an end", -EINVAL, "not a results file");
    expect_refused("my notes\n", -EINVAL, "not a results file");
    expect_refused("{\"gist-eval\":2,\"model\":\"m\",\"digest\":\"d1\"}\n", -EINVAL, "first line");
    expect_refused("{\"gist-eval\":1,\"model\":\"old\",\"digest\":\"d2\"}\n", -EINVAL,
                   "results of the model old, and the daemon has the model");
    expect_refused(HEAD "{\"kind\":\"recall\"}\n", -EINVAL, "line 2");
    expect_refused(HEAD "[]\n", -EINVAL, "line 2");
    expect_refused(HEAD "{\"kind\":\"recall\",\"task\":\"t\",\"compressor\":\"magic\"}\n", -EINVAL,
                   "line 2");
    assert_int_equal(results_open("/nonexistent/x", "m", "d", &r, &why), -ENOENT);
    assert_non_null(strstr(why.text, "/nonexistent/x"));
    why.text[0] = '\0';
    assert_int_equal(results_read("/nonexistent/x", &r, &why), -ENOENT);
}

static void test_two_at_once(void **state)
{
    char path[SCRATCH_PATH_MAX];
    struct why why = { "" };
    struct results r, other;

    (void)state;
    open_it(scratch_path(path, "two.jsonl"), &r);
    add(&r, 1);
    assert_int_equal(results_open(path, "the model", "d1", &other, &why), -EBUSY);
    assert_non_null(strstr(why.text, "another run"));
    assert_int_equal(results_read(path, &other, NULL), 0); /* a report may look */
    assert_int_equal(other.n, 1);
    results_close(&other);
    results_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goes_on),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_two_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
