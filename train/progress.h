/* train/progress.h - how far a run is, in one line of a terminal.
 *
 *     [=======>            ]  380/1000  1210 tokens/s  loss 2.314  lr 8.1e-04  17:05 left
 *
 * On a terminal the line is written over, a few times a second; elsewhere it is a line every half
 * minute, and one for the last step. The rate is that of the last steps; loss is smoothed likewise.
 * Time left is what the steps need, or what is left of the time that the run may take.
 *
 * Threads    one at a time.
 */
#ifndef TRAIN_PROGRESS_H
#define TRAIN_PROGRESS_H

#include "base/bar.h"

#include <stdint.h>
#include <stdio.h>

struct progress {
    struct bar bar;
    uint64_t step, steps;
    double seconds_max;     /* 0: no limit */
    double start, before;   /* times: of the run, of the last step */
    double seconds, tokens; /* of a step, smoothed */
    double loss, lr;
    double weight;      /* of all steps so far in the smoothed values */
    double loss_weight; /* of those that had a loss, in loss */
};

/* done: steps of runs before. now: in seconds, of any clock that does not jump. */
void progress_start(struct progress *p, FILE *out, uint64_t done, uint64_t steps,
                    double seconds_max, double now);
/* After a step: how many tokens it read, its loss, or NAN when no token carried one. */
void progress_step(struct progress *p, uint64_t step, uint64_t tokens, double loss, double lr,
                   double now);
/* What takes long beside the steps, and which share of it is done; shown no more often than they
 * are. */
void progress_beside(struct progress *p, const char *what, double share, double now);
/* A line of its own: an evaluation, a checkpoint. */
void progress_say(struct progress *p, const char *line);
void progress_end(struct progress *p);

#endif
