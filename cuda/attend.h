/* cuda/attend.h - attention of a step's rows over the pages that they see, for one layer.
 *
 * What comes out is what engine/cpu/attend.h says, but for the last digits. A piece's rows, one a
 * token and query head of a KV head's group, are cut into tiles, and the pages that a tile sees
 * into parts where there are too few tiles for a device. An item is a part of a tile:
 *
 *     pages of a piece    | segment 0 | segment 1 | ...       | own, up to the tile's last row |
 *     parts               |<- n_pages ->|<- n_pages ->|<-            ...         n_pages ->    |
 *     rows of a KV head   | token 0: heads of the group | token 1: ... |    row = token * group +
 * head
 *
 * Every item leaves a partial result (m, l, o) of each row, or the whole one where it is the only
 * part; partials are merged in the order of the pages. How long parts are depends on the piece
 * alone as long as there is room for all partials of a step.
 *
 * A step is cut once, on the host, and what comes of it serves all layers: k_attend_cut writes
 * items and merges side by side into one block of memory, which is copied to the device as it is.
 * Counts are padded with empty items to powers of two, so that a recorded graph can be used again
 * for steps of about the same size.
 *
 * Threads    k_attend_cut: any. k_attend: who has the stream.
 * Errors     k_attend_cut: -E2BIG (no room). k_attend: -EIO, a launch was refused.
 */
#ifndef CUDA_ATTEND_H
#define CUDA_ATTEND_H

#include "cuda/pages.h"

#ifdef __cplusplus
extern "C" {
#endif

struct plan;
struct plan_piece;
struct plan_segment;

#define K_ATTEND_PART_ROWS 65536u /* rows of partial results that a step has room for */
#define K_ATTEND_NONE      UINT32_MAX

/* Which kernel takes an item. */
enum k_attend_kind {
    K_ATTEND_ROWS,   /* any shape: f32 sums in shared memory */
    K_ATTEND_DECODE, /* a few rows, by matrix units, each warp with pages of its own */
    K_ATTEND_TILE,   /* a prompt's rows, by matrix units, all warps with the same pages */
    K_ATTEND__N
};

struct k_attend_item {
    uint32_t piece;
    uint32_t row, n_rows;         /* of the piece's; n_rows 0: nothing to do */
    uint32_t first_page, n_pages; /* of all that the piece sees */
    uint32_t part;                /* row of partial results that the first KV head's first one goes
                                   * to, n_rows a head; NONE: this is all */
    uint32_t last;                /* the part with which the tile's pages end */
};

struct k_attend_merge {
    uint32_t piece;
    uint32_t row, n_rows;   /* n_rows 0: nothing to do */
    uint32_t part, n_parts; /* each has n_head_kv * n_rows rows */
};

/* What the observing pieces want: see engine/cpu/attend.h. */
struct k_attend_look {
    uint32_t piece;
    uint32_t n; /* 0: nothing to do. Segments of shares, pages of weights, or rows that may
                 * be asked */
};

/* Of the host and the device alike: offsets into the block. */
struct k_attend_table {
    size_t items[K_ATTEND__N], merges, shares, weights, asked;
    uint32_t n_items[K_ATTEND__N], n_merges;
    uint32_t n_shares, n_weights, n_asked;          /* pieces that want them */
    uint32_t most_shares, most_weights, most_asked; /* the largest n of each */
    size_t bytes;                                   /* that were written */
};

struct k_attend_shape {
    uint32_t n_head, n_head_kv, head_dim;
    uint32_t kv;    /* enum kv_type */
    uint32_t plain; /* 1: K_ATTEND_ROWS for everything */
};

struct k_attend {
    struct k_attend_shape shape;
    struct k_pool pool;
    struct k_angles angles;
    struct k_attend_table table;
    const void *cut; /* the block, on the device */
    const struct plan_piece *pieces;
    const struct plan_segment *segments;
    const uint32_t *pages;
    const float *q;     /* (T, n_head, hd), turned by q_off and scaled */
    const float *k, *v; /* (T, n_head_kv, hd), of which only side pieces' are looked at */
    float *out;         /* (T, n_head, hd) */
    void *scratch;      /* k_attend_scratch */
    uint32_t layer, max_rows;
};

/* Bytes of a block that any step fits in. */
size_t k_attend_cut_bytes(const struct k_attend_shape *s, const struct plan *plan);
/* block: of the host. */
int k_attend_cut(const struct k_attend_shape *s, const struct plan *plan, void *block, size_t n,
                 struct k_attend_table *ret);

size_t k_attend_scratch(const struct k_attend_shape *s, uint32_t max_rows);

/* The pieces' K and V of this layer are stored already. Also does what observing pieces want. */
int k_attend(void *stream, const struct k_attend *a);

#ifdef __cplusplus
}
#endif
#endif
