/* train/file/import.c - a published checkpoint as an adapter: which of its tensors are gists',
 * whether they were trained for this model, and under which names an adapter has them. Tensors are
 * read one by one while the adapter is written.
 */
#include "train/file/import.h"

#include "engine/file/adapter.h"
#include "train/file/adapter_write.h"
#include "train/file/beacon_config.h"
#include "train/file/published.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SOURCE_MAX 96
#define NORM       "model.norm.weight"

/* Of the base model's norms, a checkpoint in bf16 may have rounded them; another model's differ by
 * more. */
#define NORM_TOLERANCE (1.0f / 128)

/* As checkpoints name them. */
static const char letters[ADAPTER_QKV__N] = { 'q', 'k', 'v' };

/* Tensors have no data: fetch reads each by its source. */
struct importing {
    const struct import *in;
    struct why *why;
    struct published *from;
    struct beacon_config config;
    struct adapter_write_tensor *tensors;
    char (*sources)[SOURCE_MAX]; /* of each tensor: its name in the checkpoint */
    size_t n_tensors;
};

/* --- what there is ---------------------------------------------------------------------------- */

/* A checkpoint may come without the base's norm; when it has it, it tells which model this was. */
static int check_published(const struct importing *g)
{
    const struct model *m = g->in->model;
    /* Not merged, its product is not what gists were trained with. */
    const char *lora = published_any(g->from, ".lora_");
    float *norm;
    int r;

    if (lora)
        return why_set(g->why, -EINVAL,
                       "%s: tensor %.80s belongs to a LoRA: merge it into the model first",
                       g->in->from, lora);
    if (!published_find(g->from, NORM))
        return 0;
    norm = malloc(m->n_embd * sizeof(*norm));
    if (!norm)
        return why_set(g->why, -ENOMEM, "%s: no memory", g->in->from);
    /* In f32, whatever its type is there. */
    r = published_read(g->from, NORM, m->n_embd, 1, NULL, norm, g->why);
    for (uint32_t i = 0; r == 0 && i < m->n_embd; i++)
        /* A NaN is no match. */
        if (!(fabsf(norm[i] - m->output_norm[i]) <= NORM_TOLERANCE * fabsf(m->output_norm[i])))
            r = why_set(g->why, -EINVAL,
                        "%s: gists were trained for a different base model: value %u of the last "
                        "norm is %g, in %s it is %g",
                        g->in->from, i, norm[i], m->name, m->output_norm[i]);
    free(norm);
    return r;
}

/* Its type stays, so that no value is rounded twice. */
static int add_tensor(struct importing *g, const char *name, const char *source, uint64_t rows,
                      uint64_t cols)
{
    struct adapter_write_tensor *t = &g->tensors[g->n_tensors];
    int r = published_read(g->from, source, rows, cols, &t->type, NULL, g->why);

    if (r < 0)
        return r;
    (void)snprintf(t->name, sizeof(t->name), "%s", name);
    (void)snprintf(g->sources[g->n_tensors], SOURCE_MAX, "%s", source);
    /* A bias has one dimension. */
    t->n_dims = cols > 1 ? 2 : 1;
    t->dims[0] = rows;
    t->dims[1] = cols;
    g->n_tensors++;
    return 0;
}

/* One projection's weight, and its bias where the model has any. q has all heads, k and v those
 * that are shared. */
static int add_projection(struct importing *g, uint32_t layer, unsigned which)
{
    const struct model *m = g->in->model;
    uint32_t n_out = (which == ADAPTER_Q ? m->n_head : m->n_head_kv) * m->head_dim;
    char name[ADAPTER_WRITE_NAME_MAX + 1], source[SOURCE_MAX];
    int r;

    (void)snprintf(name, sizeof(name), "layers.%u.%c.weight", layer, letters[which]);
    (void)snprintf(source, sizeof(source), "model.layers.%u.self_attn.%s_%c_proj.weight", layer,
                   g->config.prefix, letters[which]);
    r = add_tensor(g, name, source, n_out, m->n_embd);
    if (r < 0)
        return r;
    (void)snprintf(name, sizeof(name), "layers.%u.%c.bias", layer, letters[which]);
    (void)snprintf(source, sizeof(source), "model.layers.%u.self_attn.%s_%c_proj.bias", layer,
                   g->config.prefix, letters[which]);
    return published_find(g->from, source) ? add_tensor(g, name, source, n_out, 1) : 0;
}

static int add_tensors(struct importing *g)
{
    const struct model *m = g->in->model;
    /* The embedding; a weight and a bias of each. */
    size_t most = 1 + (size_t)m->n_layer * ADAPTER_QKV__N * 2;
    char source[SOURCE_MAX];
    int r;

    g->tensors = calloc(most, sizeof(*g->tensors));
    g->sources = calloc(most, sizeof(*g->sources));
    if (!g->tensors || !g->sources)
        return why_set(g->why, -ENOMEM, "%s: no memory", g->in->from);
    (void)snprintf(source, sizeof(source), "model.%s_embed_tokens.weight", g->config.prefix);
    r = add_tensor(g, "gist.embedding", source, 1, m->n_embd);
    for (uint32_t i = 0; r == 0 && i < m->n_layer; i++)
        for (unsigned p = 0; r == 0 && p < ADAPTER_QKV__N; p++)
            if (g->config.has[p])
                r = add_projection(g, i, p);
    return r;
}

/* --- the adapter ------------------------------------------------------------------------------ */

/* The caller's, which loads the file: what this program writes it can also read. */
static int check(void *arg, const char *path, struct why *why)
{
    const struct importing *g = arg;

    return g->in->check ? g->in->check(g->in->arg, path, why) : 0;
}

static int fetch(void *arg, size_t i, float *ret, struct why *why)
{
    const struct importing *g = arg;
    const struct adapter_write_tensor *t = &g->tensors[i];

    return published_read(g->from, g->sources[i], t->dims[0], t->dims[1], NULL, ret, why);
}

/* "2 4 8". */
static void numbers(const uint32_t *n, uint32_t count, char *ret, size_t size)
{
    size_t len = 0;

    ret[0] = '\0';
    for (uint32_t i = 0; i < count; i++)
        len += (size_t)snprintf(ret + len, size - len, "%s%u", i ? " " : "", n[i]);
}

static int write_adapter(struct importing *g)
{
    const struct import *in = g->in;
    char segment[16], sinks[16], ratios[ADAPTER_RATIOS_MAX * 4];
    /* The kind of gists that these checkpoints have, and no other. */
    struct adapter_write_pair pairs[] = {
        { "format", "gist-adapter" },
        { "version", "1" },
        { "base_model", in->model->digest },
        { "base_name", in->model->name },
        { "method", adapter_method_name(ADAPTER_FINE_KV) },
        { "mask", adapter_mask_name(ADAPTER_IN_SEGMENT) },
        { "embedding", "own" },
        { "segment", in->segment ? in->segment : segment },
        { "ratios", in->ratios ? in->ratios : ratios },
        { "sinks", in->sinks ? in->sinks : sinks },
    };
    struct adapter_write w = { .pairs = pairs,
                               .n_pairs = sizeof(pairs) / sizeof(*pairs),
                               .tensors = g->tensors,
                               .n_tensors = g->n_tensors,
                               .fetch = fetch,
                               .check = check,
                               .arg = g,
                               .replace = in->replace };

    /* All else has a value that is right when nobody says it. */
    if (!in->segment && g->config.window == 0)
        return why_set(g->why, -EINVAL,
                       "%s: %s_window is missing; give the segment length with --segment",
                       published_config_path(g->from), g->config.prefix);
    numbers(&g->config.window, 1, segment, sizeof(segment));
    numbers(&g->config.sinks, 1, sinks, sizeof(sinks));
    numbers(g->config.ratios, g->config.n_ratios, ratios, sizeof(ratios));
    return adapter_write(in->out, &w, g->why);
}

int import_run(const struct import *in, struct why *why)
{
    struct importing g = { .in = in, .why = why };
    /* Cheap checks first; the adapter is begun when all tensors were found. */
    int r = published_open(in->from, &g.from, why);

    if (r == 0)
        r = beacon_config_read(published_config_path(g.from), in->model, &g.config, why);
    if (r == 0)
        r = check_published(&g);
    if (r == 0)
        r = add_tensors(&g);
    if (r == 0)
        r = write_adapter(&g);
    published_close(g.from);
    free(g.tensors);
    free(g.sources);
    return r;
}
