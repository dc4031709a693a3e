/* tests/support/gguf_build.h - writes GGUF files for tests: whole tiny models, or broken ones.
 *
 *     struct gguf_build_shape shape = gguf_build_tiny();
 *     struct gguf_build *b;
 *
 *     shape.arch = "qwen2";
 *     shape.biases = true;
 *     b = gguf_build_model(&shape);
 *     gguf_build_write(b, path);
 *     gguf_build_free(b);
 *
 * A model gets random weights of the seed, values of standard deviation shape.std, so that a
 * forward pass stays finite. Its tokenizer is byte-level BPE: ids 0 to 2 are <|endoftext|>,
 * <|im_start|> (bos) and <|im_end|> (eos), 3 to 258 the bytes 0 to 255, then the tokens of a few
 * merges; pre is "smollm" and the chat template ChatML with a default system message.
 *
 * Between gguf_build_model and gguf_build_write a test can replace, drop and add keys and tensors:
 * a key that is set again takes its first place, and a tensor's data follows its record's order.
 *
 * Errors     a test's helper: what can't go wrong in a test is asserted.
 */
#ifndef TESTS_SUPPORT_GGUF_BUILD_H
#define TESTS_SUPPORT_GGUF_BUILD_H

#include "engine/file/gguf.h"
#include "engine/file/quant.h"

#define GGUF_BUILD_N_VOCAB 272u /* tokens of the tokenizer */
#define GGUF_BUILD_BYTE_0  3u   /* id of byte 0; byte x is GGUF_BUILD_BYTE_0 + x */

struct gguf_build_shape {
    const char *arch; /* "llama" or "qwen2" */
    uint32_t n_layer, n_embd, n_ff;
    uint32_t n_head, n_head_kv, head_dim;
    uint32_t n_ctx;             /* context_length */
    uint32_t n_vocab;           /* at least GGUF_BUILD_N_VOCAB; the rest are unused tokens */
    enum quant embd, attn, ffn; /* types; output has embd's. Columns must fit their blocks */
    bool tied;                  /* no output.weight */
    bool biases;                /* attn_q.bias, attn_k.bias, attn_v.bias */
    bool rope_freqs;            /* rope_freqs.weight, factors as Llama 3.1 has them */
    bool key_length;            /* attention.key_length and value_length are written */
    float rope_base, rms_eps;
    float std; /* of the weights' values */
    uint64_t seed;
    bool sparse; /* weights are a hole in the file: zeros, and no time */
};

/* llama, 2 layers, width 64, feed-forward 96, 4 query and 2 KV heads of 16, F32, tied, seed 1. */
struct gguf_build_shape gguf_build_tiny(void);

struct gguf_build;

/* An empty file with this version in its header, or a model's. The caller frees it. */
struct gguf_build *gguf_build_new(uint32_t version);
struct gguf_build *gguf_build_model(const struct gguf_build_shape *shape);
void gguf_build_free(struct gguf_build *b);

/* Sets a key, or replaces its value. */
void gguf_build_u32(struct gguf_build *b, const char *key, uint32_t v);
void gguf_build_f32(struct gguf_build *b, const char *key, float v);
void gguf_build_bool(struct gguf_build *b, const char *key, bool v);
void gguf_build_str(struct gguf_build *b, const char *key, const char *v);
void gguf_build_str_array(struct gguf_build *b, const char *key, const char *const *v, size_t n);
void gguf_build_i32_array(struct gguf_build *b, const char *key, const int32_t *v, size_t n);
/* The value's bytes as they stand in the file, right or wrong. */
void gguf_build_raw(struct gguf_build *b, const char *key, uint32_t kind, const void *v,
                    size_t len);
/* Adds a second pair with this key. */
void gguf_build_duplicate(struct gguf_build *b, const char *key);
void gguf_build_drop(struct gguf_build *b, const char *key);

/* Adds a tensor, or replaces the one of this name. data is copied; NULL leaves a hole. */
void gguf_build_tensor(struct gguf_build *b, const char *name, enum quant type, uint32_t n_dims,
                       const uint64_t *dims, const void *data);
/* The same with random data. */
void gguf_build_random(struct gguf_build *b, const char *name, enum quant type, uint32_t n_dims,
                       const uint64_t *dims, float mean, float std, uint64_t seed);
void gguf_build_drop_tensor(struct gguf_build *b, const char *name);
void gguf_build_duplicate_tensor(struct gguf_build *b, const char *name);
/* Overwrites fields of a tensor's record: its type number, its shape (the data stays as long as it
 * was), or its offset in the data part. */
void gguf_build_tensor_type(struct gguf_build *b, const char *name, uint32_t type);
void gguf_build_tensor_dims(struct gguf_build *b, const char *name, uint32_t n_dims,
                            const uint64_t *dims);
void gguf_build_tensor_off(struct gguf_build *b, const char *name, uint64_t off);

/* Aligns tensor data to this many bytes (32 at first); does not write general.alignment. */
void gguf_build_align(struct gguf_build *b, uint32_t align);

/* The file in memory (free() it), or at path. Header bytes end where *ret_data_off says. */
void *gguf_build_bytes(struct gguf_build *b, size_t *ret_len, size_t *ret_data_off);
void gguf_build_write(struct gguf_build *b, const char *path);

/* n values of a type as valid blocks with random bits, mean and standard deviation about as given.
 */
void gguf_build_values(enum quant type, size_t n, float mean, float std, uint64_t *seed, void *ret);

#endif
