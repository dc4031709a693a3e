/* engine/plan.h - a step as whoever computes it gets it: flat arrays, no sequences, no page tables.
 *
 * The runs of a batch (engine/run.h) become rows that go through the model, pieces that attend, and
 * the keys that pieces see. A row says what it embeds, how far it is rotated and where its K and V
 * go. A piece is consecutive rows of one segment: they see the segments before their own, of which
 * the plan lists those that have keys, and of their own what stands before each row.
 *
 *     rows      | run 0: row 0, 1, ... | run 1 | ...          in the order of runs and tokens
 *     pieces    | rows of one segment | of the next | of run 1 | ...
 *     segments  | run 0: segment 0, 1, ... | run 1: 0, 1, ... |       base, keys, first page
 *     pages     | of segment 0 | of segment 1 | ...                   ids, side by side
 *
 * Offsets are of rotary positions: a key is stored rotated by its offset inside its segment
 * (engine/kv/seq.h), and queries come rotated by theirs. A device copies rows, segments and pages
 * as they are, a few words a row; pieces hold the pointers into the backend's memory.
 *
 * Invariants
 *   L1  Rows of a piece, segments of a run and pages of a segment are consecutive and ascend.
 *   L2  A run takes no more pages than its sequence's account is charged, and no more segments: a
 *       plan with room for as many pages as the pool has, has room for any one run.
 *   L3  No key that a row sees is written by another row of the step but those of its own run
 *       before it.
 *
 * Threads    one at a time.
 * Ownership  owns its arrays, allocated once; borrows what runs point to.
 * Errors     plan_open: -ENOMEM. plan_add: -EINVAL (an id past the vocabulary), -E2BIG (no room).
 */
#ifndef ENGINE_PLAN_H
#define ENGINE_PLAN_H

#include "engine/run.h"

#define PLAN_NONE UINT32_MAX

enum plan_kind {
    PLAN_TOKEN, /* embeds a token */
    PLAN_GIST,  /* embeds a gist; the piece's adapter makes its q, k, v and what else it has of its
                   own */
    PLAN_SOFT   /* its embedding is given */
};

struct plan_row {
    uint32_t kind;
    uint32_t id;    /* TOKEN: its id. GIST: that of the last token of its snippet, or PLAN_NONE when
                     * that is no part of its embedding. SOFT: row of the piece's soft */
    uint32_t gist;  /* row of the adapter's embedding */
    uint32_t piece; /* that it stands in */
    uint32_t q_off; /* what the query is rotated by */
    uint32_t k_off; /* what the key is rotated by, as it is stored */
    uint32_t page, slot; /* where K and V go; page PLAN_NONE: they are there already */
};

/* Those of a piece's rows (or of the rows that outputs are wanted of) that are gists: first, first
 * + step, ... */
struct plan_gists {
    uint32_t first, step, n;
};

/* An earlier segment: its keys are its pages' first n_keys slots. */
struct plan_segment {
    uint32_t base, n_keys;
    uint32_t first_page; /* of plan.pages */
};

struct plan_piece {
    uint32_t row, n;
    uint32_t first_segment, n_segments; /* earlier ones with keys: of plan.segments, all visible */
    uint32_t base;                      /* position of the own segment */
    uint32_t first_page;                /* of the own segment: of plan.pages */
    uint32_t off, stride;               /* row i stands at offset off + i * stride */
    bool side; /* rows stand beside the segment: row i sees the keys before its offset, and then its
                * own key and value, rotated by q_off; nobody sees it there */
    bool again; /* the weights are those that the segment before receives, the largest of any row */
    uint32_t seg_len; /* keys of a row of weights */
    float *weights;   /* the backend's: (n_layer, n_head_kv, seg_len); NULL: not wanted */
    float *shares;    /* the backend's: (n_layer, n_head, n_shares), what the first n_shares of the
                       * earlier segments get; NULL: not wanted */
    uint32_t n_shares;
    struct forward_asked asked;    /* all NULL: none are kept. By the rows' offsets */
    const float *soft;             /* the backend's: (n, n_embd) of PLAN_SOFT */
    const struct adapter *adapter; /* of its gists; NULL: it has none */
    struct plan_gists gists, wanted;
};

struct plan {
    const struct pool *pool; /* of all its pages */
    uint32_t n_rows, n_pieces, n_segments, n_pages, n_out;
    uint32_t max_rows, max_pieces, max_pages;
    bool observes;                 /* one of the pieces wants weights, shares or queries */
    struct plan_row *rows;         /* (max_rows) */
    struct plan_piece *pieces;     /* (max_pieces) */
    struct plan_segment *segments; /* (max_pages) */
    uint32_t *pages;               /* (max_pages) */
    uint32_t *out_rows;            /* (max_rows): rows that outputs are wanted of, ascending */
};

/* max_pages: see L2. */
int plan_open(struct plan *p, uint32_t max_rows, uint32_t max_pages);
void plan_close(struct plan *p);
size_t plan_bytes(const struct plan *p);
/* The same before it is opened. */
size_t plan_need(uint32_t max_rows, uint32_t max_pages);

void plan_clear(struct plan *p);

/* Adds a run; its ids go behind its sequence's, where nobody sees them until the step is done.
 * After an error the plan is to be cleared. */
int plan_add(struct plan *p, const struct forward_run *run, uint32_t n_vocab);

/* Pages that a run takes. */
uint32_t plan_run_pages(const struct forward_run *run);

#endif
