/* engine/file/hparams.c - keys that are needed, keys that are refused, and the rest, which is not
 * read.
 *
 * Everything comes from a file that anybody may have written, and is the base of all sizes: each
 * number is held to bounds before it takes part in another one. A key that is not known is ignored,
 * as files have many that say nothing about the computation; those that would change it are listed
 * (others).
 */
#include "engine/file/hparams.h"

#include "base/utf8.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Widths are split among workers and quantised in blocks of 32 activations. */
#define WIDTH_MULTIPLE    32u
#define HEAD_DIM_MULTIPLE 8u

#define ROPE_BASE_DEFAULT 10000.0f
#define ROPE_BASE_MAX     1e12f

static const struct {
    const char *name;
    enum model_arch arch;
} archs[] = {
    { "llama", MODEL_LLAMA },
    { "qwen2", MODEL_QWEN2 },
};

struct keys {
    const struct gguf *g;
    struct why *why;
    const char *prefix; /* the architecture's name */
    char key[128];      /* the last one built */
};

/* "head_count" to "llama.head_count". Names are our own constants and short. Good until the next
 * one is built: sentences use it at once. */
static const char *key_of(struct keys *k, const char *name)
{
    (void)snprintf(k->key, sizeof(k->key), "%s.%s", k->prefix, name);
    return k->key;
}

static int read_arch(struct keys *k, struct model *m)
{
    char shown[GGUF_SHOW_MAX];
    struct gguf_str s;
    int e = gguf_get_str(k->g, "general.architecture", &s);

    if (e < 0)
        return why_set(k->why, -EINVAL, "%s: general.architecture is %s, expected a string",
                       gguf_label(k->g), e == -ENOENT ? "missing" : "of another kind");
    for (size_t i = 0; i < sizeof(archs) / sizeof(archs[0]); i++) {
        if (strlen(archs[i].name) == s.len && memcmp(archs[i].name, s.s, s.len) == 0) {
            m->arch = archs[i].arch;
            k->prefix = archs[i].name;
            return 0;
        }
    }
    return why_set(k->why, -ENOTSUP, "%s: architecture %s, supported: llama, qwen2",
                   gguf_label(k->g), gguf_show(s, shown));
}

/* An integer in [min, max]. def: its value when the key is missing; 0: it must be there. A default
 * is not held to the bounds: it is our own, or made of numbers that were. */
static int read_u32(struct keys *k, const char *name, uint32_t def, uint32_t min, uint32_t max,
                    uint32_t *ret)
{
    const char *key = key_of(k, name);
    uint32_t v;
    int e = gguf_get_u32(k->g, key, &v);

    if (e == -ENOENT && def) {
        *ret = def;
        return 0;
    }
    if (e == -ENOENT)
        return why_set(k->why, -EINVAL, "%s: key %s is missing", gguf_label(k->g), key);
    if (e < 0)
        return why_set(k->why, -EINVAL, "%s: %s is not an integer of 32 bits", gguf_label(k->g),
                       key);
    if (v < min || v > max)
        return why_set(k->why, -EINVAL, "%s: %s is %u, expected %u to %u", gguf_label(k->g), key, v,
                       min, max);
    *ret = v;
    return 0;
}

/* A number above 0 and up to max. def as in read_u32. */
static int read_f32(struct keys *k, const char *name, float def, float max, float *ret)
{
    const char *key = key_of(k, name);
    float v;
    int e = gguf_get_f32(k->g, key, &v);

    if (e == -ENOENT && def > 0) {
        *ret = def;
        return 0;
    }
    if (e == -ENOENT)
        return why_set(k->why, -EINVAL, "%s: key %s is missing", gguf_label(k->g), key);
    if (e < 0)
        return why_set(k->why, -EINVAL, "%s: %s is not a float", gguf_label(k->g), key);
    if (!(v > 0 && v <= max)) /* a NaN too */
        return why_set(k->why, -EINVAL, "%s: %s is %g, expected more than 0 and at most %g",
                       gguf_label(k->g), key, (double)v, (double)max);
    *ret = v;
    return 0;
}

/* --- what we don't compute -------------------------------------------------------------------- */

/* A number of any kind. -ENOENT, -EINVAL as gguf_get_u32. */
static int read_number(const struct gguf *g, const char *key, double *ret)
{
    uint32_t u;
    float f;
    bool b;

    if (gguf_get_u32(g, key, &u) == 0) {
        *ret = u;
        return 0;
    }
    if (gguf_get_f32(g, key, &f) == 0) {
        *ret = (double)f;
        return 0;
    }
    if (gguf_get_bool(g, key, &b) == 0) {
        *ret = b;
        return 0;
    }
    return gguf_get_u32(g, key, &u);
}

/* Keys that stand for something else to compute, unless they have this value (or are missing). */
static const struct {
    const char *name;
    double none;
} others[] = {
    { "expert_count", 0 },
    { "expert_used_count", 0 },
    { "expert_shared_count", 0 },
    { "nextn_predict_layers", 0 },
    { "use_parallel_residual", 0 },
    { "pooling_type", 0 },
    { "logit_scale", 1 },
    { "embedding_scale", 1 },
    { "residual_scale", 1 },
    { "attn_logit_softcapping", 0 },
    { "final_logit_softcapping", 0 },
    { "attention.causal", 1 },
    { "attention.max_alibi_bias", 0 },
    { "attention.clamp_kqv", 0 },
    { "attention.q_lora_rank", 0 },
    { "attention.kv_lora_rank", 0 },
    { "attention.shared_kv_layers", 0 },
    { "rope.scaling.attn_factor", 1 },
    { "rope.scaling.alpha", 0 },
};

/* -ENOTSUP and not -EINVAL: the file is good, and the model is not one of ours. */
static int refuse_value(struct keys *k, const char *key, double v, const char *supported)
{
    return why_set(k->why, -ENOTSUP, "%s: %s is %g, supported: %s", gguf_label(k->g), key, v,
                   supported);
}

/* A value that is no number (an array, say) can't be compared with the one that means "none", and
 * is refused as well. */
static int refuse_others(struct keys *k, const struct model *m)
{
    double scale = 1 / sqrt(m->head_dim), v;
    const char *key;
    char text[32];
    int e;

    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        key = key_of(k, others[i].name);
        e = read_number(k->g, key, &v);
        if (e == -ENOENT || (e == 0 && v == others[i].none))
            continue;
        (void)snprintf(text, sizeof(text), "%g", others[i].none);
        if (e == 0)
            return refuse_value(k, key, v, text);
        return why_set(k->why, -ENOTSUP, "%s: %s is not a single number, supported: %s",
                       gguf_label(k->g), key, text);
    }
    /* In f32 by whoever wrote it, so equal to rounding. */
    key = key_of(k, "attention.scale");
    if (read_number(k->g, key, &v) == 0 && v != 0 && !(fabs(v - scale) < 1e-6))
        return refuse_value(k, key, v, "1 / sqrt(head size)");
    /* A window as long as the context changes nothing. */
    key = key_of(k, "attention.sliding_window");
    e = read_number(k->g, key, &v);
    if (e == -EINVAL || (e == 0 && v != 0 && v < m->n_ctx_train))
        return refuse_value(k, key, e == 0 ? v : NAN, "0, full attention");
    return 0;
}

/* Asked first: a part of a split model may lack keys and tensors, and the sentence should name the
 * real cause. */
static int refuse_split(struct keys *k)
{
    uint32_t n;

    if (gguf_get_u32(k->g, "split.count", &n) == 0 && n > 1)
        return why_set(k->why, -ENOTSUP,
                       "%s: one of %u parts of a split model, supported: a model in one file",
                       gguf_label(k->g), n);
    return 0;
}

/* --- sizes ------------------------------------------------------------------------------------ */

static int require_multiple(struct keys *k, const char *name, uint32_t v, uint32_t of)
{
    if (v % of == 0)
        return 0;
    return why_set(k->why, -ENOTSUP, "%s: %s is %u, supported: multiples of %u", gguf_label(k->g),
                   name, v, of);
}

static int read_head_dim(struct keys *k, struct model *m)
{
    /* What a file leaves out is n_embd / n_head, which need not be what the heads' sizes add up to:
     * then it says so by key_length. */
    uint32_t value_len, rope_dim, def = m->n_embd / m->n_head;
    int e;

    if (def == 0)
        return why_set(k->why, -EINVAL, "%s: %u heads for %u values, expected fewer",
                       gguf_label(k->g), m->n_head, m->n_embd);
    e = read_u32(k, "attention.key_length", def, 1, HPARAMS_HEAD_DIM_MAX, &m->head_dim);
    if (e == 0)
        e = read_u32(k, "attention.value_length", def, 1, HPARAMS_HEAD_DIM_MAX, &value_len);
    if (e == 0)
        e = read_u32(k, "rope.dimension_count", m->head_dim, 1, UINT32_MAX, &rope_dim);
    if (e < 0)
        return e;
    if (m->head_dim > HPARAMS_HEAD_DIM_MAX) /* the default, unchecked so far */
        return why_set(k->why, -ENOTSUP, "%s: heads of %u values, supported: up to %u",
                       gguf_label(k->g), m->head_dim, HPARAMS_HEAD_DIM_MAX);
    if (value_len != m->head_dim)
        return why_set(k->why, -ENOTSUP,
                       "%s: keys of %u and values of %u a head, supported: equal lengths",
                       gguf_label(k->g), m->head_dim, value_len);
    /* A head that is turned in part would need kernels that leave the rest of it alone. */
    if (rope_dim != m->head_dim)
        return why_set(k->why, -ENOTSUP,
                       "%s: %s.rope.dimension_count is %u, supported: the whole head of %u",
                       gguf_label(k->g), k->prefix, rope_dim, m->head_dim);
    /* Vectors of 8 floats are the shortest that kernels store. */
    e = require_multiple(k, "the head's size", m->head_dim, HEAD_DIM_MULTIPLE);
    if (e == 0)
        e = require_multiple(k, "the heads' total size", m->n_head * m->head_dim, WIDTH_MULTIPLE);
    return e;
}

/* Without head_count_kv each query head has keys of its own. */
static int read_sizes(struct keys *k, struct model *m)
{
    int e = read_u32(k, "block_count", 0, 1, HPARAMS_LAYERS_MAX, &m->n_layer);

    if (e == 0)
        e = read_u32(k, "context_length", 0, 1, HPARAMS_CTX_MAX, &m->n_ctx_train);
    if (e == 0)
        e = read_u32(k, "embedding_length", 0, 1, HPARAMS_EMBD_MAX, &m->n_embd);
    if (e == 0)
        e = require_multiple(k, k->key, m->n_embd, WIDTH_MULTIPLE);
    if (e == 0)
        e = read_u32(k, "feed_forward_length", 0, 1, HPARAMS_FF_MAX, &m->n_ff);
    if (e == 0)
        e = require_multiple(k, k->key, m->n_ff, WIDTH_MULTIPLE);
    if (e == 0)
        e = read_u32(k, "attention.head_count", 0, 1, HPARAMS_HEADS_MAX, &m->n_head);
    if (e == 0)
        e = read_u32(k, "attention.head_count_kv", m->n_head, 1, HPARAMS_HEADS_MAX, &m->n_head_kv);
    if (e < 0)
        return e;
    if (m->n_head % m->n_head_kv != 0)
        return why_set(k->why, -EINVAL,
                       "%s: %u query heads and %u KV heads, expected a multiple of these",
                       gguf_label(k->g), m->n_head, m->n_head_kv);
    return read_head_dim(k, m);
}

/* --- rope ------------------------------------------------------------------------------------- */

/* Without a type a factor means linear scaling, as llama.cpp reads it; an old file calls it
 * rope.scale_linear. Llama 3.1's scaling is no key but the tensor rope_freqs.weight. */
static int read_rope_scale(struct keys *k, float *ret)
{
    char shown[GGUF_SHOW_MAX];
    struct gguf_str type = { "linear", 6 };
    const char *key = key_of(k, "rope.scaling.type");
    double v = 0;
    int e = gguf_get_str(k->g, key, &type);

    if (e == -EINVAL)
        return why_set(k->why, e, "%s: %s is not a string", gguf_label(k->g), key);
    *ret = 1;
    if (type.len == 4 && memcmp(type.s, "none", 4) == 0)
        return 0;
    if (type.len != 6 || memcmp(type.s, "linear", 6) != 0)
        return why_set(k->why, -ENOTSUP, "%s: %s is %s, supported: none, linear", gguf_label(k->g),
                       key, gguf_show(type, shown));
    key = key_of(k, "rope.scaling.factor");
    e = read_number(k->g, key, &v);
    if (e == -ENOENT) {
        key = key_of(k, "rope.scale_linear");
        e = read_number(k->g, key, &v);
    }
    if (e == -EINVAL || !(v == 0 || (v >= 1e-3 && v <= 1e6)))
        return why_set(k->why, -EINVAL, "%s: %s is %g, expected 0 (none) or 0.001 to 1000000",
                       gguf_label(k->g), key, v);
    if (v != 0)
        *ret = (float)v;
    return 0;
}

/* --- name ------------------------------------------------------------------------------------- */

/* What clients show: whole UTF-8 characters without controls, cut to fit. Terminals show it, and
 * clients may be anybody's. */
static void put_name(struct model *m, const char *s, size_t len)
{
    const uint8_t *p = (const uint8_t *)s;
    size_t out = 0, n;

    for (size_t i = 0; i < len; i += n) {
        bool ok = utf8_check(p + i, len - i, &n) == UTF8_OK && p[i] >= ' ' && p[i] != 127;
        size_t put = ok ? n : 1;

        if (out + put >= sizeof(m->name))
            break;
        if (ok)
            memcpy(m->name + out, p + i, n);
        else
            m->name[out] = '?';
        out += put;
    }
    m->name[out] = '\0';
}

static void read_name(const struct gguf *g, struct model *m)
{
    const char *slash = strrchr(gguf_path(g), '/');
    const char *file = slash ? slash + 1 : gguf_path(g);
    struct gguf_str s;

    if (gguf_get_str(g, "general.name", &s) < 0 || s.len == 0)
        s = (struct gguf_str){ file, strlen(file) };
    put_name(m, s.s, s.len);
}

int hparams_read(const struct gguf *g, struct model *m, float *ret_rope_scale, struct why *why)
{
    struct keys k = { .g = g, .why = why };
    float base = ROPE_BASE_DEFAULT;
    int e = refuse_split(&k);

    if (e == 0)
        e = read_arch(&k, m);
    if (e == 0)
        e = read_sizes(&k, m);
    if (e == 0)
        e = refuse_others(&k, m);
    if (e == 0)
        e = read_f32(&k, "attention.layer_norm_rms_epsilon", 0, 1, &m->rms_eps);
    if (e == 0)
        e = read_f32(&k, "rope.freq_base", ROPE_BASE_DEFAULT, ROPE_BASE_MAX, &base);
    if (e == 0)
        e = read_rope_scale(&k, ret_rope_scale);
    if (e < 0)
        return e;
    m->rope_base = (double)base;
    read_name(g, m);
    return 0;
}
