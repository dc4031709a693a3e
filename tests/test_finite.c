/* Catches: a model or an adapter with a NaN or an infinity among its weights that is loaded all the
 * same; a computation that turns into one and goes on as if it were none: the next int8 block, a
 * maximum or a softmax lose it, and an answer comes out that nothing stands behind (issue 16).
 */
#include "engine/backend.h"
#include "engine/cpu/kernels.h"
#include "engine/file/adapter.h"
#include "engine/file/model.h"
#include "engine/file/safetensors.h"
#include "tests/support/file.h"
#include "tests/support/gguf_build.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_COLS 256u
#define N_ROWS 20u

/* Bits of what is planted: of f32, f16 and bf16. */
static const uint32_t planted[][3] = {
    { 0x7fc00000, 0x7e00, 0x7fc0 }, { 0xffc00000, 0xfe00, 0xffc0 }, /* NaN */
    { 0x7f800001, 0x7c01, 0x7f81 },                                 /* the smallest of them */
    { 0x7f800000, 0x7c00, 0x7f80 }, { 0xff800000, 0xfc00, 0xff80 }, /* infinities */
};
#define N_PLANTED (sizeof(planted) / sizeof(planted[0]))

/* Where a type has floats inside a block, and the kind of them. */
struct spot {
    enum quant type;
    size_t off;
    int kind;
};
static const struct spot spots[] = {
    { QUANT_F32, 0, 0 },
    { QUANT_F16, 0, 1 },
    { QUANT_BF16, 0, 2 },
    { QUANT_Q4_0, offsetof(struct quant_q4_0, d), 1 },
    { QUANT_Q4_1, offsetof(struct quant_q4_1, d), 1 },
    { QUANT_Q4_1, offsetof(struct quant_q4_1, m), 1 },
    { QUANT_Q5_0, offsetof(struct quant_q5_0, d), 1 },
    { QUANT_Q5_1, offsetof(struct quant_q5_1, d), 1 },
    { QUANT_Q5_1, offsetof(struct quant_q5_1, m), 1 },
    { QUANT_Q8_0, offsetof(struct quant_q8_0, d), 1 },
    { QUANT_Q4_K, offsetof(struct quant_q4_k, d), 1 },
    { QUANT_Q4_K, offsetof(struct quant_q4_k, dmin), 1 },
    { QUANT_Q5_K, offsetof(struct quant_q5_k, d), 1 },
    { QUANT_Q5_K, offsetof(struct quant_q5_k, dmin), 1 },
    { QUANT_Q6_K, offsetof(struct quant_q6_k, d), 1 },
};
#define N_SPOTS (sizeof(spots) / sizeof(spots[0]))

static void plant(uint8_t *at, int kind, const uint32_t *what)
{
    memcpy(at, &what[kind], kind == 0 ? 4 : 2);
}

/* --- rows ------------------------------------------------------------------------------------- */

/* Every block of a row is looked at, its first and its last, at odd addresses too. */
static void finds_it_anywhere(void **state)
{
    uint8_t row[1 + N_COLS * 4];

    (void)state;
    for (size_t i = 0; i < N_SPOTS; i++) {
        const struct quant_info *info = quant_info(spots[i].type);
        size_t n_blocks = 2 * N_COLS / 2 / info->block_cols;

        for (size_t k = 0; k < N_PLANTED; k++) {
            for (size_t b = 0; b<n_blocks; b += n_blocks> 9 ? 7 : 1) {
                uint64_t seed = 3;

                gguf_build_values(spots[i].type, N_COLS, 0, 1, &seed, row + 1);
                assert_true(quant_finite(spots[i].type, row + 1, N_COLS));
                plant(row + 1 + b * info->block_bytes + spots[i].off, spots[i].kind, planted[k]);
                assert_false(quant_finite(spots[i].type, row + 1, N_COLS));
            }
        }
    }
}

/* Integers of a block may have any bits: none of them is taken for a scale. */
static void takes_every_integer(void **state)
{
    (void)state;
    for (int t = 0; t < QUANT__N; t++) {
        const struct quant_info *info = quant_info((enum quant)t);
        uint8_t block[256];

        if (info->block_cols == 1)
            continue;
        memset(block, 0xff, sizeof(block));
        for (size_t i = 0; i < N_SPOTS; i++)
            if (spots[i].type == (enum quant)t)
                memset(block + spots[i].off, 0, 2);
        assert_true(quant_finite((enum quant)t, block, info->block_cols));
    }
}

/* --- models ----------------------------------------------------------------------------------- */

static struct gguf_build_shape wide_shape(void)
{
    struct gguf_build_shape s = gguf_build_tiny();

    s.n_embd = N_COLS;
    s.n_ff = 512;
    s.n_head = 8;
    s.n_head_kv = 2;
    s.head_dim = 32;
    s.sparse = true; /* zeros but for what a test puts there */
    return s;
}

/* Takes b. */
static void refused(struct gguf_build *b, struct backend *by, const char *words)
{
    char path[SCRATCH_PATH_MAX];
    struct why why = { "" };
    struct model *m = NULL;

    gguf_build_write(b, scratch_path(path, "bad.gguf"));
    gguf_build_free(b);
    assert_int_equal(model_open(path, by, NULL, &m, &why), -EINVAL);
    if (!strstr(why.text, words))
        fail_msg("said \"%s\", expected \"%s\" in it", why.text, words);
}

/* A matrix of every type with one bad value in one row, by threads and without. */
static void refuses_matrices(void **state)
{
    const uint64_t dims[] = { N_COLS, 2 * N_COLS };
    const struct backend_options two = { .cpu = "auto", .threads = 2, .max_rows = 1 };
    struct backend *by;

    (void)state;
    assert_int_equal(backend_open(&backend_cpu, &two, &by, NULL), 0);
    for (size_t i = 0; i < N_SPOTS; i++) {
        size_t row_bytes = quant_row_bytes(spots[i].type, N_COLS);
        uint8_t *data = malloc(row_bytes * dims[1]);

        for (size_t k = 0; k < N_PLANTED; k++) {
            struct gguf_build_shape shape = wide_shape();
            struct gguf_build *b = gguf_build_model(&shape);
            uint32_t row = (uint32_t)(k * 127 + 1);
            uint64_t seed = 5;
            char words[96];

            gguf_build_values(spots[i].type, N_COLS * dims[1], 0, 0.02f, &seed, data);
            plant(data + row * row_bytes + spots[i].off, spots[i].kind, planted[k]);
            gguf_build_tensor(b, "blk.1.ffn_up.weight", spots[i].type, 2, dims, data);
            (void)snprintf(
                words, sizeof(words),
                "bad.gguf: tensor \"blk.1.ffn_up.weight\" has a NaN or an infinity in row "
                "%u,",
                row);
            refused(b, k % 2 ? by : NULL, words);
        }
        free(data);
    }
    backend_close(by);
}

/* What the issue showed: a norm all NaN made a model of equal probabilities. */
static void refuses_vectors(void **state)
{
    static const enum quant types[] = { QUANT_F32, QUANT_F16, QUANT_BF16 };
    const uint64_t n = N_COLS;

    (void)state;
    for (int i = 0; i < 3; i++) {
        for (size_t k = 0; k < N_PLANTED; k++) {
            struct gguf_build_shape shape = wide_shape();
            struct gguf_build *b = gguf_build_model(&shape);
            uint8_t data[N_COLS * 4];
            uint64_t seed = 5;

            gguf_build_values(types[i], N_COLS, 1, 0.02f, &seed, data);
            for (uint32_t c = k ? N_COLS - 1 : 0; c < N_COLS; c++)
                plant(data + c * quant_row_bytes(types[i], 1), i, planted[k]);
            gguf_build_tensor(b, "output_norm.weight", types[i], 1, &n, data);
            refused(b, NULL,
                    k ? "tensor \"output_norm.weight\" has a NaN or an infinity in element 255"
                      : "tensor \"output_norm.weight\" has a NaN or an infinity in element 0");
        }
    }
}

/* --- adapters --------------------------------------------------------------------------------- */

/* One value of each tensor of a good adapter in turn. */
static void refuses_adapters(void **state)
{
    static const char *const files[] = { "tests/data/gist_qwen2.safetensors",
                                         "tests/data/gist_qwen2_all.safetensors" };
    char path[SCRATCH_PATH_MAX], words[96];
    struct why why = { "" };
    struct model *m;
    size_t n_tried = 0;

    (void)state;
    assert_int_equal(model_open("tests/data/tiny_qwen2.gguf", NULL, NULL, &m, &why), 0);
    for (size_t f = 0; f < 2; f++) {
        struct safetensors *s;
        size_t len;
        uint8_t *bytes = file_read(files[f], &len);

        assert_int_equal(safetensors_open(files[f], &s, &why), 0);
        for (size_t i = 0; i < safetensors_n(s); i++) {
            const struct safetensors_tensor *t = safetensors_at(s, i);
            int kind = t->type == SAFETENSORS_F32 ? 0 : t->type == SAFETENSORS_F16 ? 1 : 2;
            uint8_t *last = bytes + t->off + t->len - (kind ? 2 : 4), kept[4];
            struct why said = { "" };
            struct adapter *a;

            memcpy(kept, last, kind ? 2 : 4);
            plant(last, kind, planted[i % N_PLANTED]);
            file_write(scratch_path(path, "bad.safetensors"), bytes, len);
            assert_int_equal(adapter_open(path, m, &a, &said), -EINVAL);
            (void)snprintf(words, sizeof(words), "bad.safetensors: tensor %s has a NaN", t->name);
            if (!strstr(said.text, words))
                fail_msg("said \"%s\", expected \"%s\"", said.text, words);
            memcpy(last, kept, kind ? 2 : 4);
            n_tried++;
        }
        safetensors_close(s);
        free(bytes);
    }
    assert_true(n_tried > 10);
    model_close(m);
}

/* --- kernels ---------------------------------------------------------------------------------- */

static const float bad_values[] = { NAN, INFINITY, -INFINITY };

static const struct kernels *table(unsigned i)
{
    const struct kernels *k = NULL;

    assert_int_equal(kernels_pick(kernels_name(i), &k), 0);
    return k;
}

/* The product of a tile and an activation row whose value `at` is bad. */
static void multiply(const struct kernels *k, enum quant type, const uint8_t *tile, uint32_t at,
                     float y[TILE_ROWS])
{
    float x[N_COLS];
    struct kernels_q8 q[N_COLS / 32];
    uint16_t half[N_COLS];
    struct kernels_matmul a = { .type = type,
                                .w = tile,
                                .tile_len = tile_len(type, N_COLS),
                                .n_rows = TILE_ROWS,
                                .n_cols = N_COLS,
                                .x = x,
                                .x_row_bytes = sizeof(x),
                                .n_x = 1,
                                .y = y,
                                .y_stride = TILE_ROWS,
                                .ahead = k->ahead };

    for (uint32_t c = 0; c < N_COLS; c++)
        x[c] = (float)(int)(c % 7) - 3;
    x[at] = bad_values[at % 3];
    if (k->form[type] == KERNELS_FORM_Q8) {
        k->quantise(x, N_COLS, q);
        a.x = q;
        a.x_row_bytes = sizeof(q);
    } else if (k->form[type] == KERNELS_FORM_BF16) {
        k->to_bf16(x, N_COLS, half);
        a.x = half;
        a.x_row_bytes = sizeof(half);
    }
    k->matmul[type](&a, 0, TILE_ROWS);
}

static void products_of(const struct kernels *k, enum quant type)
{
    size_t row_bytes = quant_row_bytes(type, N_COLS);
    uint8_t *rows = malloc(row_bytes * TILE_ROWS);
    uint8_t *tile = aligned_alloc(64, (tile_len(type, N_COLS) + 63) / 64 * 64);
    const void *lanes[TILE_ROWS];
    uint64_t seed = 9;

    gguf_build_values(type, N_COLS * TILE_ROWS, 0, 1, &seed, rows);
    for (uint32_t i = 0; i < TILE_ROWS; i++)
        lanes[i] = rows + i * row_bytes;
    tile_pack(type, lanes, N_COLS, tile);
    for (uint32_t at = 0; at < N_COLS; at += 13) {
        float y[TILE_ROWS] = { 0 };

        multiply(k, type, tile, at, y);
        for (uint32_t r = 0; r < TILE_ROWS; r++)
            if (isfinite(y[r]))
                fail_msg("%s, %s: value %u was lost", k->name, quant_info(type)->name, at);
    }
    free(rows);
    free(tile);
}

/* One bad activation in a row, by all weight types of all tables. */
static void products_keep_it(void **state)
{
    (void)state;
    for (unsigned t = 0; kernels_name(t); t++)
        for (int type = 0; type < QUANT__N; type++)
            products_of(table(t), (enum quant)type);
}

/* A sum of squares that overflows would scale everything to zero. */
static void norms_keep_it(void **state)
{
    static const float huge[] = { 1e30f, NAN, INFINITY };
    float x[N_COLS], w[N_COLS], y[N_COLS];

    (void)state;
    for (unsigned t = 0; kernels_name(t); t++) {
        for (uint32_t at = 0; at < N_COLS; at += 11) {
            for (uint32_t i = 0; i < N_COLS; i++)
                x[i] = w[i] = 1;
            x[at] = huge[at % 3];
            table(t)->rmsnorm(x, w, N_COLS, 1e-5f, y);
            for (uint32_t i = 0; i < N_COLS; i++)
                assert_false(isfinite(y[i]));
        }
    }
}

#define HD      64u
#define N_KEYS  40u
#define AT      21u /* the key that is bad */
#define N_PAGES 3u

/* Keys and values are numbers but for one element of one of them. */
static void fill(const struct kernels *k, enum kv_type kv, uint8_t *pool, bool in_key,
                 uint32_t element, float bad)
{
    size_t tile = kv_tile_bytes(kv, HD);

    memset(pool, 0, N_PAGES * 2 * tile);
    for (uint32_t j = 0; j < N_KEYS; j++) {
        uint8_t *page = pool + j / PAGE_TOKENS * 2 * tile;
        float key[HD], value[HD];

        for (uint32_t i = 0; i < HD; i++) {
            key[i] = (float)(int)((i + j) % 3) - 1;
            value[i] = (float)i;
        }
        if (j == AT)
            (in_key ? key : value)[element] = bad;
        k->kv_store[kv](key, value, HD, j % PAGE_TOKENS, page, page + tile);
    }
}

/* Row r sees the keys up to r: those from the bad one on know of it, the others are as they were.
 */
static void attend(const struct kernels *k, enum kv_type kv, const uint8_t *pool)
{
    static const uint32_t pages[] = { 0, 1, 2 };
    size_t tile = kv_tile_bytes(kv, HD);
    float q[N_KEYS * HD], m[N_KEYS], l[N_KEYS], o[N_KEYS * HD];
    struct kernels_attn a = { .q = q,
                              .n_rows = N_KEYS,
                              .group = 1,
                              .head_dim = HD,
                              .n_keys = N_KEYS,
                              .first_visible = 1,
                              .stride = 1,
                              .pool = pool,
                              .pages = pages,
                              .page_bytes = 2 * tile,
                              .v_off = tile,
                              .m = m,
                              .l = l,
                              .o = o };

    for (uint32_t i = 0; i < N_KEYS * HD; i++)
        q[i] = (float)(int)(i % 5) - 2;
    k->attn[kv](&a);
    for (uint32_t r = 0; r < N_KEYS; r++) {
        bool finite = isfinite(l[r]);

        for (uint32_t i = 0; i < HD; i++)
            finite &= isfinite(o[r * HD + i] / l[r]);
        if (finite != (r < AT))
            fail_msg("%s, kv %d, row %u: %s", k->name, (int)kv, r, finite ? "lost" : "spoiled");
    }
}

/* A token whose K or V is not a number, or none any more in f16 or in a scale of q8_0, among 40. */
static void attention_keeps_it(void **state)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY, 1e38f };

    (void)state;
    for (unsigned t = 0; kernels_name(t); t++) {
        for (enum kv_type kv = 0; kv < KV__N; kv++) {
            uint8_t *pool = aligned_alloc(64, (N_PAGES * 2 * kv_tile_bytes(kv, HD) + 63) / 64 * 64);

            for (uint32_t way = 0; way < 16; way++) {
                if (kv == KV_F32 && way % 4 == 3)
                    continue; /* it is a number there */
                fill(table(t), kv, pool, way & 4, way & 8 ? HD - 1 : 5, bad[way % 4]);
                attend(table(t), kv, pool);
            }
            free(pool);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_it_anywhere), cmocka_unit_test(takes_every_integer),
        cmocka_unit_test(refuses_matrices),  cmocka_unit_test(refuses_vectors),
        cmocka_unit_test(refuses_adapters),  cmocka_unit_test(products_keep_it),
        cmocka_unit_test(norms_keep_it),     cmocka_unit_test(attention_keeps_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
