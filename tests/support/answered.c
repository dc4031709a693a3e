#include "tests/support/answered.h"

#include "tests/support/daemon_fixture.h"
#include "tests/support/tolerance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

int answered_take(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    struct answered *a = arg;

    (void)text;
    (void)len;
    assert_true(n_ids <= ANSWERED_MAX - a->n);
    if (n_ids)
        memcpy(a->ids + a->n, ids, n_ids * sizeof(*ids));
    a->n += n_ids;
    return 0;
}

float answered_margin(const struct gist_logprob *token)
{
    assert_int_equal(token->n_top, 2);
    assert_int_equal(token->id, token->top_ids[0]);
    return token->top_logprobs[0] - token->top_logprobs[1];
}

static void take_margin(void *arg, const struct gist_logprob *token)
{
    struct answered *a = arg;

    assert_true(a->n_margins < ANSWERED_MAX);
    a->margins[a->n_margins++] = answered_margin(token);
}

int answered_greedy_with(gist_session *s, uint32_t n, struct answered *ret,
                         struct gist_result *ret_result)
{
    struct gist_sampling greedy = { .size = sizeof(greedy), .max_tokens = n, .ignore_eog = true };
    int r;

    if (!daemon_fixture_exact()) {
        greedy.on_logprob = take_margin;
        greedy.logprobs = 2;
    }

    *ret = (struct answered){ .n = 0 };
    r = gist_generate(s, &greedy, answered_take, ret, ret_result);
    if (r == 0) {
        assert_int_equal(ret->n, n);
        assert_int_equal(ret_result->reason, GIST_LENGTH);
    }
    return r;
}

int answered_greedy(gist_session *s, uint32_t n, struct answered *ret)
{
    struct gist_result result;

    return answered_greedy_with(s, n, ret, &result);
}

bool answered_ids_same(const uint32_t *found, const uint32_t *expected, size_t n,
                       const float *margins)
{
    /* Both may have moved. */
    double tie = 2 * tolerance_of_device(tolerance_tiny, KV_F16);
    size_t i = 0;

    while (i < n && found[i] == expected[i])
        i++;
    if (i == n)
        return true;
    if (daemon_fixture_exact())
        fail_msg("token %zu is %u, expected %u", i, found[i], expected[i]);
    if (!((double)margins[i] <= tie))
        fail_msg("token %zu is %u, expected %u, which was likelier than all others by %f", i,
                 found[i], expected[i], (double)margins[i]);
    return false;
}

bool answered_same(const struct answered *found, const struct answered *expected)
{
    assert_int_equal(found->n, expected->n);
    if (!daemon_fixture_exact())
        assert_int_equal(expected->n_margins, expected->n);
    return answered_ids_same(found->ids, expected->ids, expected->n, expected->margins);
}

void answered_as(gist_conn *c, gist_session *s, const struct answered *expected)
{
    struct answered found;

    if (answered_greedy(s, (uint32_t)expected->n, &found) < 0)
        fail_msg("answering: %s", gist_error(c));
    (void)answered_same(&found, expected);
}

gist_session *answered_read(gist_conn *c, const char *text, struct gist_usage *ret_usage)
{
    gist_session *s;

    assert_int_equal(gist_open(c, NULL, &s), 0);
    if (gist_append_text(s, text, strlen(text), 0, ret_usage) < 0)
        fail_msg("reading: %s", gist_error(c));
    return s;
}
