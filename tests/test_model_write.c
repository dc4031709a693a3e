/* tests/test_model_write.c - a base model as it is written when it was trained. Would catch: a
 * weight that comes back as another one, rows of q and k in another order, metadata or a tensor
 * that is not trained lost on the way, a digest that is not the file's, a file that is left behind
 * when it could not be written, one that is called written and whose name may not outlive a power
 * cut.
 */
#include "engine/file/gguf.h"
#include "tests/support/fault_life.h"
#include "tests/support/near.h"
#include "tests/support/scratch.h"
#include "train/file/model_write.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const models[] = { "llama31", "smollm2", "qwen2", "qwen2_untied" };

/* A base whose weights are no longer those of the file. */
struct trained {
    struct model *model;
    struct base base;
    struct optim params;
};

static void train_open(struct trained *t, const char *name)
{
    char path[128];
    struct why why = { "" };

    *t = (struct trained){ 0 };
    snprintf(path, sizeof(path), "tests/data/tiny_%s.gguf", name);
    if (model_open(path, NULL, NULL, &t->model, &why) < 0)
        fail_msg("%s", why.text);
    assert_int_equal(base_open(&t->base, NULL, t->model, TENSORS_F32, 64), 0);
    assert_int_equal(base_train(&t->base, &t->params), 0);
    for (uint32_t i = 0; i < t->params.n; i++)
        for (size_t k = 0; k < t->params.t[i].n; k++)
            t->params.t[i].p[k] += 0.01f * (float)cos((double)k + i);
    base_refresh(&t->base);
}

static void train_close(struct trained *t)
{
    base_close(&t->base);
    optim_fini(&t->params);
    model_close(t->model);
}

/* To half precision: 11 bits. */
static void same(const char *what, const float *x, const float *expected, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!near_within((double)x[i], (double)expected[i],
                         fabs((double)expected[i]) / 2048 + 1e-7))
            fail_msg("%s: value %zu is %g, expected %g", what, i, x[i], expected[i]);
}

static void same_base(const struct base *b, const struct base *expected)
{
    uint32_t n_embd = b->m->n_embd;
    size_t n_embds = (size_t)b->m->n_vocab * n_embd;

    same("embd", b->embd, expected->embd, n_embds);
    same("output", b->output, expected->output, n_embds);
    same("output_norm", b->output_norm, expected->output_norm, n_embd);
    for (uint32_t i = 0; i < b->m->n_layer; i++) {
        const struct base_layer *l = &b->layers[i], *e = &expected->layers[i];

        for (enum base_matrix w = 0; w < BASE_MATRIX__N; w++)
            same("a matrix", l->w[w], e->w[w], (size_t)base_n_out(b, w) * base_n_in(b, w));
        same("attn_norm", l->attn_norm, e->attn_norm, n_embd);
        same("ffn_norm", l->ffn_norm, e->ffn_norm, n_embd);
        assert_true(!l->bias == !e->bias);
        if (l->bias)
            same("bias", l->bias, e->bias, b->n_qkv);
    }
}

static void same_metadata(const struct model *m, const struct model *expected)
{
    struct gguf_array tokens, wanted;
    uint32_t type;

    assert_string_equal(m->name, expected->name);
    assert_int_equal(m->n_ctx_train, expected->n_ctx_train);
    assert_int_equal(m->head_dim, expected->head_dim);
    for (uint32_t i = 0; i < m->head_dim / 2; i++)
        assert_true(m->rope_freq[i] == expected->rope_freq[i]);
    assert_int_equal(gguf_n_tensors(m->file), gguf_n_tensors(expected->file));
    if (gguf_get_u32(expected->file, "general.file_type", &type) == 0) {
        assert_int_equal(gguf_get_u32(m->file, "general.file_type", &type), 0);
        assert_int_equal(type, 1);
    }
    if (gguf_get_array(expected->file, "tokenizer.ggml.tokens", &wanted) < 0)
        return;
    assert_int_equal(gguf_get_array(m->file, "tokenizer.ggml.tokens", &tokens), 0);
    assert_int_equal(tokens.n, wanted.n);
}

static void reads_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(models) / sizeof(*models); i++) {
        char path[SCRATCH_PATH_MAX], digest[33];
        struct why why = { "" };
        struct trained t;
        struct model *m;
        struct base b;

        train_open(&t, models[i]);
        if (model_write(scratch_path(path, "trained.gguf"), &t.base, digest, &why) < 0 ||
            model_open(path, NULL, NULL, &m, &why) < 0)
            fail_msg("%s: %s", models[i], why.text);
        assert_string_equal(m->digest, digest);
        assert_string_not_equal(m->digest, t.model->digest);
        assert_int_equal(base_open(&b, NULL, m, TENSORS_F32, 64), 0);
        same_base(&b, &t.base);
        same_metadata(m, t.model);
        base_close(&b);
        model_close(m);
        train_close(&t);
    }
}

static void refuses_what_f16_lacks(void **state)
{
    char path[SCRATCH_PATH_MAX], digest[33];
    struct why why = { "" };
    struct trained t;

    (void)state;
    train_open(&t, "smollm2");
    for (uint32_t i = 0; i < t.params.n; i++)
        if (t.params.t[i].p == t.base.layers[1].p[BASE_DOWN])
            t.params.t[i].p[5] = 1e6f;
    assert_int_equal(model_write(scratch_path(path, "large.gguf"), &t.base, digest, &why), -EINVAL);
    assert_non_null(strstr(why.text, "blk.1.ffn_down.weight"));
    assert_int_not_equal(access(path, F_OK), 0);
    why.text[0] = '\0';
    assert_int_equal(model_write("/nowhere/large.gguf", &t.base, digest, &why), -ENOENT);
    assert_non_null(strstr(why.text, "/nowhere/large.gguf"));
    train_close(&t);
}

struct written {
    const struct base *base;
    unsigned n_unsynced; /* times that the file was there, whole, and an error was told */
};

static int live(void *arg, struct why *why)
{
    struct written *w = arg;
    char path[SCRATCH_PATH_MAX], digest[33];
    int r = model_write(scratch_path(path, "faulty.gguf"), w->base, digest, why);
    bool there = access(path, F_OK) == 0;
    struct gguf *whole;

    assert_true(there || r < 0);
    if (there && r < 0) {
        assert_int_equal(gguf_open(path, &whole, NULL), 0);
        gguf_close(whole);
        w->n_unsynced++;
    }
    (void)unlink(path);
    strcat(path, ".part");
    assert_int_not_equal(access(path, F_OK), 0);
    return r;
}

static void says_what_failed(void **state)
{
    struct written w = { NULL, 0 };
    struct trained t;

    (void)state;
    train_open(&t, "smollm2");
    w.base = &t.base;
    fault_life(&(struct fault_life){
        .name = "model_write", .live = live, .arg = &w, .also = ENOMEM, .says = true });
    assert_true(w.n_unsynced > 0);
    train_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(reads_back),
                                        cmocka_unit_test(says_what_failed),
                                        cmocka_unit_test(refuses_what_f16_lacks) };

    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
