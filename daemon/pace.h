/* daemon/pace.h - how many tokens a step may read, so that nobody waits long.
 *
 * Two times are held: from one look at the cancels to the next (a layer), and, while somebody's
 * answer is being written, of the whole step. Both follow from the measured speed, a moving
 * average, since machines, models and context lengths differ by orders of magnitude.
 *
 * Threads    none; a plain struct.
 */
#ifndef DAEMON_PACE_H
#define DAEMON_PACE_H

#include <stdbool.h>
#include <stdint.h>

#define PACE_LAYER_NS   (20u * 1000u * 1000u)  /* between two looks at the cancels */
#define PACE_STEP_NS    (100u * 1000u * 1000u) /* a step that decoding sessions wait for */
#define PACE_TOKENS_MIN 16u                    /* below this a step is slower by the token */

struct pace {
    uint32_t n_layers, max_tokens;
    double ns_per_token; /* moving average; 0: not measured yet */
};

void pace_init(struct pace *p, uint32_t n_layers, uint32_t max_tokens);

/* Tokens the next step may read, beside those it decodes. */
uint32_t pace_budget(const struct pace *p, bool decoding);

/* A step read n_tokens in ns. Steps that only decode are not reported. */
void pace_measured(struct pace *p, uint32_t n_tokens, uint64_t ns);

#endif
