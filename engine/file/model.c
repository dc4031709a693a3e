/* engine/file/model.c - opens a model: a plan from the header, then its weights from where they are
 * there soonest.
 *
 *     weight_bytes < the weights   -> an image, streamed      (load_streamed)
 *     kept by the service manager  -> mapped, no file is read  (take_kept)
 *     an image in the folder       -> mapped, read if need be  (take_mapped)
 *     else                         -> the GGUF file, packed    (read_weights)
 *
 * What is found is compared with the plan and with the state of the file; one that will not do is
 * passed over for the next, and only the last one's errors are the caller's.
 */
#include "engine/file/model.h"

#include "engine/backend.h"
#include "engine/file/feed.h"
#include "engine/file/gguf.h"
#include "engine/file/hparams.h"
#include "engine/file/image_make.h"
#include "engine/file/kept.h"
#include "engine/file/stream.h"
#include "engine/file/weights.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* All that can be known without reading a weight. Sizes first: they say which tensors there have to
 * be. */
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

/* Before any weight is read: who changes the file meanwhile makes another state than this one. */
static int identify(struct model *m, struct why *why)
{
    int e = image_identify(&m->packed, m->file, &m->of);

    return e < 0 ? why_set(why, e, "%s: %s", gguf_label(m->file), strerror(-e)) : 0;
}

/* Kept memory begins with a head, which the weights stand behind. */
static int set_block(struct model *m, void *block, size_t head, size_t len, enum model_from from)
{
    m->block = block;
    m->block_len = head + len;
    m->mem = (uint8_t *)block + head;
    m->mem_len = len;
    m->from = from;
    return 0;
}

/* Weights that another process has left. -ENOENT: there are none that will do. */
static int take_kept(struct model *m, struct weights *w, const struct image_of *of, struct kept *k)
{
    /* take_kept's reasons are in kept->not_used: this one is for nobody. */
    struct why none = { "" };
    void *base;
    int e = k ? kept_take(k, m->backend, of, &base, m->digest, &none) : -ENOENT;

    if (e != 0)
        return -ENOENT;
    weights_bind(w, (uint8_t *)base + image_head_len(&m->packed));
    return set_block(m, base, image_head_len(&m->packed), m->packed.len, MODEL_FROM_KEPT);
}

/* Memory for the weights: such as others can have after us, if that is wanted and to be had. */
static int alloc_weights(struct model *m, struct kept *k, struct why *why)
{
    struct why short_of = { "" };
    void *block;
    int e;

    /* It fails where a device has the weights, or where the system gives no such memory:
     * kept->not_kept says so, and other memory will do. */
    if (k && k->wanted && kept_alloc(k, m->backend, &m->packed, &block) == 0)
        return set_block(m, block, image_head_len(&m->packed), m->packed.len, MODEL_FROM_FILE);
    e = backend_alloc_weights(m->backend, m, &block, &short_of);
    if (e != 0)
        return short_of.text[0] ? why_set(why, e, "%s: %s", gguf_label(m->file), short_of.text)
                                : why_set(why, e, "%s: no memory for %zu bytes of weights",
                                          gguf_label(m->file), m->packed.len);
    return set_block(m, block, 0, m->packed.len, MODEL_FROM_FILE);
}

static int read_weights(struct model *m, struct weights *w, const struct image_of *of,
                        const struct model_options *o, struct why *why)
{
    int e = o->room ? o->room(o->room_arg, why) : 0, gone = 0;

    if (e == 0)
        e = alloc_weights(m, o->kept, why);
    if (e == 0)
        e = weights_read(w, m->backend, m->mem, o->progress, m->digest);
    /* Also when reading failed: it closes the descriptor then. */
    if (o->kept && o->kept->fd >= 0)
        gone = kept_finish(o->kept, m->backend, of, e, m->digest, m->block);
    if (e == 0 && gone < 0)
        e = why_set(why, gone, "%s: the weights can't be mapped again, now that they are sealed",
                    gguf_label(m->file));
    return e;
}

/* The digest is the header's: the GGUF file itself was not read, only its state was compared. */
static int take_image(struct model *m, struct weights *w, const struct model_options *o,
                      const struct image_of *of, struct why *why)
{
    struct stream_options so = { .budget = o->weight_bytes,
                                 .model = m,
                                 .backend = m->backend,
                                 .io = o->io,
                                 .progress = o->progress };
    struct image_file image;
    int e = image_file_open(o->images, of, &image, why);

    if (e != 0)
        return e;
    memcpy(m->digest, image.digest, sizeof(m->digest));
    e = stream_open(&so, &image, &m->stream, why);
    if (e == 0) {
        weights_bind_extents(w, stream_bases(m->stream));
        m->mem = stream_mem(m->stream, &m->mem_len);
        m->from = MODEL_FROM_IMAGE;
    }
    image_file_close(&image);
    return e;
}

/* From the image, which is made where there is none, or none of this file, or one that is damaged.
 */
static int load_streamed(struct model *m, struct weights *w, const struct image_of *of,
                         const struct model_options *o, struct why *why)
{
    struct why first = { "" };
    int e = stream_check(m, o->weight_bytes, why);

    if (e != 0)
        return e;
    if (!o->images)
        return why_set(why, -EINVAL,
                       "option weight-bytes: the weights of %s take %zu bytes, and what does not "
                       "stay in memory is read from an image of them, which needs a folder: set "
                       "weight-cache",
                       gguf_label(m->file), m->packed.len);
    /* What was kept is all of the weights in memory, which is what the option says no to. */
    if (o->kept && o->kept->n_found > 0)
        (void)why_set(&o->kept->not_used, 0, "weight-bytes is less than they take");
    e = o->room ? o->room(o->room_arg, why) : 0;
    if (e != 0)
        return e;
    e = take_image(m, w, o, of, &first);
    /* These four mean that there is no image, or one that a new one may replace. After any other
     * error a new image would fare no better. */
    if (e != -ENOENT && e != -ESTALE && e != -EBADMSG && e != -EPERM)
        return e ? why_set(why, e, "%s", first.text) : 0;
    e = image_make(o->images, of, w, m->backend, o->progress, why);
    return e ? e : take_image(m, w, o, of, why);
}

/* The image's own pages. -ENOENT: there is no image that will do, and image_why says so of one that
 * is there. */
static int take_mapped(struct model *m, struct weights *w, const struct model_options *o,
                       struct why *why)
{
    struct image_file f;
    int e = o->images ? image_file_open(o->images, &m->of, &f, &m->image_why) : -ENOENT;

    if (e == -ENOENT)
        m->image_why.text[0] = '\0';
    if (e != 0)
        return -ENOENT;
    /* With too little memory its pages would be dropped and read anew, and nobody compares them
     * then. */
    e = o->room ? o->room(o->room_arg, why) : 0;
    if (e != 0) {
        image_file_close(&f);
        return e;
    }
    e = image_map_open(&f, &m->packed, m->backend, &m->map);
    memcpy(m->digest, f.digest, sizeof(m->digest));
    image_file_close(&f);
    if (e != 0) {
        (void)why_set(&m->image_why, e, "image of %s: %s", gguf_label(m->file),
                      e == -EBADMSG ? "its weights are damaged" : strerror(-e));
        return -ENOENT;
    }
    /* block stays NULL: the mapping is given back by image_map_close. */
    m->mem = m->map.arena;
    m->mem_len = m->packed.len;
    m->from = MODEL_FROM_IMAGE;
    weights_bind(w, m->mem);
    return 0;
}

/* From where they are there soonest. */
static int load(struct model *m, struct weights *w, const struct model_options *o, struct why *why)
{
    const struct feed_options read = { .io = o->io };
    int e;

    /* Of this call: the plan is not looked at behind it. */
    w->read = &read;
    if (o->weight_bytes && o->weight_bytes < m->packed.len)
        return load_streamed(m, w, &m->of, o, why);
    e = take_kept(m, w, &m->of, o->kept);
    if (e == -ENOENT)
        e = take_mapped(m, w, o, why);
    return e == -ENOENT ? read_weights(m, w, &m->of, o, why) : e;
}

int model_open_as(const char *path, struct backend *b, const struct model_options *o,
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
    if (e == 0)
        e = identify(m, why);
    if (e != 0)
        goto fail;
    m->weights_len = w.data_len;
    e = load(m, &w, o, why);
    if (e == 0)
        e = set_rope(m, scale, factors, why);
    if (e != 0)
        goto fail;
    /* Tied: one matrix is both. Behind load, which has set the pointers. */
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

int model_open(const char *path, struct backend *b, const struct model_progress *progress,
               struct model **ret_model, struct why *why)
{
    return model_open_as(path, b, &(struct model_options){ .progress = progress }, ret_model, why);
}

/* A model without a file of its own, which model_close does not mind. */
static int shape_of(const struct gguf *g, struct model **ret, struct why *why)
{
    struct model *m = calloc(1, sizeof(*m));
    struct weights w = { 0 };
    const float *factors = NULL;
    float scale;
    int e;

    if (!m)
        return why_set(why, -ENOMEM, "%s: no memory", gguf_label(g));
    e = plan(g, m, &scale, &factors, &w, why);
    weights_fini(&w);
    if (e != 0) {
        model_close(m);
        return e;
    }
    if (m->output.n_rows == 0)
        m->output = m->embd;
    *ret = m;
    return 0;
}

int model_shape(const char *path, struct model **ret, struct why *why)
{
    struct gguf *g;
    int e = gguf_open(path, &g, why);

    if (e < 0)
        return e;
    e = shape_of(g, ret, why);
    if (e == 0)
        (*ret)->file = g;
    else
        gguf_close(g);
    return e;
}

int model_check(const struct gguf *g, struct why *why)
{
    struct model *m;
    int e = shape_of(g, &m, why);

    if (e == 0)
        model_close(m);
    return e;
}

/* One of the three has the weights; the others have nothing to give back. */
void model_leave(struct model *m)
{
    stream_close(m->stream); /* has what mem points to */
    image_map_close(&m->map);
    backend_free(m->backend, m->block, m->block_len);
    m->stream = NULL;
    m->block = m->mem = NULL;
}

void model_take(struct model *m, struct model *from)
{
    struct model was = *m;

    *m = *from;
    *from = was;
    from->file = m->file;
    m->file = was.file;
    /* What it was identified by is in m now: from goes, with the header that was read anew. */
    m->of.packed = &m->packed;
    m->of.file = m->file;
    if (m->stream)
        stream_follow(m->stream, m);
    model_close(from);
}

void model_close(struct model *m)
{
    if (!m)
        return;
    model_leave(m);
    free(m->rope_freq);
    free(m->layers);
    packed_close(&m->packed);
    gguf_close(m->file);
    free(m);
}
