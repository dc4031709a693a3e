/* eval/report.h - results as tables and plots, the paper's own figures beside them.
 *
 * What the files hold is shown: recall, surprise, UUIDs by prefix, boundary, perplexity. Files of
 * several models stand one after the other.
 *
 * Threads    pure but for the stream.
 * Errors     -ENOMEM, or the stream's, or -errno of a plot's file.
 */
#ifndef EVAL_REPORT_H
#define EVAL_REPORT_H

#include "eval/results.h"

#include <stdbool.h>
#include <stdio.h>

/* As HTML with its plots, or as Markdown, whose plots are files in the folder plots (NULL: none).
 */
int report_write(FILE *f, bool html, const char *plots, const struct results *files,
                 size_t n_files);

#endif
