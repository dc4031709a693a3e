/* cuda/link.c - rows from one device to the next, by peer copies or through the host's memory. Two
 * events make both sides wait: `there` says that the rows can be taken, `taken` that they were, and
 * what held them may be written again.
 */
#include "cuda/link.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TRIED ((size_t)64 << 10) /* bytes that are copied to see whether they arrive */

struct link {
    struct rt *from, *to;
    uint8_t *host; /* (most), pinned; NULL: they reach each other */
    size_t most;
    struct rt_event *there, *taken;
};

/* What is on its way while a link is tried: on either device, and the host's, there and back.
 * NULLs: not there yet. */
struct trial {
    void *from, *to, *there, *back;
};

/* A pattern that no other memory has by chance, and that is not the same in any two pages. */
static int trial_begin(const struct link *l, struct trial *t)
{
    int r = rt_alloc_host(l->from, TRIED, &t->there);

    if (r == 0)
        r = rt_alloc_host(l->to, TRIED, &t->back);
    if (r == 0)
        r = rt_alloc(l->from, TRIED, &t->from);
    if (r == 0)
        r = rt_alloc(l->to, TRIED, &t->to);
    for (size_t i = 0; i < TRIED && r == 0; i++)
        ((uint8_t *)t->there)[i] = (uint8_t)(i * 31 + i / 256);
    return r;
}

static void trial_end(const struct link *l, const struct trial *t)
{
    if (t->from)
        rt_free(l->from, t->from);
    if (t->to)
        rt_free(l->to, t->to);
    rt_free_host(l->from, t->there);
    rt_free_host(l->to, t->back);
}

/* 1: what is copied arrives. 0: other bytes arrive, without an error; then the host's memory is the
 * way. */
static int try_copy(struct link *l)
{
    struct trial t = { NULL, NULL, NULL, NULL };
    int r = trial_begin(l, &t);

    if (r == 0) /* the bytes of a trial before this one */
        r = rt_clear(l->to, RT_COMPUTE, t.to, TRIED);
    if (r == 0)
        r = rt_put(l->from, RT_COMPUTE, t.from, t.there, TRIED);
    if (r == 0)
        r = link_copy(l, &(struct link_piece){ t.to, t.from, TRIED }, 1);
    if (r == 0)
        r = rt_get(l->to, RT_COMPUTE, t.back, t.to, TRIED);
    if (r == 0)
        r = rt_wait(l->to, RT_COMPUTE);
    if (r == 0)
        r = memcmp(t.there, t.back, TRIED) == 0;
    trial_end(l, &t);
    return r;
}

int link_open(struct rt *from, struct rt *to, size_t most, struct link **ret)
{
    struct link *l = calloc(1, sizeof(*l));
    void *host = NULL;
    int r;

    if (!l)
        return -ENOMEM;
    *l = (struct link){ .from = from, .to = to, .most = most };
    r = rt_event_open(from, &l->there);
    if (r == 0)
        r = rt_event_open(to, &l->taken);
    if (r == 0)
        /* A link without host memory copies by peers: so the trial comes before there is any, and
         * leaves 0 where it failed. */
        r = rt_reaches(to, from) ? try_copy(l) : 0;
    if (r == 0)
        /* Portable, so that both devices read it. */
        r = rt_alloc_host(from, most, &host);
    if (r < 0) {
        link_close(l);
        return r;
    }
    l->host = host;
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

/* The host's memory may still be on its way to `to` from the time before. On `from`. By peers
 * nothing is copied here: only the mark is set. An event that was never recorded holds nobody up,
 * which is the first time's case. */
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

/* On `to`: what it computes from now on is behind the copies in its stream. */
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
