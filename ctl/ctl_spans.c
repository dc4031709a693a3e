#include "ctl/ctl_spans.h"

#include <stdlib.h>
#include <string.h>

/* Borrows the text. */
int ctl_spans_add(struct ctl_spans *s, const char *text, size_t len)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 64;
        struct gist_span *p = realloc(s->v, cap * sizeof(*p));

        if (!p)
            return ctl_fail(CTL_FAILED, "out of memory.");
        s->v = p;
        s->cap = cap;
    }
    s->v[s->n++] = (struct gist_span){ text, len };
    return CTL_OK;
}

int ctl_spans_add_list(struct ctl_spans *s, const struct ctl_opt_list *texts)
{
    int r = CTL_OK;

    for (size_t i = 0; r == CTL_OK && i < texts->n; i++)
        r = ctl_spans_add(s, texts->v[i], strlen(texts->v[i]));
    return r;
}

/* Empty lines are no texts. */
int ctl_spans_add_lines(struct ctl_spans *s, const struct ctl_text *t)
{
    int r = CTL_OK;

    for (size_t at = 0; r == CTL_OK && at < t->len;) {
        const char *line = t->bytes + at, *end = memchr(line, '\n', t->len - at);
        size_t len = end ? (size_t)(end - line) : t->len - at;

        at += len + 1;
        if (len > 0)
            r = ctl_spans_add(s, line, len);
    }
    return r;
}

void ctl_spans_fini(struct ctl_spans *s)
{
    free(s->v);
    *s = (struct ctl_spans){ 0 };
}
