/* engine/file/model.h - the weights of one GGUF file, checked and resident.
 *
 * Architectures: `llama` (Llama 3, 3.1, 3.2 with their rope scaling; SmolLM2) and `qwen2` (biases
 * on q, k, v); tied and untied output. Everything that later code relies on is checked here, once:
 * every tensor exists, has the shape the hyperparameters ask for and lies inside the file; head
 * counts divide; sizes fit the types below. Inner loops check nothing.
 *
 * Layout    A weight is (n_rows, n_cols): y = W x, x of n_cols values. Rows of wq and wk of `llama`
 *           files come permuted for interleaved rotary pairs; the loader puts them back, so that
 *           rotary embedding always pairs element i of a head with element i + head_dim / 2.
 *
 * Threads    immutable after model_open; readable from any thread.
 * Ownership  the model owns its memory; tensors and strings point into it.
 * Errors     -EINVAL (bad file), -ENOTSUP (a model we can't run), -ENOMEM, or the errno of the I/O.
 */
#ifndef ENGINE_FILE_MODEL_H
#define ENGINE_FILE_MODEL_H

#include "base/why.h"
#include "engine/file/image.h"
#include "engine/file/image_map.h"
#include "engine/file/packed.h"
#include "engine/file/quant.h"

struct backend;
struct gguf;
struct io_options;
struct kept;
struct stream;

/* Where the weights came from. */
enum model_from { MODEL_FROM_FILE, MODEL_FROM_KEPT, MODEL_FROM_IMAGE };

enum model_arch { MODEL_LLAMA, MODEL_QWEN2 };

struct model_tensor {
    const void
        *data; /* tiles (engine/file/tile.h), in the backend's memory; NULL: the model has none */
    enum quant type;
    uint32_t n_rows, n_cols;
    size_t tile_len;
    size_t mem_off; /* of the model's, in the arena (engine/file/packed.h) */
};

struct model_layer {
    const float *attn_norm;           /* (n_embd) */
    const float *ffn_norm;            /* (n_embd) */
    struct model_tensor wq;           /* (n_head * head_dim, n_embd) */
    struct model_tensor wk, wv;       /* (n_head_kv * head_dim, n_embd) */
    struct model_tensor wo;           /* (n_embd, n_head * head_dim) */
    struct model_tensor w_gate, w_up; /* (n_ff, n_embd) */
    struct model_tensor w_down;       /* (n_embd, n_ff) */
    const float *bq, *bk, *bv;        /* rows of wq, wk, wv; NULL when the model has none */
};

struct model {
    enum model_arch arch;
    char name[128];  /* general.name, else the file's name */
    char digest[33]; /* hex xxh3-128 of the whole file */
    uint32_t n_layer, n_embd, n_ff, n_vocab;
    uint32_t n_head, n_head_kv, head_dim; /* n_head % n_head_kv == 0, head_dim % 8 == 0;
                                           * n_embd, n_ff, n_head * head_dim: % 32 == 0 */
    uint32_t n_ctx_train;                 /* the window it was trained for */
    float rms_eps;
    double rope_base;
    float *rope_freq; /* (head_dim / 2) radians a position, scaling applied */

    struct model_tensor embd;   /* (n_vocab, n_embd) */
    struct model_tensor output; /* (n_vocab, n_embd); embd itself when tied */
    const float *output_norm;   /* (n_embd) */
    struct model_layer *layers; /* (n_layer) */

    struct gguf *file;       /* metadata, for the tokenizer and chat template */
    struct backend *backend; /* whose memory has the weights; NULL: the process's own */
    enum model_from from;
    struct image_of of;   /* the file's state before its weights were read */
    struct image_map map; /* from an image, all of it: what mem is in */
    struct why
        image_why; /* why an image that is there was not taken up; empty: it was, or is none */
    void *block;   /* what was allocated, and mem_len bytes of it from mem on are the weights */
    size_t block_len;
    void *mem;
    size_t mem_len;
    struct packed packed;  /* how the weights lie in mem */
    struct stream *stream; /* NULL: all weights are in mem. Else only what stays is, and pointers to
                            * the rest are good for what engine/file/stream.h says */
    size_t weights_len;    /* bytes of tensor data */
};

/* Called now and then while a file is read, with bytes done and in all, from the calling thread; a
 * non-zero return ends the load with -ECANCELED. */
struct model_progress {
    int (*fn)(void *arg, uint64_t done, uint64_t all);
    void *arg;
};

struct model_options {
    const struct model_progress *progress; /* may be NULL */
    struct kept *kept; /* of another process, or for one (engine/file/kept.h); may be NULL */
    /* Asked before memory is taken for the weights, and not when they are there already: not 0 and
     * a sentence refuses that. May be NULL. */
    int (*room)(void *arg, struct why *why);
    void *room_arg;
    const char *images;    /* folder for images of packed weights; NULL: there are none */
    uint64_t weight_bytes; /* of memory for weights. When that is less than they take they pass
                            * through it, from an image that is made if need be. 0: all stay */
    const struct io_options *io; /* how files are read; not NULL with weight_bytes */
};

/* Reads the file at path into memory of b (engine/backend.h), which is borrowed. A weight that is
 * NaN or infinite is -EINVAL, with the tensor's name. */
int model_open_as(const char *path, struct backend *b, const struct model_options *o,
                  struct model **ret_model, struct why *why);
/* With progress alone, which may be NULL. */
int model_open(const char *path, struct backend *b, const struct model_progress *progress,
               struct model **ret_model, struct why *why);
void model_close(struct model *m);

/* Of a device that was lost and came back, or of weights that nobody wants for a while: their
 * memory is given back, and m has those of `from` then, the same file opened once more on the same
 * backend. Who points to m, or to its file's texts, goes on. from is taken. */
void model_leave(struct model *m);
void model_take(struct model *m, struct model *from);

/* What the header alone says: sizes, the shapes and types of its tensors without data, packed.
 * model_close. */
int model_shape(const char *path, struct model **ret, struct why *why);

/* Everything that model_open checks before it reads weights: 0, or why not. */
int model_check(const struct gguf *g, struct why *why);

#endif
