#include "engine/file/model.h"

#include "engine/backend.h"
#include "engine/file/gguf.h"
#include "engine/file/hparams.h"
#include "engine/file/weights.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

/* All that can be known without reading a weight. */
static int plan(const struct gguf *g, struct model *m, float *ret_rope_scale,
                const float **ret_rope_factors, struct weights *ret, struct why *why)
{
    int e = hparams_read(g, m, ret_rope_scale, why);

    return e ? e : weights_plan(g, m, ret_rope_factors, ret, why);
}

/* freq[i] = base^(-2 i / head_dim), divided by the linear scale and Llama 3.1's factor i. In double
 * and rounded once: a position of thousands multiplies the error. */
static int set_rope(struct model *m, float scale, const float *stored, struct why *why)
{
    float factors[HPARAMS_HEAD_DIM_MAX / 2];

    if (stored && backend_get(m->backend, factors, stored, m->head_dim / 2 * sizeof(*factors)) < 0)
        return why_set(why, -EIO, "%s: rope_freqs.weight can't be read back from the device",
                       gguf_label(m->file));
    m->rope_freq = calloc(m->head_dim / 2, sizeof(*m->rope_freq));
    if (!m->rope_freq)
        return why_set(why, -ENOMEM, "%s: no memory", gguf_label(m->file));
    for (uint32_t i = 0; i < m->head_dim / 2; i++) {
        double f = pow(m->rope_base, -2.0 * i / m->head_dim) / (double)scale;

        if (stored) {
            if (!(factors[i] > 0))
                return why_set(why, -EINVAL,
                               "%s: rope_freqs.weight has %g at %u, expected factors above 0",
                               gguf_label(m->file), (double)factors[i], i);
            f /= (double)factors[i];
        }
        m->rope_freq[i] = (float)f;
    }
    return 0;
}

int model_open(const char *path, struct backend *b, const struct model_progress *progress,
               struct model **ret_model, struct why *why)
{
    struct model *m = calloc(1, sizeof(*m));
    struct weights w = { 0 };
    const float *factors = NULL;
    float scale = 1;
    int e;

    if (!m)
        return why_set(why, -ENOMEM, "%s: no memory", path);
    m->backend = b;
    e = gguf_open(path, &m->file, why);
    if (e == 0)
        e = plan(m->file, m, &scale, &factors, &w, why);
    if (e != 0)
        goto fail;
    e = backend_alloc(b, m->packed.len, &m->mem);
    if (e != 0) {
        (void)why_set(why, e, "%s: no memory for %zu bytes of weights", path, m->packed.len);
        goto fail;
    }
    m->mem_len = m->packed.len;
    m->weights_len = w.data_len;
    e = weights_read(&w, b, m->mem, progress, m->digest);
    if (e == 0)
        e = set_rope(m, scale, factors, why);
    if (e != 0)
        goto fail;
    if (!m->output.data)
        m->output = m->embd;
    weights_fini(&w);
    *ret_model = m;
    return 0;

fail:
    weights_fini(&w);
    model_close(m);
    return e;
}

int model_check(const struct gguf *g, struct why *why)
{
    struct model m = { 0 };
    struct weights w = { 0 };
    const float *factors = NULL;
    float scale;
    int e = plan(g, &m, &scale, &factors, &w, why);

    weights_fini(&w);
    packed_close(&m.packed);
    free(m.layers);
    return e;
}

void model_close(struct model *m)
{
    if (!m)
        return;
    backend_free(m->backend, m->mem, m->mem_len);
    free(m->rope_freq);
    free(m->layers);
    packed_close(&m->packed);
    gguf_close(m->file);
    free(m);
}
