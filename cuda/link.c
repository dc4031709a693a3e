#include "cuda/link.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

struct link {
    struct rt *from, *to;
    uint8_t *host; /* (most), pinned; NULL: they reach each other */
    size_t most;
    struct rt_event *there, *taken;
};

int link_open(struct rt *from, struct rt *to, size_t most, struct link **ret)
{
    struct link *l = calloc(1, sizeof(*l));
    void *host = NULL;
    int r = 0;

    if (!l)
        return -ENOMEM;
    *l = (struct link){ .from = from, .to = to, .most = most };
    if (!rt_reaches(to, from))
        r = rt_alloc_host(from, most, &host);
    l->host = r == 0 ? host : NULL;
    if (r == 0)
        r = rt_event_open(from, &l->there);
    if (r == 0)
        r = rt_event_open(to, &l->taken);
    if (r < 0) {
        link_close(l);
        return r;
    }
    *ret = l;
    return 0;
}

void link_close(struct link *l)
{
    if (!l)
        return;
    rt_event_close(l->from, l->there);
    rt_event_close(l->to, l->taken);
    rt_free_host(l->from, l->host);
    free(l);
}

bool link_is_direct(const struct link *l)
{
    return !l->host;
}

/* The host's memory may still be on its way to `to` from the time before. */
static int leave(struct link *l, const struct link_piece *pieces, unsigned n)
{
    size_t at = 0;
    int r = rt_follow(l->from, RT_COMPUTE, l->taken);

    for (unsigned i = 0; i < n && l->host && r == 0; i++) {
        assert(pieces[i].n <= l->most - at);
        r = rt_get(l->from, RT_COMPUTE, l->host + at, pieces[i].from, pieces[i].n);
        at += pieces[i].n;
    }
    return r == 0 ? rt_record(l->from, RT_COMPUTE, l->there) : r;
}

static int arrive(struct link *l, const struct link_piece *pieces, unsigned n)
{
    size_t at = 0;
    int r = rt_follow(l->to, RT_COMPUTE, l->there);

    for (unsigned i = 0; i < n && r == 0; i++) {
        r = l->host ? rt_put(l->to, RT_COMPUTE, pieces[i].to, l->host + at, pieces[i].n)
                    : rt_copy_from(l->to, RT_COMPUTE, pieces[i].to, l->from, pieces[i].from,
                                   pieces[i].n);
        at += pieces[i].n;
    }
    return r == 0 ? rt_record(l->to, RT_COMPUTE, l->taken) : r;
}

int link_copy(struct link *l, const struct link_piece *pieces, unsigned n)
{
    int r = leave(l, pieces, n);

    return r == 0 ? arrive(l, pieces, n) : r;
}
