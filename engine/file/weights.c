#include "engine/file/weights.h"

#include "base/digest.h"
#include "engine/file/hparams.h"
#include "engine/file/tile.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_BYTES  ((size_t)1 << 20) /* hashed while it is still in the cache */
#define AHEAD_BYTES ((off_t)16 << 20) /* asked from the disk before it is needed */

#define LAYER_TENSORS_MAX 12u
#define OTHER_TENSORS_MAX 4u

/* --- the plan --------------------------------------------------------------------------------- */

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
                                     enum quant type, size_t mem_len)
{
    struct weights_item *item = &w->items[w->n_items++];

    *item =
        (struct weights_item){ .from = t, .type = type, .mem_off = w->mem_len, .mem_len = mem_len };
    w->mem_len += (mem_len + WEIGHTS_ALIGN - 1) / WEIGHTS_ALIGN * WEIGHTS_ALIGN;
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
    *to = (struct model_tensor){ .type = type, .n_rows = rows, .n_cols = cols };
    to->tile_len = tile_len(type, cols);
    item = add_item(w, t, type, tile_count(rows) * to->tile_len);
    item->matrix = to;
    item->head_dim = head_dim;
    return 0;
}

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
    item = add_item(w, t, type, n * sizeof(float));
    item->vector = to;
    item->head_dim = head_dim;
    return 0;
}

static int plan_optional(struct weights *w, const float **to, const char *name, uint32_t n,
                         uint32_t head_dim)
{
    return gguf_find_tensor(w->g, name) ? plan_vector(w, to, name, n, head_dim) : 0;
}

static int plan_layer(struct weights *w, const struct model *m, uint32_t layer)
{
    struct model_layer *l = &m->layers[layer];
    uint32_t q = m->n_head * m->head_dim, kv = m->n_head_kv * m->head_dim;
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

static int plan_others(struct weights *w, struct model *m, const float **ret_rope_factors)
{
    int e = plan_matrix(w, &m->embd, "token_embd.weight", m->n_embd, m->n_vocab, 0);

    if (e == 0 && gguf_find_tensor(w->g, "output.weight"))
        e = plan_matrix(w, &m->output, "output.weight", m->n_embd, m->n_vocab, 0);
    if (e == 0)
        e = plan_vector(w, &m->output_norm, "output_norm.weight", m->n_embd, 0);
    if (e == 0 && m->arch == MODEL_LLAMA)
        e = plan_optional(w, ret_rope_factors, "rope_freqs.weight", m->head_dim / 2, 0);
    return e;
}

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
    struct weights w = { .g = g, .why = why };
    int e;

    if (m->n_layer > gguf_n_tensors(g))
        return why_set(why, -EINVAL, "%s: %u layers, but only %zu tensors in the file",
                       gguf_label(g), m->n_layer, gguf_n_tensors(g));
    w.items = calloc(m->n_layer * LAYER_TENSORS_MAX + OTHER_TENSORS_MAX, sizeof(*w.items));
    m->layers = calloc(m->n_layer, sizeof(*m->layers));
    if (!w.items || !m->layers) {
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
    *ret = w;
    return 0;

fail:
    weights_fini(&w);
    return e;
}

void weights_fini(struct weights *w)
{
    free(w->items);
    w->items = NULL;
}

/* --- the pass --------------------------------------------------------------------------------- */

struct pass {
    struct weights *w;
    struct backend *backend;
    uint8_t *mem, *host; /* the arena, and where the host may write it; host NULL: nowhere */
    const struct model_progress *progress;
    XXH3_state_t *hash;
    uint8_t *scratch;  /* READ_BYTES: what lies between the tensors */
    uint64_t pos, all; /* in the file */
    uint64_t asked;    /* end of what was asked ahead */
};

static int tell(const struct pass *p)
{
    if (p->progress && p->progress->fn(p->progress->arg, p->pos, p->all) != 0)
        return why_set(p->w->why, -ECANCELED, "%s: loading was cancelled at byte %" PRIu64,
                       gguf_label(p->w->g), p->pos);
    return 0;
}

static int read_exactly(struct pass *p, uint8_t *to, size_t n)
{
    const struct gguf *g = p->w->g;

    for (size_t done = 0; done < n;) {
        ssize_t r = pread(gguf_fd(g), to + done, n - done, (off_t)(p->pos + done));

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return why_set(p->w->why, -errno, "%s: can't be read at byte %" PRIu64 ": %s",
                           gguf_label(g), p->pos + done, strerror(errno));
        if (r == 0)
            return why_set(p->w->why, -EINVAL,
                           "%s: now ends at byte %" PRIu64 "; it had %" PRIu64 " bytes",
                           gguf_label(g), p->pos + done, p->all);
        done += (size_t)r;
    }
    return 0;
}

/* The disk works on the next bytes while we copy and hash these. Only a hint. */
static void ask_ahead(struct pass *p)
{
    if (p->asked < p->pos + (uint64_t)AHEAD_BYTES / 2 && p->asked < p->all) {
        (void)posix_fadvise(gguf_fd(p->w->g), (off_t)p->asked, AHEAD_BYTES, POSIX_FADV_WILLNEED);
        p->asked += (uint64_t)AHEAD_BYTES;
    }
}

/* The only way that tensors come from the file, so that the digest is of exactly what is in use.
 * Takes the next n bytes of the file to `to`, or only hashes them when it is NULL. */
static int pass_over(struct pass *p, uint8_t *to, uint64_t n)
{
    while (n > 0) {
        size_t part = n < READ_BYTES ? (size_t)n : READ_BYTES;
        uint8_t *at = to ? to : p->scratch;
        int e;

        ask_ahead(p);
        e = read_exactly(p, at, part);
        if (e != 0)
            return e;
        (void)XXH3_128bits_update(p->hash, at, part);
        p->pos += part;
        n -= part;
        if (to)
            to += part;
        e = tell(p);
        if (e != 0)
            return e;
    }
    return 0;
}

/* The converter wrote row j * hd/2 + i of a head as its row 2 i + j. */
uint32_t weights_file_row(uint32_t r, uint32_t head_dim)
{
    uint32_t at = head_dim ? r % head_dim : 0;

    return head_dim ? r - at + at % (head_dim / 2) * 2 + at / (head_dim / 2) : r;
}

/* Rows [r0, r0 + n) on their way from `rows` into tiles. */
struct pack {
    const struct weights_item *item;
    const uint8_t *rows;
    uint32_t r0, n;
    uint8_t *tiles;  /* the first is that of row r0 */
    atomic_bool bad; /* a worker met a NaN or an infinity */
};

static void pack_tile(void *arg, uint32_t tile, uint32_t worker)
{
    struct pack *p = arg;
    const struct weights_item *item = p->item;
    const struct model_tensor *m = item->matrix;
    size_t row_bytes = quant_row_bytes(item->type, m->n_cols);
    uint32_t first = p->r0 + tile * TILE_ROWS, end = p->r0 + p->n;
    const void *lanes[TILE_ROWS] = { NULL };

    (void)worker;
    for (uint32_t i = 0; i < TILE_ROWS && first + i < end; i++) {
        lanes[i] = p->rows + (weights_file_row(first + i, item->head_dim) - p->r0) * row_bytes;
        /* Here, where the row comes to the cache anyway and all workers share the work. */
        if (!quant_finite(item->type, lanes[i], m->n_cols))
            atomic_store_explicit(&p->bad, true, memory_order_relaxed);
    }
    tile_pack(item->type, lanes, m->n_cols, p->tiles + tile * m->tile_len);
}

/* Products by NaN are NaN, but a block of int8 activations, a maximum or a softmax can lose it on
 * the way: such a model would answer, and nobody would know that it does not compute. */
static int refuse_value(const struct pass *pass, const struct weights_item *item, uint32_t at)
{
    char shown[GGUF_SHOW_MAX];

    return why_set(pass->w->why, -EINVAL,
                   "%s: tensor %s has a NaN or an infinity in %s %u, expected finite weights: the "
                   "file is damaged or badly converted",
                   gguf_label(pass->w->g), gguf_show(item->from->name, shown),
                   item->matrix ? "row" : "element", at);
}

static int pack_rows(const struct pass *pass, struct pack *p)
{
    uint32_t n_cols = p->item->matrix->n_cols, r = 0;
    size_t row_bytes = quant_row_bytes(p->item->type, n_cols);

    backend_run(pass->backend, pack_tile, p, tile_count(p->n));
    if (!atomic_load_explicit(&p->bad, memory_order_relaxed)) /* the run's end has ordered them */
        return 0;
    while (r + 1 < p->n && quant_finite(p->item->type, p->rows + r * row_bytes, n_cols))
        r++;
    return refuse_value(pass, p->item, p->r0 + r);
}

/* Packs rows into the matrix' tiles, which stand at off in the arena; staging: room for them, where
 * the host can't write those. */
static int pack_to(const struct pass *pass, struct pack *p, size_t off, uint8_t *staging)
{
    size_t tile_len = p->item->matrix->tile_len;
    int e;

    off += p->r0 / TILE_ROWS * tile_len;
    p->tiles = staging ? staging : pass->host + off;
    e = pack_rows(pass, p);
    return e == 0 && staging
               ? backend_put(pass->backend, pass->mem + off, staging, tile_count(p->n) * tile_len)
               : e;
}

/* Never the whole matrix twice in memory: a machine that holds the model need not hold more. Some
 * rows at a time, whole tiles and whole heads, by way of a buffer that stays in the cache. */
static int read_matrix(struct pass *p, const struct weights_item *item)
{
    const struct model_tensor *m = item->matrix;
    size_t row_bytes = quant_row_bytes(item->type, m->n_cols);
    uint32_t unit = item->head_dim ? 2 * item->head_dim : TILE_ROWS; /* head_dim % 8 == 0 */
    uint32_t step = (uint32_t)(READ_BYTES / (unit * row_bytes)) * unit;
    uint8_t *rows, *staging = NULL;
    int e = 0;

    if (step == 0)
        step = unit;
    rows = malloc(step * row_bytes);
    if (!p->host)
        staging = malloc(tile_count(step) * m->tile_len);
    if (!rows || (!p->host && !staging))
        e = -ENOMEM;
    for (uint32_t r = 0; r < m->n_rows && e == 0; r += step) {
        uint32_t n = m->n_rows - r < step ? m->n_rows - r : step;

        e = pass_over(p, rows, n * row_bytes);
        if (e == 0)
            e = pack_to(p, &(struct pack){ .item = item, .rows = rows, .r0 = r, .n = n },
                        item->mem_off, staging);
    }
    free(staging);
    free(rows);
    return e;
}

static int read_vector(struct pass *p, const struct weights_item *item)
{
    size_t n = (size_t)item->from->dims[0], value = quant_row_bytes(item->type, 1);
    uint8_t *file = malloc((size_t)item->from->len);
    float *to = malloc(n * sizeof(*to));
    int e = file && to ? pass_over(p, file, item->from->len) : -ENOMEM;

    for (size_t i = 0; i < n && e == 0; i++)
        if (!quant_finite(item->type, file + i * value, 1))
            e = refuse_value(p, item, (uint32_t)i);
    for (size_t i = 0; i < n && e == 0; i++)
        quant_dequantise_row(
            item->type, file + weights_file_row((uint32_t)i, item->head_dim) * value, 1, to + i);
    if (e == 0)
        e = backend_put(p->backend, p->mem + item->mem_off, to, n * sizeof(*to));
    free(to);
    free(file);
    return e;
}

static int read_item(struct pass *p, const struct weights_item *item)
{
    uint8_t *to = p->mem + item->mem_off;
    int e = item->matrix ? read_matrix(p, item) : read_vector(p, item);

    if (e == -ENOMEM)
        return why_set(p->w->why, e, "%s: no memory to load a tensor", gguf_label(p->w->g));
    if (e != 0)
        return e;
    if (item->matrix)
        item->matrix->data = to;
    else
        *item->vector = (const float *)(void *)to;
    return 0;
}

int weights_read(struct weights *w, struct backend *b, void *mem,
                 const struct model_progress *progress, char ret_digest[33])
{
    struct pass p = { .w = w,
                      .backend = b,
                      .mem = mem,
                      .host = backend_host(b, mem),
                      .progress = progress,
                      .all = gguf_len(w->g) };
    size_t header_len;
    const uint8_t *header = gguf_header(w->g, &header_len);
    int e = 0;

    p.hash = XXH3_createState();
    p.scratch = malloc(READ_BYTES);
    if (!p.hash || !p.scratch) {
        e = why_set(w->why, -ENOMEM, "%s: no memory to load it", gguf_label(w->g));
        goto out;
    }
    (void)XXH3_128bits_reset(p.hash);
    /* The header's bytes as they were parsed, so that the digest is of what is in use. */
    (void)XXH3_128bits_update(p.hash, header, header_len);
    p.pos = p.asked = header_len;

    for (size_t i = 0; i < w->n_items && e == 0; i++) {
        const struct weights_item *item = &w->items[i];

        assert(item->from->off >= p.pos); /* sorted, and without overlap */
        e = pass_over(&p, NULL, item->from->off - p.pos);
        if (e == 0)
            e = read_item(&p, item);
    }
    if (e == 0)
        e = pass_over(&p, NULL, p.all - p.pos);
    if (e == 0)
        digest_put(p.hash, ret_digest);
out:
    free(p.scratch);
    (void)XXH3_freeState(p.hash);
    return e;
}
