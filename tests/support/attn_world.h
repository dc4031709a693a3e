/* tests/support/attn_world.h - a sequence with random q, k and v, to attend to without a model.
 *
 * One layer. q, k and v are not rotated: world_attend does that as the forward pass would.
 *
 * Ownership  world_open/world_close.
 */
#ifndef TESTS_SUPPORT_ATTN_WORLD_H
#define TESTS_SUPPORT_ATTN_WORLD_H

#include "engine/cpu/attend.h"
#include "engine/cpu/backend_cpu.h"

#define WORLD_CONTEXT 300u

struct world_shape {
    const char *name;
    uint32_t n_head, n_head_kv, head_dim;
};

#define WORLD_SHAPES 5u
extern const struct world_shape world_shapes[WORLD_SHAPES];

struct world {
    struct model m;
    const struct kernels *k;
    struct workers *w;
    struct backend
        *backend; /* over these workers, with m as its model; NULL until it is asked for */
    const struct rotary *rotary;
    struct attend *a;
    struct plan plan; /* empty but within a test */
    struct pool pool;
    struct pool_account account;
    struct seq seq;
    float freq[KERNELS_HEAD_DIM_MAX / 2];
    float *q, *kk, *v; /* (WORLD_CONTEXT, heads, hd), not rotated */
    float *shares;     /* (n_head, n_shares): pieces say what of this many segments they look at */
    uint32_t n_shares;
};

/* Negative: no memory. */
int world_open(struct world *w, const struct world_shape *s, const struct kernels *k,
               enum kv_type kv, uint32_t n_workers, uint32_t seg_len, uint32_t pos0);
void world_close(struct world *w);

/* Who compresses; NULL: no memory. */
struct backend *world_backend(struct world *w);

/* Stores K and V of tokens [t0, t0 + n), which stand in raw segments, and attends to them: out (n,
 * n_head, hd). With weights (n_head_kv, seg_len) the last piece observes. */
void world_attend(struct world *w, uint32_t t0, uint32_t n, float *weights, float *out);

/* The same by hand: n queries of tokens from t0 on, rotated by off, off + 1, ... inside their
 * segment; pieces of tokens [t0, t0 + n) of a sequence, behind those that are planned; and all of
 * them attended to. */
void world_queries(const struct world *w, uint32_t t0, uint32_t n, uint32_t off, float *ret);
void world_look(struct world *w, const struct seq *s, uint32_t t0, uint32_t n);
void world_run(struct world *w, const float *q, float *out);

/* x (hd) turned by pos positions, in double. */
void world_rotate(const struct world *w, const float *x, double pos, double *ret);

/* What the textbook says of one query: softmax over n keys at any positions. keys: token ids; ret
 * (hd); ret_p (n) may be NULL. */
void world_textbook(const struct world *w, uint32_t t, double pos, uint32_t head, uint32_t n,
                    const uint32_t *keys, const double *positions, double *ret, double *ret_p);

#endif
