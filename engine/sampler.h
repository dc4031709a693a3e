/* engine/sampler.h - from a row of logits to the next token.
 *
 * Order: repetition penalty over the last repeat_last_n tokens, temperature, top-k, top-p, min-p
 * (each of the last three counted on the distribution before the cuts, kept tokens are those that
 * pass all; the most likely one always stays), then one draw. temperature 0 is greedy: the smallest
 * id among the largest logits. The same seed and logits give the same tokens on every machine that
 * computes the same logits, under every table of kernels: cuts leave the order of ids as it is.
 *
 * Threads    one thread a sampler. No malloc after sampler_init.
 * Errors     sampler_check gives -EINVAL and a sentence: field, found, allowed.
 */
#ifndef ENGINE_SAMPLER_H
#define ENGINE_SAMPLER_H

#include "base/why.h"

#include <stdbool.h>
#include <stdint.h>

struct sampler_params {
    float temperature;      /* 0 to 100; 0: greedy */
    uint32_t top_k;         /* 0: all */
    float top_p;            /* 0 to 1; 1: all; 0: the most likely one alone */
    float min_p;            /* [0, 1); 0: all */
    float repeat_penalty;   /* (0, 10]; 1: none */
    uint32_t repeat_last_n; /* up to SAMPLER_REPEAT_MAX */
    uint64_t seed;
};

#define SAMPLER_REPEAT_MAX 1024u

struct sampler_candidate {
    float weight;
    uint32_t id;
}; /* 1 for the most likely */

/* What of a row of logits whoever computes it elsewhere is asked for, so that the row need not come
 * here (engine/backend.h, pick). */
struct sampler_ask {
    float penalty; /* of ids */
    uint32_t n_ids;
    const uint32_t *ids; /* below n_vocab, each once */
    float temperature;   /* 0: the largest alone */
    uint32_t top_k;      /* 0: all */
    float min_p;
    double least; /* times the mean weight: tokens of less go; 0: none do */
};

/* The answer. Candidates are all tokens that weigh at least min_p and the least, and with top_k at
 * least as much as the k-th of all, and perhaps some more: in the order of their ids. */
struct sampler_found {
    double mass;       /* of all weights */
    uint32_t best;     /* the largest after penalties, as argmax below */
    uint32_t n_bad;    /* logits that were no numbers, before penalties */
    uint32_t n;        /* candidates; 0: best is the token */
    uint32_t n_likely; /* those there were before top_k */
};

/* Of a row, that can be taken; more are as good as the row itself. */
#define SAMPLER_CANDIDATES_MAX 1024u

struct sampler {
    struct sampler_params params;
    uint64_t rng[4];                     /* xoshiro256** state */
    uint32_t recent[SAMPLER_REPEAT_MAX]; /* ring of the last tokens */
    uint32_t n_recent;                   /* tokens pushed so far */
};

/* What sampling does with whole rows of logits, by whoever has fast loops here
 * (engine/cpu/kernels.h). Every implementation gives the same bits, so that a seed gives the same
 * tokens on every machine. argmax: the smallest index among the largest; NaN is never the largest;
 * 0 when there is no number. weights: e^((x - max) / temperature) to 2e-7, where that is more than
 * e^SAMPLER_WEIGHT_LOG_MIN, and 0 where not or where x is NaN. x <= max, a number. ret may be x. */
struct sampler_math {
    uint32_t (*argmax)(const float *x, uint32_t n);
    void (*weights)(const float *x, uint32_t n, float max, float temperature, float *ret);
};

/* Weights are added up in blocks of so many, whoever does it: so the sum is the same bits. */
#define SAMPLER_MASS_BLOCK 1024u

/* Tokens of less than e^-44 of the largest weight are left out: all of a vocabulary of them would
 * weigh less than the last bit of the 53 that a draw has. */
#define SAMPLER_WEIGHT_LOG_MIN (-44.0f)

int sampler_check(const struct sampler_params *p, struct why *why);
void sampler_init(struct sampler *s, const struct sampler_params *p); /* p was checked */
void sampler_push(struct sampler *s, uint32_t token); /* a token of the context, oldest first */

/* logits (n_vocab) is changed in place. scratch holds n_vocab candidates. */
uint32_t sampler_pick(struct sampler *s, const struct sampler_math *math, float *logits,
                      uint32_t n_vocab, struct sampler_candidate *scratch);

/* The same token, of a row that several go through side by side: run(to, fn, arg, n) calls fn(arg,
 * part, who) for every part of [0, n), in any order, and returns when all are done. */
struct sampler_crew {
    void (*run)(void *to, void (*fn)(void *arg, uint32_t part, uint32_t who), void *arg,
                uint32_t n);
    void *to;
};
uint32_t sampler_pick_by(struct sampler *s, const struct sampler_math *math,
                         const struct sampler_crew *crew, float *logits, uint32_t n_vocab,
                         struct sampler_candidate *scratch);

/* The same in two steps, for who leaves the first to others. ids, which ret points to, has room for
 * SAMPLER_REPEAT_MAX. False: nothing is cut, so the row itself is needed. */
bool sampler_ask(const struct sampler *s, uint32_t n_vocab, uint32_t *ids, struct sampler_ask *ret);
/* found->n is at most SAMPLER_CANDIDATES_MAX. The token is the same as sampler_pick's. c is
 * changed. */
uint32_t sampler_take(struct sampler *s, const struct sampler_found *found,
                      struct sampler_candidate *c);

#endif
