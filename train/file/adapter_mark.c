/* train/file/adapter_mark.c - the file is written again beside itself, and takes its own name when
 * it is whole: a header that is longer moves every tensor. */
#include "train/file/adapter_mark.h"

#include "engine/file/safetensors.h"
#include "train/file/adapter_write.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct marking {
    const char *path;
    struct safetensors *from;
    const struct safetensors_tensor **order; /* as they lie in the file */
    struct adapter_write_pair *pairs;
    struct adapter_write_tensor *tensors;
    int (*check)(void *arg, const char *path, struct why *why);
    void *arg;
};

/* All three types are floats exactly, and rounded to themselves they are what they were. By one
 * tensor at a time: adapters are as large as models' attention. */
static int fetch(void *arg, size_t i, float *ret, struct why *why)
{
    const struct marking *g = arg;
    const struct safetensors_tensor *t = g->order[i];
    uint64_t n = 1;
    void *raw = malloc(t->len ? t->len : 1);
    int r;

    for (uint32_t d = 0; d < t->n_dims; d++)
        n *= t->dims[d];
    r = raw ? safetensors_read(g->from, t, raw, why)
            : why_set(why, -ENOMEM, "%s: no memory for tensor %s", g->path, t->name);
    if (r == 0)
        quant_dequantise_row(safetensors_quant(t->type), raw, n, ret);
    free(raw);
    return r;
}

static int check(void *arg, const char *path, struct why *why)
{
    const struct marking *g = arg;

    return g->check(g->arg, path, why);
}

/* In the order of the file, so that its tensors are read from the front to the back. */
static int by_offset(const void *a, const void *b)
{
    const struct safetensors_tensor *const *x = a, *const *y = b;

    return (*x)->off < (*y)->off ? -1 : (*x)->off > (*y)->off;
}

/* Shapes and types stay as they are. */
static int fill_tensors(struct marking *g, struct why *why)
{
    size_t n = safetensors_n(g->from);

    for (size_t i = 0; i < n; i++)
        g->order[i] = safetensors_at(g->from, i);
    qsort(g->order, n, sizeof(*g->order), by_offset);
    for (size_t i = 0; i < n; i++) {
        const struct safetensors_tensor *t = g->order[i];
        struct adapter_write_tensor *to = &g->tensors[i];

        if (t->type == SAFETENSORS_OTHER || strlen(t->name) > ADAPTER_WRITE_NAME_MAX)
            return why_set(why, -EINVAL, "%s: tensor %s is none of an adapter's", g->path, t->name);
        (void)snprintf(to->name, sizeof(to->name), "%s", t->name);
        to->type = t->type;
        to->n_dims = t->n_dims;
        memcpy(to->dims, t->dims, sizeof(to->dims));
    }
    return 0;
}

/* The file's pairs with the key's own in its place, or behind them all. */
static size_t fill_pairs(struct marking *g, const char *key, const char *value)
{
    size_t n = 0;
    bool met = false;

    for (size_t i = 0; i < safetensors_n_metas(g->from); i++) {
        const char *k, *v = safetensors_meta_at(g->from, i, &k);
        bool same = strcmp(k, key) == 0;

        met = met || same;
        if (!same || value)
            g->pairs[n++] = (struct adapter_write_pair){ k, same ? value : v };
    }
    if (!met && value)
        g->pairs[n++] = (struct adapter_write_pair){ key, value };
    return n;
}

int adapter_mark(const char *path, const char *key, const char *value,
                 int (*look)(void *arg, const char *path, struct why *why), void *arg,
                 struct why *why)
{
    struct marking g = { .path = path, .check = look, .arg = arg };
    struct adapter_write w = { .fetch = fetch, .check = check, .arg = &g, .replace = true };
    int r = safetensors_open(path, &g.from, why);

    if (r < 0)
        return r;
    g.pairs = calloc(safetensors_n_metas(g.from) + 1, sizeof(*g.pairs));
    g.tensors = calloc(safetensors_n(g.from) + 1, sizeof(*g.tensors));
    g.order = calloc(safetensors_n(g.from) + 1, sizeof(*g.order));
    r = g.pairs && g.tensors && g.order
            ? fill_tensors(&g, why)
            : why_set(why, -ENOMEM, "%s: no memory for its header", path);
    if (r == 0) {
        w.pairs = g.pairs;
        w.n_pairs = fill_pairs(&g, key, value);
        w.tensors = g.tensors;
        w.n_tensors = safetensors_n(g.from);
        r = adapter_write(path, &w, why);
    }
    free(g.order);
    free(g.tensors);
    free(g.pairs);
    safetensors_close(g.from);
    return r;
}
