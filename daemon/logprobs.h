/* daemon/logprobs.h - log-probabilities of an answer's tokens, until they are sent.
 *
 * Taken from the logits before sampling changes them: what the model says, without penalties,
 * temperature and grammar. Beside each token's own stand those of the n_top likeliest.
 *
 * Threads    one, the scheduler's.
 * Ownership  init/fini; all memory is taken by logprobs_init, charged to the client's account.
 */
#ifndef DAEMON_LOGPROBS_H
#define DAEMON_LOGPROBS_H

#include "daemon/held.h"
#include "engine/sampler.h"

#include <stdbool.h>

#define LOGPROBS_TOP_MAX 20u
#define LOGPROBS_A_FRAME                                                                           \
    64u /* tokens whose log-probabilities one frame has room for, beside a text */

struct logprobs {
    struct held_account *account;
    void *mem;
    size_t len;
    uint32_t n_vocab, n_top, n, cap;
    float *row;          /* (n_vocab): logits that were looked at */
    double log_sum;      /* of their exponentials */
    float *own;          /* (cap), n of them; likewise: */
    uint32_t *top_ids;   /* (cap, n_top) */
    float *top_logprobs; /* (cap, n_top) */
};

/* cap: tokens that may wait to be sent. -ENOMEM, -EDQUOT. */
int logprobs_init(struct logprobs *l, struct held_account *a, uint32_t n_vocab, uint32_t n_top,
                  uint32_t cap);
void logprobs_fini(struct logprobs *l);

/* The logarithm of the sum of the exponentials of n logits, all of them numbers. scratch: (n). */
double logprobs_sum(const struct sampler_math *math, const float *logits, uint32_t n,
                    float *scratch);

/* The next token comes from these logits, all of them numbers. scratch: (n_vocab). */
void logprobs_look(struct logprobs *l, const struct sampler_math *math, const float *logits,
                   float *scratch);
/* It is this one. */
void logprobs_push(struct logprobs *l, uint32_t id);
/* The last n are no part of the answer. */
void logprobs_drop(struct logprobs *l, uint32_t n);
/* The first n went out. */
void logprobs_sent(struct logprobs *l, uint32_t n);

#endif
