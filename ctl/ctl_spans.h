/* ctl/ctl_spans.h - texts of a request, as gist_embed and gist_score_choices take them.
 *
 * Ownership  the list is the struct's, for ctl_spans_fini; the texts are borrowed.
 * Errors     exit codes of ctl.h, behind a sentence.
 */
#ifndef CTL_CTL_SPANS_H
#define CTL_CTL_SPANS_H

#include "ctl/ctl.h"
#include "ctl/ctl_opt.h"

struct ctl_spans {
    struct gist_span *v; /* (n) of cap */
    size_t n, cap;
};

int ctl_spans_add(struct ctl_spans *s, const char *text, size_t len);
int ctl_spans_add_list(struct ctl_spans *s, const struct ctl_opt_list *texts);
/* Each line is one; empty ones are passed over. */
int ctl_spans_add_lines(struct ctl_spans *s, const struct ctl_text *t);
void ctl_spans_fini(struct ctl_spans *s);

#endif
