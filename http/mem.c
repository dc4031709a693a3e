/* http/mem.c - pieces that are freed together, and texts that grow. */

#include "http/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mem_piece {
    struct mem_piece *next;
    max_align_t bytes[];
};

/* n may come from a request: the product is checked. */
void *mem_new(struct mem *m, size_t n, size_t size)
{
    struct mem_piece *p;
    size_t len;

    if (__builtin_mul_overflow(n, size, &len) || len > SIZE_MAX / 2)
        return NULL;
    p = calloc(1, sizeof(*p) + len);
    if (!p)
        return NULL;
    p->next = m->pieces;
    m->pieces = p;
    return p->bytes;
}

char *mem_copy(struct mem *m, const char *bytes, size_t len)
{
    char *to = mem_new(m, len + 1, 1);

    if (to && len > 0)
        memcpy(to, bytes, len);
    return to;
}

void mem_fini(struct mem *m)
{
    while (m->pieces) {
        struct mem_piece *p = m->pieces;

        m->pieces = p->next;
        free(p);
    }
}

/* Room for len bytes more and a NUL. */
static bool text_reserve(struct text *t, size_t len)
{
    size_t cap = t->cap ? t->cap : 256;
    char *bytes;

    if (t->lost)
        return false;
    if (len > SIZE_MAX / 4 || t->len > SIZE_MAX / 4) {
        t->lost = true;
        return false;
    }
    /* Doubled, so that a text that grows piece by piece is copied a few times and not for each. */
    while (cap < t->len + len + 1)
        cap *= 2;
    if (cap == t->cap)
        return true;
    bytes = realloc(t->bytes, cap);
    t->lost = !bytes;
    if (!bytes)
        return false;
    t->bytes = bytes;
    t->cap = cap;
    return true;
}

void text_add(struct text *t, const char *bytes, size_t len)
{
    if (!text_reserve(t, len))
        return;
    if (len > 0)
        memcpy(t->bytes + t->len, bytes, len);
    t->len += len;
    t->bytes[t->len] = '\0';
}

/* Twice over the arguments: for the length, then into place. */
void text_print(struct text *t, const char *fmt, ...)
{
    va_list ap, again;
    int n;

    va_start(ap, fmt);
    va_copy(again, ap);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        t->lost = true;
    else if (text_reserve(t, (size_t)n)) {
        (void)vsnprintf(t->bytes + t->len, (size_t)n + 1, fmt, again);
        t->len += (size_t)n;
    }
    va_end(again);
}

void text_fini(struct text *t)
{
    free(t->bytes);
    *t = (struct text){ 0 };
}
