/* train/net/layout.h - how a training sequence falls into segments, gists and memory, for every
 * architecture.
 *
 * A sequence of T raw tokens in segments of L has rows that go through the model: raw tokens, and
 * gists, in the order
 *
 *     fine-kv, coarse-kv   all raw tokens | gists of segment 0, of segment 1, ...   one stage
 *     coarse-rec           raw, gists of segment 0 | its soft tokens | raw, gists of segment 1 | ..
 *                          a stage each: a soft token's input is a gist's last hidden state
 *
 * The last segment makes no gists, but those that stand among its tokens.
 *
 * What a row sees, for a segment's own keys in the order [raw | gists]: raw [0, raw_end) and gists
 * [gist_first, gist_end), and of the memory everything that earlier segments left:
 *
 *     fine-kv, memory-only   raw: up to itself.    gist: raw before its snippet's end, and itself
 *     fine-kv, in-segment    raw: up to itself, the gists before it.   gist: likewise, and itself
 *     coarse                 raw: up to itself.    gist: the segment, gists up to itself
 *     coarse-rec, soft       like raw tokens of a segment of their own, behind the sinks
 *
 * Memory is a list of (row, position), those of earlier segments first: sinks, gists (or soft
 * tokens), the remainder that no gist stands for. Positions are compact (docs/memory.md): own keys
 * stand at base + offset, memory's are without gaps.
 *
 * Source     paper 2; docs/memory.md, engine/kv/compress.h for what a segment becomes.
 *
 * Ownership  layout_make fills arrays of its own; layout_fini frees them.
 * Errors     -EINVAL: the ratio does not suit; -ENOMEM.
 */
#ifndef TRAIN_NET_LAYOUT_H
#define TRAIN_NET_LAYOUT_H

#include "engine/file/adapter.h"
#include "engine/sight.h"

#include <stdbool.h>

/* What earlier segments leave. */
enum layout_kind {
    LAYOUT_GISTS,
    LAYOUT_NONE, /* nothing: every segment stands alone, behind the sinks of the first ("segment
                    only") */
    LAYOUT_FULL  /* one segment of all tokens: the base model's full attention */
};

struct layout_shape {
    enum layout_kind kind;
    enum adapter_method method;
    enum adapter_mask mask;
    uint32_t n_tokens, seg_len, ratio, sinks;
    bool base_trains; /* not only gists do */
};

/* Rows that go through all layers together: [first, end), gists among them from `gists` on; whole
 * segments. */
struct layout_stage {
    uint32_t first, end, gists, first_segment, end_segment;
};

struct layout_gist {
    uint32_t row;
    uint32_t kv;    /* the row whose keys and values become memory: its own, or its soft token's */
    uint32_t index; /* in its segment */
};

struct layout {
    struct layout_shape shape;
    uint32_t n_rows, n_gists, n_segments, n_memory, n_stages;
    uint32_t n_kept;        /* first gists, those that become memory */
    uint32_t n_frozen;      /* first rows that depend on nothing that is trained */
    uint32_t max_pos;       /* above every pos */
    uint32_t max_keys;      /* that one row could see */
    struct sight_row *rows; /* (n_rows) */
    struct sight_key *memory;
    struct sight_segment *segments;
    struct layout_stage *stages;
    struct layout_gist *gists; /* (n_gists) */
    uint32_t *tokens;          /* (n_tokens): the row of each */
};

int layout_make(struct layout *l, const struct layout_shape *shape);
void layout_fini(struct layout *l);

/* What attention needs of it: borrows. */
static inline struct sight layout_sight(const struct layout *l)
{
    return (struct sight){ l->rows,     l->memory,     l->segments, l->n_rows,
                           l->n_memory, l->n_segments, l->n_frozen, l->max_keys };
}

#endif
