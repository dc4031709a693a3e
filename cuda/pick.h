/* cuda/pick.h - what rows of logits are sampled from, found where they are: penalties, arg max,
 * weights, cuts (engine/sampler.h, sampler_ask).
 *
 * A row goes through in blocks of SAMPLER_MASS_BLOCK tokens, all at once, and what they say is put
 * together by one block a row:
 *
 *     penalties -> largest of a block -> of the row -> weights, their mass and depths -> the cuts
 *               -> candidates of a block -> their places, in the order of ids
 *
 * Numbers are the CPU's to the bit: weights by the same products, masses added up in the same
 * order. What is only counted is counted in any order.
 *
 * Threads    who has the stream.
 * Errors     -EIO: a launch was refused.
 */
#ifndef CUDA_PICK_H
#define CUDA_PICK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sampler_candidate;

struct k_pick_ask {
    double least;
    float penalty, temperature, min_p;
    uint32_t top_k;
    uint32_t first_id, n_ids; /* of k_pick.ids */
};

struct k_pick_found {
    double mass;
    uint32_t best, n_bad, n,
        n_likely;       /* struct sampler_found; n may be more than there is room for */
    float max;          /* the largest logit */
    float least, cut;   /* candidates before top_k weigh the one, with it the other */
    uint32_t n_changed; /* numbers that a penalty made infinite */
};

/* All pointers are the device's. */
struct k_pick {
    float *logits;                 /* (n, n_vocab): penalised, then weights */
    const struct k_pick_ask *asks; /* (n) */
    const uint32_t *ids;
    uint32_t n, n_vocab;
    bool draws;                           /* one of the rows has a temperature */
    uint32_t max;                         /* candidates that a row has room for */
    struct k_pick_found *found;           /* (n) */
    struct sampler_candidate *candidates; /* (n, max) */
    void *scratch;                        /* k_pick_scratch */
};

size_t k_pick_scratch(uint32_t n, uint32_t n_vocab);

int k_pick(void *stream, const struct k_pick *a);

#ifdef __cplusplus
}
#endif
#endif
