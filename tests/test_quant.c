/* Catches: a block format read differently from how the rest of the world writes it, a half that
 * rounds wrongly, a layout that the compiler padded.
 *
 * The vectors are not ours: tests/reference/quant_vectors.py made them with the PyPI package gguf.
 */
#include "engine/file/quant.h"
#include "tests/support/gguf_build.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint32_t bits_of(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof(u));
    return u;
}

static float float_of(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof(f));
    return f;
}

static uint8_t *read_file(const char *path, size_t *ret_len)
{
    FILE *f = fopen(path, "rb");
    uint8_t *p = malloc(1 << 20);

    assert_non_null(f);
    assert_non_null(p);
    *ret_len = fread(p, 1, 1 << 20, f);
    assert_true(feof(f));
    fclose(f);
    return p;
}

static uint32_t take_u32(const uint8_t **p)
{
    uint32_t v;

    memcpy(&v, *p, sizeof(v));
    *p += sizeof(v);
    return v;
}

static void test_vectors(void **state)
{
    size_t len;
    uint8_t *file = read_file("tests/data/quant_vectors.bin", &len);
    const uint8_t *p = file;
    uint32_t n_types = take_u32(&p);

    (void)state;
    assert_int_equal(n_types, QUANT__N - 1); /* all but F32 */
    for (uint32_t i = 0; i < n_types; i++) {
        uint32_t number = take_u32(&p), n = take_u32(&p), n_bytes = take_u32(&p);
        const uint8_t *blocks = p, *want = p + n_bytes;
        float *got = malloc(n * sizeof(*got));
        enum quant type;

        assert_int_equal(quant_from_gguf(number, &type), 0);
        assert_int_equal(quant_row_bytes(type, n), n_bytes);
        quant_dequantise_row(type, blocks, n, got);
        for (uint32_t j = 0; j < n; j++) {
            float w;

            memcpy(&w, want + 4 * j, 4);
            if (!(isnan(w) && isnan(got[j])) && bits_of(w) != bits_of(got[j]))
                fail_msg("%s value %u: %a, expected %a", quant_info(type)->name, j, (double)got[j],
                         (double)w);
        }
        free(got);
        p = want + 4 * (size_t)n;
    }
    assert_ptr_equal(p, file + len);
    free(file);
}

static void test_types(void **state)
{
    enum quant type = QUANT_Q6_K;

    (void)state;
    for (int t = 0; t < QUANT__N; t++) {
        assert_int_equal(quant_from_gguf(quant_info((enum quant)t)->gguf_type, &type), 0);
        assert_int_equal(type, t);
    }
    type = QUANT_Q6_K;
    for (uint32_t other = 0; other < 64; other++) {
        bool ours = other <= 3 || other == 6 || other == 7 || other == 8 ||
                    (other >= 12 && other <= 14) || other == 30;

        assert_int_equal(quant_from_gguf(other, &type), ours ? 0 : -ENOTSUP);
    }
    assert_int_equal(quant_from_gguf(UINT32_MAX, &type), -ENOTSUP);
    assert_int_equal(quant_row_bytes(QUANT_F32, 7), 28);
    assert_int_equal(quant_row_bytes(QUANT_Q4_K, 4096), 2304);
    /* 64-bit: a row of 2^32 values */
    assert_int_equal(quant_row_bytes(QUANT_Q8_0, (size_t)1 << 32), ((size_t)1 << 27) * 34);
}

/* The definition of binary16, in double, which holds every half exactly. */
static double half_value(uint16_t h)
{
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    double v = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);

    return h & 0x8000 ? -v : v;
}

static void test_half_to_float(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = quant_f16_to_f32((uint16_t)h);

        if ((h & 0x7fff) > 0x7c00) {
            assert_true(isnan(f));
            assert_true(bits_of(f) & 0x400000); /* quiet */
        } else if ((h & 0x7fff) == 0x7c00) {
            assert_int_equal(bits_of(f), h & 0x8000 ? 0xff800000 : 0x7f800000);
        } else {
            assert_true((double)f == half_value((uint16_t)h));
            assert_int_equal(bits_of(f) >> 31, h >> 15); /* -0 */
        }
    }
}

/* Every half comes back from its float; the floats just beside the middle of two halves go to the
 * nearer one, and the middle itself to the even one. */
static void test_float_to_half(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        uint32_t sign = h % 3 == 0 ? 0x8000 : 0;
        float low = quant_f16_to_f32((uint16_t)h);
        double next = h == 0x7bff ? 65536.0 : half_value((uint16_t)(h + 1));
        float middle = (float)((half_value((uint16_t)h) + next) / 2); /* exact */
        float s = sign ? -1.0f : 1.0f;

        assert_int_equal(quant_f32_to_f16(s * low), h | sign);
        assert_int_equal(quant_f32_to_f16(s * float_of(bits_of(middle) - 1)), h | sign);
        assert_int_equal(quant_f32_to_f16(s * float_of(bits_of(middle) + 1)), (h + 1) | sign);
        assert_int_equal(quant_f32_to_f16(s * middle), (h + (h & 1)) | sign);
    }
    assert_int_equal(quant_f32_to_f16(INFINITY), 0x7c00);
    assert_int_equal(quant_f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(quant_f32_to_f16(65536.0f), 0x7c00);
    assert_int_equal(quant_f32_to_f16(3e38f), 0x7c00);
    assert_int_equal(quant_f32_to_f16(float_of(1)), 0); /* the smallest denormal float */
    for (uint32_t nan = 0x7f800001; nan <= 0x7fffffff && nan >= 0x7f800001; nan += 0x1fff1) {
        assert_true((quant_f32_to_f16(float_of(nan)) & 0x7fff) > 0x7c00);
        assert_int_equal(quant_f32_to_f16(float_of(nan | 0x80000000)) & 0x8000, 0x8000);
    }
}

/* A row that begins at an odd address, as the caller may pass it. */
static void test_unaligned(void **state)
{
    uint8_t blocks[4 * 256 * 2 + 1];
    float a[256], b[256];

    (void)state;
    for (int t = 0; t < QUANT__N; t++) {
        uint64_t seed = (uint64_t)t;
        enum quant type = (enum quant)t;

        gguf_build_values(type, 256, 0, 0.05f, &seed, blocks);
        quant_dequantise_row(type, blocks, 256, a);
        memmove(blocks + 1, blocks, quant_row_bytes(type, 256));
        quant_dequantise_row(type, blocks + 1, 256, b);
        assert_memory_equal(a, b, sizeof(a));
    }
}

/* What other tests build their models from is what it says: centred, of the asked deviation. */
static void test_built_values(void **state)
{
    enum { N = 65536 };
    void *blocks = malloc(N * 4);
    float *v = malloc(N * sizeof(*v));

    (void)state;
    for (int t = 0; t < QUANT__N; t++) {
        uint64_t seed = 7;
        double sum = 0, squares = 0;

        gguf_build_values((enum quant)t, N, 0, 0.05f, &seed, blocks);
        quant_dequantise_row((enum quant)t, blocks, N, v);
        for (int i = 0; i < N; i++) {
            sum += (double)v[i];
            squares += (double)v[i] * (double)v[i];
        }
        assert_true(fabs(sum / N) < 0.01);
        assert_true(fabs(sqrt(squares / N) - 0.05) < 0.01);
    }
    free(blocks);
    free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),       cmocka_unit_test(test_types),
        cmocka_unit_test(test_half_to_float), cmocka_unit_test(test_float_to_half),
        cmocka_unit_test(test_unaligned),     cmocka_unit_test(test_built_values),
    };

    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
