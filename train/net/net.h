/* train/net/net.h - the base model with a gist stream beside it, forward and backward over one
 * sequence.
 *
 *     x = embeddings                        gists: their own, plus their last token's
 *     for each layer                        x (R, n_embd) f32, R rows of the layout
 *         x += Wo attention(Wqkv norm(x))   W: the base's; for gists their own, if any
 *         x += Wdown swiglu(Wgate,up norm(x))
 *
 * What is trained is the gist's matrices of every layer and its embedding, here always whole
 * (train/net/gists.h makes them of low-rank ones), and the base's weights, where train/net/base.h
 * has derivatives of them.
 *
 * Memory    per row and layer 16 n_embd + 4 n_qkv + ... bytes stay from net_forward to net_back;
 *           with checkpointing 4 n_embd do, and each layer is computed once more.
 * Threads    all of OpenMP's; one call at a time.
 * Ownership  borrows base, owns what it keeps.
 * Errors     net_open, net_forward, net_back: -ENOMEM, or the products' -EIO. net_forward: -E2BIG
 *            (more rows or positions than there is room for).
 */
#ifndef TRAIN_NET_NET_H
#define TRAIN_NET_NET_H

#include "train/net/base.h"
#include "train/net/layout.h"

struct net_gist_layer {
    void *w[BASE_MATRIX__N];  /* of the base's type; NULL: the base's own */
    float *d[BASE_MATRIX__N]; /* f32 where w is the gist's own: its derivative is added */
};

struct net_gist {
    const struct net_gist_layer *layers;
    enum adapter_embedding embedding;
    uint32_t n_embds;  /* gist j of a segment has row j, or the last one */
    const float *embd; /* (n_embds, n_embd) */
    float *d_embd;
};

struct net;

/* What it takes where it is computed, without attention's own. */
size_t net_room(const struct base *b, uint32_t max_rows, bool checkpointing, bool staged);

/* Room for sequences of max_rows rows; staged: also of layouts with several stages. -EINVAL: both
 * staged and checkpointing. */
int net_open(const struct base *b, uint32_t max_rows, bool checkpointing, bool staged,
             struct net **ret);
void net_close(struct net *n);

/* ids (n_tokens). gist may be NULL where the layout has no gists. *ret_x (R, n_embd): the last
 * layer's output, before the output norm, the net's own until the next call. */
int net_forward(struct net *n, const struct net_gist *gist, const struct layout *l,
                const uint32_t *ids, const float **ret_x);

/* Unrotated k and v of the rows of a layer, after net_forward without checkpointing: (R, n_qkv). */
const float *net_qkv(const struct net *n, uint32_t layer);

/* More derivatives by what gists leave in memory: row j by the k and v of the layout's gist
 * gists[j], layer after layer. */
struct net_more {
    const float *d;        /* (n, n_layer * 2 n_kv) */
    const uint32_t *gists; /* (n), the host's */
    uint32_t n;
};

/* After net_forward of the same layout and ids: dx (R, n_embd) is spoilt. more may be NULL. */
int net_back(struct net *n, const struct net_gist *gist, const struct layout *l,
             const uint32_t *ids, float *dx, const struct net_more *more);

/* Another base of the same shape from now on. */
void net_set_base(struct net *n, const struct base *b);

size_t net_bytes(const struct net *n); /* net_room of it */

#endif
