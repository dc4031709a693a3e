/* Would catch: a field of a saved session or document that does not come back, a file that lies and
 * is believed (lengths, marks, strings, numbers), a version that is not ours and is read all the
 * same, another model's or adapter's session that is opened, and a name that would be a path or
 * garble a terminal.
 */
#include "daemon/names.h"

#include "daemon/served.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint32_t ids[] = { 1, 2, 3, UINT32_MAX, 5 };
static const struct session_mark marks[] = { { 2, CHAT_AT_NEXT }, { 6, CHAT_AT_OPEN_TURN } };

static struct names_file full(void)
{
    struct names_file f = { .segment = 64,
                            .memory = { .compressor = WIRE_FINE_KV,
                                        .has_ratio = true,
                                        .ratio = 4,
                                        .has_sinks = true,
                                        .sinks = 2,
                                        .keep_tail = 10,
                                        .has_budget = true,
                                        .budget = 500,
                                        .late = true,
                                        .has_hydrate = true,
                                        .hydrate = UINT32_MAX,
                                        .automatic = true },
                            .priority = WIRE_BACKGROUND,
                            .is_public = true,
                            .pin = true,
                            .has_pending = true,
                            .pending = 77,
                            .chat_at = CHAT_AT_OPEN_TURN,
                            .ids = ids,
                            .n_ids = 5,
                            .marks = marks,
                            .n_marks = 2 };

    (void)strcpy(f.model, "A model");
    (void)strcpy(f.model_digest, "0123456789abcdef0123456789abcdef");
    (void)strcpy(f.adapter, "an adapter");
    (void)strcpy(f.adapter_digest, "fedcba9876543210fedcba9876543210");
    (void)strcpy(f.label, "caf\xc3\xa9");
    return f;
}

static void same(const struct names_file *a, const struct names_file *b)
{
    struct names_file x = *a, y = *b;

    assert_int_equal(a->n_ids, b->n_ids);
    assert_int_equal(a->n_marks, b->n_marks);
    assert_memory_equal(a->ids, b->ids, a->n_ids * sizeof(*ids));
    assert_memory_equal(a->marks, b->marks, a->n_marks * sizeof(*marks));
    x.ids = y.ids = NULL;
    x.marks = y.marks = NULL;
    assert_memory_equal(&x, &y, sizeof(x));
}

static void test_comes_back(void **state)
{
    struct names_file f = full(), got;
    struct why why = { "" };
    void *bytes;
    size_t len;

    (void)state;
    assert_int_equal(names_encode(&f, &bytes, &len), 0);
    assert_int_equal(len, 512 + 5 * 4 + 2 * 8);
    assert_int_equal(names_decode(bytes, len, &got, &why), 0);
    same(&f, &got);
    free(bytes);

    f = (struct names_file){
        .segment = 16, .memory = { .has_ratio = true, .has_sinks = true, .has_hydrate = true }
    };
    (void)strcpy(f.model_digest, "0123456789abcdef0123456789abcdef");
    assert_int_equal(names_encode(&f, &bytes, &len), 0);
    assert_int_equal(names_decode(bytes, len, &got, &why), 0);
    got.ids = NULL; /* of none */
    got.marks = NULL;
    assert_memory_equal(&f, &got, sizeof(f));
    free(bytes);
}

/* The bytes themselves: what another release finds on disk. */
static void test_layout(void **state)
{
    struct names_file f = full();
    uint8_t *p;
    void *bytes;
    size_t len;

    (void)state;
    assert_int_equal(names_encode(&f, &bytes, &len), 0);
    p = bytes;
    assert_memory_equal(p, "gistname\x01\0\0\0", 12);
    assert_int_equal(p[12], 1 | 2 | 4 | 8 | 32);
    assert_int_equal(p[16], WIRE_FINE_KV);
    assert_int_equal(p[20], 4);         /* ratio */
    assert_int_equal(p[24], 2);         /* sinks */
    assert_int_equal(p[28], 10);        /* keep_tail */
    assert_int_equal(p[32], 500 % 256); /* budget */
    assert_int_equal(p[36], 64);        /* segment */
    assert_int_equal(p[40], WIRE_BACKGROUND);
    assert_int_equal(p[44], CHAT_AT_OPEN_TURN);
    assert_int_equal(p[48], 77);  /* pending */
    assert_int_equal(p[52], 5);   /* n_ids */
    assert_int_equal(p[56], 2);   /* n_marks */
    assert_int_equal(p[60], 255); /* hydrate */
    assert_memory_equal(p + 64, f.model_digest, 32);
    assert_memory_equal(p + 96, f.adapter_digest, 32);
    assert_string_equal((char *)p + 128, "A model");
    assert_string_equal((char *)p + 256, "an adapter");
    assert_string_equal((char *)p + 320, "caf\xc3\xa9");
    assert_memory_equal(p + 512, ids, sizeof(ids));
    assert_memory_equal(p + 532, marks, sizeof(marks));
    free(bytes);
}

/* A byte at `at` becomes `value`: -errno of reading that. */
static int lie(size_t at, uint8_t value)
{
    struct names_file f = full(), got = { .n_ids = 99 };
    struct why why = { "" };
    uint8_t *p;
    void *bytes;
    size_t len;
    int r;

    assert_int_equal(names_encode(&f, &bytes, &len), 0);
    p = bytes;
    assert_int_not_equal(p[at], value);
    p[at] = value;
    r = names_decode(bytes, len, &got, &why);
    assert_int_equal(got.n_ids == 99, r < 0);
    assert_true(r == 0 || why.text[0]);
    free(bytes);
    return r;
}

static void test_lies(void **state)
{
    static const struct {
        size_t at;
        uint8_t value;
        int err;
    } cases[] = {
        { 0, 'G', -EBADMSG },   { 8, 2, -ENOTSUP },
        { 8, 0, -ENOTSUP },     { 13, 1, -EBADMSG },
        { 12, 0x4f, -EBADMSG },                      /* flags that there are none of */
        { 12, 14, -EBADMSG },                        /* a pending token, and none */
        { 16, 200, -EBADMSG },                       /* compressor */
        { 40, 2, -EBADMSG },                         /* priority */
        { 44, 3, -EBADMSG },                         /* chat_at */
        { 52, 4, -EBADMSG },    { 52, 6, -EBADMSG }, /* n_ids */
        { 55, 0x80, -EBADMSG }, { 56, 1, -EBADMSG }, /* n_marks */
        { 59, 0xff, -EBADMSG }, { 64, 'G', -EBADMSG },
        { 64, 0, -EBADMSG },                            /* digests */
        { 96, 'x', -EBADMSG },  { 140, 'x', -EBADMSG }, /* behind a string's end */
        { 255, 'x', -EBADMSG }, { 128, 27, -EBADMSG },  /* an escape */
        { 256, 0, -EBADMSG },   { 320, 0xff, -EBADMSG },
        { 383, 'x', -EBADMSG }, { 384, 1, -EBADMSG },
        { 511, 1, -EBADMSG },   { 532, 7, -EBADMSG }, /* marks: past the end, */
        { 540, 1, -EBADMSG },                         /* not ascending, */
        { 536, 3, -EBADMSG },                         /* nowhere in a conversation */
        { 512, 9, 0 },          { 20, 200, 0 },
        { 60, 1, 0 }, /* others say what is wrong with these */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        if (lie(cases[i].at, cases[i].value) != cases[i].err)
            fail_msg("byte %zu as %u", cases[i].at, cases[i].value);
}

static void test_every_length(void **state)
{
    struct names_file f = full(), got;
    struct why why = { "" };
    void *bytes;
    size_t len;

    (void)state;
    assert_int_equal(names_encode(&f, &bytes, &len), 0);
    for (size_t n = 0; n < len; n++) {
        void *copy = malloc(n ? n : 1); /* its end is the end: a sanitizer sees who reads on */

        memcpy(copy, bytes, n);
        assert_int_equal(names_decode(copy, n, &got, &why), -EBADMSG);
        free(copy);
    }
    bytes = realloc(bytes, len + 4);
    memset((uint8_t *)bytes + len, 0, 4);
    assert_int_equal(names_decode(bytes, len + 4, &got, &why), -EBADMSG);
    free(bytes);
}

/* --- models and adapters ---------------------------------------------------------------------- */

static const struct policy small = {
    .spec = { .ratio = 8, .sinks = 4 }, .seg_len = 64, .budget = 1000, .hydrate = 5
};

static void test_models(void **state)
{
    struct model m = { .name = "B \x1b[31mmodel", .digest = "00000000000000000000000000000001" };
    struct adapter a = { .name = "fine", .digest = "00000000000000000000000000000002" };
    struct served b = { .model = &m,
                        .adapters = { &a },
                        .n_adapters = 1,
                        .adapter_names = "fine",
                        .context_max = 1000 };
    struct policy p = small, got;
    struct why why = { "" };
    struct names_file f, read;
    void *bytes;
    size_t len;

    (void)state;
    names_describe(&b, &p, &f);
    assert_int_equal(names_policy(&f, &b, &got, &why), 0);
    assert_memory_equal(&got, &p, sizeof(p));
    /* What its file says of itself may hold anything; the name's file is read all the same. */
    assert_int_equal(names_encode(&f, &bytes, &len), 0);
    assert_int_equal(names_decode(bytes, len, &read, &why), 0);
    assert_null(strchr(read.model, 27));
    free(bytes);
    /* All of the context is all of it under a larger one; a number stays what it is. */
    b.context_max = 2000;
    assert_int_equal(names_policy(&f, &b, &got, &why), 0);
    assert_int_equal(got.budget, 2000);
    p.budget = 1000;
    names_describe(&b, &p, &f);
    b.context_max = 1500;
    assert_int_equal(names_policy(&f, &b, &got, &why), 0);
    assert_int_equal(got.budget, 1000);
    b.context_max = 500;
    assert_int_equal(names_policy(&f, &b, &got, &why), -EINVAL);
    b.context_max = 1500;
    why.text[0] = '\0';

    (void)strcpy(f.model, "A model");
    f.model_digest[31] = 'f';
    assert_int_equal(names_policy(&f, &b, &got, &why), -EMEDIUMTYPE);
    assert_non_null(strstr(why.text, "A model (00000000)"));
    assert_non_null(strstr(why.text, "model (00000000)"));
    f.model_digest[31] = '1';
    why.text[0] = '\0';
    (void)strcpy(f.adapter, "other");
    (void)strcpy(f.adapter_digest, "00000000000000000000000000000003");
    assert_int_equal(names_policy(&f, &b, &got, &why), -EMEDIUMTYPE);
    assert_non_null(strstr(why.text, "other"));
    assert_non_null(strstr(why.text, "fine"));
}

/* --- names ------------------------------------------------------------------------------------ */

static void test_name_rules(void **state)
{
    static const char *const good[] = { "a", "last week", "caf\xc3\xa9 \xf0\x9f\x98\x80", ".",
                                        "-x" };
    static const char *const bad[] = { "",         "a/b",      "/",    "a\nb", "\x7f",
                                       "\xc2\x85", "a\x1b[2J", "\xff", "\xc3", "\xed\xa0\x80" };
    char longest[NAMES_MAX + 2];
    struct why why = { "" };

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
        assert_int_equal(names_check(good[i], &why), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        why.text[0] = '\0';
        assert_int_equal(names_check(bad[i], &why), -EINVAL);
        assert_true(why.text[0]);
    }
    memset(longest, 'x', sizeof(longest));
    longest[NAMES_MAX] = '\0';
    assert_int_equal(names_check(longest, &why), 0);
    longest[NAMES_MAX] = 'x';
    why.text[0] = '\0';
    longest[NAMES_MAX + 1] = '\0';
    assert_int_equal(names_check(longest, &why), -EINVAL);
    assert_non_null(strstr(why.text, "129 bytes"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_comes_back), cmocka_unit_test(test_layout),
        cmocka_unit_test(test_lies),       cmocka_unit_test(test_every_length),
        cmocka_unit_test(test_models),     cmocka_unit_test(test_name_rules),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
