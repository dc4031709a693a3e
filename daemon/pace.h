/* daemon/pace.h - how many tokens a step may read, so that nobody waits long.
 *
 * Two times are held: from one look at the cancels to the next (a layer), and, while somebody's
 * answer is being written, of the whole step. Both follow from the measured speed, a moving
 * average, since machines, models and context lengths differ by orders of magnitude.
 *
 * And while the model has work, what clients send is taken in within a part of the time, however
 * many clients there are and whatever they send: time that passes earns an eighth of itself, and
 * frames, and the numbers that scrapers ask for, are taken as long as there is some left. One frame
 * may cost more than that, since it is known only afterwards; then the others wait until it is
 * earned.
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

#define PACE_FRAMES_PART    8u                  /* frames get 1/8 of the time */
#define PACE_FRAMES_NS_MAX  (1 * 1000u * 1000u) /* that can be saved up */
#define PACE_FRAMES_DEBT_NS (5 * 1000u * 1000u) /* more is forgiven: a thread may be stopped */

struct pace {
    uint32_t n_layers, max_tokens;
    double ns_per_token; /* moving average; 0: not measured yet */
    int64_t frames_ns;   /* earned and not spent; below 0: spent before it is earned */
    uint64_t frames_at;  /* when that was so */
};

void pace_init(struct pace *p, uint32_t n_layers, uint32_t max_tokens);

/* Tokens the next step may read, beside those it decodes. */
uint32_t pace_budget(const struct pace *p, bool decoding);

/* A step read n_tokens in ns. Steps that only decode are not reported. */
void pace_measured(struct pace *p, uint32_t n_tokens, uint64_t ns);

/* Time has passed without frames until now, or with them. True: one more may be taken. */
bool pace_earned(struct pace *p, uint64_t now_ns);
bool pace_spent(struct pace *p, uint64_t now_ns);
/* Nothing of the model waits for frames to be taken. */
void pace_idle(struct pace *p);

#endif
