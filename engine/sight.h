/* engine/sight.h - what each row of a training sequence looks at.
 *
 * Rows are in segments, each with raw rows and gists, and a segment sees a list of keys: of memory
 * first, then its raw rows, then its gists. A row sees of it all of memory, raw [0, raw_end) and
 * gists [gist_first, gist_end). A key is a row and the position where it stands for this segment.
 * How a text becomes that is train/net/layout.h's.
 *
 * Threads    immutable.
 * Ownership  borrows its arrays.
 */
#ifndef ENGINE_SIGHT_H
#define ENGINE_SIGHT_H

#include <stdint.h>

#define SIGHT_NO_ROW UINT32_MAX

struct sight_row {
    uint32_t pos; /* where it is rotated to, among its segment's keys */
    uint32_t raw_end, gist_first, gist_end;
    uint32_t token; /* its own; gists: the last of the snippet */
    uint32_t from;  /* soft: the row whose hidden state it reads; else SIGHT_NO_ROW */
};

struct sight_key {
    uint32_t row, pos;
};

/* Queries and keys of their own. */
struct sight_segment {
    uint32_t raw, n_raw; /* first row and number */
    uint32_t gist, n_gists;
    uint32_t n_memory; /* entries of memory that its rows see */
};

struct sight {
    const struct sight_row *rows;         /* (n_rows) */
    const struct sight_key *memory;       /* (n_memory), those of earlier segments first */
    const struct sight_segment *segments; /* (n_segments) */
    uint32_t n_rows, n_memory, n_segments;
    uint32_t n_frozen; /* first rows that depend on nothing that is trained */
    uint32_t max_keys; /* that one row could see */
};

static inline uint32_t sight_n_keys(const struct sight_segment *g)
{
    return g->n_memory + g->n_raw + g->n_gists;
}

#endif
