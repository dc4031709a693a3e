/* daemon/draft.h - how many tokens of an answer are guessed ahead, so that one step may make
 * several.
 *
 * A guess (daemon/lookup.h) costs a row of the step for each of its tokens, and saves a step for
 * each that turns out right. Both are measured: what rows cost by the daemon, over all steps that
 * only decode; how often guesses are right a session, apart for short and long matches. From the
 * two follows the length that makes most tokens a second, and none where that is slower than no
 * guess.
 *
 *     right or wrong  --draft_learn()-->  struct draft_rate (session)  --+
 *                                                                        +--> draft_length()
 *     rows, time      --draft_timed()-->  struct draft_cost (daemon)   --+
 *
 * Where none is worth it one is tried all the same now and then, each time less often as long as it
 * is wrong: texts change.
 *
 * Guesses change no answer. A token is sampled from the same logits, with the same random numbers,
 * and what was guessed only decides whether the logits for the next one are there already.
 *
 * Threads    none; plain structs.
 */
#ifndef DAEMON_DRAFT_H
#define DAEMON_DRAFT_H

#include "base/why.h"

#include <stdbool.h>
#include <stdint.h>

#define DRAFT_ROWS 16u               /* of a step, up to which tokens are guessed */
#define DRAFT_MAX  (DRAFT_ROWS - 1u) /* tokens of a guess */
#define DRAFT_AUTO UINT32_MAX

/* Matches of 3, 4 to 7, 8 to 15 ids, and of more. */
#define DRAFT_CLASSES 4u

/* Of a request that decodes. add: the planned run, of one token, gets guesses behind it, at most
 * max, in a step that has n_rows. follows: the token that was just sampled is the guess, and the
 * row of logits behind it is what the next one comes from. */
struct forward_run;
struct request;
struct sched;
struct draft_ops {
    void (*add)(struct sched *s, struct request *r, uint32_t n_rows, uint32_t max,
                struct forward_run *run);
    bool (*follows)(struct sched *s, struct request *r, uint32_t guess);
};

struct draft_rate {
    float right[DRAFT_CLASSES]; /* share of guessed tokens, those behind a wrong one not counted */
    uint32_t skipped;           /* guesses that were not made since the last try */
    uint32_t pause;             /* after so many there is one */
};

struct draft_cost {
    double ns[DRAFT_ROWS + 1]; /* of a step with so many rows, a moving average */
    uint64_t at[DRAFT_ROWS + 1];
    uint64_t n_steps; /* that were timed: at is when of these; 0: never */
};

/* "auto", "off", or a number of tokens: DRAFT_AUTO, 0 or that number. -EINVAL and a sentence. */
int draft_read(const char *text, uint32_t *ret, struct why *why);

/* What of the daemon's setting and an answer's own holds: neither guesses more than the other
 * allows. */
uint32_t draft_setting(uint32_t daemon, uint32_t asked);

void draft_rate_init(struct draft_rate *r);
uint32_t draft_class(uint32_t match);

/* A step that only decoded so many rows, guesses included, took ns. */
void draft_timed(struct draft_cost *c, uint32_t n_rows, uint64_t ns);
/* What one with so many rows would take: measured, or between what was; 0: not known at all. */
double draft_cost(const struct draft_cost *c, uint32_t n_rows);

/* How many of n tokens, guessed from a match of that class, are worth their rows in a step that has
 * n_rows and makes as many tokens without them. */
uint32_t draft_length(struct draft_rate *r, const struct draft_cost *c, uint32_t class,
                      uint32_t n_rows, uint32_t n);

/* A guessed token was right or wrong; those behind a wrong one say nothing. */
void draft_learn(struct draft_rate *r, uint32_t class, bool right);

#endif
