/* engine/kv/mover.h - what a compressor asks of whoever has the pages: to move keys, to measure
 * them.
 *
 * A compressor decides on the host which keys stay, as lists of their places; it never looks at a
 * page. A key is stored rotated by its place in its segment, so a move turns it by the way that it
 * goes. Values are copied, and so is a key that keeps its place: the same bits, from page to page.
 *
 *     from   | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |        kept = 0, 3, 7
 *              |           |               |
 *     to     | 0 | 1 | 2 |     place 1 holds key 3, turned back by 2
 *
 * Threads    the scheduler's.
 * Ownership  borrows all that it points to, for one call.
 */
#ifndef ENGINE_KV_MOVER_H
#define ENGINE_KV_MOVER_H

#include "engine/kv/pool.h"

struct backend_move {
    const struct pool *pool;
    const uint32_t *from, *to; /* pages. The same ones: kept ascends, and of the keys that move all
                                * go to lower places, or all to higher ones */
    const uint32_t *kept;      /* (lists, n_keys): key i comes from place kept[i] */
    bool per_head;             /* lists: n_layer * n_head_kv, else 1 */
    uint32_t first, n_keys;    /* keys [first, n_keys) are moved */
};

struct mover {
    void *arg;
    void (*move)(void *arg, const struct backend_move *m);
    /* ret (n_layer * n_head_kv, n_keys): the sum of squares of each key in those pages. */
    void (*norms)(void *arg, const struct pool *pool, const uint32_t *pages, uint32_t n_keys,
                  float *ret);
};

#endif
