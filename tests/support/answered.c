#include "tests/support/answered.h"

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

int answered_greedy(gist_session *s, uint32_t n, struct answered *ret)
{
    const struct gist_sampling greedy = { .size = sizeof(greedy),
                                          .max_tokens = n,
                                          .ignore_eog = true };
    int r;

    *ret = (struct answered){ .n = 0 };
    r = gist_generate(s, &greedy, answered_take, ret, NULL);
    if (r == 0)
        assert_int_equal(ret->n, n);
    return r;
}

void answered_as(gist_conn *c, gist_session *s, const struct answered *expected)
{
    struct answered found;

    if (answered_greedy(s, (uint32_t)expected->n, &found) < 0)
        fail_msg("answering: %s", gist_error(c));
    assert_memory_equal(found.ids, expected->ids, found.n * sizeof(*found.ids));
}

gist_session *answered_read(gist_conn *c, const char *text, struct gist_usage *ret_usage)
{
    gist_session *s;

    assert_int_equal(gist_open(c, NULL, &s), 0);
    if (gist_append_text(s, text, strlen(text), 0, ret_usage) < 0)
        fail_msg("reading: %s", gist_error(c));
    return s;
}
