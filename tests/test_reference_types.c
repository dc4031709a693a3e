/* tests/test_reference_types.c - would catch: a weight type that is read or multiplied wrongly
 * somewhere between the file and the logits (as an embedding, a rotated weight, a bias's neighbour,
 * the output), and results of int8 activations that depend on the size of the batch.
 *
 * The reference of a quantised model is the same model with its weights dequantised into F32, which
 * test_reference.c holds to transformers; the dequantisation is test_quant.c's.
 */
#include "engine/file/gguf.h"
#include "tests/support/gguf_build.h"
#include "tests/support/rig.h"
#include "tests/support/tolerance.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define N_TOKENS 96u

/* Root of the mean squared error of the logits, over their standard deviation. Where weights meet
 * f32 activations only the order of sums differs. Rounding activations to int8, about 0.5 % a
 * product, grows to 0.5 to 2.6 % on its way through random layers; bf16 is no coarser. A wrong
 * nibble or scale gives 100 %. */
#define FLOATS 1e-5
#define INT8   0.05
#define BF16   0.05 /* F16 and BF16 weights, where the kernels have products of bf16 */
/* The same on a device, where they are multiplied in two parts: INT8 is ten times what a product is
 * off by. */
#define PAIRS (10 * TOLERANCE_PAIR)

#define EACH(type) type, type, type, type, type

/* The mixes are what llama-quantize makes of "Q4_K_M": of a Llama, and of a SmolLM2, whose width is
 * no multiple of 256. first_v, first_down: types of the first layer's attn_v and ffn_down. */
static const struct kind {
    const char *name;
    enum quant embd, attn, ffn, first_v, first_down;
    double tolerance;
} kinds[] = {
    { "F16", EACH(QUANT_F16), FLOATS },
    { "BF16", EACH(QUANT_BF16), FLOATS },
    { "Q4_0", EACH(QUANT_Q4_0), INT8 },
    { "Q4_1", EACH(QUANT_Q4_1), INT8 },
    { "Q8_0", EACH(QUANT_Q8_0), INT8 },
    { "Q4_K", EACH(QUANT_Q4_K), INT8 },
    { "Q6_K", EACH(QUANT_Q6_K), INT8 },
    { "Q5_0", EACH(QUANT_Q5_0), INT8 },
    { "Q5_1", EACH(QUANT_Q5_1), INT8 },
    { "Q5_K", EACH(QUANT_Q5_K), INT8 },
    { "mix-256", QUANT_Q6_K, QUANT_Q4_K, QUANT_Q4_K, QUANT_Q6_K, QUANT_Q6_K, INT8 },
    { "mix-576", QUANT_Q8_0, QUANT_Q5_0, QUANT_Q5_0, QUANT_Q8_0, QUANT_Q6_K, INT8 },
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static char folder[64];
static uint32_t ids[N_TOKENS];
static bool exact; /* rig_exact, of the tests' backend */

static void file_path(char ret[128], const struct kind *kind, const char *what)
{
    snprintf(ret, 128, "%s/%s-%s.gguf", folder, kind->name, what);
}

/* The values of a tensor. */
static float *read_values(FILE *f, const struct gguf_tensor *t)
{
    size_t n = t->dims[0] * t->dims[1], len;
    enum quant type;
    uint8_t *data;
    float *ret;

    assert_int_equal(quant_from_gguf(t->type, &type), 0);
    len = quant_row_bytes(type, n);
    data = malloc(len);
    ret = malloc(n * sizeof(*ret));
    assert_true(data && ret);
    assert_int_equal(fseek(f, (long)t->off, SEEK_SET), 0);
    assert_int_equal(fread(data, 1, len, f), len);
    quant_dequantise_row(type, data, n, ret);
    free(data);
    return ret;
}

/* Replaces every tensor by its values in F32. */
static void dequantise_all(struct gguf_build *b, const char *path)
{
    struct why why = { 0 };
    FILE *f = fopen(path, "rb");
    struct gguf *g;

    assert_non_null(f);
    if (gguf_open(path, &g, &why) < 0)
        fail_msg("%s", why.text);
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);
        float *values = read_values(f, t);
        char name[64];

        snprintf(name, sizeof(name), "%.*s", (int)t->name.len, t->name.s);
        gguf_build_tensor(b, name, QUANT_F32, t->n_dims, t->dims, values);
        free(values);
    }
    gguf_close(g);
    fclose(f);
}

/* Two files: a model of this kind, and its twin in F32. Every second is a Qwen2, for its biases. */
static void make_files(size_t i)
{
    const struct kind *kind = &kinds[i];
    struct gguf_build_shape shape = gguf_build_tiny();
    struct gguf_build *b;
    char path[128], twin[128];

    shape.arch = i % 2 ? "qwen2" : "llama";
    shape.biases = i % 2;
    shape.n_embd = shape.n_ff = 256; /* a block of the K types */
    shape.n_head = 8;
    shape.n_head_kv = 2;
    shape.head_dim = 32;
    shape.embd = kind->embd;
    shape.attn = kind->attn;
    shape.ffn = kind->ffn;
    shape.std = 1.2f / 16; /* sums of 256 products keep their size */
    shape.seed = 101 + i;
    b = gguf_build_model(&shape);
    gguf_build_random(b, "blk.0.attn_v.weight", kind->first_v, 2, (uint64_t[]){ 256, 64 }, 0,
                      shape.std, 201 + i);
    gguf_build_random(b, "blk.0.ffn_down.weight", kind->first_down, 2, (uint64_t[]){ 256, 256 }, 0,
                      shape.std, 301 + i);
    file_path(path, kind, "as-it-is");
    gguf_build_write(b, path);
    dequantise_all(b, path);
    file_path(twin, kind, "in-f32");
    gguf_build_write(b, twin);
    gguf_build_free(b);
}

/* Logits of all tokens, fed in chunks. backend: NULL: the tests'. */
static float *run(const struct backend_ops *backend, const struct kind *kind, const char *what,
                  const char *cpu, uint32_t chunk, uint32_t *ret_n_vocab)
{
    struct rig_opts opts = { .backend = backend,
                             .cpu = cpu,
                             .kv = KV_F32,
                             .threads = 2,
                             .max_batch = N_TOKENS,
                             .max_tokens = N_TOKENS };
    struct why why = { 0 };
    struct rig r;
    struct seq s;
    char path[128];
    float *logits;
    int err;

    file_path(path, kind, what);
    opts.model = path;
    err = rig_open(&r, &opts, &why);
    if (err < 0)
        fail_msg("%s", why.text);
    logits = malloc((size_t)N_TOKENS * r.model->n_vocab * sizeof(*logits));
    assert_non_null(logits);
    assert_int_equal(rig_seq(&r, N_TOKENS, SEQ_SEGMENT_DEFAULT, 0, &s), 0);
    assert_int_equal(rig_feed(&r, &s, ids, N_TOKENS, chunk, logits), 0);
    seq_close(&s);
    *ret_n_vocab = r.model->n_vocab;
    if (!backend)
        exact = rig_exact(&r);
    rig_close(&r);
    return logits;
}

static double relative_error(const float *a, const float *reference, size_t n)
{
    double apart = 0, sum = 0, squares = 0;

    for (size_t i = 0; i < n; i++) {
        apart += ((double)a[i] - reference[i]) * ((double)a[i] - reference[i]);
        sum += reference[i];
        squares += (double)reference[i] * reference[i];
    }
    return sqrt(apart / (squares - sum * sum / (double)n));
}

static double allowed(const struct kind *kind, const char *cpu)
{
    const struct kernels *k;

    if (!exact)
        return kind->tolerance == FLOATS ? PAIRS : kind->tolerance;
    if (kernels_pick(cpu, &k) == 0 && k->form[kind->attn] == KERNELS_FORM_BF16)
        return BF16;
    return kind->tolerance;
}

/* All of the CPU, also under a sanitizer. */
static const char *table(unsigned i)
{
    return rig_backend() == &backend_cpu ? kernels_name(i) : rig_table(i);
}

static void agrees_with_its_values(void **state)
{
    const char *cpu;

    (void)state;
    for (size_t i = 0; i < N_KINDS; i++) {
        uint32_t n_vocab;
        float *twin = run(&backend_cpu, &kinds[i], "in-f32", "scalar", N_TOKENS, &n_vocab);

        for (unsigned c = 0; (cpu = table(c)); c++) {
            float *logits = run(NULL, &kinds[i], "as-it-is", cpu, N_TOKENS, &n_vocab);
            double e = relative_error(logits, twin, (size_t)N_TOKENS * n_vocab);

            print_message("%-7s %-10s %.2e\n", kinds[i].name, cpu, e);
            if (!(e <= allowed(&kinds[i], cpu)))
                fail_msg(
                    "%s, %s: logits are %g of their size from those of the dequantised weights",
                    kinds[i].name, cpu, e);
            free(logits);
        }
        free(twin);
    }
}

/* To the bit, or each as far from the values as it may be. */
static void compare(const float *whole, const float *part, const struct kind *kind, const char *cpu,
                    uint32_t chunk, size_t n)
{
    double e = relative_error(part, whole, n);

    if (exact ? memcmp(whole, part, n * sizeof(*whole)) != 0 : !(e <= 2 * allowed(kind, cpu)))
        fail_msg("%s, %s: logits in chunks of %u are %g of their size from those of the whole",
                 kind->name, cpu, chunk, e);
}

static void chunked_equals_whole(void **state)
{
    static const uint32_t chunks[] = { 1, 5, 19 };
    const char *cpu;

    (void)state;
    for (size_t i = 0; i < N_KINDS; i++) {
        for (unsigned c = 0; (cpu = table(c)); c++) {
            uint32_t n_vocab;
            float *whole = run(NULL, &kinds[i], "as-it-is", cpu, N_TOKENS, &n_vocab);

            for (size_t k = 0; k < sizeof(chunks) / sizeof(*chunks); k++) {
                float *part;

                if (rig_slow() && k != i % 3) /* each type in one way */
                    continue;
                part = run(NULL, &kinds[i], "as-it-is", cpu, chunks[k], &n_vocab);

                compare(whole, part, &kinds[i], cpu, chunks[k], (size_t)N_TOKENS * n_vocab);
                free(part);
            }
            free(whole);
        }
    }
}

static int set_up(void **state)
{
    const char *tmp = getenv("TMPDIR");

    (void)state;
    snprintf(folder, sizeof(folder), "%s/gistd-types-XXXXXX",
             tmp && strlen(tmp) < 40 ? tmp : "/tmp");
    if (!mkdtemp(folder))
        return -1;
    for (uint32_t i = 0; i < N_TOKENS; i++)
        ids[i] = (i * 89 + i * i * 7 + 3) % GGUF_BUILD_N_VOCAB;
    for (size_t i = 0; i < N_KINDS; i++)
        make_files(i);
    return 0;
}

static int tear_down(void **state)
{
    static const char *const whats[] = { "as-it-is", "in-f32" };

    (void)state;
    for (size_t i = 0; i < 2 * N_KINDS; i++) {
        char path[128];

        file_path(path, &kinds[i / 2], whats[i % 2]);
        (void)unlink(path);
    }
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_its_values),
        cmocka_unit_test(chunked_equals_whole),
    };

    return cmocka_run_group_tests_name("reference_types", tests, set_up, tear_down);
}
