/* Catches: a header that makes us read past its end, allocate what the file can't hold, or believe
 * a lie; a refusal that does not say what was found and what was expected.
 *
 * Files in memory are copied to a block of exactly their size, so that AddressSanitizer sees a read
 * one byte too far.
 */
#include "engine/file/gguf.h"
#include "engine/file/model.h"
#include "tests/support/gguf_build.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void assert_says(const struct why *why, const char *words)
{
    if (!strstr(why->text, words))
        fail_msg("said \"%s\", expected \"%s\" in it", why->text, words);
}

/* Opens a copy of exactly len bytes; the copy is *ret_copy. */
static int open_copy(const void *data, size_t len, void **ret_copy, struct gguf **ret,
                     struct why *why)
{
    *ret_copy = malloc(len ? len : 1);
    assert_non_null(*ret_copy);
    memcpy(*ret_copy, data, len);
    return gguf_open_mem(*ret_copy, len, "test.gguf", ret, why);
}

static void expect_refused_bytes(const void *data, size_t len, const char *words)
{
    struct why why = { "" };
    struct gguf *g = NULL;
    void *copy;

    assert_int_equal(open_copy(data, len, &copy, &g, &why), -EINVAL);
    assert_null(g);
    assert_says(&why, "test.gguf: ");
    assert_says(&why, words);
    free(copy);
}

/* Takes b. */
static void expect_refused(struct gguf_build *b, const char *words)
{
    size_t len;
    void *data = gguf_build_bytes(b, &len, NULL);

    expect_refused_bytes(data, len, words);
    free(data);
    gguf_build_free(b);
}

static struct gguf_build *new_build(void)
{
    struct gguf_build *b = gguf_build_new(3);
    uint64_t dims[2] = { 64, 3 };

    gguf_build_u32(b, "a", 1);
    gguf_build_random(b, "t", QUANT_Q8_0, 2, dims, 0, 0.05f, 1);
    gguf_build_random(b, "u", QUANT_F32, 1, dims, 0, 0.05f, 2);
    return b;
}

static struct gguf_build *new_raw(uint32_t kind, const void *v, size_t len)
{
    struct gguf_build *b = new_build();

    gguf_build_raw(b, "raw", kind, v, len);
    return b;
}

/* --- what is right ---------------------------------------------------------------------------- */

static void add_numbers(struct gguf_build *b)
{
    gguf_build_raw(b, "u8", GGUF_U8, "\xff", 1);
    gguf_build_raw(b, "i8", GGUF_I8, "\x7f", 1);
    gguf_build_raw(b, "i8-", GGUF_I8, "\xff", 1);
    gguf_build_raw(b, "u16", GGUF_U16, "\xff\xff", 2);
    gguf_build_raw(b, "i16", GGUF_I16, "\x01\x02", 2);
    gguf_build_raw(b, "i32", GGUF_I32, "\xff\xff\xff\x7f", 4);
    gguf_build_raw(b, "u64", GGUF_U64, "\xff\xff\xff\xff\0\0\0\0", 8);
    gguf_build_raw(b, "u64+", GGUF_U64, "\0\0\0\0\1\0\0\0", 8);
    gguf_build_raw(b, "i64-", GGUF_I64, "\xfe\xff\xff\xff\xff\xff\xff\xff", 8);
    gguf_build_raw(b, "f64", GGUF_F64, "\0\0\0\0\0\0\xf8\x3f", 8); /* 1.5 */
    gguf_build_f32(b, "f32", -0.25f);
    gguf_build_bool(b, "bool", true);
}

static void test_numbers(void **state)
{
    static const struct {
        const char *key;
        int e;
        uint32_t v;
    } ints[] = {
        { "u8", 0, 255 },         { "i8", 0, 127 },       { "i8-", -EINVAL, 0 },
        { "u16", 0, 65535 },      { "i16", 0, 0x201 },    { "i32", 0, 0x7fffffff },
        { "u64", 0, UINT32_MAX }, { "u64+", -EINVAL, 0 }, { "i64-", -EINVAL, 0 },
        { "f64", -EINVAL, 0 },    { "bool", -EINVAL, 0 }, { "none", -ENOENT, 0 },
        { "u", -ENOENT, 0 },      { "u88", -ENOENT, 0 },  { "", -ENOENT, 0 },
    };

    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        struct gguf_build *b = gguf_build_new(version);
        struct why why = { "" };
        struct gguf *g;
        size_t len;
        void *data, *copy;
        float f = 0;
        bool yes = false;

        add_numbers(b);
        data = gguf_build_bytes(b, &len, NULL);
        assert_int_equal(open_copy(data, len, &copy, &g, &why), 0);
        for (size_t i = 0; i < sizeof(ints) / sizeof(ints[0]); i++) {
            uint32_t v = 77;

            assert_int_equal(gguf_get_u32(g, ints[i].key, &v), ints[i].e);
            assert_int_equal(v, ints[i].e == 0 ? ints[i].v : 77); /* written on success only */
        }
        assert_int_equal(gguf_get_f32(g, "f32", &f), 0);
        assert_true(f == -0.25f);
        assert_int_equal(gguf_get_f32(g, "f64", &f), 0);
        assert_true(f == 1.5f);
        assert_int_equal(gguf_get_f32(g, "u8", &f), -EINVAL);
        assert_int_equal(gguf_get_f32(g, "none", &f), -ENOENT);
        assert_int_equal(gguf_get_bool(g, "bool", &yes), 0);
        assert_true(yes);
        assert_int_equal(gguf_get_bool(g, "u8", &yes), -EINVAL);
        gguf_close(g);
        free(copy);
        free(data);
        gguf_build_free(b);
    }
}

static void test_strings_and_arrays(void **state)
{
    static const char *const words[] = { "one", "", "three\xff" };
    static const int32_t numbers[] = { -1, 0, 5 };
    struct gguf_build *b = new_build();
    struct why why = { "" };
    struct gguf_array a;
    struct gguf_str s;
    struct gguf *g;
    size_t len, pos = 0;
    void *data, *copy;
    int32_t v[3];

    (void)state;
    gguf_build_str(b, "s", "a string");
    gguf_build_str_array(b, "words", words, 3);
    gguf_build_str_array(b, "no words", NULL, 0);
    gguf_build_i32_array(b, "numbers", numbers, 3);
    data = gguf_build_bytes(b, &len, NULL);
    assert_int_equal(open_copy(data, len, &copy, &g, &why), 0);
    assert_int_equal(gguf_get_str(g, "s", &s), 0);
    assert_int_equal(s.len, 8);
    assert_memory_equal(s.s, "a string", 8);
    assert_int_equal(gguf_get_str(g, "words", &s), -EINVAL);
    assert_int_equal(gguf_get_array(g, "s", &a), -EINVAL);
    assert_int_equal(gguf_get_array(g, "none", &a), -ENOENT);
    assert_int_equal(gguf_get_array(g, "words", &a), 0);
    assert_int_equal(a.kind, GGUF_STRING);
    assert_int_equal(a.n, 3);
    for (int i = 0; i < 3; i++) {
        s = gguf_next_str(&a, &pos);
        assert_int_equal(s.len, strlen(words[i]));
        assert_memory_equal(s.s, words[i], s.len);
    }
    assert_int_equal(gguf_get_array(g, "no words", &a), 0);
    assert_int_equal(a.n, 0);
    assert_int_equal(gguf_get_array(g, "numbers", &a), 0);
    assert_int_equal(a.kind, GGUF_I32);
    memcpy(v, a.data, sizeof(v));
    assert_memory_equal(v, numbers, sizeof(v));
    assert_string_equal(gguf_path(g), "test.gguf");
    assert_int_equal(gguf_len(g), len);
    assert_int_equal(gguf_fd(g), -1);
    gguf_close(g);
    free(copy);
    free(data);
    gguf_build_free(b);
}

static void test_tensors(void **state)
{
    static const uint32_t aligns[] = { 8, 32, 4096, 1 << 20 };

    (void)state;
    for (size_t i = 0; i < sizeof(aligns) / sizeof(aligns[0]); i++) {
        struct gguf_build *b = new_build();
        const struct gguf_tensor *t, *u;
        struct why why = { "" };
        struct gguf *g;
        size_t len, data_off, header_len;
        void *data, *copy;

        gguf_build_align(b, aligns[i]);
        gguf_build_u32(b, "general.alignment", aligns[i]);
        data = gguf_build_bytes(b, &len, &data_off);
        assert_int_equal(open_copy(data, len, &copy, &g, &why), 0);
        assert_int_equal(gguf_n_tensors(g), 2);
        assert_ptr_equal(gguf_header(g, &header_len), copy);
        assert_int_equal(header_len, data_off);
        t = gguf_find_tensor(g, "t");
        u = gguf_find_tensor(g, "u");
        assert_ptr_equal(t, gguf_tensor(g, 0));
        assert_ptr_equal(u, gguf_tensor(g, 1));
        assert_null(gguf_find_tensor(g, "tu"));
        assert_null(gguf_find_tensor(g, ""));
        assert_int_equal(t->n_dims, 2);
        assert_int_equal(t->dims[0], 64);
        assert_int_equal(t->dims[1], 3);
        assert_int_equal(t->dims[2], 1);
        assert_int_equal(t->type, 8);
        assert_int_equal(t->off, data_off);
        assert_int_equal(t->len, 3 * 2 * 34);
        assert_int_equal(u->off, (t->off + t->len + aligns[i] - 1) / aligns[i] * aligns[i]);
        assert_int_equal(u->len, 256);
        gguf_close(g);
        free(copy);
        free(data);
        gguf_build_free(b);
    }
}

/* --- what is wrong ---------------------------------------------------------------------------- */

static void test_magic_and_version(void **state)
{
    (void)state;
    expect_refused_bytes("", 0, "is empty");
    expect_refused_bytes("GG", 2, "header field 1 of 4 needs 4 bytes at byte 0");
    expect_refused_bytes("\x1b[2J", 4, "not a GGUF file: begins with \"?[2J\", expected \"GGUF\"");
    expect_refused_bytes("PK\3\4rest of it", 14, "not a GGUF file");
    expect_refused(gguf_build_new(1), "GGUF version 1, supported: 2 and 3");
    expect_refused(gguf_build_new(4), "GGUF version 4, supported: 2 and 3");
    expect_refused(gguf_build_new(0), "GGUF version 0, supported: 2 and 3");
    expect_refused(gguf_build_new(3u << 24), "big-endian GGUF file, supported: little-endian");
}

static void test_counts(void **state)
{
    struct gguf_build *b = new_build();
    size_t len;
    uint8_t *data = gguf_build_bytes(b, &len, NULL);

    (void)state;
    memset(data + 8, 0xff, 8); /* tensors */
    expect_refused_bytes(data, len, "announces 1 keys and 18446744073709551615 tensors");
    memset(data + 8, 0, 8);
    memset(data + 16, 0x7f, 8); /* keys */
    expect_refused_bytes(data, len, "more than the file's");
    /* One that could just fit is believed, and found out. */
    memset(data + 16, 0, 8);
    data[16] = (uint8_t)((len - 24) / 14);
    expect_refused_bytes(data, len, "key ");
    free(data);
    gguf_build_free(b);
}

static void test_keys(void **state)
{
    static const char nested[] = "\x09\0\0\0\1\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0\0\0\0";
    struct gguf_build *b = new_build();
    char *key = malloc(65537);

    (void)state;
    gguf_build_u32(b, "", 1);
    expect_refused(b, "key 2 of 2: its name has 0 bytes, expected 1 to 65535");
    memset(key, 'k', 65536);
    key[65536] = '\0';
    b = new_build();
    gguf_build_u32(b, key, 1);
    expect_refused(b, "its name has 65536 bytes");
    free(key);
    b = new_build();
    gguf_build_duplicate(b, "a");
    expect_refused(b, "key \"a\" is there twice");
    expect_refused(new_raw(13, "", 1), "key 2 of 2: a value of kind 13, expected 0 to 12");
    expect_refused(new_raw(GGUF_BOOL, "\2", 1), "a bool of value 2, expected 0 or 1");
    expect_refused(new_raw(GGUF_ARRAY, nested, sizeof(nested) - 1), "an array of arrays");
    expect_refused(new_raw(GGUF_ARRAY, "\x0d\0\0\0\0\0\0\0\0\0\0\0", 12), "an array of kind 13");
    expect_refused(new_raw(GGUF_ARRAY, "\7\0\0\0\2\0\0\0\0\0\0\0\1\3", 14), "a bool of value 3");
    /* Lengths that wrap around: 2^61 + 1 values of 8 bytes, and a string of 2^64 - 1. */
    expect_refused(new_raw(GGUF_ARRAY, "\x0a\0\0\0\1\0\0\0\0\0\0\x20", 12),
                   "needs 18446744073709551615 bytes");
    expect_refused(new_raw(GGUF_STRING, "\xff\xff\xff\xff\xff\xff\xff\xff", 8),
                   "needs 18446744073709551615 bytes");
    expect_refused(new_raw(GGUF_ARRAY, "\x08\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", 12),
                   "key 2 of 2 needs");
}

static void test_alignment(void **state)
{
    static const uint32_t bad[] = { 0, 1, 4, 24, 33, 1 << 21, UINT32_MAX };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct gguf_build *b = new_build();

        gguf_build_u32(b, "general.alignment", bad[i]);
        expect_refused(b, "expected a power of two from 8 to 1048576");
    }
    struct gguf_build *b = new_build();
    gguf_build_str(b, "general.alignment", "32");
    expect_refused(b, "general.alignment is not an integer of 32 bits");
}

static struct gguf_build *new_shaped(uint32_t n_dims, uint64_t d0, uint64_t d1, uint64_t d2)
{
    uint64_t block = 32, dims[4] = { d0, d1, d2, d2 };
    struct gguf_build *b = gguf_build_new(3);

    gguf_build_tensor(b, "t", QUANT_Q4_0, 1, &block, NULL);
    gguf_build_tensor_dims(b, "t", n_dims, dims);
    return b;
}

static void test_tensor_records(void **state)
{
    uint64_t dims[5] = { 32, 1, 1, 1, 1 };
    struct gguf_build *b;
    char name[66];

    (void)state;
    memset(name, 'n', 65);
    name[65] = '\0';
    b = gguf_build_new(3);
    gguf_build_tensor(b, name, QUANT_F32, 1, dims, NULL);
    expect_refused(b, "tensor record 1 of 1: its name has 65 bytes, expected 1 to 64");
    b = gguf_build_new(3);
    gguf_build_tensor(b, "", QUANT_F32, 1, dims, NULL);
    expect_refused(b, "its name has 0 bytes");
    b = new_build();
    gguf_build_duplicate_tensor(b, "t");
    expect_refused(b, "tensor \"t\" is there twice");
    b = new_build();
    gguf_build_tensor_off(b, "u", 31);
    expect_refused(b, "begins at data byte 31, expected a multiple of the alignment 32");
    b = new_build();
    gguf_build_tensor_off(b, "u", 32);
    expect_refused(b, "tensors \"t\" and \"u\" overlap");
    expect_refused(new_shaped(4, 32, 0, 1), "\"t\" has size 0 in dimension 1");
    expect_refused(new_shaped(1, 33, 1, 1), "rows of 33 values, expected a multiple of Q4_0's 32");
    expect_refused(new_shaped(1, 1 << 20, 1, 1), "but the file has");
    /* Products that wrap around to something small. */
    expect_refused(new_shaped(2, (uint64_t)1 << 63, 64, 1), "needs 18446744073709551615 bytes");
    expect_refused(new_shaped(4, 32, (uint64_t)1 << 33, (uint64_t)1 << 33),
                   "needs 18446744073709551615 bytes");
    b = gguf_build_new(3);
    gguf_build_tensor(b, "t", QUANT_F32, 1, dims, NULL);
    gguf_build_tensor_dims(b, "t", 0, NULL);
    expect_refused(b, "\"t\" has 0 dimensions, expected 1 to 4");
    b = gguf_build_new(3);
    gguf_build_tensor(b, "t", QUANT_F32, 1, dims, NULL);
    gguf_build_tensor_dims(b, "t", 5, dims);
    expect_refused(b, "\"t\" has 5 dimensions, expected 1 to 4");
}

static void test_offsets(void **state)
{
    static const uint64_t offs[] = { 0x100000, (uint64_t)1 << 63, UINT64_MAX - 31 };

    (void)state;
    for (size_t i = 0; i < sizeof(offs) / sizeof(offs[0]); i++) {
        struct gguf_build *b = new_build();
        size_t len;
        uint8_t *data = gguf_build_bytes(b, &len, NULL), *at = data;

        while (memcmp(at, "\1\0\0\0\0\0\0\0u", 9) != 0) /* the record: len, name, ... */
            at++;
        at += 9 + 4 + 8 + 4; /* ... dimensions, one size, type */
        memcpy(at, &offs[i], sizeof(offs[i]));
        expect_refused_bytes(data, len, "tensor \"u\" needs 256 bytes at byte ");
        free(data);
        gguf_build_free(b);
    }
}

/* A type that we can't compute with is the model's to refuse, with a list of what it supports. */
static void test_unknown_type(void **state)
{
    struct gguf_build *b = new_build();
    struct why why = { "" };
    struct gguf *g;
    size_t len;
    void *data, *copy;

    (void)state;
    gguf_build_tensor_type(b, "t", 11);
    data = gguf_build_bytes(b, &len, NULL);
    assert_int_equal(open_copy(data, len, &copy, &g, &why), 0);
    assert_int_equal(gguf_find_tensor(g, "t")->type, 11);
    assert_int_equal(gguf_find_tensor(g, "t")->len, 0);
    assert_string_equal(gguf_type_name(11), "Q3_K");
    assert_string_equal(gguf_type_name(31), "unknown");
    assert_string_equal(gguf_type_name(UINT32_MAX), "unknown");
    gguf_close(g);
    free(copy);
    free(data);
    gguf_build_free(b);
}

/* --- damage ----------------------------------------------------------------------------------- */

static void *tiny_bytes(size_t *ret_len, size_t *ret_data_off)
{
    struct gguf_build_shape shape = gguf_build_tiny();
    struct gguf_build *b;
    void *data;

    shape.n_layer = 1;
    shape.rope_freqs = true;
    b = gguf_build_model(&shape);
    data = gguf_build_bytes(b, ret_len, ret_data_off);
    gguf_build_free(b);
    return data;
}

static void test_cut_everywhere(void **state)
{
    size_t len, data_off;
    uint8_t *data = tiny_bytes(&len, &data_off);

    (void)state;
    for (size_t n = 0; n < len; n += n <= data_off ? 1 : 509)
        expect_refused_bytes(data, n, n == 0 ? "is empty" : n < 24 ? "header field" : ", ");
    expect_refused_bytes(data, len - 1, "cut short or damaged");
    free(data);
}

/* Reads all that a loader could ask for. */
static void walk(const struct gguf *g)
{
    static const char *const keys[] = { "general.architecture",      "general.name",
                                        "tokenizer.ggml.tokens",     "tokenizer.ggml.merges",
                                        "tokenizer.ggml.token_type", "tokenizer.chat_template" };
    volatile unsigned sum = 0;

    for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
        struct gguf_array a;
        struct gguf_str s;
        size_t pos = 0;

        if (gguf_get_str(g, keys[k], &s) == 0)
            for (size_t i = 0; i < s.len; i++)
                sum += (uint8_t)s.s[i];
        if (gguf_get_array(g, keys[k], &a) != 0 || a.kind != GGUF_STRING)
            continue;
        for (uint64_t n = 0; n < a.n; n++) {
            s = gguf_next_str(&a, &pos);
            sum += s.len ? (uint8_t)s.s[s.len - 1] : 0;
        }
    }
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);

        assert_true(t->off <= gguf_len(g) && t->len <= gguf_len(g) - t->off);
    }
    (void)sum;
}

static void test_bit_flips(void **state)
{
    size_t len, data_off, opened = 0, refused = 0;
    uint8_t *data = tiny_bytes(&len, &data_off), *copy = malloc(data_off);
    uint64_t seed = 88172645463325252u;

    (void)state;
    len = data_off; /* the weights' bytes are never looked at: a header with no tensors' data */
    for (int i = 0; i < 6000; i++) {
        struct why why = { "" };
        struct gguf *g;

        memcpy(copy, data, len);
        for (int flips = 1 + i % 3; flips > 0; flips--) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            /* Half of them where the counts and lengths are densest. */
            copy[(seed >> 16) % (i & 1 ? len : 1500)] ^= (uint8_t)(1u << (seed & 7));
        }
        if (i % 4 == 0)
            memset(copy + 8, 0, 8); /* no tensors: most others end at the missing data */
        if (gguf_open_mem(copy, len, "flipped", &g, &why) == 0) {
            walk(g);
            (void)model_check(g, &why);
            gguf_close(g);
            opened++;
        } else {
            assert_true(why.text[0] != '\0');
            refused++;
        }
    }
    assert_true(opened > 100 && refused > 100); /* both ways were taken */
    free(copy);
    free(data);
}

/* The same with the data there, so that damaged records and keys reach the model's checks. */
static void test_bit_flips_to_model(void **state)
{
    size_t len, data_off, opened = 0;
    uint8_t *data = tiny_bytes(&len, &data_off);
    uint64_t seed = 1181783497276652981u;

    (void)state;
    for (int i = 0; i < 4000; i++) {
        struct why why = { "" };
        struct gguf *g;
        size_t at;
        uint8_t bit;

        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        at = (seed >> 16) % data_off;
        bit = (uint8_t)(1u << (seed & 7));
        data[at] ^= bit;
        if (gguf_open_mem(data, len, "flipped", &g, &why) == 0) {
            walk(g);
            if (model_check(g, &why) != 0)
                assert_true(why.text[0] != '\0');
            gguf_close(g);
            opened++;
        }
        data[at] ^= bit;
    }
    assert_true(opened > 100);
    free(data);
}

/* --- files ------------------------------------------------------------------------------------ */

static void expect_no_file(const char *path, int e, const char *words)
{
    struct why why = { "" };
    struct gguf *g = NULL;

    assert_int_equal(gguf_open(path, &g, &why), e);
    assert_null(g);
    assert_says(&why, words);
}

static void write_file(const char *path, const void *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), len);
    assert_int_equal(close(fd), 0);
}

static void test_files(void **state)
{
    char path[SCRATCH_PATH_MAX], long_path[400];

    (void)state;
    expect_no_file(scratch_path(path, "none.gguf"), -ENOENT,
                   "none.gguf: cannot be opened: No such");
    assert_int_equal(mkdir(scratch_path(path, "dir"), 0700), 0);
    expect_no_file(path, -EISDIR, "dir: is a directory, expected a GGUF file");
    assert_int_equal(mkfifo(scratch_path(path, "fifo"), 0600), 0);
    expect_no_file(path, -EINVAL, "fifo: is not a regular file"); /* and does not wait */
    expect_no_file("/dev/null", -EINVAL, "/dev/null: is not a regular file");
    write_file(scratch_path(path, "empty"), "", 0);
    expect_no_file(path, -EINVAL, "empty: is empty");
    write_file(scratch_path(path, "text"), "Once upon a time", 16);
    expect_no_file(path, -EINVAL, "text: not a GGUF file: begins with \"Once\"");
    if (geteuid() != 0) {
        assert_int_equal(chmod(path, 0), 0);
        expect_no_file(path, -EACCES, "text: cannot be opened: Permission denied");
    }
    memset(long_path, 'x', sizeof(long_path));
    for (size_t i = 100; i < sizeof(long_path); i += 100)
        long_path[i] = '/';
    memcpy(long_path + sizeof(long_path) - 9, "end.gguf", 9);
    expect_no_file(long_path, -ENOENT, "xend.gguf: cannot be opened"); /* the end is what counts */
}

static void test_cut_file(void **state)
{
    char path[SCRATCH_PATH_MAX];
    size_t len, data_off;
    uint8_t *data = tiny_bytes(&len, &data_off);
    struct why why = { "" };
    struct gguf *g;

    (void)state;
    write_file(scratch_path(path, "whole.gguf"), data, len);
    assert_int_equal(gguf_open(path, &g, &why), 0);
    assert_true(gguf_fd(g) >= 0);
    assert_string_equal(gguf_path(g), path);
    gguf_close(g);
    for (size_t n = len; n > 0; n = n * 15 / 16) {
        assert_int_equal(truncate(path, (off_t)(n - 1)), 0);
        expect_no_file(path, -EINVAL, "whole.gguf: ");
    }
    free(data);
}

/* A vocabulary as large as Llama 3's: the header is read in several steps. */
static void test_large_header(void **state)
{
    struct gguf_build_shape shape = gguf_build_tiny();
    char path[SCRATCH_PATH_MAX];
    struct gguf_build *b;
    struct gguf_array tokens;
    struct why why = { "" };
    struct gguf *g;
    struct gguf_str s;
    size_t pos = 0, header_len;

    (void)state;
    shape.n_vocab = 128256;
    shape.sparse = true;
    b = gguf_build_model(&shape);
    gguf_build_write(b, scratch_path(path, "large.gguf"));
    gguf_build_free(b);
    assert_int_equal(gguf_open(path, &g, &why), 0);
    (void)gguf_header(g, &header_len);
    assert_true(header_len > 2u << 20);
    assert_int_equal(gguf_get_array(g, "tokenizer.ggml.tokens", &tokens), 0);
    assert_int_equal(tokens.n, 128256);
    for (uint64_t i = 0; i < tokens.n; i++)
        s = gguf_next_str(&tokens, &pos);
    assert_int_equal(s.len, strlen("[unused 128255]"));
    assert_memory_equal(s.s, "[unused 128255]", s.len);
    assert_int_equal(model_check(g, &why), 0);
    gguf_close(g);
}

/* A length that the file's size allows but no header has: bounded before it is allocated. */
static void test_absurd_header(void **state)
{
    struct gguf_build *b = gguf_build_new(3);
    char path[SCRATCH_PATH_MAX];
    uint64_t n = (uint64_t)1 << 40;

    (void)state;
    gguf_build_raw(b, "s", GGUF_STRING, &n, sizeof(n));
    gguf_build_write(b, scratch_path(path, "absurd.gguf"));
    gguf_build_free(b);
    assert_int_equal(truncate(path, (off_t)1 << 41), 0);
    expect_no_file(path, -EINVAL, "absurd.gguf: its header is larger than 256 MiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_strings_and_arrays),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_magic_and_version),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_tensor_records),
        cmocka_unit_test(test_offsets),
        cmocka_unit_test(test_unknown_type),
        cmocka_unit_test(test_cut_everywhere),
        cmocka_unit_test(test_bit_flips),
        cmocka_unit_test(test_bit_flips_to_model),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_cut_file),
        cmocka_unit_test(test_large_header),
        cmocka_unit_test(test_absurd_header),
    };

    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
