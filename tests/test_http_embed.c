/* tests/test_http_embed.c - embeddings of a daemon whose numbers are not finite. Would catch: an
 * answer with `nan` or `inf` in it, which is no JSON, or with such a row in base64; one that is
 * begun and has no end.
 */
#include "http/embed.h"
#include "tests/support/fake_daemon.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* Two rows of two numbers, one of which is *arg. */
static void script(struct fake_daemon *d, void *arg)
{
    static const uint32_t n_tokens[] = { 1, 1 };
    const float rows[] = { 0.5f, -0.25f, 1e-10f, *(const float *)arg };
    struct wire_rep rep = { .kind = WIRE_EMBEDDING,
                            .u.embedding = { .n = 2, .n_embd = 2, .n_tokens = n_tokens } };

    fake_expect(d, WIRE_EMBED);
    rep.id = d->req.id;
    fake_reply(d, rep, rows, sizeof(rows));
    fake_last(d, (struct wire_rep){ .kind = WIRE_EMBEDDING });
    FAKE_CHECK(!fake_take(d));
}

static int embed(embed_fn *fn, const char *body, float number, struct text *ret, struct problem *p)
{
    struct json_object *root = NULL;
    struct fake_daemon daemon;
    struct pool pool;
    struct embed_call call = { .pool = &pool, .client_fd = -1, .stop_fd = -1 };
    int r;

    *p = (struct problem){ .kind = PROBLEM_NONE };
    *ret = (struct text){ 0 };
    fake_start(&daemon, script, &number);
    pool_init(&pool, daemon.path, 1);
    assert_int_equal(field_parse(body, strlen(body), &root, p), 0);
    r = fn(&call, root, ret, p);
    json_free(root);
    pool_fini(&pool);
    assert_int_equal(fake_stop(&daemon), 0);
    return r;
}

static const struct {
    embed_fn *fn;
    const char *body, *says;
} apis[] = {
    { embed_openai, "{\"input\": [\"a\", \"b\"], \"encoding_format\": \"float\"}",
      "[1.00000001e-10,0.75]" },
    { embed_openai, "{\"input\": [\"a\", \"b\"], \"encoding_format\": \"base64\"}",
      "\"/+bbLgAAQD8=\"" },
    { embed_ollama, "{\"input\": [\"a\", \"b\"]}", "[[0.5,-0.25],[1.00000001e-10,0.75]]" },
};

static void test_numbers(void **state)
{
    const float bad[] = { NAN, -NAN, INFINITY, -INFINITY };

    (void)state;
    for (size_t i = 0; i < sizeof(apis) / sizeof(*apis); i++) {
        struct json_object *v;
        struct problem p;
        struct text t;
        char why[160];

        assert_int_equal(embed(apis[i].fn, apis[i].body, 0.75f, &t, &p), 0);
        if (!strstr(t.bytes, apis[i].says))
            fail_msg("%s: %s", apis[i].body, t.bytes);
        assert_int_equal(json_read(t.bytes, t.len, 0, &v, why), 0);
        json_free(v);
        text_fini(&t);
        for (size_t k = 0; k < sizeof(bad) / sizeof(*bad); k++) {
            assert_int_equal(embed(apis[i].fn, apis[i].body, bad[k], &t, &p), -1);
            assert_null(t.bytes);
            assert_int_equal(problem_status(&p), 500);
            assert_non_null(strstr(p.text, "text 1"));
        }
    }
}

/* Nor does an object have one that is made. */
static void test_made(void **state)
{
    (void)state;
    assert_null(json_make("f", (double)NAN));
    assert_null(json_make("{s:f, s:s}", "a", (double)INFINITY, "b", "c"));
    assert_null(json_make("[f, {}]", (double)-INFINITY));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_made),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
