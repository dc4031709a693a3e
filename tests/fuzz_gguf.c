/* Fuzzes the model file's header: any bytes are refused with a sentence, or are a header all of
 * whose strings, arrays and tensors lie inside the file and whose hyperparameters were checked. Run
 * by tests/run-fuzz.
 *
 * Each input is tried as it is, in a block of exactly its size, and with zeros behind it, so that
 * tensors have bytes to lie in while inputs stay small.
 */
#include "engine/file/gguf.h"
#include "engine/file/model.h"
#include "tests/support/fuzz_seeds.h"
#include "tests/support/gguf_build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ZEROS ((size_t)64 << 10)

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void require(int yes, const char *what)
{
    if (!yes) {
        fprintf(stderr, "not so: %s\n", what);
        abort();
    }
}

/* The weights are left away: the zeros stand for them. A seed gets as far as it should, or the
 * fuzzer would start from nothing without our noticing. */
static void put_seed(const char *dir, const char *name, struct gguf_build *b, bool is_model)
{
    struct why why = { "" };
    struct gguf *g;
    size_t len, data_off;
    void *data = gguf_build_bytes(b, &len, &data_off);

    require(len - data_off <= ZEROS, "a seed's weights fit into the zeros");
    require(gguf_open_mem(data, len, name, &g, &why) == 0, why.text);
    require(!is_model || model_check(g, &why) == 0, why.text);
    gguf_close(g);
    fuzz_seeds_put(dir, name, data, data_off);
    free(data);
    gguf_build_free(b);
}

static void put_numbers(const char *dir)
{
    static const uint8_t bytes[GGUF__N] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    struct gguf_build *b = gguf_build_new(2);
    uint64_t dims[4] = { 32, 2, 2, 2 };

    for (uint32_t kind = 0; kind < GGUF__N; kind++) {
        char key[2] = { (char)('a' + kind), '\0' };

        if (bytes[kind] > 0)
            gguf_build_raw(b, key, kind, "\1\0\0\0\0\0\0\0", bytes[kind]);
    }
    gguf_build_u32(b, "general.alignment", 8);
    gguf_build_tensor(b, "t", QUANT_Q4_0, 4, dims, NULL);
    put_seed(dir, "numbers", b, false);
}

/* Small dimensions: the tensors fit into the zeros. */
static struct gguf_build_shape small(const char *arch, enum quant type)
{
    struct gguf_build_shape s = gguf_build_tiny();

    s.arch = arch;
    s.n_layer = 1;
    s.n_embd = 32;
    s.n_ff = 32;
    s.n_head = 4;
    s.n_head_kv = 2;
    s.head_dim = 8;
    s.embd = s.attn = s.ffn = type;
    s.biases = true;
    return s;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *dir = fuzz_seeds_dir(*argc, *argv);
    struct gguf_build_shape s;
    struct gguf_build *b;

    if (!dir)
        return 0;
    put_numbers(dir);
    s = small("llama", QUANT_Q4_0);
    s.rope_freqs = true;
    s.key_length = true;
    put_seed(dir, "llama", gguf_build_model(&s), true);
    s = small("qwen2", QUANT_Q8_0);
    s.tied = false;
    b = gguf_build_model(&s);
    gguf_build_str(b, "qwen2.rope.scaling.type", "linear");
    gguf_build_f32(b, "qwen2.rope.scaling.factor", 2);
    gguf_build_u32(b, "qwen2.expert_count", 0);
    put_seed(dir, "qwen2", b, true);
    /* Without the vocabulary, most of the bytes are worth a change. */
    s = small("llama", QUANT_F16);
    b = gguf_build_model(&s);
    gguf_build_drop(b, "tokenizer.ggml.tokens");
    gguf_build_drop(b, "tokenizer.ggml.merges");
    gguf_build_drop(b, "tokenizer.ggml.token_type");
    gguf_build_drop(b, "tokenizer.chat_template");
    put_seed(dir, "bare", b, true);
    return 0;
}

static unsigned sum_of(struct gguf_str s)
{
    unsigned sum = 0;

    for (size_t i = 0; i < s.len; i++)
        sum += (uint8_t)s.s[i];
    return sum;
}

static void walk(const struct gguf *g)
{
    static const char *const keys[] = { "general.name",
                                        "tokenizer.ggml.tokens",
                                        "tokenizer.ggml.merges",
                                        "tokenizer.ggml.token_type",
                                        "a",
                                        "b",
                                        "c",
                                        "" };
    volatile unsigned sum = 0;

    for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
        struct gguf_array a;
        struct gguf_str s;
        size_t pos = 0;

        if (gguf_get_str(g, keys[k], &s) == 0)
            sum += sum_of(s);
        if (gguf_get_array(g, keys[k], &a) == 0 && a.kind == GGUF_STRING)
            for (uint64_t i = 0; i < a.n; i++)
                sum += sum_of(gguf_next_str(&a, &pos));
        else if (gguf_get_array(g, keys[k], &a) == 0)
            sum += sum_of((struct gguf_str){ (const char *)a.data, (size_t)a.n });
    }
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);

        sum += sum_of(t->name);
        require(t->off <= gguf_len(g) && t->len <= gguf_len(g) - t->off, "a tensor in the file");
    }
    (void)sum;
}

static void open_and_walk(const uint8_t *data, size_t len)
{
    struct why why = { "" };
    struct gguf *g;

    if (gguf_open_mem(data, len, "fuzzed", &g, &why) != 0) {
        require(why.text[0] != '\0', "a sentence with every refusal");
        return;
    }
    require(why.text[0] == '\0', "no sentence without a refusal");
    walk(g);
    require(model_check(g, &why) == 0 || why.text[0] != '\0', "a sentence with every refusal");
    gguf_close(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    uint8_t *padded = calloc(1, len + ZEROS);

    if (!padded)
        return 0;
    memcpy(padded, data, len);
    open_and_walk(data, len); /* libFuzzer's copy is of exactly this size */
    open_and_walk(padded, len + ZEROS);
    free(padded);
    return 0;
}
