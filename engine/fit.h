/* engine/fit.h - what a backend packs a segment by, when values are fitted (backend_ops.fit).
 *
 * The segment is raw before and packed afterwards, and all that is between the two is the
 * backend's: no key, value or query comes to the host.
 *
 * Threads    as engine/backend.h.
 */
#ifndef ENGINE_FIT_H
#define ENGINE_FIT_H

#include <stdint.h>

/* A query that gives a segment less of its attention has nothing to say about it. */
#define FIT_LEAST_SHARE 1e-6f
/* What an f16 has room for, with some to spare. */
#define FIT_VALUE_MAX 6e4f
/* Of the mean of the diagonal. */
#define FIT_RIDGE 1e-2f

struct pool;

/* A raw segment becomes a packed one by its queries (engine/run.h), each placed as if it stood one
 * segment later: turned on by n_raw positions before the raw keys, and by n_keys before the packed
 * ones. For each layer and KV head
 *
 *     weigh    a query's p over the raw keys but for the sinks is a softmax, its target is p times
 *              the values, its share 1 / (1 + exp(all - sum)), where all is what the row says and
 *              sum the logarithm of the sum of exp(score) over these keys: how much of its
 *              attention the segment would get. A share of at most 1e-6 and a row that is not
 *              finite, or whose target is not, count as nothing
 *     choose   keys with the largest sum of (share * p)^2 stay (engine/kv/largest.h), the sinks too
 *     move     they are turned to their places and stored, as backend_move has it
 *     fit      V0 + (B'B + r)^-1 B'(T - B V0) are the values: B the softmax over the keys that
 *              stay, as they are stored now and without the sinks, T the targets, the rows of both
 *              times the root of the share; r is 1e-2 of the mean of B'B's diagonal. Where nothing
 *              counts, or a value comes out that is no number that a page has room for (over 6e4),
 *              a head keeps the values that it had: V0
 *
 * to may be the same pages, where lists that are done are packed and the others are raw. */
struct backend_fit {
    const struct pool *pool;
    const uint32_t *from, *to;    /* pages */
    uint32_t n_raw, n_keys;       /* keys of both, sinks included */
    uint32_t sinks;               /* the first ones stay as they are */
    const float *asked;           /* the backend's */
    uint32_t n_asked;             /* rows of a list */
    uint32_t first_list, n_lists; /* layer * n_head_kv + head: those of this call, at least one */
};

#endif
