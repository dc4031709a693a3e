/* engine/pieces.h - a batch as attention sees it: the runs cut into pieces of one segment each.
 *
 * Rows of the batch stand in the order of runs, a run's in the order of its tokens; where gists
 * stand among those (engine/kv/seq.h) they have rows of their own.
 *
 * Threads    one at a time.
 * Ownership  the arrays are the caller's.
 */
#ifndef ENGINE_PIECES_H
#define ENGINE_PIECES_H

#include "engine/cpu/attend.h"
#include "engine/cpu/gist_rows.h"
#include "engine/run.h"

/* A piece may be as short as the shortest segment, and each run adds a ragged one at both ends. */
#define PIECES_MAX(max_batch) ((max_batch) / SEQ_SEGMENT_MIN + 2 * FORWARD_RUNS_MAX)

/* Where a piece is from. */
struct piece_source {
    const struct forward_run *run;
    struct gist_rows gists;  /* of its rows */
    struct gist_rows wanted; /* likewise, among the rows that outputs are wanted of */
};

struct pieces {
    const float *kk, *vv; /* (T, n_kv): of all rows; side gists see their own */
    uint32_t n_kv, n_vocab;
    uint32_t n_rows, n, n_out;
    bool observes;             /* one of the runs does */
    struct attend_piece *at;   /* (PIECES_MAX) */
    struct piece_source *from; /* (PIECES_MAX) */
    uint32_t *out_rows;        /* (max_batch): rows that outputs are wanted of, ascending */
};

/* Adds a run; its ids go behind its sequence's, where nobody sees them until the step is done.
 * -EINVAL: an id past the vocabulary. */
int pieces_add(struct pieces *p, const struct forward_run *run);

#endif
