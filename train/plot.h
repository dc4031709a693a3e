/* train/plot.h - the curves of a run's log as an SVG picture.
 *
 * Two panels over the tokens read: the training loss, as it was and smoothed, and what held-out
 * text costs at each ratio beside full attention and the segment alone, if the log has evaluations
 * (base/chart.h).
 *
 * The file gets its name when it is complete.
 *
 * Errors     -ENODATA (a log without steps), -ENOMEM, or the errno of the I/O, with a sentence.
 */
#ifndef TRAIN_PLOT_H
#define TRAIN_PLOT_H

#include "base/why.h"

#include <stdio.h>

struct run_log_data;

int plot_write(const struct run_log_data *d, const char *title, const char *out, struct why *why);

#endif
