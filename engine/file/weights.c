/* engine/file/weights.c - which tensors a model has, and where they go.
 *
 * The tables of plan_layer and plan_others are the architectures: a tensor that is not in them is
 * refused, and so is a file without one that has to be there. Items are added in the arena's order,
 * which packed_add gives places in, and sorted by the file's order behind that, in which they are
 * read.
 */
#include "engine/file/weights.h"

#include "engine/file/hparams.h"
#include "engine/file/tile.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Entries of plan_layer's tables, and of plan_others. */
#define LAYER_TENSORS_MAX 12u
#define OTHER_TENSORS_MAX 4u

/* --- the plan --------------------------------------------------------------------------------- */

/* For a sentence: from the table, so that a new type is named there, too. */
static void supported_types(char *ret, size_t room)
{
    size_t n = 0;

    ret[0] = '\0';
    for (int t = 0; t < QUANT__N && n < room; t++)
        n += (size_t)snprintf(ret + n, room - n, "%s%s", t ? ", " : "",
                              quant_info((enum quant)t)->name);
}

static int find(struct weights *w, const char *name, const struct gguf_tensor **ret)
{
    *ret = gguf_find_tensor(w->g, name);
    if (*ret)
        return 0;
    return why_set(w->why, -EINVAL, "%s: tensor %s is missing", gguf_label(w->g), name);
}

/* -ENOTSUP: the file is good, and another build or model would do. */
static int check_type(struct weights *w, const struct gguf_tensor *t, const char *name,
                      enum quant *ret)
{
    char types[128];

    if (quant_from_gguf(t->type, ret) == 0)
        return 0;
    supported_types(types, sizeof(types));
    return why_set(w->why, -ENOTSUP, "%s: tensor %s has type %s (%u), supported: %s",
                   gguf_label(w->g), name, gguf_type_name(t->type), t->type, types);
}

/* dims[0] is a row's length (gguf.h), so a weight is (rows, cols) here and cols x rows there. */
static int check_shape(struct weights *w, const struct gguf_tensor *t, const char *name,
                       uint64_t cols, uint64_t rows)
{
    if (t->dims[0] == cols && t->dims[1] == rows && t->dims[2] == 1 && t->dims[3] == 1)
        return 0;
    return why_set(w->why, -EINVAL,
                   "%s: tensor %s is %" PRIu64 " x %" PRIu64 " x %" PRIu64 " x %" PRIu64
                   ", expected %" PRIu64 " x %" PRIu64,
                   gguf_label(w->g), name, t->dims[0], t->dims[1], t->dims[2], t->dims[3], cols,
                   rows);
}

/* Sums stay in range: tensors lie in the file without overlap, and F16 vectors double at most. */
static struct weights_item *add_item(struct weights *w, const struct gguf_tensor *t,
                                     enum quant type, const struct packed_item *as, size_t mem_len)
{
    struct weights_item *item = &w->items[w->n_items++];

    *item = (struct weights_item){ .from = t, .type = type, .head_dim = as->head_dim };
    item->extent = w->packed->n_extents - 1;
    item->mem_off = packed_add(w->packed, as, mem_len);
    item->mem_len = mem_len;
    w->data_len += (size_t)t->len;
    return item;
}

/* head_dim: 0, or the rows are permuted by heads of this many. */
static int plan_matrix(struct weights *w, struct model_tensor *to, const char *name, uint32_t cols,
                       uint32_t rows, uint32_t head_dim)
{
    const struct gguf_tensor *t;
    struct weights_item *item;
    enum quant type;
    int e = find(w, name, &t);

    if (e == 0)
        e = check_type(w, t, name, &type);
    if (e == 0)
        e = check_shape(w, t, name, cols, rows);
    if (e != 0)
        return e;
    /* data stays NULL until the arena is bound: model_shape has all but that. */
    *to = (struct model_tensor){ .type = type, .n_rows = rows, .n_cols = cols };
    to->tile_len = tile_len(type, cols);
    item = add_item(w, t, type, &(struct packed_item){ name, type, rows, cols, head_dim },
                    tile_count(rows) * to->tile_len);
    item->matrix = to;
    to->mem_off = item->mem_off;
    return 0;
}

/* F32 in memory, whatever the file has: vectors are small, and kernels take them as they are. */
static int plan_vector(struct weights *w, const float **to, const char *name, uint32_t n,
                       uint32_t head_dim)
{
    const struct gguf_tensor *t;
    struct weights_item *item;
    enum quant type;
    int e = find(w, name, &t);

    if (e == 0)
        e = check_type(w, t, name, &type);
    if (e == 0)
        e = check_shape(w, t, name, n, 1);
    if (e != 0)
        return e;
    if (quant_info(type)->block_cols != 1)
        return why_set(w->why, -ENOTSUP, "%s: tensor %s has type %s, supported: F32, F16, BF16",
                       gguf_label(w->g), name, quant_info(type)->name);
    item = add_item(w, t, type, &(struct packed_item){ name, QUANT_F32, 1, n, head_dim },
                    n * sizeof(float));
    item->vector = to;
    return 0;
}

/* Without it the pointer stays NULL, which is what a model without it has. */
static int plan_optional(struct weights *w, const float **to, const char *name, uint32_t n,
                         uint32_t head_dim)
{
    return gguf_find_tensor(w->g, name) ? plan_vector(w, to, name, n, head_dim) : 0;
}

/* In the order of packed.h: matrices, then vectors. Another order would be another layout. */
static int plan_layer(struct weights *w, const struct model *m, uint32_t layer)
{
    struct model_layer *l = &m->layers[layer];
    uint32_t q = m->n_head * m->head_dim, kv = m->n_head_kv * m->head_dim;
    /* llama.cpp's converter permutes q and k of this architecture alone (engine/file/model.h). */
    uint32_t permuted = m->arch == MODEL_LLAMA ? m->head_dim : 0;
    const struct {
        const char *name;
        struct model_tensor *to;
        uint32_t cols, rows, head_dim;
    } matrices[] = {
        { "attn_q.weight", &l->wq, m->n_embd, q, permuted },
        { "attn_k.weight", &l->wk, m->n_embd, kv, permuted },
        { "attn_v.weight", &l->wv, m->n_embd, kv, 0 },
        { "attn_output.weight", &l->wo, q, m->n_embd, 0 },
        { "ffn_gate.weight", &l->w_gate, m->n_embd, m->n_ff, 0 },
        { "ffn_up.weight", &l->w_up, m->n_embd, m->n_ff, 0 },
        { "ffn_down.weight", &l->w_down, m->n_ff, m->n_embd, 0 },
    };
    const struct {
        const char *name;
        const float **to;
        uint32_t n, head_dim;
        bool needed;
    } vectors[] = {
        { "attn_norm.weight", &l->attn_norm, m->n_embd, 0, true },
        { "ffn_norm.weight", &l->ffn_norm, m->n_embd, 0, true },
        /* Biases make a qwen2; a llama may have them. */
        { "attn_q.bias", &l->bq, q, permuted, m->arch == MODEL_QWEN2 },
        { "attn_k.bias", &l->bk, kv, permuted, m->arch == MODEL_QWEN2 },
        { "attn_v.bias", &l->bv, kv, 0, m->arch == MODEL_QWEN2 },
    };
    char name[64];
    int e = 0;

    packed_begin(w->packed, PACKED_LAYERS + layer, PACKED_PIECE);
    for (size_t i = 0; i < sizeof(matrices) / sizeof(matrices[0]) && e == 0; i++) {
        (void)snprintf(name, sizeof(name), "blk.%u.%s", layer, matrices[i].name);
        e = plan_matrix(w, matrices[i].to, name, matrices[i].cols, matrices[i].rows,
                        matrices[i].head_dim);
    }
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]) && e == 0; i++) {
        (void)snprintf(name, sizeof(name), "blk.%u.%s", layer, vectors[i].name);
        e = (vectors[i].needed ? plan_vector : plan_optional)(w, vectors[i].to, name, vectors[i].n,
                                                              vectors[i].head_dim);
    }
    return e;
}

/* The embedding's rows say how many tokens there are; the tokenizer, if there is one, agrees. */
static int plan_vocab_size(struct weights *w, struct model *m)
{
    const struct gguf_tensor *t;
    struct gguf_array tokens;
    int e = find(w, "token_embd.weight", &t);

    if (e != 0)
        return e;
    /* Before it becomes 32 bits, and before logits are laid out for so many. */
    if (t->dims[1] > HPARAMS_VOCAB_MAX)
        return why_set(w->why, -ENOTSUP,
                       "%s: token_embd.weight has %" PRIu64 " rows, supported: up to %u",
                       gguf_label(w->g), t->dims[1], HPARAMS_VOCAB_MAX);
    if (gguf_get_array(w->g, "tokenizer.ggml.tokens", &tokens) == 0 && tokens.n != t->dims[1])
        return why_set(w->why, -EINVAL,
                       "%s: tokenizer.ggml.tokens has %" PRIu64
                       " entries, expected one for each of token_embd.weight's %" PRIu64 " rows",
                       gguf_label(w->g), tokens.n, t->dims[1]);
    m->n_vocab = (uint32_t)t->dims[1];
    return 0;
}

/* An extent of one matrix whose rows are of use singly: a sum a tile. The piece is known when the
 * matrix's type is. */
static int plan_rows(struct weights *w, const struct model *m, uint32_t extent,
                     struct model_tensor *to, const char *name)
{
    int e;

    packed_begin(w->packed, extent, PACKED_PIECE);
    e = plan_matrix(w, to, name, m->n_embd, m->n_vocab, 0);
    if (e == 0)
        w->packed->extents[extent].piece = to->tile_len;
    return e;
}

/* Without output.weight the output is the embedding (model.c), and its extent has no bytes. */
static int plan_others(struct weights *w, struct model *m, const float **ret_rope_factors)
{
    int e;

    packed_begin(w->packed, PACKED_VECTORS, PACKED_PIECE);
    e = plan_vector(w, &m->output_norm, "output_norm.weight", m->n_embd, 0);
    if (e == 0 && m->arch == MODEL_LLAMA)
        e = plan_optional(w, ret_rope_factors, "rope_freqs.weight", m->head_dim / 2, 0);
    if (e == 0)
        e = plan_rows(w, m, PACKED_EMBD, &m->embd, "token_embd.weight");
    if (e == 0 && gguf_find_tensor(w->g, "output.weight"))
        return plan_rows(w, m, PACKED_OUTPUT, &m->output, "output.weight");
    if (e == 0)
        packed_begin(w->packed, PACKED_OUTPUT, PACKED_PIECE);
    return e;
}

/* Places differ: tensors do not overlap (gguf.h), and all of them have bytes. */
static int compare_items(const void *a, const void *b)
{
    uint64_t x = ((const struct weights_item *)a)->from->off;
    uint64_t y = ((const struct weights_item *)b)->from->off;

    return (x > y) - (x < y);
}

/* A tensor that nobody asked for belongs to a computation that we don't do. */
static int refuse_unused(struct weights *w)
{
    char shown[GGUF_SHOW_MAX];

    if (w->n_items == gguf_n_tensors(w->g))
        return 0;
    for (size_t i = 0; i < gguf_n_tensors(w->g); i++) {
        const struct gguf_tensor *t = gguf_tensor(w->g, i);
        struct weights_item key = { .from = t };

        /* By place, which no two tensors share; items are sorted by it already. */
        if (!bsearch(&key, w->items, w->n_items, sizeof(*w->items), compare_items))
            return why_set(w->why, -ENOTSUP,
                           "%s: tensor %s belongs to no model of this architecture that is "
                           "supported",
                           gguf_label(w->g), gguf_show(t->name, shown));
    }
    return 0;
}

int weights_plan(const struct gguf *g, struct model *m, const float **ret_rope_factors,
                 struct weights *ret, struct why *why)
{
    struct weights w = { .g = g, .why = why, .packed = &m->packed };
    int e;

    /* Before memory is taken for so many layers: the number is the file's. */
    if (m->n_layer > gguf_n_tensors(g))
        return why_set(why, -EINVAL, "%s: %u layers, but only %zu tensors in the file",
                       gguf_label(g), m->n_layer, gguf_n_tensors(g));
    w.items = calloc(m->n_layer * LAYER_TENSORS_MAX + OTHER_TENSORS_MAX, sizeof(*w.items));
    m->layers = calloc(m->n_layer, sizeof(*m->layers));
    if (!w.items || !m->layers || packed_open(&m->packed, m->n_layer) < 0) {
        e = why_set(why, -ENOMEM, "%s: no memory for %u layers", gguf_label(g), m->n_layer);
        goto fail;
    }
    e = plan_vocab_size(&w, m);
    if (e == 0)
        e = plan_others(&w, m, ret_rope_factors);
    for (uint32_t i = 0; i < m->n_layer && e == 0; i++)
        e = plan_layer(&w, m, i);
    if (e == 0) {
        qsort(w.items, w.n_items, sizeof(*w.items), compare_items);
        e = refuse_unused(&w);
    }
    if (e != 0)
        goto fail;
    packed_end(&m->packed);
    *ret = w;
    return 0;

fail:
    weights_fini(&w);
    return e;
}

/* at: in the backend's memory. It is stored here, and never followed. */
static void bind(const struct weights_item *item, uint8_t *at)
{
    if (item->matrix)
        item->matrix->data = at;
    else
        *item->vector = (const float *)(void *)at;
}

void weights_bind(const struct weights *w, void *mem)
{
    for (size_t i = 0; i < w->n_items; i++)
        bind(&w->items[i], (uint8_t *)mem + w->items[i].mem_off);
}

/* An item keeps its distance from the beginning of its extent, wherever that is. */
void weights_bind_extents(const struct weights *w, uint8_t *const *bases)
{
    for (size_t i = 0; i < w->n_items; i++) {
        const struct weights_item *item = &w->items[i];

        bind(item, bases[item->extent] + (item->mem_off - w->packed->extents[item->extent].off));
    }
}

void weights_fini(struct weights *w)
{
    free(w->items);
    w->items = NULL;
}
