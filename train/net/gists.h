/* train/net/gists.h - the adapter that is trained: its parameters, as matrices for the forward
 * pass, from and to its file.
 *
 *     full rank    each matrix of train/net/base.h is a parameter of each layer, first the base's
 *     rank n       W = base + B A for each projection: at first A (n, n_in) is random and
 *                  B (n_out, n) zeros
 *     embedding    one vector, at first zeros: with the last token's added it is the copy
 *                  initialisation of docs/adapter.md, where an untrained gist is its snippet's last
 *                  token
 *
 * Threads    all of OpenMP's; one call at a time.
 * Ownership  borrows base, is where that is; owns parameters (optim), matrices and their
 * derivatives. Errors     -ENOMEM; files: -EINVAL with a sentence, or the errno of the I/O.
 */
#ifndef TRAIN_NET_GISTS_H
#define TRAIN_NET_GISTS_H

#include "train/net/net.h"
#include "train/net/optim.h"

struct gists_shape {
    enum adapter_method method;
    enum adapter_mask mask;
    enum adapter_embedding embedding;
    uint32_t n_embds;       /* 1, but for files that have more */
    uint32_t n_projections; /* gists have so many of their own, in the order of ADAPTER_Q, ...: all
                             * parts of a matrix of train/net/base.h or none; the others are the
                             * base model's */
    uint32_t rank;          /* 0: full */
    uint32_t seg_len, sinks;
    uint32_t ratios[ADAPTER_RATIOS_MAX], n_ratios;
    uint64_t seed; /* of A */
};

struct gists {
    const struct base *b;
    struct gists_shape shape;
    struct optim params; /* first of all the embedding */
    struct net_gist net; /* what net_forward and net_back take */
    struct net_gist_layer *layers;
    uint32_t n_matrices; /* of train/net/base.h's: gists' own */
    float *whole;        /* low rank: a matrix, on the way */
    float *d_whole;      /* low rank: derivatives of all matrices */
    size_t n_d_whole;
};

/* What they take where they are computed, beside the values that are trained; and how many of
 * these there are. Of a base that may be no more than its shape. */
size_t gists_room(const struct base *b, const struct gists_shape *shape, size_t *ret_values);

int gists_open(struct gists *g, const struct base *b, const struct gists_shape *shape);
void gists_close(struct gists *g);

/* Starts from an adapter file. Its method, mask and embedding have to be the shape's; low-rank
 * files only fit their own rank, or full rank. */
int gists_load(struct gists *g, const char *path, struct why *why);
/* What the file says about its training: an empty string when it says nothing. -EINVAL: not such a
 * file. */
int gists_notes(const char *path, char *ret, size_t cap, struct why *why);
/* bf16 matrices. digest: of the model that they belong to. */
int gists_save(const struct gists *g, const char *path, const char *digest, const char *notes,
               struct why *why);

/* After parameters changed: the matrices. */
void gists_refresh(struct gists *g);
/* Before net_back adds to the derivatives, and when all of a step are there: the parameters'
 * gradients. */
void gists_zero_gradients(struct gists *g);
void gists_collect(struct gists *g);

#endif
