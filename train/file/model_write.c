/* train/file/model_write.c - the file that a model came from, with the values that were trained in
 * the place of its own: metadata and the order of tensors stay, types and offsets are made anew.
 */
#include "train/file/model_write.h"

#include "base/digest.h"
#include "base/files.h"
#include "engine/file/gguf.h"
#include "engine/file/weights.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ALIGNMENT  32u /* of tensor data, where general.alignment does not say it */
#define PAIRS_OFF  24u /* of the metadata: behind magic, version, two counts */
#define ALL_F32    0u  /* general.file_type */
#define MOSTLY_F16 1u

/* A tensor of the file and what becomes of it. from is the file's, which the model holds. */
struct tensor {
    const struct gguf_tensor *from;
    const float *p; /* its values, rows in the engine's order; NULL: the file's bytes */
    uint32_t head_dim;
    enum quant type;
    uint64_t len;
};

/* pos: bytes that were written. */
struct writer {
    const struct base *b;
    const struct gguf *g;
    const char *path;
    struct why *why;
    FILE *f;
    XXH3_state_t *hash;
    uint64_t pos;
    struct tensor *tensors;
    uint32_t alignment;
};

/* --- what there is ---------------------------------------------------------------------------- */

/* The host's values. on is where it is computed, which names the parameter. */
static const float *host(const struct base *b, const float *on)
{
    return on ? optim_host(b->params, on) : NULL;
}

/* Of blk.N.: the values of a tensor. NULL: it is not trained. */
static const float *find_in_layer(const struct base *b, const struct base_layer *l,
                                  const char *name, uint32_t *ret_head_dim)
{
    static const char *const matrices[ADAPTER_PROJECTION__N] = {
        "attn_q.weight",   "attn_k.weight", "attn_v.weight",  "attn_output.weight",
        "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"
    };
    static const char *const biases[ADAPTER_QKV__N] = { "attn_q.bias", "attn_k.bias",
                                                        "attn_v.bias" };
    uint32_t permuted = b->m->arch == MODEL_LLAMA ? b->m->head_dim : 0, row;

    for (unsigned p = 0; p < ADAPTER_PROJECTION__N; p++) {
        enum base_matrix w = base_part(b, p, &row);

        /* Llama's files have rows of q and k in another order than the engine. */
        *ret_head_dim = p == ADAPTER_Q || p == ADAPTER_K ? permuted : 0;
        if (strcmp(name, matrices[p]) == 0)
            return host(b, l->p[w]) + (size_t)row * base_n_in(b, w);
        if (p < ADAPTER_QKV__N && l->bias && strcmp(name, biases[p]) == 0)
            return host(b, l->bias) + row;
    }
    /* Only rows of q and k are in another order. */
    *ret_head_dim = 0;
    if (strcmp(name, "attn_norm.weight") == 0)
        return host(b, l->attn_norm);
    return strcmp(name, "ffn_norm.weight") == 0 ? host(b, l->ffn_norm) : NULL;
}

static const float *find(const struct base *b, struct gguf_str name, uint32_t *ret_head_dim)
{
    char text[GGUF_NAME_MAX + 1], rest[GGUF_NAME_MAX + 1];
    unsigned layer;

    snprintf(text, sizeof(text), "%.*s", (int)name.len, name.s);
    *ret_head_dim = 0;
    if (strcmp(text, "token_embd.weight") == 0)
        return host(b, b->embd);
    if (strcmp(text, "output.weight") == 0)
        return host(b, b->p_output);
    if (strcmp(text, "output_norm.weight") == 0)
        return host(b, b->output_norm);
    /* 64: GGUF_NAME_MAX, for which rest has room. */
    if (sscanf(text, "blk.%u.%64s", &layer, rest) == 2 && layer < b->m->n_layer)
        return find_in_layer(b, &b->layers[layer], rest, ret_head_dim);
    return NULL;
}

/* Dimensions that a tensor does not have are 1. */
static uint64_t n_values(const struct gguf_tensor *t)
{
    return t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
}

static int plan(struct writer *w)
{
    size_t n = gguf_n_tensors(w->g);

    w->tensors = calloc(n, sizeof(*w->tensors));
    if (!w->tensors)
        return why_set(w->why, -ENOMEM, "%s: no memory", w->path);
    for (size_t i = 0; i < n; i++) {
        struct tensor *t = &w->tensors[i];

        t->from = gguf_tensor(w->g, i);
        t->p = find(w->b, t->from->name, &t->head_dim);
        /* Vectors stay f32, as all files have them. */
        t->type = t->from->dims[1] > 1 ? QUANT_F16 : QUANT_F32;
        /* Values that are not trained keep their bytes, whatever type they are. */
        t->len = t->p ? quant_row_bytes(t->type, n_values(t->from)) : t->from->len;
    }
    return 0;
}

/* --- bytes ------------------------------------------------------------------------------------ */

static int fail_io(const struct writer *w)
{
    int r = errno ? -errno : -EIO;

    return why_set(w->why, r, "%s: %s", w->path, strerror(-r));
}

/* pos counts from the file's start, also where nothing could be written. */
static void put(struct writer *w, const void *p, size_t n)
{
    (void)fwrite(p, 1, n, w->f); /* an error stays with the stream */
    XXH3_128bits_update(w->hash, p, n);
    w->pos += n;
}

/* Zeros. */
static void pad(struct writer *w)
{
    while (w->pos % w->alignment)
        put(w, "", 1);
}

/* The bytes up to the first record, with the file type that it has now. copy is changed in one
 * place, where it has that key. */
static int put_metadata(struct writer *w)
{
    static const char key[] = "\x11\0\0\0\0\0\0\0general.file_type"; /* its length before it */
    size_t header_len;
    const uint8_t *header = gguf_header(w->g, &header_len);
    /* The first record begins with the length of its name, eight bytes before it. */
    size_t len = (size_t)((const uint8_t *)gguf_tensor(w->g, 0)->name.s - header) - 8;
    uint8_t *copy = malloc(len), *at;
    uint32_t kind, type = ALL_F32, known;

    if (!copy)
        return why_set(w->why, -ENOMEM, "%s: no memory", w->path);
    memcpy(copy, header, len);
    for (size_t i = 0; i < gguf_n_tensors(w->g); i++)
        if (w->tensors[i].p && w->tensors[i].type == QUANT_F16)
            type = MOSTLY_F16;
    /* Only where it is a number, and looked for with the length before it: another key may end with
     * its name. */
    at = gguf_get_u32(w->g, key + 8, &known) == 0
             ? memmem(copy + PAIRS_OFF, len - PAIRS_OFF, key, sizeof(key) - 1)
             : NULL;
    if (at) {
        at += sizeof(key) - 1;
        memcpy(&kind, at, sizeof(kind));
        if (kind == GGUF_U32)
            memcpy(at + sizeof(kind), &type, sizeof(type));
    }
    put(w, copy, len);
    free(copy);
    return 0;
}

static void put_records(struct writer *w)
{
    uint64_t off = 0;

    for (size_t i = 0; i < gguf_n_tensors(w->g); i++) {
        const struct tensor *t = &w->tensors[i];
        /* In the order of the format: name, dimensions, type, offset. */
        uint64_t name_len = t->from->name.len;
        uint32_t type = t->p ? quant_info(t->type)->gguf_type : t->from->type;

        put(w, &name_len, sizeof(name_len));
        put(w, t->from->name.s, name_len);
        put(w, &t->from->n_dims, sizeof(t->from->n_dims));
        put(w, t->from->dims, t->from->n_dims * sizeof(*t->from->dims));
        put(w, &type, sizeof(type));
        put(w, &off, sizeof(off));
        /* Of the tensor data, each at a multiple of the alignment. */
        off += (t->len + w->alignment - 1) / w->alignment * w->alignment;
    }
}

/* --- values ----------------------------------------------------------------------------------- */

/* A tensor's rows in the file's order and type. Whether all values fit. A value that f16 does not
 * hold would be infinite: the model would be of no use, and nobody would know why. */
static bool fill(const struct tensor *t, uint8_t *to)
{
    /* A vector's elements are its rows. */
    bool vector = t->from->dims[1] == 1, ok = true;
    uint32_t n_cols = vector ? 1 : (uint32_t)t->from->dims[0];
    uint32_t n_rows = (uint32_t)t->from->dims[vector ? 0 : 1];
    size_t row_bytes = quant_row_bytes(t->type, n_cols);

#pragma omp parallel for schedule(static) reduction(&& : ok)
    for (uint32_t r = 0; r < n_rows; r++) {
        const float *x = t->p + (size_t)r * n_cols;
        uint8_t *row = to + weights_file_row(r, t->head_dim) * row_bytes;

        if (t->type == QUANT_F32)
            memcpy(row, x, row_bytes);
        for (uint32_t c = 0; t->type == QUANT_F16 && c < n_cols; c++) {
            uint16_t h = quant_f32_to_f16(x[c]);

            ok = ok && isfinite(quant_f16_to_f32(h));
            memcpy(row + c * sizeof(h), &h, sizeof(h));
        }
    }
    return ok;
}

static int copy(const struct writer *w, const struct gguf_tensor *t, uint8_t *to)
{
    /* By the descriptor that the model was read from, so from that very file. */
    for (uint64_t done = 0; done < t->len;) {
        ssize_t n = pread(gguf_fd(w->g), to + done, t->len - done, (off_t)(t->off + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return why_set(w->why, n < 0 ? -errno : -EIO, "%s: one of its tensors cannot be read",
                           gguf_label(w->g));
        done += (uint64_t)n;
    }
    return 0;
}

/* One at a time, in memory: an 8B's largest is a gigabyte. */
static int put_tensor(struct writer *w, const struct tensor *t)
{
    uint8_t *bytes = malloc(t->len);
    int r = 0;

    if (!bytes)
        return why_set(w->why, -ENOMEM, "%s: no memory", w->path);
    if (!t->p)
        r = copy(w, t->from, bytes);
    else if (!fill(t, bytes))
        r = why_set(w->why, -EINVAL, "%s: tensor %.*s has a value that F16 does not hold", w->path,
                    (int)t->from->name.len, t->from->name.s);
    if (r == 0) {
        put(w, bytes, t->len);
        pad(w);
    }
    free(bytes);
    return r;
}

/* --- the file --------------------------------------------------------------------------------- */

static int put_all(struct writer *w)
{
    int r = put_metadata(w);

    if (r < 0)
        return r;
    put_records(w);
    pad(w);
    for (size_t i = 0; r == 0 && i < gguf_n_tensors(w->g); i++)
        r = put_tensor(w, &w->tensors[i]);
    /* Errors of all writes before are the stream's. */
    if (r == 0 && (ferror(w->f) || fflush(w->f) != 0 || fsync(fileno(w->f)) < 0))
        r = fail_io(w);
    return r;
}

static int write_as(struct writer *w, const char *beside, char ret_digest[33])
{
    int r;

    w->f = fopen(beside, "we");
    if (!w->f)
        return fail_io(w);
    XXH3_128bits_reset(w->hash);
    r = put_all(w);
    if (fclose(w->f) != 0 && r == 0)
        r = fail_io(w);
    if (r == 0 && rename(beside, w->path) < 0)
        r = fail_io(w);
    if (r < 0)
        unlink(beside);
    else
        r = files_sync_entry(w->path, w->why);
    if (r < 0)
        return r;
    /* Of all bytes as they were written: what loading the file would find. */
    digest_put(w->hash, ret_digest);
    return 0;
}

int model_write(const char *path, const struct base *b, char ret_digest[33], struct why *why)
{
    struct writer w = { .b = b, .g = b->m->file, .path = path, .why = why, .alignment = ALIGNMENT };
    char *beside = NULL;
    /* From the device; on the CPU there is nothing to do. */
    int r = optim_fetch(b->params);

    if (r < 0)
        return why_set(why, r, "%s: was not written: the device failed", path);
    /* Types and lengths first: records stand before the data. */
    r = plan(&w);
    (void)gguf_get_u32(w.g, "general.alignment", &w.alignment);
    w.hash = XXH3_createState();
    if (r == 0 && (!w.hash || asprintf(&beside, "%s.part", path) < 0))
        r = why_set(why, -ENOMEM, "%s: no memory", path);
    if (r == 0)
        r = write_as(&w, beside, ret_digest);
    free(beside);
    XXH3_freeState(w.hash);
    free(w.tensors);
    return r;
}
