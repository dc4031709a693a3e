/* engine/cpu/attend.h - attention of a batch over the pages of its sequences, for one layer.
 *
 * A piece is some consecutive keys of one segment of one sequence: keys of the segment and of all
 * earlier ones are visible to them, up to themselves. Queries come rotated by the offset inside
 * their own segment and scaled; here they are rotated once more per earlier segment, by the
 * distance of the two bases, so that stored keys never change (engine/kv/seq.h).
 *
 * Earlier segments of few pages are joined into stretches, whose pages one kernel call takes side
 * by side; a longer segment is a stretch, and so is the own one. Where stretches end depends on the
 * sequence's layout only. A stretch's partial result (m, l, o) is computed alone and the partials
 * are merged in order, always: so a long context can be split over the workers by stretches, or
 * not, with the same result to the bit.
 *
 * A side piece (self_k) is rows that stand beside the segment, not in it: row i at offset off + i *
 * stride sees the segment's keys before that offset, and a key and value of its own, and nobody
 * sees it.
 *
 * A piece with weights is an observation: it also adds up the attention (the softmax over all that
 * a query sees, summed over queries and heads) that each key of its segment receives. When a
 * segment is read again behind itself, it is the largest that each of the segment's own keys
 * receives; for compress.h's selections.
 *
 * Threads    attend_run: the owner of the workers.
 * Errors     attend_open: -ENOMEM.
 */
#ifndef ENGINE_CPU_ATTEND_H
#define ENGINE_CPU_ATTEND_H

#include "engine/cpu/kernels.h"
#include "engine/cpu/workers.h"
#include "engine/kv/rotary.h"
#include "engine/kv/seq.h"

struct attend_piece {
    const struct seq *seq;
    uint32_t segment;             /* those before it are visible */
    uint32_t base;                /* position of the own segment */
    const uint32_t *pages;        /* of the own segment: the sequence's or others */
    uint32_t off;                 /* of the first row's key inside the own segment */
    uint32_t row, n;              /* rows of q and out */
    uint32_t stride;              /* row i stands at off + i * stride; 1 but for side pieces */
    const float *self_k, *self_v; /* (n, n_head_kv, head_dim), k rotated like q; NULL: no side
                                   * piece */
    float *weights;               /* (n_layer, n_head_kv, seg_len), added to; NULL: not wanted */
    bool again; /* weights are the largest that any row gives the segment before */
};

struct attend;

int attend_open(const struct model *m, const struct kernels *k, struct workers *w,
                const struct rotary *rotary, struct attend **ret);
void attend_close(struct attend *a);
size_t attend_bytes(const struct attend *a);

/* q and out: (rows, n_head, head_dim). The pieces' K and V of this layer are stored already. */
void attend_run(struct attend *a, const struct attend_piece *pieces, uint32_t n_pieces,
                uint32_t layer, const float *q, float *out);

#endif
