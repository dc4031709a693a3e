/* engine/cpu/attend.h - attention of a batch over the pages of its sequences, for one layer.
 *
 * A piece of the plan (engine/plan.h) is consecutive rows of one segment: they see the earlier
 * segments whole and their own up to themselves. Queries come rotated by the offset inside their
 * own segment and scaled; here they are rotated once more per earlier segment, by the distance of
 * the two bases, so that stored keys never change (engine/kv/seq.h).
 *
 * Earlier segments of few pages are joined into stretches, whose pages one kernel call takes side
 * by side; a longer segment is a stretch, and so is the own one. Where stretches end depends on the
 * sequence's layout only. A stretch's partial result (m, l, o) is computed alone and the partials
 * are merged in order, always: so a long context can be split over the workers by stretches, or
 * not, with the same result to the bit.
 *
 * Rows of a side piece stand beside the segment: each is merged with its own key and value last,
 * for nobody else sees those.
 *
 * A piece with weights is an observation: it also adds up the attention (the softmax over all that
 * a query sees, summed over queries and heads) that each key of its segment receives. When a
 * segment is read again behind itself, it is the largest that each of the segment's own keys
 * receives; for compress.h's selections. A piece with shares adds up what whole earlier segments
 * receive.
 *
 * A piece may leave some of its queries, and what sums they have, for who fits values.
 *
 * Threads    attend_run: the owner of the workers.
 * Errors     attend_open: -ENOMEM.
 */
#ifndef ENGINE_CPU_ATTEND_H
#define ENGINE_CPU_ATTEND_H

#include "engine/cpu/kernels.h"
#include "engine/cpu/workers.h"
#include "engine/kv/rotary.h"
#include "engine/plan.h"

/* Of all rows of the batch, without bias: q (T, n_head, head_dim) as above; k and v (T, n_head_kv,
 * head_dim), of which only side pieces' are looked at, k rotated like q. */
struct attend_rows {
    const float *q, *k, *v;
};

/* By the worker that made them: floats [c0, c1) of a row of the output are there, those of one KV
 * head's queries. */
struct attend_then {
    void (*fn)(void *arg, uint32_t row, uint32_t c0, uint32_t c1); /* NULL: nothing */
    void *arg;
};

struct attend;

int attend_open(const struct model *m, const struct kernels *k, struct workers *w,
                const struct rotary *rotary, struct attend **ret);
void attend_close(struct attend *a);
size_t attend_bytes(const struct attend *a);
/* The same before it is opened, for so many workers. */
size_t attend_need(const struct model *m, uint32_t n_workers);

/* out (T, n_head, head_dim). The pieces' K and V of this layer are stored already. */
void attend_run(struct attend *a, const struct plan *plan, uint32_t layer,
                const struct attend_rows *rows, float *out);
void attend_run_then(struct attend *a, const struct plan *plan, uint32_t layer,
                     const struct attend_rows *rows, float *out, struct attend_then then);

#endif
