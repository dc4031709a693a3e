/* Catches: a tensor in the wrong place, rows of q and k left in the file's order, a model that we
 * would compute wrongly and load all the same, a refusal that does not say why, a load that can't
 * be cancelled or leaks.
 *
 * What a tensor should hold is read from the file's own bytes at the record's offset, not through
 * the loader.
 */
#include "engine/file/gguf.h"
#include "engine/file/model.h"
#include "engine/file/tile.h"
#include "tests/support/gguf_build.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

static void assert_says(const struct why *why, const char *words)
{
    if (!strstr(why->text, words))
        fail_msg("said \"%s\", expected \"%s\" in it", why->text, words);
}

/* A model's file in memory beside the model that was loaded from it. */
struct both {
    struct model *m;
    struct gguf *g;
    uint8_t *file;
    size_t len;
};

/* Takes b. */
static struct both load(struct gguf_build *b)
{
    struct both t = { 0 };
    char path[SCRATCH_PATH_MAX];
    struct why why = { "" };

    t.file = gguf_build_bytes(b, &t.len, NULL);
    gguf_build_write(b, scratch_path(path, "model.gguf"));
    gguf_build_free(b);
    assert_int_equal(gguf_open_mem(t.file, t.len, "mem", &t.g, &why), 0);
    if (model_open(path, NULL, NULL, &t.m, &why) != 0)
        fail_msg("%s", why.text);
    return t;
}

static void unload(struct both *t)
{
    model_close(t->m);
    gguf_close(t->g);
    free(t->file);
}

static const uint8_t *bytes_of(const struct both *t, const char *name)
{
    const struct gguf_tensor *r = gguf_find_tensor(t->g, name);

    if (!r)
        fail_msg("no %s", name);
    return t->file + r->off;
}

/* The file has row r of the weight as this one: in the converter's order, by heads of hd (0: as
 * is). */
static uint32_t row_in_file(uint32_t r, uint32_t hd)
{
    return hd ? r / hd * hd + 2 * (r % (hd / 2)) + r % hd / (hd / 2) : r;
}

/* Rows of w are the file's. */
static void assert_rows(const struct both *t, const struct model_tensor *w, const char *name,
                        uint32_t rows, uint32_t cols, uint32_t hd)
{
    const uint8_t *in_file = bytes_of(t, name), *got = w->data;
    size_t row_bytes = quant_row_bytes(w->type, cols);
    float *a = malloc(cols * sizeof(*a)), *b = malloc(cols * sizeof(*b));

    assert_int_equal((uintptr_t)w->data % 64, 0);
    assert_int_equal(w->n_rows, rows);
    assert_int_equal(w->n_cols, cols);
    assert_int_equal(w->tile_len, tile_len(w->type, cols));
    assert_true(got >= (uint8_t *)t->m->mem);
    assert_true(got + tile_count(rows) * w->tile_len <= (uint8_t *)t->m->mem + t->m->mem_len);
    for (uint32_t r = 0; r < rows; r++) {
        quant_dequantise_row(w->type, in_file + row_in_file(r, hd) * row_bytes, cols, a);
        tile_dequantise_row(w->type, got, r, cols, b);
        for (uint32_t c = 0; c < cols; c++)
            assert_true(a[c] == b[c] || (isnan(a[c]) && isnan(b[c])));
    }
    free(a);
    free(b);
}

static void assert_vector(const struct both *t, const float *v, const char *name, uint32_t n,
                          uint32_t hd)
{
    const uint8_t *in_file = bytes_of(t, name);

    for (uint32_t i = 0; i < n; i++)
        assert_memory_equal(v + i, in_file + row_in_file(i, hd) * sizeof(float), sizeof(float));
}

static void assert_layers(const struct both *t, const struct gguf_build_shape *s)
{
    uint32_t q = s->n_head * s->head_dim, kv = s->n_head_kv * s->head_dim;
    uint32_t hd = t->m->arch == MODEL_LLAMA ? s->head_dim : 0;

    for (uint32_t i = 0; i < s->n_layer; i++) {
        const struct model_layer *l = &t->m->layers[i];
        char name[64];

#define NAME(what) (snprintf(name, sizeof(name), "blk.%u." what, i), name)
        assert_vector(t, l->attn_norm, NAME("attn_norm.weight"), s->n_embd, 0);
        assert_vector(t, l->ffn_norm, NAME("ffn_norm.weight"), s->n_embd, 0);
        assert_rows(t, &l->wq, NAME("attn_q.weight"), q, s->n_embd, hd);
        assert_rows(t, &l->wk, NAME("attn_k.weight"), kv, s->n_embd, hd);
        assert_rows(t, &l->wv, NAME("attn_v.weight"), kv, s->n_embd, 0);
        assert_rows(t, &l->wo, NAME("attn_output.weight"), s->n_embd, q, 0);
        assert_rows(t, &l->w_gate, NAME("ffn_gate.weight"), s->n_ff, s->n_embd, 0);
        assert_rows(t, &l->w_up, NAME("ffn_up.weight"), s->n_ff, s->n_embd, 0);
        assert_rows(t, &l->w_down, NAME("ffn_down.weight"), s->n_embd, s->n_ff, 0);
        assert_int_equal(l->wq.type, s->attn);
        assert_int_equal(l->w_down.type, s->ffn);
        if (s->biases) {
            assert_vector(t, l->bq, NAME("attn_q.bias"), q, hd);
            assert_vector(t, l->bk, NAME("attn_k.bias"), kv, hd);
            assert_vector(t, l->bv, NAME("attn_v.bias"), kv, 0);
        } else {
            assert_null(l->bq);
            assert_null(l->bk);
            assert_null(l->bv);
        }
#undef NAME
    }
}

static void assert_model(const struct gguf_build_shape *s)
{
    struct both t = load(gguf_build_model(s));
    XXH128_canonical_t digest;
    char hex[33];

    assert_int_equal(t.m->arch, strcmp(s->arch, "llama") == 0 ? MODEL_LLAMA : MODEL_QWEN2);
    assert_string_equal(t.m->name, "Tiny random");
    assert_int_equal(t.m->n_layer, s->n_layer);
    assert_int_equal(t.m->n_embd, s->n_embd);
    assert_int_equal(t.m->n_ff, s->n_ff);
    assert_int_equal(t.m->n_vocab, s->n_vocab);
    assert_int_equal(t.m->n_head, s->n_head);
    assert_int_equal(t.m->n_head_kv, s->n_head_kv);
    assert_int_equal(t.m->head_dim, s->head_dim);
    assert_int_equal(t.m->n_ctx_train, s->n_ctx);
    assert_true(t.m->rms_eps == s->rms_eps);
    assert_true(t.m->rope_base == (double)s->rope_base);

    assert_layers(&t, s);
    assert_vector(&t, t.m->output_norm, "output_norm.weight", s->n_embd, 0);
    assert_rows(&t, &t.m->embd, "token_embd.weight", s->n_vocab, s->n_embd, 0);
    if (s->tied)
        assert_ptr_equal(t.m->output.data, t.m->embd.data);
    else
        assert_rows(&t, &t.m->output, "output.weight", s->n_vocab, s->n_embd, 0);

    XXH128_canonicalFromHash(&digest, XXH3_128bits(t.file, t.len));
    for (int i = 0; i < 16; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest.digest[i]);
    assert_string_equal(t.m->digest, hex);
    assert_true(t.m->weights_len > 0 && t.m->weights_len <= t.m->mem_len);
    assert_non_null(t.m->file);
    unload(&t);
}

static void test_every_type(void **state)
{
    (void)state;
    for (int type = 0; type < QUANT__N; type++) {
        struct gguf_build_shape s = gguf_build_tiny();

        s.n_embd = 256;
        s.n_ff = 512;
        s.n_head = 8;
        s.n_head_kv = 2;
        s.head_dim = 32;
        s.attn = (enum quant)type;
        s.ffn = (enum quant)((type + 1) % QUANT__N);
        s.embd = (enum quant)((type + 2) % QUANT__N);
        s.tied = type % 2;
        assert_model(&s);
    }
}

static void test_both_archs(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        struct gguf_build_shape s = gguf_build_tiny();

        s.arch = i & 1 ? "qwen2" : "llama";
        s.biases = i & 1 || i & 2; /* a qwen2 always has them */
        s.tied = i & 4;
        s.key_length = i & 2;
        if (i & 4) { /* heads wider than n_embd / n_head */
            s.head_dim = 40;
            s.key_length = true;
        }
        assert_model(&s);
    }
}

/* One KV head for each query head when the file does not say. */
static void test_defaults(void **state)
{
    struct gguf_build_shape s = gguf_build_tiny();
    struct gguf_build *b;
    struct both t;

    (void)state;
    s.n_head_kv = s.n_head;
    s.rope_base = 10000;
    b = gguf_build_model(&s);
    gguf_build_drop(b, "llama.attention.head_count_kv");
    gguf_build_drop(b, "llama.rope.dimension_count");
    gguf_build_drop(b, "llama.rope.freq_base");
    gguf_build_drop(b, "llama.vocab_size");
    gguf_build_drop(b, "general.name");
    gguf_build_u32(b, "llama.expert_count", 0);               /* says nothing */
    gguf_build_u32(b, "llama.attention.sliding_window", 512); /* as long as the context */
    gguf_build_f32(b, "llama.attention.scale", 0.25f);        /* 1 / sqrt(16) */
    t = load(b);
    assert_int_equal(t.m->n_head_kv, s.n_head);
    assert_true(t.m->rope_base == 10000.0);
    assert_string_equal(t.m->name, "model.gguf");
    unload(&t);
}

static void test_name_is_text(void **state)
{
    static const struct {
        const char *in, *out;
    } names[] = {
        { "Caf\xc3\xa9 \xf0\x9f\x98\x80", "Caf\xc3\xa9 \xf0\x9f\x98\x80" },
        { "a\x1b[31mb\n\x7f", "a?[31mb??" },
        { "bad \xff\xc3", "bad ??" },
    };
    char longest[200], *cut;
    struct both t;

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct gguf_build_shape s = gguf_build_tiny();
        struct gguf_build *b = gguf_build_model(&s);

        gguf_build_str(b, "general.name", names[i].in);
        t = load(b);
        assert_string_equal(t.m->name, names[i].out);
        unload(&t);
    }
    struct gguf_build_shape s = gguf_build_tiny();
    struct gguf_build *b = gguf_build_model(&s);
    cut = longest;
    *cut++ = 'x';
    for (int i = 0; i < 66; i++, cut += 2)
        memcpy(cut, "\xc3\xa9", 2);
    *cut = '\0';
    gguf_build_str(b, "general.name", longest);
    t = load(b);
    assert_int_equal(strlen(t.m->name), 127); /* no half character at the end */
    assert_memory_equal(t.m->name, longest, 127);
    unload(&t);
}

/* Norms and biases of 16 bits become floats, q's bias in the right order. */
static void test_narrow_vectors(void **state)
{
    struct gguf_build_shape s = gguf_build_tiny();
    struct gguf_build *b;
    uint64_t n_embd = s.n_embd, n_q = s.n_head * s.head_dim;
    const uint8_t *norm, *bias;
    struct both t;

    (void)state;
    s.biases = true;
    b = gguf_build_model(&s);
    gguf_build_random(b, "blk.0.attn_norm.weight", QUANT_F16, 1, &n_embd, 1, 0.1f, 5);
    gguf_build_random(b, "blk.1.attn_q.bias", QUANT_BF16, 1, &n_q, 0, 0.1f, 6);
    t = load(b);
    norm = bytes_of(&t, "blk.0.attn_norm.weight");
    bias = bytes_of(&t, "blk.1.attn_q.bias");
    for (uint32_t i = 0; i < n_embd; i++)
        assert_true(t.m->layers[0].attn_norm[i] ==
                    quant_f16_to_f32((uint16_t)(norm[2 * i] | norm[2 * i + 1] << 8)));
    for (uint32_t i = 0; i < n_q; i++) {
        uint32_t from = i / 16 * 16 + 2 * (i % 8) + i % 16 / 8;
        uint32_t bits = (uint32_t)(bias[2 * from] | bias[2 * from + 1] << 8) << 16;

        assert_memory_equal(&t.m->layers[1].bq[i], &bits, 4);
    }
    unload(&t);
}

static void assert_rope(struct gguf_build *b, double base, double scale, const float *factors)
{
    struct both t = load(b);
    uint32_t hd = t.m->head_dim;

    for (uint32_t i = 0; i < hd / 2; i++) {
        double f = 1 / (pow(base, 2.0 * i / hd) * scale * (factors ? (double)factors[i] : 1));

        assert_true(fabs((double)t.m->rope_freq[i] / f - 1) < 1e-7);
    }
    unload(&t);
}

static void test_rope(void **state)
{
    struct gguf_build_shape s = gguf_build_tiny();
    struct gguf_build *b;
    float factors[8];
    struct both t;

    (void)state;
    s.rope_base = 500000;
    assert_rope(gguf_build_model(&s), 500000, 1, NULL);
    b = gguf_build_model(&s);
    gguf_build_str(b, "llama.rope.scaling.type", "linear");
    gguf_build_f32(b, "llama.rope.scaling.factor", 4);
    assert_rope(b, 500000, 4, NULL);
    b = gguf_build_model(&s);
    gguf_build_f32(b, "llama.rope.scale_linear", 2);
    assert_rope(b, 500000, 2, NULL);
    b = gguf_build_model(&s);
    gguf_build_str(b, "llama.rope.scaling.type", "none");
    gguf_build_f32(b, "llama.rope.scaling.factor", 4);
    assert_rope(b, 500000, 1, NULL);

    s.rope_freqs = true;
    t = load(gguf_build_model(&s));
    memcpy(factors, bytes_of(&t, "rope_freqs.weight"), sizeof(factors));
    assert_true(factors[0] == 1 && factors[7] == 8); /* the test's own sense: a ramp is there */
    unload(&t);
    assert_rope(gguf_build_model(&s), 500000, 1, factors);
}

/* --- refusals --------------------------------------------------------------------------------- */

/* Takes b. Through both doors: model_open and model_check. */
static void expect_refused(struct gguf_build *b, int e, const char *words)
{
    char path[SCRATCH_PATH_MAX];
    struct why why = { "" }, check = { "" };
    struct model *m = NULL;
    struct gguf *g;

    gguf_build_write(b, scratch_path(path, "refused.gguf"));
    gguf_build_free(b);
    assert_int_equal(model_open(path, NULL, NULL, &m, &why), e);
    assert_null(m);
    assert_says(&why, "refused.gguf: ");
    assert_says(&why, words);
    assert_int_equal(gguf_open(path, &g, &check), 0);
    assert_int_equal(model_check(g, &check), e);
    assert_string_equal(check.text, why.text);
    gguf_close(g);
}

static struct gguf_build *tiny(void)
{
    struct gguf_build_shape s = gguf_build_tiny();

    return gguf_build_model(&s);
}

static struct gguf_build *without(const char *key)
{
    struct gguf_build *b = tiny();

    gguf_build_drop(b, key);
    return b;
}

static struct gguf_build *with_u32(const char *key, uint32_t v)
{
    struct gguf_build *b = tiny();

    gguf_build_u32(b, key, v);
    return b;
}

static struct gguf_build *with_f32(const char *key, float v)
{
    struct gguf_build *b = tiny();

    gguf_build_f32(b, key, v);
    return b;
}

static struct gguf_build *with_str(const char *key, const char *v)
{
    struct gguf_build *b = tiny();

    gguf_build_str(b, key, v);
    return b;
}

static void test_refused_arch(void **state)
{
    (void)state;
    expect_refused(with_str("general.architecture", "gemma3"), -ENOTSUP,
                   "architecture \"gemma3\", supported: llama, qwen2");
    expect_refused(with_str("general.architecture", "llama4"), -ENOTSUP, "\"llama4\"");
    expect_refused(without("general.architecture"), -EINVAL, "general.architecture is missing");
    expect_refused(with_u32("general.architecture", 1), -EINVAL, "expected a string");
    expect_refused(with_u32("split.count", 3), -ENOTSUP, "one of 3 parts of a split model");
}

static void test_refused_sizes(void **state)
{
    static const char *const needed[] = {
        "llama.block_count",          "llama.context_length",
        "llama.embedding_length",     "llama.feed_forward_length",
        "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon",
    };
    struct gguf_build *b;
    int32_t heads[2] = { 4, 4 };
    char words[128];

    (void)state;
    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
        snprintf(words, sizeof(words), "key %s is missing", needed[i]);
        expect_refused(without(needed[i]), -EINVAL, words);
        snprintf(words, sizeof(words), "%s is not a", needed[i]);
        expect_refused(with_str(needed[i], "many"), -EINVAL, words);
    }
    for (size_t i = 0; i + 1 < sizeof(needed) / sizeof(needed[0]); i++) {
        snprintf(words, sizeof(words), "%s is 0, expected 1 to", needed[i]);
        expect_refused(with_u32(needed[i], 0), -EINVAL, words);
        snprintf(words, sizeof(words), "%s is 4294967295, expected 1 to", needed[i]);
        expect_refused(with_u32(needed[i], UINT32_MAX), -EINVAL, words);
    }
    b = tiny();
    gguf_build_i32_array(b, "llama.attention.head_count_kv", heads, 2);
    expect_refused(b, -EINVAL, "llama.attention.head_count_kv is not an integer of 32 bits");
    expect_refused(with_u32("llama.attention.head_count_kv", 3), -EINVAL,
                   "4 query heads and 3 KV heads, expected a multiple");
    expect_refused(with_u32("llama.embedding_length", 65), -ENOTSUP,
                   "llama.embedding_length is 65, supported: multiples of 32");
    expect_refused(with_u32("llama.feed_forward_length", 100), -ENOTSUP, "multiples of 32");
    expect_refused(with_u32("llama.block_count", 1000), -EINVAL, "1000 layers, but only ");
    expect_refused(with_u32("llama.block_count", 3), -EINVAL,
                   "tensor blk.2.attn_q.weight is missing");
    expect_refused(with_u32("llama.block_count", 1), -ENOTSUP, "tensor \"blk.1.");
}

static void test_refused_heads(void **state)
{
    struct gguf_build *b = with_u32("llama.attention.key_length", 32);

    (void)state;
    gguf_build_u32(b, "llama.rope.dimension_count", 32);
    expect_refused(b, -ENOTSUP, "keys of 32 and values of 16 a head, supported: equal lengths");
    expect_refused(with_u32("llama.rope.dimension_count", 8), -ENOTSUP,
                   "rope.dimension_count is 8, supported: the whole head of 16");
    b = with_u32("llama.attention.head_count", 16);
    gguf_build_u32(b, "llama.rope.dimension_count", 4);
    expect_refused(b, -ENOTSUP, "the head's size is 4, supported: multiples of 8");
    b = with_u32("llama.attention.key_length", 264);
    expect_refused(b, -EINVAL, "llama.attention.key_length is 264, expected 1 to 256");
    b = with_u32("llama.attention.head_count", 128); /* more heads than columns */
    expect_refused(b, -EINVAL, "128 heads for 64 values, expected fewer");
    b = with_u32("llama.embedding_length", 4096); /* 4 heads of 1024 */
    expect_refused(b, -ENOTSUP, "heads of 1024 values, supported: up to 256");
}

static void test_refused_numbers(void **state)
{
    static const float bad[] = { 0, -1, NAN, INFINITY, -INFINITY };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        expect_refused(with_f32("llama.attention.layer_norm_rms_epsilon", bad[i]), -EINVAL,
                       "expected more than 0 and at most 1");
        expect_refused(with_f32("llama.rope.freq_base", bad[i]), -EINVAL, "expected more than 0");
    }
    expect_refused(with_u32("llama.rope.freq_base", 10000), -EINVAL, "is not a float");
    expect_refused(with_str("llama.rope.scaling.type", "yarn"), -ENOTSUP,
                   "llama.rope.scaling.type is \"yarn\", supported: none, linear");
    expect_refused(with_u32("llama.rope.scaling.type", 1), -EINVAL, "is not a string");
    expect_refused(with_f32("llama.rope.scaling.factor", -2), -EINVAL, "factor is -2, expected 0");
    expect_refused(with_f32("llama.rope.scaling.factor", NAN), -EINVAL, "expected 0 (none) or");
    expect_refused(with_str("llama.rope.scaling.factor", "8"), -EINVAL, "expected 0 (none) or");
}

static void test_refused_computations(void **state)
{
    static const struct {
        const char *key;
        float v; /* as a float and, when whole, as an integer */
    } others[] = {
        { "expert_count", 8 },
        { "expert_used_count", 2 },
        { "nextn_predict_layers", 1 },
        { "use_parallel_residual", 1 },
        { "pooling_type", 1 },
        { "logit_scale", 0.5f },
        { "embedding_scale", 12 },
        { "residual_scale", 0.22f },
        { "attn_logit_softcapping", 50 },
        { "final_logit_softcapping", 30 },
        { "attention.causal", 0 },
        { "attention.max_alibi_bias", 8 },
        { "attention.clamp_kqv", 6 },
        { "attention.scale", 0.125f },
        { "attention.sliding_window", 256 },
        { "rope.scaling.attn_factor", 2 },
    };
    struct gguf_build *b;
    int32_t window[2] = { 1, 0 };

    (void)state;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        char key[96], words[160];

        snprintf(key, sizeof(key), "llama.%s", others[i].key);
        snprintf(words, sizeof(words), "%s is %g, supported: ", key, (double)others[i].v);
        expect_refused(with_f32(key, others[i].v), -ENOTSUP, words);
        if (others[i].v == floorf(others[i].v))
            expect_refused(with_u32(key, (uint32_t)others[i].v), -ENOTSUP, words);
    }
    b = tiny();
    gguf_build_bool(b, "llama.attention.causal", false);
    expect_refused(b, -ENOTSUP, "llama.attention.causal is 0, supported: 1");
    b = tiny();
    gguf_build_i32_array(b, "llama.attention.sliding_window", window, 2);
    expect_refused(b, -ENOTSUP, "llama.attention.sliding_window is nan, supported: 0");
    expect_refused(with_str("llama.expert_count", "8"), -ENOTSUP, "is not a single number");
}

static struct gguf_build *with_tensor(const char *name, enum quant type, uint64_t cols,
                                      uint64_t rows)
{
    struct gguf_build *b = tiny();
    uint64_t dims[2] = { cols, rows };

    gguf_build_tensor(b, name, type, 2, dims, NULL);
    return b;
}

static void test_refused_tensors(void **state)
{
    static const char *const others[] = {
        "blk.0.attn_q_norm.weight",
        "blk.1.attn_output.bias",
        "blk.0.ffn_gate_inp.weight",
        "blk.0.ffn_up_exps.weight",
        "blk.0.post_ffw_norm.weight",
        "output.bias",
        "rope_factors_long.weight",
        "position_embd.weight",
        "blk.2.attn_q.weight",
        "blk.0.attn_norm.bias",
        "token_embd.bias",
    };
    static const char *const needed[] = {
        "token_embd.weight",     "output_norm.weight",    "blk.0.attn_norm.weight",
        "blk.1.ffn_norm.weight", "blk.1.ffn_down.weight", "blk.0.attn_output.weight",
    };
    char words[128];
    struct gguf_build *b;

    (void)state;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        snprintf(words, sizeof(words), "tensor \"%s\" belongs to no model", others[i]);
        expect_refused(with_tensor(others[i], QUANT_F32, 64, 1), -ENOTSUP, words);
    }
    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
        b = tiny();
        gguf_build_drop_tensor(b, needed[i]);
        snprintf(words, sizeof(words), "tensor %s is missing", needed[i]);
        expect_refused(b, -EINVAL, words);
    }
    expect_refused(with_tensor("blk.0.attn_q.weight", QUANT_F32, 64, 32), -EINVAL,
                   "tensor blk.0.attn_q.weight is 64 x 32 x 1 x 1, expected 64 x 64");
    expect_refused(with_tensor("blk.0.attn_k.weight", QUANT_F32, 32, 64), -EINVAL,
                   "expected 64 x 32");
    expect_refused(with_tensor("output.weight", QUANT_F32, 64, 271), -EINVAL, "expected 64 x 272");
    expect_refused(with_tensor("rope_freqs.weight", QUANT_F32, 16, 1), -EINVAL, "expected 8 x 1");
    expect_refused(with_tensor("blk.0.attn_norm.weight", QUANT_Q8_0, 64, 1), -ENOTSUP,
                   "has type Q8_0, supported: F32, F16, BF16");
    b = tiny();
    gguf_build_tensor_type(b, "blk.0.ffn_up.weight", 11);
    expect_refused(b, -ENOTSUP,
                   "tensor blk.0.ffn_up.weight has type Q3_K (11), supported: F32, F16, BF16, "
                   "Q4_0, Q4_1, Q8_0, Q4_K, Q6_K, Q5_0, Q5_1, Q5_K");
}

static void test_refused_vocab(void **state)
{
    static const char *const three[] = { "a", "b", "c" };
    struct gguf_build *b = tiny();

    (void)state;
    gguf_build_str_array(b, "tokenizer.ggml.tokens", three, 3);
    expect_refused(b, -EINVAL,
                   "tokenizer.ggml.tokens has 3 entries, expected one for each of "
                   "token_embd.weight's 272 rows");
}

static void test_refused_qwen2(void **state)
{
    struct gguf_build_shape s = gguf_build_tiny();
    struct gguf_build *b;
    uint64_t half = 8;

    (void)state;
    s.arch = "qwen2";
    expect_refused(gguf_build_model(&s), -EINVAL, "tensor blk.0.attn_q.bias is missing");
    s.biases = true;
    b = gguf_build_model(&s);
    gguf_build_tensor(b, "rope_freqs.weight", QUANT_F32, 1, &half, NULL);
    expect_refused(b, -ENOTSUP, "tensor \"rope_freqs.weight\"");
}

/* Values that are read only with the weights. */
static void test_refused_rope_factors(void **state)
{
    static const float bad[] = { 0, -1, NAN, INFINITY };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        float factors[8] = { 1, 1, 1, bad[i], 8, 8, 8, 8 };
        struct gguf_build *b = tiny();
        char path[SCRATCH_PATH_MAX];
        struct why why = { "" };
        struct model *m = NULL;
        uint64_t half = 8;

        gguf_build_tensor(b, "rope_freqs.weight", QUANT_F32, 1, &half, factors);
        gguf_build_write(b, scratch_path(path, "factors.gguf"));
        gguf_build_free(b);
        assert_int_equal(model_open(path, NULL, NULL, &m, &why), -EINVAL);
        assert_null(m);
        assert_says(&why, isfinite(bad[i]) ? "at 3, expected factors above 0"
                                           : "has a NaN or an infinity in element 3");
    }
}

/* --- loading ---------------------------------------------------------------------------------- */

struct watch {
    const char *path;
    uint64_t last, all;
    int calls, stop_at; /* stop_at: the call that cancels; 0: none */
    uint64_t cut;       /* the first call cuts the file to this; 0: not */
};

static int watch(void *arg, uint64_t done, uint64_t all)
{
    struct watch *w = arg;

    assert_true(done > w->last && done <= all);
    w->last = done;
    w->all = all;
    if (++w->calls == 1 && w->cut)
        assert_int_equal(truncate(w->path, (off_t)w->cut), 0);
    return w->calls == w->stop_at;
}

static int open_watched(struct watch *w, struct model **ret, struct why *why)
{
    struct model_progress progress = { watch, w };

    *ret = NULL;
    return model_open(w->path, NULL, &progress, ret, why);
}

/* 10 MB in tensors of a few: reads of several megabytes. */
static struct gguf_build *several_megabytes(void)
{
    struct gguf_build_shape s = gguf_build_tiny();

    s.n_embd = 512;
    s.n_ff = 1024;
    s.head_dim = 128;
    return gguf_build_model(&s);
}

static void test_progress(void **state)
{
    struct gguf_build *b = several_megabytes();
    char path[SCRATCH_PATH_MAX];
    struct watch w = { .path = scratch_path(path, "watched.gguf") };
    struct why why = { "" };
    struct model *m;
    int calls;

    (void)state;
    gguf_build_write(b, path);
    gguf_build_free(b);
    assert_int_equal(open_watched(&w, &m, &why), 0);
    assert_int_equal(w.last, w.all);
    assert_int_equal(w.all, gguf_len(m->file));
    model_close(m);
    calls = w.calls;
    assert_true(calls > 10);
    for (int stop = 1; stop <= calls; stop++) {
        w = (struct watch){ .path = path, .stop_at = stop };
        why.text[0] = '\0';
        assert_int_equal(open_watched(&w, &m, &why), -ECANCELED);
        assert_null(m);
        assert_says(&why, "watched.gguf: loading was cancelled at byte ");
    }
}

/* The file shrinks while it is read: an error, where a mapping would have been a SIGBUS. */
static void test_cut_while_loading(void **state)
{
    struct gguf_build *b = several_megabytes();
    char path[SCRATCH_PATH_MAX];
    struct why why = { "" };
    struct watch w = { .path = scratch_path(path, "shrinks.gguf"), .cut = 2 << 20 };
    struct model *m;

    (void)state;
    gguf_build_write(b, path);
    gguf_build_free(b);
    assert_int_equal(open_watched(&w, &m, &why), -EINVAL);
    assert_null(m);
    assert_says(&why, "shrinks.gguf: now ends at byte 2097152; it had ");
}

static void test_cut_file(void **state)
{
    struct gguf_build *b = tiny();
    char path[SCRATCH_PATH_MAX];
    size_t len;
    void *data = gguf_build_bytes(b, &len, NULL);

    (void)state;
    gguf_build_write(b, scratch_path(path, "cut.gguf"));
    for (size_t n = len - 1; n > 0; n = n * 7 / 8) {
        struct why why = { "" };
        struct model *m = NULL;

        assert_int_equal(truncate(path, (off_t)n), 0);
        assert_int_equal(model_open(path, NULL, NULL, &m, &why), -EINVAL);
        assert_null(m);
        assert_says(&why, "cut.gguf: ");
    }
    free(data);
    gguf_build_free(b);
}

/* --- sizes of real models --------------------------------------------------------------------- */

/* All of a model of gigabytes but its weights, which are a hole. */
static void assert_large(const struct gguf_build_shape *s, uint64_t at_least)
{
    struct gguf_build *b = gguf_build_model(s);
    char path[SCRATCH_PATH_MAX];
    struct watch w = { .path = scratch_path(path, "large.gguf"), .stop_at = 1 };
    struct why why = { "" };
    const struct gguf_tensor *last;
    struct model *m;
    struct gguf *g;

    gguf_build_write(b, path);
    gguf_build_free(b);
    assert_int_equal(gguf_open(path, &g, &why), 0);
    assert_int_equal(model_check(g, &why), 0);
    last = gguf_find_tensor(g, s->tied ? "output_norm.weight" : "output.weight");
    assert_true(last->off > at_least);
    assert_true(last->off + last->len == gguf_len(g));
    gguf_close(g);
    /* The arena is there, and the first megabyte is read, when the load is cancelled. */
    assert_int_equal(open_watched(&w, &m, &why), -ECANCELED);
    assert_true(w.all > at_least);
    assert_int_equal(truncate(path, (off_t)at_least), 0);
    why.text[0] = '\0';
    assert_int_equal(gguf_open(path, &g, &why), -EINVAL);
    assert_says(&why, "cut short or damaged");
    assert_int_equal(unlink(path), 0);
}

static void test_llama_8b(void **state)
{
    struct gguf_build_shape s = {
        .arch = "llama",
        .n_layer = 32,
        .n_embd = 4096,
        .n_ff = 14336,
        .n_head = 32,
        .n_head_kv = 8,
        .head_dim = 128,
        .n_ctx = 131072,
        .n_vocab = 128256,
        .embd = QUANT_Q6_K,
        .attn = QUANT_Q4_K,
        .ffn = QUANT_Q4_K,
        .rope_freqs = true,
        .rope_base = 500000,
        .rms_eps = 1e-5f,
        .sparse = true,
    };

    (void)state;
    assert_large(&s, (uint64_t)4 << 30);
}

static void test_qwen2_7b(void **state)
{
    struct gguf_build_shape s = {
        .arch = "qwen2",
        .n_layer = 28,
        .n_embd = 3584,
        .n_ff = 18944,
        .n_head = 28,
        .n_head_kv = 4,
        .head_dim = 128,
        .n_ctx = 32768,
        .n_vocab = 152064,
        .embd = QUANT_Q8_0,
        .attn = QUANT_Q8_0,
        .ffn = QUANT_Q8_0,
        .biases = true,
        .rope_base = 1e6f,
        .rms_eps = 1e-6f,
        .sparse = true,
    };

    (void)state;
    assert_large(&s, (uint64_t)7 << 30);
}

/* --- a file that nobody here made ------------------------------------------------------------- */

static void test_default_model(void **state)
{
    const char *path = getenv("GISTD_TEST_MODEL");
    struct why why = { "" };
    struct model *m;

    (void)state;
    if (!path) {
        print_message("GISTD_TEST_MODEL is not set\n");
        skip();
    }
    if (model_open(path, NULL, NULL, &m, &why) != 0)
        fail_msg("%s", why.text);
    assert_int_equal(m->arch, MODEL_LLAMA);
    assert_int_equal(m->n_layer, 30);
    assert_int_equal(m->n_embd, 576);
    assert_int_equal(m->n_ff, 1536);
    assert_int_equal(m->n_vocab, 49152);
    assert_int_equal(m->n_head, 9);
    assert_int_equal(m->n_head_kv, 3);
    assert_int_equal(m->head_dim, 64);
    assert_int_equal(m->n_ctx_train, 8192);
    assert_true(m->rope_base == 100000.0);
    assert_int_equal(m->embd.type, QUANT_Q8_0);
    assert_int_equal(m->layers[0].wq.type, QUANT_Q4_1);
    assert_ptr_equal(m->output.data, m->embd.data);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type),
        cmocka_unit_test(test_both_archs),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_name_is_text),
        cmocka_unit_test(test_narrow_vectors),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_refused_arch),
        cmocka_unit_test(test_refused_sizes),
        cmocka_unit_test(test_refused_heads),
        cmocka_unit_test(test_refused_numbers),
        cmocka_unit_test(test_refused_computations),
        cmocka_unit_test(test_refused_tensors),
        cmocka_unit_test(test_refused_vocab),
        cmocka_unit_test(test_refused_qwen2),
        cmocka_unit_test(test_refused_rope_factors),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_cut_while_loading),
        cmocka_unit_test(test_cut_file),
        cmocka_unit_test(test_llama_8b),
        cmocka_unit_test(test_qwen2_7b),
        cmocka_unit_test(test_default_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
