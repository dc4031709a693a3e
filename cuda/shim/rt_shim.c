/* cuda/shim/rt_shim.c - the door to the runtime (cuda/rt.h) where kernels run on the CPU.
 *
 * All is done when the call returns, so every mark has been reached as soon as it is made. Device
 * memory is memory of the process, each piece as long as was asked for and no longer: the address
 * sanitizer sees what goes past its end.
 */
#include "cuda/rt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 4096u

struct rt {
    char streams[RT_STREAM__N]; /* have an address each */
};

struct rt_event {
    bool marked;
};

const char rt_name[] = "cuda-shim";

int rt_look(unsigned n, struct why *why)
{
    return n == 0 ? 0 : why_set(why, -ENODEV, "there is one cuda-shim, found number %u", n);
}

int rt_open(unsigned n, struct rt **ret, struct why *why)
{
    struct rt *r;
    int e = rt_look(n, why);

    if (e < 0)
        return e;
    r = calloc(1, sizeof(*r));
    if (!r)
        return why_set(why, -ENOMEM, "no memory for the shim's runtime");
    *ret = r;
    return 0;
}

void rt_close(struct rt *r)
{
    free(r);
}

void rt_info(const struct rt *r, struct rt_info *ret)
{
    (void)r;
    *ret = (struct rt_info){ .bytes = 0 };
    (void)snprintf(ret->name, sizeof(ret->name), "kernels on the CPU");
}

int rt_alloc(struct rt *r, size_t n, void **ret)
{
    void *mem;

    (void)r;
    if (posix_memalign(&mem, ALIGN, n ? n : 1) != 0)
        return -ENOMEM;
    /* What nobody has written is no number: bytes of 0xff are NaN in every format that we have. */
    memset(mem, 0xff, n);
    *ret = mem;
    return 0;
}

void rt_free(struct rt *r, void *mem)
{
    (void)r;
    free(mem);
}

int rt_alloc_host(struct rt *r, size_t n, void **ret)
{
    return rt_alloc(r, n, ret);
}

void rt_free_host(struct rt *r, void *mem)
{
    rt_free(r, mem);
}

static int copy(void *to, const void *from, size_t n)
{
    memmove(to, from, n);
    return 0;
}

int rt_put(struct rt *r, enum rt_stream s, void *to, const void *host, size_t n)
{
    (void)r;
    (void)s;
    return copy(to, host, n);
}

int rt_get(struct rt *r, enum rt_stream s, void *host, const void *from, size_t n)
{
    (void)r;
    (void)s;
    return copy(host, from, n);
}

int rt_copy(struct rt *r, enum rt_stream s, void *to, const void *from, size_t n)
{
    (void)r;
    (void)s;
    return copy(to, from, n);
}

int rt_clear(struct rt *r, enum rt_stream s, void *mem, size_t n)
{
    (void)r;
    (void)s;
    memset(mem, 0, n);
    return 0;
}

int rt_call(struct rt *r, enum rt_stream s, void (*fn)(void *arg), void *arg)
{
    (void)r;
    (void)s;
    fn(arg);
    return 0;
}

int rt_event_open(struct rt *r, struct rt_event **ret)
{
    (void)r;
    *ret = calloc(1, sizeof(**ret));
    return *ret ? 0 : -ENOMEM;
}

void rt_event_close(struct rt *r, struct rt_event *e)
{
    (void)r;
    free(e);
}

int rt_record(struct rt *r, enum rt_stream s, struct rt_event *e)
{
    (void)r;
    (void)s;
    e->marked = true;
    return 0;
}

int rt_follow(struct rt *r, enum rt_stream s, struct rt_event *e)
{
    (void)r;
    (void)s;
    (void)e;
    return 0;
}

int rt_event_done(struct rt *r, struct rt_event *e)
{
    (void)r;
    (void)e;
    return 0;
}

int rt_event_wait(struct rt *r, struct rt_event *e)
{
    return rt_event_done(r, e);
}

int rt_wait(struct rt *r, enum rt_stream s)
{
    (void)r;
    (void)s;
    return 0;
}

void *rt_stream(struct rt *r, enum rt_stream s)
{
    return &r->streams[s];
}
