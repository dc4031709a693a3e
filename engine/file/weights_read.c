/* The pass over a model's file: from its bytes to tiles where they stay. */
#include "engine/file/weights.h"

#include "base/digest.h"
#include "engine/file/tile.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_BYTES  ((size_t)1 << 20) /* hashed while it is still in the cache */
#define AHEAD_BYTES ((off_t)16 << 20) /* asked from the disk before it is needed */

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
