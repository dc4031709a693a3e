/* ctl/ctl_progress.h - a bar on a terminal while the daemon reads a text, with the time left.
 *
 * Nothing is drawn where standard error is no terminal, or when a text is there before a person
 * would look: the bar comes after half a second.
 */
#ifndef CTL_CTL_PROGRESS_H
#define CTL_CTL_PROGRESS_H

#include "base/bar.h"

#include <stdint.h>

struct ctl_progress {
    struct bar bar;
    uint64_t begun_ns, counted_ns;      /* counted: since the first token was computed */
    uint32_t n_found, n_read, n_tokens; /* n_found: were there when it began */
};

void ctl_progress_begin(struct ctl_progress *p);
/* A gist_progress_fn; arg is a struct ctl_progress. */
void ctl_progress_tell(void *arg, uint32_t n_read, uint32_t n_tokens);
/* The terminal is as it was. */
void ctl_progress_end(struct ctl_progress *p);

#endif
