#include "client/gist_spans.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* One allocation, the lengths first: they need the larger alignment. */
int gist_gather_spans(gist_conn *c, const struct gist_span *spans, size_t n, size_t elem,
                      struct gist_gathered *ret)
{
    size_t len = 0;
    uint8_t *p;

    for (size_t i = 0; i < n; i++)
        len += spans[i].n * elem;
    *ret = (struct gist_gathered){ .len = len, .lens = malloc((n + 1) * sizeof(*ret->lens) + len) };
    if (!ret->lens)
        return gist_set_errno(c, -ENOMEM);
    ret->bytes = p = (uint8_t *)(ret->lens + n);
    for (size_t i = 0; i < n; i++) {
        ret->lens[i] = spans[i].n * elem;
        if (ret->lens[i] > 0)
            p = mempcpy(p, spans[i].at, ret->lens[i]);
    }
    return 0;
}

int gist_run_spans(struct gist_request *r, struct gist_gathered *all)
{
    int err = gist_run(r, -1);

    free(all->lens);
    gist_free_arrays(r);
    return err;
}
