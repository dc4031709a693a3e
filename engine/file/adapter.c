/* engine/file/adapter.c - an adapter's file, checked against its model and packed into tiles.
 *
 * The file may come from anywhere: metadata are compared with tables of what there is, tensors with
 * the shapes that the model asks for, and every name has to be one that was asked for. All tensors
 * are walked over twice by the same functions: the first time without memory, where take() only
 * counts, so that no size is computed in two ways. What the backend gets is packed on the host
 * first.
 */
#include "engine/file/adapter.h"

#include "engine/backend.h"
#include "engine/file/safetensors.h"
#include "engine/file/tile.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN      64u
#define NAME_BYTES 64 /* of a tensor, ours are shorter */
#define SUFFIX     ".safetensors"

static const char *const methods[ADAPTER_METHOD__N] = { [ADAPTER_FINE_KV] = "fine-kv",
                                                        [ADAPTER_COARSE_KV] = "coarse-kv",
                                                        [ADAPTER_COARSE_REC] = "coarse-rec" };
static const char *const masks[ADAPTER_MASK__N] = {
    [ADAPTER_MEMORY_ONLY] = "memory-only", [ADAPTER_IN_SEGMENT] = "in-segment"
};
static const char *const embeddings[] = {
    [ADAPTER_EMBED_OWN] = "own", [ADAPTER_EMBED_LAST] = "last-token"
};
static const char *const projections[ADAPTER_PROJECTION__N] = {
    [ADAPTER_Q] = "q",       [ADAPTER_K] = "k",   [ADAPTER_V] = "v",      [ADAPTER_O] = "o",
    [ADAPTER_GATE] = "gate", [ADAPTER_UP] = "up", [ADAPTER_DOWN] = "down"
};

const char *adapter_method_name(enum adapter_method m)
{
    return methods[m];
}

const char *adapter_mask_name(enum adapter_mask m)
{
    return masks[m];
}

const char *adapter_projection_name(unsigned p)
{
    return projections[p];
}

/* In the order of the enum: q, k, v, o, gate, up, down. */
void adapter_projection_shape(const struct model *m, unsigned p, uint32_t *ret_n_out,
                              uint32_t *ret_n_in)
{
    uint32_t n_q = m->n_head * m->head_dim, n_kv = m->n_head_kv * m->head_dim;
    const uint32_t n_out[ADAPTER_PROJECTION__N] = { n_q,     n_kv,    n_kv,     m->n_embd,
                                                    m->n_ff, m->n_ff, m->n_embd };
    const uint32_t n_in[ADAPTER_PROJECTION__N] = { m->n_embd, m->n_embd, m->n_embd, n_q,
                                                   m->n_embd, m->n_embd, m->n_ff };

    *ret_n_out = n_out[p];
    *ret_n_in = n_in[p];
}

struct loader {
    const char *path;
    const struct safetensors *s;
    const struct model *m;
    struct adapter *a;
    struct why *why;
    size_t used; /* of the memory: first counted, then given out */
    size_t n_used_tensors;
};

/* --- metadata --------------------------------------------------------------------------------- */

/* The index of the key's value in names. The sentence has room for three names, which is what the
 * longest table has. */
static int read_choice(const struct loader *l, const char *key, const char *const *names,
                       unsigned n, unsigned *ret)
{
    const char *value = safetensors_meta(l->s, key);

    for (unsigned i = 0; value && i < n; i++)
        if (strcmp(value, names[i]) == 0) {
            *ret = i;
            return 0;
        }
    return why_set(l->why, -EINVAL, "%s: %s is %.40s%s, expected one of %s, %s%s%s", l->path, key,
                   value ? value : "absent", value ? "" : " in its metadata", names[0], names[1],
                   n > 2 ? ", " : "", n > 2 ? names[2] : "");
}

/* Whole numbers with spaces between them, at most max, each from lo to hi. */
static int read_numbers(const struct loader *l, const char *key, uint32_t lo, uint32_t hi,
                        uint32_t *ret, uint32_t max, uint32_t *ret_n)
{
    const char *value = safetensors_meta(l->s, key), *p = value ? value : "";
    uint32_t n = 0;

    while (*p) {
        char *end;
        unsigned long v = strtoul(p, &end, 10);

        /* strtoul takes signs and spaces, and wraps: so the first character is looked at, too. */
        if (end == p || *p < '0' || *p > '9' || v < lo || v > hi || n == max)
            return why_set(l->why, -EINVAL,
                           "%s: %s is \"%.40s\", expected up to %u numbers from %u to %u", l->path,
                           key, value, max, lo, hi);
        ret[n++] = (uint32_t)v;
        for (p = end; *p == ' '; p++)
            ;
    }
    *ret_n = n;
    return 0;
}

/* Exactly one: absent is no number here, where read_numbers takes it for none of them. */
static int read_number(const struct loader *l, const char *key, uint32_t lo, uint32_t hi,
                       uint32_t *ret)
{
    uint32_t n;
    int r = read_numbers(l, key, lo, hi, ret, 1, &n);

    if (r == 0 && n == 0)
        return why_set(l->why, -EINVAL, "%s: %s is absent in its metadata, expected a number",
                       l->path, key);
    return r;
}

/* By digest, of which base_model may list several. Names are for the sentence alone. */
static int check_model(const struct loader *l)
{
    const char *digests = safetensors_meta(l->s, "base_model");
    const char *name = safetensors_meta(l->s, "base_name");

    if (digests && strstr(digests, l->m->digest))
        return 0;
    return why_set(l->why, -EINVAL,
                   "%s: this adapter belongs to the model %.40s (%.80s), the one that is loaded is "
                   "%.40s (%s)",
                   l->path, name ? name : "of another file", digests ? digests : "no digest",
                   l->m->name, l->m->digest);
}

static int read_metadata(struct loader *l)
{
    struct adapter *a = l->a;
    const char *format = safetensors_meta(l->s, "format");
    const char *version = safetensors_meta(l->s, "version");
    unsigned method, mask, embedding;
    int r;

    /* First of all: of another format or version nothing else can be expected to be as it is
     * here. */
    if (!format || strcmp(format, "gist-adapter") != 0 || !version || strcmp(version, "1") != 0)
        return why_set(l->why, -EINVAL,
                       "%s: found format %.40s, version %.20s, expected gist-adapter, version 1",
                       l->path, format ? format : "(none)", version ? version : "(none)");
    r = check_model(l);
    if (r == 0)
        r = read_choice(l, "method", methods, ADAPTER_METHOD__N, &method);
    if (r == 0)
        r = read_choice(l, "mask", masks, ADAPTER_MASK__N, &mask);
    if (r == 0)
        r = read_choice(l, "embedding", embeddings, 2, &embedding);
    if (r == 0)
        r = read_number(l, "segment", 64, 8192, &a->segment);
    if (r == 0)
        r = read_number(l, "sinks", 0, 16, &a->sinks);
    if (r == 0)
        r = read_numbers(l, "ratios", 2, 64, a->ratios, ADAPTER_RATIOS_MAX, &a->n_ratios);
    if (r == 0)
        r = read_numbers(l, "better_than_fit", 2, 64, a->better, ADAPTER_RATIOS_MAX, &a->n_better);
    if (r < 0)
        return r;
    a->method = method;
    a->mask = mask;
    a->embedding = embedding;
    return 0;
}

/* --- tensors ---------------------------------------------------------------------------------- */

/* The tensor of that name with its shape checked; *ret NULL: there is none. rows 0: any number from
 * 1 to most. All that sizes are made of is checked here, before anything is allocated by it. */
static int find(struct loader *l, const char *name, uint32_t rows, uint32_t most, uint32_t cols,
                const struct safetensors_tensor **ret)
{
    const struct safetensors_tensor *t = safetensors_find(l->s, name);
    bool flat = cols == 1; /* a vector is (n) or (n, 1) */

    *ret = t;
    if (!t)
        return 0;
    l->n_used_tensors++;
    if (t->type == SAFETENSORS_OTHER)
        return why_set(l->why, -EINVAL, "%s: tensor %s is neither F32 nor F16 nor BF16", l->path,
                       name);
    if (t->n_dims > 2 || (t->n_dims < 2 && !flat) || t->dims[1] != cols ||
        (rows ? t->dims[0] != rows : t->dims[0] < 1 || t->dims[0] > most))
        return why_set(l->why, -EINVAL, "%s: tensor %s has shape (%llu, %llu), expected (%s%u, %u)",
                       l->path, name, (unsigned long long)t->dims[0],
                       (unsigned long long)t->dims[1], rows ? "" : "1 to ", rows ? rows : most,
                       cols);
    return 0;
}

/* NULL while sizes are counted. Tensors begin on cache lines. */
static void *take(struct loader *l, size_t bytes)
{
    void *p = l->a->mem ? (uint8_t *)l->a->mem + l->used : NULL;

    l->used += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return p;
}

/* To the backend, whose memory the host may not touch. */
static int put(const struct loader *l, void *to, const void *from, size_t n)
{
    int r = backend_put(l->m->backend, to, from, n);

    return r < 0 ? why_set(l->why, r, "%s: can't be copied to the device", l->path) : 0;
}

/* Rows as the file has them, all of them numbers. free() it. */
static int read_rows(struct loader *l, const struct safetensors_tensor *t, void **ret)
{
    void *rows = malloc(t->len ? t->len : 1);
    int r = rows ? safetensors_read(l->s, t, rows, l->why)
                 : why_set(l->why, -ENOMEM, "%s: no memory", l->path);

    if (r == 0 && !quant_finite(safetensors_quant(t->type), rows, t->dims[0] * t->dims[1]))
        r = why_set(l->why, -EINVAL,
                    "%s: tensor %s has a NaN or an infinity, expected finite weights: the file is "
                    "damaged, or its training diverged",
                    l->path, t->name);
    if (r < 0) {
        free(rows);
        return r;
    }
    *ret = rows;
    return 0;
}

/* A vector, or a matrix that is looked up by rows (the gists' embedding): as it lies, in f32. */
static int load_floats(struct loader *l, const struct safetensors_tensor *t, const float **ret)
{
    size_t n = t->dims[0] * t->dims[1];
    float *to = take(l, n * sizeof(float)), *floats;
    void *rows;
    int r;

    if (!to)
        return 0; /* counted */
    r = read_rows(l, t, &rows);
    if (r < 0)
        return r;
    floats = malloc(n * sizeof(*floats));
    if (floats) {
        quant_dequantise_row(safetensors_quant(t->type), rows, n, floats);
        r = put(l, to, floats, n * sizeof(*floats));
    } else {
        r = why_set(l->why, -ENOMEM, "%s: no memory", l->path);
    }
    free(floats);
    free(rows);
    *ret = to;
    return r;
}

/* Into tiles; as_f32: whatever it is in the file. Low-rank parts are small and their products are
 * added to the base model's, so they are not rounded. */
static int load_matrix(struct loader *l, const struct safetensors_tensor *t, bool as_f32,
                       struct model_tensor *ret)
{
    uint32_t n_rows = (uint32_t)t->dims[0], n_cols = (uint32_t)t->dims[1];
    /* A matrix stays of the file's type, as the base model's do. */
    enum quant type = safetensors_quant(t->type), as = as_f32 ? QUANT_F32 : type;
    size_t from_bytes = quant_row_bytes(type, n_cols), len = tile_len(as, n_cols);
    uint8_t *to = take(l, tile_count(n_rows) * len), *tiles = NULL;
    float *floats = NULL;
    void *rows;
    int r;

    if (!to)
        return 0; /* counted */
    r = read_rows(l, t, &rows);
    if (r < 0)
        return r;
    if (as != type)
        floats = malloc((size_t)n_rows * n_cols * sizeof(*floats));
    tiles = malloc(tile_count(n_rows) * len);
    if (!tiles || (as != type && !floats)) {
        r = why_set(l->why, -ENOMEM, "%s: no memory", l->path);
        goto out;
    }
    if (floats)
        quant_dequantise_row(type, rows, (size_t)n_rows * n_cols, floats);
    for (uint32_t i = 0; i < tile_count(n_rows); i++) {
        /* Lanes without a row become zeros (tile_pack). */
        const void *lanes[TILE_ROWS] = { NULL };

        for (uint32_t k = 0; k < TILE_ROWS && i * TILE_ROWS + k < n_rows; k++) {
            size_t row = (size_t)i * TILE_ROWS + k;

            lanes[k] = floats ? (const void *)(floats + row * n_cols)
                              : (const uint8_t *)rows + row * from_bytes;
        }
        tile_pack(as, lanes, n_cols, tiles + i * len);
    }
    r = put(l, to, tiles, tile_count(n_rows) * len);
    *ret = (struct model_tensor){
        .data = to, .type = as, .n_rows = n_rows, .n_cols = n_cols, .tile_len = len
    };
out:
    free(tiles);
    free(floats);
    free(rows);
    return r;
}

/* The tensors of a projection in the file; NULL: it has none. */
struct found {
    const struct safetensors_tensor *w, *a, *b, *bias;
};

/* Low-rank parts come in twos: a's rows are the rank, and b's columns have to be as many. */
static int find_projection(struct loader *l, uint32_t layer, unsigned which, struct found *ret)
{
    uint32_t n_out, n_in, most = l->m->n_embd < ADAPTER_RANK_MAX ? l->m->n_embd : ADAPTER_RANK_MAX;
    char name[NAME_BYTES], other[NAME_BYTES];
    int r;

    adapter_projection_shape(l->m, which, &n_out, &n_in);
    *ret = (struct found){ NULL };
    (void)snprintf(name, sizeof(name), "layers.%u.%s.weight", layer, projections[which]);
    r = find(l, name, n_out, 0, n_in, &ret->w);
    if (r < 0)
        return r;
    (void)snprintf(name, sizeof(name), "layers.%u.%s.a", layer, projections[which]);
    (void)snprintf(other, sizeof(other), "layers.%u.%s.b", layer, projections[which]);
    r = find(l, name, 0, most, n_in, &ret->a);
    if (r == 0)
        r = find(l, other, n_out, 0, ret->a ? (uint32_t)ret->a->dims[0] : 1, &ret->b);
    if (r == 0 && !ret->a != !ret->b)
        return why_set(l->why, -EINVAL, "%s: there is a tensor %s but no %s", l->path,
                       ret->a ? name : other, ret->a ? other : name);
    if (r < 0 || which >= ADAPTER_QKV__N)
        return r;
    (void)snprintf(name, sizeof(name), "layers.%u.%s.bias", layer, projections[which]);
    return find(l, name, n_out, 0, 1, &ret->bias);
}

/* A part that the file leaves out stays zero in ret: the base model's is used. */
static int load_projection(struct loader *l, uint32_t layer, unsigned which,
                           struct adapter_projection *ret)
{
    struct found t;
    int r = find_projection(l, layer, which, &t);

    if (r == 0 && t.w)
        r = load_matrix(l, t.w, false, &ret->w);
    if (r == 0 && t.a)
        r = load_matrix(l, t.a, true, &ret->a);
    if (r == 0 && t.b)
        r = load_matrix(l, t.b, true, &ret->b);
    return r == 0 && t.bias ? load_floats(l, t.bias, &ret->bias) : r;
}

/* One walk over all tensors: the first, without memory, checks and counts. Both walks take tensors
 * in one order, so their places are the same. */
static int load(struct loader *l)
{
    const struct safetensors_tensor *embd;
    struct adapter *a = l->a;
    int r;

    l->used = l->n_used_tensors = 0;
    r = find(l, "gist.embedding", 0, 8192, l->m->n_embd, &embd);
    if (r < 0)
        return r;
    a->n_gists = embd ? (uint32_t)embd->dims[0] : 1;
    if (embd)
        r = load_floats(l, embd, &a->embd);
    else
        a->embd = take(l, l->m->n_embd * sizeof(float)); /* zeros */
    for (uint32_t i = 0; r == 0 && i < a->n_layer; i++)
        for (unsigned p = 0; r == 0 && p < ADAPTER_PROJECTION__N; p++)
            r = load_projection(l, i, p, &a->layers[i].p[p]);
    return r;
}

/* "q.weight", "down.a": what find_projection asks for. */
static bool is_projection(const char *name)
{
    static const char *const kinds[] = { ".weight", ".a", ".b", ".bias" };

    for (unsigned p = 0; p < ADAPTER_PROJECTION__N; p++) {
        size_t len = strlen(projections[p]);

        for (unsigned k = 0; k < (p < ADAPTER_QKV__N ? 4 : 3); k++)
            if (strncmp(name, projections[p], len) == 0 && strcmp(name + len, kinds[k]) == 0)
                return true;
    }
    return false;
}

/* A name that was not asked for is a mistake, or of a version that we don't know. */
static int check_unknown(const struct loader *l)
{
    /* Every find() of a tensor that is there counts one, and no name comes twice (safetensors.h):
     * so equal numbers mean that all were asked for. */
    if (l->n_used_tensors == safetensors_n(l->s))
        return 0;
    for (size_t i = 0; i < safetensors_n(l->s); i++) {
        const char *name = safetensors_at(l->s, i)->name;
        unsigned layer;
        char rest[16];

        if (strcmp(name, "gist.embedding") == 0)
            continue;
        if (sscanf(name, "layers.%u.%15s", &layer, rest) == 2 && layer < l->a->n_layer &&
            is_projection(rest))
            continue;
        return why_set(l->why, -EINVAL,
                       "%s: tensor %.60s has no meaning in an adapter of %u layers", l->path, name,
                       l->a->n_layer);
    }
    /* "layers.01.q.weight" is read as layer 1 by sscanf, but is not the name that was asked for. */
    return why_set(l->why, -EINVAL, "%s: found a tensor whose name is written in another way",
                   l->path);
}

/* --- opening ---------------------------------------------------------------------------------- */

/* Clients ask for an adapter by this name, so it says nothing of where the file is. */
static void set_name(struct adapter *a, const char *path)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    size_t len = strlen(base), suffix = strlen(SUFFIX);

    if (len > suffix && strcmp(base + len - suffix, SUFFIX) == 0)
        len -= suffix;
    (void)snprintf(a->name, sizeof(a->name), "%.*s",
                   (int)(len < ADAPTER_NAME_MAX ? len : ADAPTER_NAME_MAX), base);
}

static int load_all(struct loader *l)
{
    struct adapter *a = l->a;
    int r = read_metadata(l);

    if (r < 0)
        return r;
    a->n_layer = l->m->n_layer;
    a->layers = calloc(a->n_layer, sizeof(*a->layers));
    if (!a->layers)
        return why_set(l->why, -ENOMEM, "%s: no memory", l->path);
    r = load(l);
    if (r == 0)
        r = check_unknown(l);
    if (r < 0)
        return r;
    /* The first walk's sum. */
    a->mem_len = l->used;
    a->backend = l->m->backend;
    /* Zeroed: an embedding that the file leaves out is zeros. */
    r = backend_alloc(a->backend, a->mem_len, &a->mem);
    if (r < 0)
        return why_set(l->why, r, "%s: no memory for %zu bytes", l->path, a->mem_len);
    return load(l);
}

/* The digest is read by the same descriptor as the tensors, so it is of what is computed with. */
int adapter_open(const char *path, const struct model *m, struct adapter **ret, struct why *why)
{
    struct safetensors *s = NULL;
    struct loader l = { .path = path, .m = m, .why = why };
    int r;

    l.a = calloc(1, sizeof(*l.a));
    if (!l.a)
        return why_set(why, -ENOMEM, "%s: no memory", path);
    set_name(l.a, path);
    /* Read once, for the digest, and a second time for the tensors: adapters are small beside
     * models. */
    r = safetensors_open(path, &s, why);
    if (r == 0)
        r = safetensors_digest(s, l.a->digest, why);
    if (r == 0) {
        l.s = s;
        r = load_all(&l);
    }
    safetensors_close(s);
    if (r < 0) {
        adapter_close(l.a);
        return r;
    }
    *ret = l.a;
    return 0;
}

void adapter_leave(struct adapter *a)
{
    backend_free(a->backend, a->mem, a->mem_len);
    a->mem = NULL;
}

/* Sessions have the address of a, and go on with what from has. */
void adapter_take(struct adapter *a, struct adapter *from)
{
    struct adapter was = *a;

    *a = *from;
    *from = was;
    adapter_close(from);
}

void adapter_close(struct adapter *a)
{
    if (!a)
        return;
    free(a->layers);
    backend_free(a->backend, a->mem, a->mem_len);
    free(a);
}
