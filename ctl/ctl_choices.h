/* ctl/ctl_choices.h - the half of `gistctl score` that compares continuations of a text.
 *
 * Errors     as in ctl/ctl.h.
 */
#ifndef CTL_CTL_CHOICES_H
#define CTL_CTL_CHOICES_H

#include "ctl/ctl.h"
#include "ctl/ctl_opt.h"

struct ctl_choices_opts {
    struct ctl_opt_list choices; /* texts */
    const char *file;            /* that has more of them, a line each; NULL: none */
    bool chat;                   /* the text is a user's message, the choices begin the answer */
    bool json;
    uint32_t segment;
    const struct gist_memory *memory;
};

/* Some were given. */
bool ctl_choices_wanted(const struct ctl_choices_opts *o);
int ctl_choices_run(gist_conn *c, const struct ctl_text *text, const struct ctl_choices_opts *o);

#endif
