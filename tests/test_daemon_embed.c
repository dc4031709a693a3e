/* tests/test_daemon_embed.c - embeddings. Would catch: hidden states of another place than behind
 * the final norm, of another token, or a mean of others; rows of one text that go to another;
 * lengths that are not 1 where that was asked for; one text after the other instead of many at
 * once; memory that is kept behind a cancel; hostile counts, lengths and ids that are believed.
 *
 * The reference is transformers in f32 (tests/reference/embed_vectors.py).
 */
#include "tests/support/daemon_fixture.h"
#include "tests/support/file.h"
#include "tests/support/raw_client.h"
#include "tests/support/sanitized.h"
#include "tests/support/tolerance.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct daemon_fixture d;
static gist_conn *c;

static void start(const char *const *args)
{
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
}

static void stop(void)
{
    assert_true(daemon_fixture_all_free(c, DAEMON_FIXTURE_PATIENCE_MS));
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

static struct gist_embeddings *embedded(const struct gist_span *texts, size_t n,
                                        const struct gist_embed_opts *o)
{
    struct gist_embeddings *all = NULL;

    if (gist_embed(c, texts, n, o, &all) < 0)
        fail_msg("%s", gist_error(c));
    assert_int_equal(all->size, sizeof(*all));
    assert_int_equal(all->n, n);
    return all;
}

static struct gist_embed_opts pooled(enum gist_pooling pooling, unsigned flags)
{
    return (struct gist_embed_opts){ .size = sizeof(struct gist_embed_opts),
                                     .pooling = pooling,
                                     .flags = flags };
}

/* --- the reference ---------------------------------------------------------------------------- */

#define LISTS_MAX 32u

struct vectors {
    char *mem;
    uint32_t n, n_embd;
    struct gist_span ids[LISTS_MAX];
    const float *mean[LISTS_MAX], *last[LISTS_MAX];
};

static struct vectors read_vectors(const char *path)
{
    struct vectors v = { 0 };
    const uint32_t *p;
    size_t len;

    v.mem = (char *)file_read(path, &len);
    assert_non_null(v.mem);
    assert_true(len > 16 && memcmp(v.mem, "GISTEMB1", 8) == 0);
    p = (const uint32_t *)(const void *)(v.mem + 8);
    v.n = *p++;
    v.n_embd = *p++;
    assert_true(v.n <= LISTS_MAX);
    for (uint32_t i = 0; i < v.n; i++) {
        v.ids[i] = (struct gist_span){ p + 1, *p };
        p += 1 + *p;
        v.mean[i] = (const float *)p;
        v.last[i] = v.mean[i] + v.n_embd;
        p += 2 * v.n_embd;
    }
    assert_ptr_equal(p, v.mem + len);
    return v;
}

static double dot(const float *a, const float *b, uint32_t n)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static double cosine(const float *a, const float *b, uint32_t n)
{
    return dot(a, b, n) / sqrt(dot(a, a, n) * dot(b, b, n));
}

/* Of the largest number. Another model's logits and these hidden states are rounded alike, so a
 * device's are to the CPU's what they are there. */
static double tolerance(enum kv_type kv)
{
    const double cpu = 1e-4;

    return daemon_fixture_exact()
               ? cpu
               : cpu / (double)tolerance_tiny[KV_F32] * tolerance_of_device(tolerance_tiny, kv);
}

/* No number is further away than so much of the largest one. */
static bool is_near(const float *a, const float *b, uint32_t n, double tolerance)
{
    double most = 0;

    for (uint32_t i = 0; i < n; i++)
        most = fabs((double)b[i]) > most ? fabs((double)b[i]) : most;
    for (uint32_t i = 0; i < n; i++) {
        double away = fabs((double)a[i] - (double)b[i]);

        if (!(away <= tolerance * most)) {
            print_error("number %u is %g away, of %g\n", i, away, most);
            return false;
        }
    }
    return true;
}

static void as_reference(const struct vectors *v, enum gist_pooling pooling)
{
    struct gist_embed_opts o = pooled(pooling, GIST_TOKENS), norm = o;
    struct gist_embeddings *all = embedded(v->ids, v->n, &o), *unit;

    norm.flags |= GIST_NORMALISE;
    unit = embedded(v->ids, v->n, &norm);
    assert_int_equal(all->n_embd, v->n_embd);
    for (uint32_t i = 0; i < v->n; i++) {
        const float *x = all->vectors + (size_t)i * v->n_embd;
        const float *y = unit->vectors + (size_t)i * v->n_embd;
        const float *want = (pooling == GIST_POOL_MEAN ? v->mean : v->last)[i];

        assert_int_equal(all->n_tokens[i], v->ids[i].n);
        assert_true(is_near(x, want, v->n_embd, tolerance(KV_F32)));
        assert_true(fabs(dot(y, y, v->n_embd) - 1) < 1e-5);
        assert_true(cosine(x, y, v->n_embd) > 1 - 1e-6);
    }
    gist_embeddings_free(all);
    gist_embeddings_free(unit);
}

static void test_as_reference(void **state)
{
    static const char *const models[] = { "llama31", "smollm2", "qwen2", "qwen2_untied" };

    (void)state;
    for (size_t i = 0; i < sizeof(models) / sizeof(*models); i++) {
        char model[64], vectors[64];
        const char *const args[] = {
            "--model", model, "--store", "none", "--kv-type", "f32", NULL
        };
        struct vectors v;

        (void)snprintf(model, sizeof(model), "tests/data/tiny_%s.gguf", models[i]);
        (void)snprintf(vectors, sizeof(vectors), "tests/data/tiny_%s.emb", models[i]);
        v = read_vectors(vectors);
        start(args);
        as_reference(&v, GIST_POOL_MEAN);
        as_reference(&v, GIST_POOL_LAST);
        stop();
        free(v.mem);
    }
}

static char *split_lines(const char *path, struct gist_span *ret, uint32_t n)
{
    size_t len;
    char *lines = (char *)file_read(path, &len), *p = lines;

    for (uint32_t i = 0; i < n; i++) {
        char *end = memchr(p, '\n', len - (size_t)(p - lines));

        assert_non_null(end);
        ret[i] = (struct gist_span){ p, (size_t)(end - p) };
        p = end + 1;
    }
    assert_ptr_equal(p, lines + len);
    return lines;
}

/* Texts of the default model, whose ids are those of its tokenizer; its own types of weights and of
 * context memory. */
static void test_default_model(void **state)
{
    const char *model = getenv("GISTD_TEST_MODEL");
    const char *const args[] = { "--model", model, "--store", "none", "--kv-bytes", "64M", NULL };
    struct gist_embed_opts mean = pooled(GIST_POOL_MEAN, 0), last = pooled(GIST_POOL_LAST, 0);
    struct gist_embeddings *a, *b;
    struct gist_span texts[LISTS_MAX];
    struct vectors v;
    char *lines;

    (void)state;
    if (!model || !*model || SANITIZED || daemon_fixture_slow())
        skip();
    v = read_vectors("tests/data/embed.emb");
    lines = split_lines("tests/data/embed.txt", texts, v.n);
    start(args);
    a = embedded(texts, v.n, &mean);
    b = embedded(texts, v.n, &last);
    assert_int_equal(a->n_embd, v.n_embd);
    for (uint32_t i = 0; i < v.n; i++) {
        double m = cosine(a->vectors + (size_t)i * v.n_embd, v.mean[i], v.n_embd);
        double l = cosine(b->vectors + (size_t)i * v.n_embd, v.last[i], v.n_embd);

        assert_int_equal(a->n_tokens[i], v.ids[i].n);
        if (m < 0.999 || l < 0.999)
            fail_msg("text %u: cosines of %.6f and %.6f", i, m, l);
    }
    gist_embeddings_free(a);
    gist_embeddings_free(b);
    stop();
    free(v.mem);
    free(lines);
}

/* --- many of them ----------------------------------------------------------------------------- */

#define MANY 300u
static uint32_t many_ids[MANY][9];
static struct gist_span many[MANY];

static void make_many(void)
{
    for (uint32_t i = 0; i < MANY; i++) {
        for (uint32_t k = 0; k < 9; k++)
            many_ids[i][k] = 3 + (i * 31 + k * k * 7) % 200;
        many[i] = (struct gist_span){ many_ids[i], 1 + i % 9 };
    }
}

/* As each alone; many a step, or with one place for a session, one. */
static void check_many(void)
{
    struct gist_embed_opts o = pooled(GIST_POOL_MEAN, GIST_TOKENS | GIST_NORMALISE);
    struct gist_embeddings *all = embedded(many, MANY, &o), *one;
    uint32_t n_tokens = 0;

    for (uint32_t i = 0; i < MANY; i++)
        n_tokens += (uint32_t)many[i].n;
    assert_int_equal(all->usage.prompt_tokens, n_tokens);
    assert_int_equal(all->usage.computed_tokens, n_tokens);
    for (uint32_t i = 0; i < MANY; i += 23) {
        one = embedded(&many[i], 1, &o);
        assert_true(is_near(all->vectors + (size_t)i * all->n_embd, one->vectors, all->n_embd,
                            tolerance(KV_F16)));
        gist_embeddings_free(one);
    }
    gist_embeddings_free(all);
}

static void test_many(void **state)
{
    static const char *const sets[][8] = {
        { "--store", "none", "--max-sessions", "1", NULL },
        { "--store", "none", "--client-kv-bytes", "60K", NULL },
        { "--store", "none", NULL },
    };
    struct gist_embed_opts o = pooled(GIST_POOL_LAST, GIST_TOKENS);
    uint64_t before;

    (void)state;
    make_many();
    for (size_t i = 0; i < 3; i++) {
        start(sets[i]);
        check_many();
        if (i == 2) {
            before = daemon_fixture_steps(c);
            gist_embeddings_free(embedded(many, MANY, &o));
            /* Where a token takes milliseconds steps are shorter (daemon/pace.h). */
            if (!daemon_fixture_slow())
                assert_true(daemon_fixture_steps(c) - before <= 60);
        }
        stop();
    }
}

/* --- what is refused -------------------------------------------------------------------------- */

static void refused(const struct gist_span *spans, size_t n, unsigned flags, enum gist_code code,
                    const char *says)
{
    struct gist_embed_opts o = pooled(GIST_POOL_MEAN, flags);
    struct gist_embeddings *all = NULL;

    assert_true(gist_embed(c, spans, n, &o, &all) < 0);
    assert_null(all);
    if (gist_error_code(c) != code || !strstr(gist_error(c), says))
        fail_msg("%d: %s", gist_error_code(c), gist_error(c));
}

struct ended {
    int err, n;
    size_t rows;
};

static void on_done(void *arg, int err, const struct gist_embeddings *embeddings)
{
    struct ended *e = arg;

    assert_true((err == 0) == (embeddings != NULL));
    e->err = err;
    e->rows = embeddings ? embeddings->n : 0;
    e->n++;
}

static void test_refused(void **state)
{
    static const char *const args[] = { "--store", "none", NULL };
    static const struct gist_span empty[] = { { "a", 1 }, { "b", 1 }, { "", 0 } };
    static struct gist_span too_many[WIRE_TEXTS_MAX + 1];
    static uint32_t ids[1100];
    struct gist_span one = { ids, 1100 };
    struct ended e = { 0, 0, 0 };

    (void)state;
    start(args);
    refused(NULL, 0, 0, GIST_E_BAD_REQUEST, "the request has no text");
    refused(empty, 3, 0, GIST_E_BAD_REQUEST, "text 3 of 3 is empty");
    refused(&one, 1, GIST_TOKENS, GIST_E_CONTEXT_LENGTH_EXCEEDED,
            "text 1 of 1 has 1100 tokens; the limit is 1024");
    one.n = 3;
    for (size_t i = 0; i <= WIRE_TEXTS_MAX; i++)
        too_many[i] = one;
    refused(too_many, WIRE_TEXTS_MAX + 1, GIST_TOKENS, GIST_E_BAD_REQUEST,
            "2049 texts in one request; 2048 are allowed");
    refused(&one, 1, 1u << 20, GIST_E_BAD_REQUEST, "");
    ids[2] = 1u << 30;
    refused(&one, 1, GIST_TOKENS, GIST_E_BAD_REQUEST, "token id 1073741824 does not exist");

    make_many();
    assert_int_equal(gist_embed_start(c, empty, 2, NULL, on_done, &e, NULL), 0);
    while (e.n == 0)
        assert_int_equal(gist_ping(c), 0);
    assert_int_equal(e.err, 0);
    assert_int_equal(e.rows, 2);
    stop();
}

/* What libgist would not send. */
static void test_hostile(void **state)
{
    static const char *const args[] = { "--store", "none", NULL };
    const uint64_t huge[] = { UINT64_MAX, 2, UINT64_MAX - 7 }, odd[] = { 3 }, two[] = { 4, 4 };
    struct wire_req m = { .kind = WIRE_EMBED };
    struct raw_client r;

    (void)state;
    start(args);
    raw_client_open(&r, d.socket);
    m.u.embed.lens = two;
    m.u.embed.n = 2;
    raw_client_refused(raw_client_ask(&r, m, "abcdefg", 7, NULL), WIRE_E_BAD_REQUEST,
                       "do not add up to the 7 bytes");
    m.u.embed.lens = huge;
    m.u.embed.n = 3;
    raw_client_refused(raw_client_ask(&r, m, "abcdefgh", 8, NULL), WIRE_E_BAD_REQUEST,
                       "do not add up to the 8 bytes");
    m.u.embed.lens = odd;
    m.u.embed.n = 1;
    m.u.embed.kind = WIRE_SCORE_TOKENS;
    raw_client_refused(raw_client_ask(&r, m, "abc", 3, NULL), WIRE_E_BAD_REQUEST,
                       "not a multiple of 4");
    m.u.embed.kind = WIRE_SCORE_TEXT;
    m.u.embed.lens = two;
    m.u.embed.n = 2;
    m.u.embed.more = true;
    assert_int_equal(raw_client_ask(&r, m, "abcde", 5, NULL)->kind, WIRE_EMBEDDING);
    m.u.embed.more = false;
    assert_int_equal(raw_client_ask(&r, m, "fgh", 3, NULL)->kind, WIRE_EMBEDDING);
    raw_client_close(&r);
    stop();
}

static void test_cancel(void **state)
{
    static const char *const args[] = { "--store", "none", "--cpu", "scalar", NULL };
    static uint32_t ids[3000];
    struct gist_span texts[20];
    struct gist_embed_opts o = pooled(GIST_POOL_MEAN, GIST_TOKENS);
    struct ended e = { 0, 0, 0 };
    uint64_t request, before;

    (void)state;
    for (size_t i = 0; i < 20; i++)
        texts[i] = (struct gist_span){ ids, 3000 };
    daemon_fixture_start(&d, DAEMON_FIXTURE_SLOW, args);
    c = daemon_fixture_connect(&d);
    before = daemon_fixture_steps(c);
    assert_int_equal(gist_embed_start(c, texts, 20, &o, on_done, &e, &request), 0);
    daemon_fixture_stepped(c, before);
    assert_int_equal(gist_cancel(c, request), 0);
    while (e.n == 0)
        assert_int_equal(gist_ping(c), 0);
    assert_int_equal(e.err, -ECANCELED);
    before = daemon_fixture_steps(c);
    assert_int_equal(gist_embed_start(c, texts, 20, &o, on_done, &e, &request), 0);
    daemon_fixture_stepped(c, before);
    gist_disconnect(c);
    assert_int_equal(e.n, 2);
    c = daemon_fixture_connect(&d);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many),         cmocka_unit_test(test_refused),
        cmocka_unit_test(test_hostile),      cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_as_reference), cmocka_unit_test(test_default_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
