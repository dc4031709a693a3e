/* engine/kv/scratch.c - spans of one piece of memory, first fit.
 *
 * At most SCRATCH_SPANS_MAX spans are out, in an array that is ordered by offset: to look for a gap
 * is to walk it, and a span that goes leaves a gap without anything to be joined.
 */
#include "engine/kv/scratch.h"

#include "engine/backend.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

#define ALIGN 64u
/* What is used for every segment should not fault its pages in anew each time: a segment of the
 * default length needs about 200 KiB. */
#define KEEP ((size_t)1 << 20)

static int get_memory(struct scratch *s)
{
    void *p;
    int r = backend_alloc(s->backend, s->len, &p);

    if (r == 0)
        s->mem = p;
    return r;
}

/* len in whole spans, so that the last one can reach the end. */
void scratch_promise(struct scratch *s, struct backend *b, size_t len)
{
    *s = (struct scratch){ .backend = b, .len = (len + ALIGN - 1) / ALIGN * ALIGN };
}

int scratch_open(struct scratch *s, struct backend *b, size_t len)
{
    scratch_promise(s, b, len);
    return get_memory(s);
}

void scratch_close(struct scratch *s)
{
    if (!s || !s->mem)
        return;
    backend_free(s->backend, s->mem, s->len);
    *s = (struct scratch){ 0 };
}

void scratch_leave(struct scratch *s)
{
    assert(s->n == 0);
    backend_free(s->backend, s->mem, s->len);
    s->mem = NULL;
    /* Fresh memory is untouched memory. */
    s->touched = 0;
}

void *scratch_take(struct scratch *s, size_t len)
{
    size_t off = 0;
    uint32_t i = 0;

    len = (len + ALIGN - 1) / ALIGN * ALIGN;
    assert(len > 0);
    if (s->n == SCRATCH_SPANS_MAX || (!s->mem && get_memory(s) < 0))
        return NULL;
    /* off is where the gap before span i begins. */
    while (i < s->n && s->spans[i].off - off < len) {
        off = s->spans[i].off + s->spans[i].len;
        i++;
    }
    /* Behind the last span, where it is the rest that has to be long enough. */
    if (len > s->len - off)
        return NULL;
    memmove(&s->spans[i + 1], &s->spans[i], (s->n - i) * sizeof(*s->spans));
    s->spans[i].off = off;
    s->spans[i].len = len;
    s->n++;
    s->used += len;
    if (s->touched < off + len)
        s->touched = off + len;
    return s->mem + off;
}

void scratch_give(struct scratch *s, void *p)
{
    size_t end;
    uint32_t i = 0;

    if (!p)
        return;
    while (i < s->n && s->mem + s->spans[i].off != p)
        i++;
    assert(i < s->n);
    s->used -= s->spans[i].len;
    s->n--;
    memmove(&s->spans[i], &s->spans[i + 1], (s->n - i) * sizeof(*s->spans));
    end = s->n ? s->spans[s->n - 1].off + s->spans[s->n - 1].len : 0;
    /* All behind the last span, not this one alone: neighbours share system pages. */
    end = end < KEEP ? KEEP : (end + 4095) & ~(size_t)4095;
    if (end < s->touched) {
        void *host = backend_host(s->backend, s->mem);

        if (host)
            (void)madvise((uint8_t *)host + end, s->touched - end, MADV_DONTNEED);
        s->touched = end;
    }
}
