/* train/net/ae.h - fine-grained autoencoding: a weak decoder rebuilds each snippet from the KV of
 * its gist alone.
 *
 *     slot       k = Wk g, v = Wv g           g: the gist's unrotated k and v, layer after layer
 *     input      [ae]_r, x_1 .. x_(r-1)       embeddings, at positions 1 .. r; the slot is at 0
 *     decoder    one layer of the base's shape, the base's last one at first; all of it is trained
 *     output     x_1 .. x_r                   by the base's output norm and matrix
 *     loss       mean over gists of the mean over r tokens of -log P(x_j | g, [ae]_r, x_<j)
 *
 * The decoder is thrown away when the adapter is done. How one layer takes a gist that has KV in
 * every layer the paper leaves open: here by two linear maps, which at first pick the last layer's.
 *
 * Source     paper 3.2.
 *
 * It is computed as the net is, its snippets being segments whose first row is the slot.
 *
 * Threads    all of OpenMP's; one call at a time.
 * Ownership  its parameters are tensors of the optimiser it was opened with ("ae. ..."); owns
 *            copies and scratch.
 * Errors     -ENOMEM, -E2BIG (more than max_tokens), or -EIO (engine/tensors.h).
 */
#ifndef TRAIN_NET_AE_H
#define TRAIN_NET_AE_H

#include "train/net/head.h"
#include "train/net/net.h"
#include "train/net/optim.h"

struct ae;

struct ae_shape {
    uint32_t ratios[ADAPTER_RATIOS_MAX], n_ratios; /* each has an [ae]_r */
    uint32_t max_tokens;                           /* that one call rebuilds */
    uint64_t seed;
};

/* What it takes where it is computed, beside the values that are trained and attention's own; and
 * how many of these values there are. Of a base that may be no more than its shape. */
size_t ae_room(const struct base *b, const struct ae_shape *shape, size_t *ret_values);
/* What its attention is opened with. */
struct tensors_heads ae_heads(const struct base *b, const struct ae_shape *shape);

int ae_open(const struct base *b, struct optim *params, const struct ae_shape *shape,
            struct ae **ret);
void ae_close(struct ae *a);

/* After parameters changed. */
void ae_refresh(struct ae *a);

struct ae_job {
    struct net *net; /* net_forward has run, without checkpointing */
    const struct layout *l;
    const uint32_t *ids;
    const uint32_t
        *gists; /* (n): which of the layout's gists; those of the last segment may not be */
    uint32_t n;
    float scale; /* of the loss in gradients */
};

/* *ret_loss: without scale. ret_right (may be NULL): tokens that were the most probable ones.
 * ret_more: for net_back, until the next call; NULL: no gradient is computed. */
int ae_run(struct ae *a, struct head *h, const struct ae_job *job, struct net_more *ret_more,
           double *ret_loss, uint32_t *ret_right);

#endif
