/* engine/file/weights_read.c - the pass over a model's file: from its bytes to tiles where they
 * stay.
 *
 * The file goes by once, in its own order, as the digest of all of it is made on the way and a disk
 * is at its best so. What is looked at are some rows (4 MiB); the host threads hash them, copy the
 * next ones and pack these, all in one job.
 */
#include "engine/file/weights.h"

#include "base/digest.h"
#include "engine/file/feed.h"
#include "engine/file/tile.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>

/* What one job of the host threads works on: many slices each, and all of it stays in the cache of
 * a CPU or of all. */
#define JOB_BYTES ((size_t)4 << 20)
/* What lies between tensors is only hashed, so much at a time. */
#define GAP_BYTES ((size_t)1 << 20)

struct pass {
    struct weights *w;
    struct backend *backend;
    uint8_t *mem, *host; /* the arena, and where the host may write it; host NULL: nowhere */
    const struct model_progress *progress;
    XXH3_state_t *hash;
    struct feed *feed;
    uint8_t *staging; /* for tiles, where host is NULL */
    uint64_t all;     /* bytes of the file */
};

/* The next n bytes are done with. */
static int pass_over(struct pass *p, size_t n)
{
    uint64_t pos;

    feed_pass(p->feed, n);
    pos = feed_at(p->feed);
    if (p->progress && p->progress->fn(p->progress->arg, pos, p->all) != 0)
        return why_set(p->w->why, -ECANCELED, "%s: loading was cancelled at byte %" PRIu64,
                       gguf_label(p->w->g), pos);
    return 0;
}

/* Of the digest only. */
static int skip_to(struct pass *p, uint64_t off)
{
    while (feed_at(p->feed) < off) {
        uint64_t left = off - feed_at(p->feed);
        size_t n = left < GAP_BYTES ? (size_t)left : GAP_BYTES;
        const uint8_t *bytes;
        int e = feed_look(p->feed, n, &bytes);

        if (e != 0)
            return e;
        (void)XXH3_128bits_update(p->hash, bytes, n);
        e = pass_over(p, n);
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
    /* Beside them: the digest of these rows, which has to be in the file's order and so is one
     * slice, and copying what comes next. */
    struct pass *pass;
    size_t rows_len;
    uint32_t n_copies;
};

static void pack_tile(struct pack *p, uint32_t tile)
{
    const struct weights_item *item = p->item;
    const struct model_tensor *m = item->matrix;
    size_t row_bytes = quant_row_bytes(item->type, m->n_cols);
    uint32_t first = p->r0 + tile * TILE_ROWS, end = p->r0 + p->n;
    const void *lanes[TILE_ROWS] = { NULL };

    for (uint32_t i = 0; i < TILE_ROWS && first + i < end; i++) {
        lanes[i] = p->rows + (weights_file_row(first + i, item->head_dim) - p->r0) * row_bytes;
        /* Here, where the row comes to the cache anyway and all workers share the work. */
        if (!quant_finite(item->type, lanes[i], m->n_cols))
            atomic_store_explicit(&p->bad, true, memory_order_relaxed);
    }
    tile_pack(item->type, lanes, m->n_cols, p->tiles + tile * m->tile_len);
}

/* The longest slice first, and those that the next job waits for. */
static void pack_slice(void *arg, uint32_t slice, uint32_t worker)
{
    struct pack *p = arg;

    (void)worker;
    if (slice == 0)
        (void)XXH3_128bits_update(p->pass->hash, p->rows, p->rows_len);
    else if (slice <= p->n_copies)
        feed_slice(p->pass->feed, slice - 1);
    else
        pack_tile(p, slice - 1 - p->n_copies);
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

static int pack_rows(struct pass *pass, struct pack *p)
{
    uint32_t n_cols = p->item->matrix->n_cols, r = 0;
    size_t row_bytes = quant_row_bytes(p->item->type, n_cols);

    p->n_copies = feed_begin(pass->feed);
    backend_run(pass->backend, pack_slice, p, 1 + p->n_copies + tile_count(p->n));
    feed_end(pass->feed);
    if (!atomic_load_explicit(&p->bad, memory_order_relaxed)) /* the run's end has ordered them */
        return 0;
    /* Which row it was is looked for only now, by the file's order, as whoever mends the file
     * would. */
    while (r + 1 < p->n && quant_finite(p->item->type, p->rows + r * row_bytes, n_cols))
        r++;
    return refuse_value(pass, p->item, p->r0 + r);
}

/* The next rows of the file, [r0, r0 + n) of the matrix. */
static int read_rows(struct pass *pass, const struct weights_item *item, uint32_t r0, uint32_t n)
{
    const struct model_tensor *m = item->matrix;
    size_t off = item->mem_off + r0 / TILE_ROWS * m->tile_len;
    struct pack p = { .item = item,
                      .r0 = r0,
                      .n = n,
                      .tiles = pass->host ? pass->host + off : pass->staging,
                      .pass = pass,
                      .rows_len = n * quant_row_bytes(item->type, m->n_cols) };
    int e = feed_look(pass->feed, p.rows_len, &p.rows);

    if (e == 0)
        e = pack_rows(pass, &p);
    if (e == 0 && !pass->host)
        e = backend_put(pass->backend, pass->mem + off, p.tiles, tile_count(n) * m->tile_len);
    return e == 0 ? pass_over(pass, p.rows_len) : e;
}

/* Rows of one job: whole tiles and whole heads. head_dim % 8 == 0. */
static uint32_t rows_a_job(const struct weights_item *item)
{
    size_t row_bytes = quant_row_bytes(item->type, item->matrix->n_cols);
    uint32_t unit = item->head_dim ? 2 * item->head_dim : TILE_ROWS;
    uint32_t step = (uint32_t)(JOB_BYTES / (unit * row_bytes)) * unit;

    step = step ? step : unit;
    return step < item->matrix->n_rows ? step : item->matrix->n_rows;
}

/* Never the whole matrix twice in memory: a machine that holds the model need not hold more. */
static int read_matrix(struct pass *p, const struct weights_item *item)
{
    uint32_t n_rows = item->matrix->n_rows, step = rows_a_job(item);
    int e = 0;

    for (uint32_t r = 0; r < n_rows && e == 0; r += step)
        e = read_rows(p, item, r, n_rows - r < step ? n_rows - r : step);
    return e;
}

/* Small: by this thread alone. */
static int read_vector(struct pass *p, const struct weights_item *item)
{
    size_t n = (size_t)item->from->dims[0], value = quant_row_bytes(item->type, 1);
    float *to = malloc(n * sizeof(*to));
    const uint8_t *file = NULL;
    int e = to ? feed_look(p->feed, (size_t)item->from->len, &file) : -ENOMEM;

    if (e == 0)
        (void)XXH3_128bits_update(p->hash, file, (size_t)item->from->len);
    for (size_t i = 0; i < n && e == 0; i++)
        if (!quant_finite(item->type, file + i * value, 1))
            e = refuse_value(p, item, (uint32_t)i);
    for (size_t i = 0; i < n && e == 0; i++)
        quant_dequantise_row(
            item->type, file + weights_file_row((uint32_t)i, item->head_dim) * value, 1, to + i);
    if (e == 0)
        e = backend_put(p->backend, p->mem + item->mem_off, to, n * sizeof(*to));
    free(to);
    return e == 0 ? pass_over(p, (size_t)item->from->len) : e;
}

static int read_item(struct pass *p, const struct weights_item *item)
{
    int e = item->matrix ? read_matrix(p, item) : read_vector(p, item);

    if (e == -ENOMEM)
        return why_set(p->w->why, e, "%s: no memory to load a tensor", gguf_label(p->w->g));
    return e;
}

/* The largest of what the pass looks at or packs at once. */
static void largest_job(const struct weights *w, size_t *ret_look, size_t *ret_tiles)
{
    *ret_look = GAP_BYTES;
    *ret_tiles = 0;
    for (size_t i = 0; i < w->n_items; i++) {
        const struct weights_item *item = &w->items[i];
        size_t look = (size_t)item->from->len, tiles = 0;

        if (item->matrix) {
            look = rows_a_job(item) * quant_row_bytes(item->type, item->matrix->n_cols);
            tiles = tile_count(rows_a_job(item)) * item->matrix->tile_len;
        }
        *ret_look = look > *ret_look ? look : *ret_look;
        *ret_tiles = tiles > *ret_tiles ? tiles : *ret_tiles;
    }
}

static int open_pass(struct pass *p, uint64_t from)
{
    struct feed_options o = p->w->read ? *p->w->read : (struct feed_options){ 0 };
    size_t tiles;

    o.from = from;
    largest_job(p->w, &o.longest, &tiles);
    p->hash = XXH3_createState();
    if (!p->host)
        p->staging = malloc(tiles ? tiles : 1);
    if (!p->hash || (!p->host && !p->staging))
        return why_set(p->w->why, -ENOMEM, "%s: no memory to load it", gguf_label(p->w->g));
    (void)XXH3_128bits_reset(p->hash);
    return feed_open(p->w->g, p->backend, &o, &p->feed, p->w->why);
}

static void close_pass(struct pass *p)
{
    feed_close(p->feed);
    free(p->staging);
    (void)XXH3_freeState(p->hash);
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
    int e = open_pass(&p, header_len);

    /* The header's bytes as they were parsed, so that the digest is of what is in use. */
    if (e == 0)
        (void)XXH3_128bits_update(p.hash, header, header_len);
    for (size_t i = 0; i < w->n_items && e == 0; i++) {
        const struct weights_item *item = &w->items[i];

        assert(item->from->off >= feed_at(p.feed)); /* sorted, and without overlap */
        e = skip_to(&p, item->from->off);
        if (e == 0)
            e = read_item(&p, item);
    }
    if (e == 0)
        e = skip_to(&p, p.all);
    if (e == 0) {
        digest_put(p.hash, ret_digest);
        weights_bind(w, mem);
    }
    close_pass(&p);
    return e;
}
