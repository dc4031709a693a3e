/* engine/file/adapter.h - what turns a model into a gist model: a safetensors file beside it.
 *
 * The file's metadata and tensors are described in docs/adapter.md. Everything is checked here
 * against the model: digest, shapes, names that are not known. Tensors that a file leaves out are
 * the base model's, so an adapter without any is the untrained one.
 *
 * A gist is a token of its own: an embedding, and per layer matrices in the place of the base
 * model's, some or all of them; norms are the base model's. With a matrix of its own y = W x + b,
 * with a low-rank one y = (base W) x + B (A x) + b. Only q, k and v have a b.
 *
 * Threads    immutable after adapter_open.
 * Ownership  owns its memory, which is of the model's backend; tensors point into it.
 * Errors     -EINVAL (with a sentence), -ENOMEM, or the errno of the I/O.
 */
#ifndef ENGINE_FILE_ADAPTER_H
#define ENGINE_FILE_ADAPTER_H

#include "engine/file/model.h"

#define ADAPTER_NAME_MAX   63u
#define ADAPTER_RATIOS_MAX 8u
#define ADAPTER_RANK_MAX   1024u /* and no more than n_embd */

enum adapter_method { ADAPTER_FINE_KV, ADAPTER_COARSE_KV, ADAPTER_COARSE_REC, ADAPTER_METHOD__N };
enum adapter_mask { ADAPTER_MEMORY_ONLY, ADAPTER_IN_SEGMENT, ADAPTER_MASK__N };
enum adapter_embedding {
    ADAPTER_EMBED_OWN, /* the gist's own */
    ADAPTER_EMBED_LAST /* that of the last token of its snippet, plus the gist's own */
};

struct adapter_projection {
    struct model_tensor w;    /* (n_out, n_in); no data: the base model's */
    struct model_tensor a, b; /* (rank, n_in), (n_out, rank), f32; no data: none */
    const float *bias;        /* (n_out); NULL: the base model's */
};

enum {
    ADAPTER_Q,
    ADAPTER_K,
    ADAPTER_V,
    ADAPTER_O, /* of attention's output */
    ADAPTER_GATE,
    ADAPTER_UP,
    ADAPTER_DOWN,
    ADAPTER_PROJECTION__N,
    ADAPTER_QKV__N = ADAPTER_O /* those with biases */
};

struct adapter_layer {
    struct adapter_projection p[ADAPTER_PROJECTION__N];
};

struct adapter {
    char name[ADAPTER_NAME_MAX + 1]; /* the file's, without folder and .safetensors */
    char digest[33];                 /* hex xxh3-128 of the whole file */
    enum adapter_method method;
    enum adapter_mask mask;
    enum adapter_embedding embedding;
    uint32_t segment; /* it was trained with */
    uint32_t sinks;
    uint32_t ratios[ADAPTER_RATIOS_MAX], n_ratios; /* as the file lists them; 0: never trained */
    /* On record: at these ratios more is kept of a text than `fit` keeps, without training. */
    uint32_t better[ADAPTER_RATIOS_MAX], n_better;
    uint32_t n_gists;  /* rows of embd; gist i has row i, or the last one */
    const float *embd; /* (n_gists, n_embd) */
    uint32_t n_layer;
    struct adapter_layer *layers;
    struct backend *backend; /* whose memory has the tensors: the model's */
    void *mem;
    size_t mem_len;
};

int adapter_open(const char *path, const struct model *m, struct adapter **ret, struct why *why);
/* Of a device that was lost and came back, as engine/file/model.h has it. */
void adapter_leave(struct adapter *a);
void adapter_take(struct adapter *a, struct adapter *from);
void adapter_close(struct adapter *a);

const char *adapter_method_name(enum adapter_method m); /* "fine-kv" */
const char *adapter_mask_name(enum adapter_mask m);     /* "memory-only" */
const char *adapter_projection_name(unsigned p);        /* "q", "gate" */

/* Its matrix is (n_out, n_in). */
void adapter_projection_shape(const struct model *m, unsigned p, uint32_t *ret_n_out,
                              uint32_t *ret_n_in);
/* The model's own. Inline: libraries of devices have nothing of adapters' files. */
static inline const struct model_tensor *adapter_projection_weight(const struct model_layer *l,
                                                                   unsigned p)
{
    /* In the order of the enum; C++ has no designators of arrays. */
    const struct model_tensor *const all[ADAPTER_PROJECTION__N] = { &l->wq,    &l->wk,     &l->wv,
                                                                    &l->wo,    &l->w_gate, &l->w_up,
                                                                    &l->w_down };

    return all[p];
}

#endif
