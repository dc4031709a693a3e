/* A list that is looked through: owners are few, and a disk's work stands behind each look. */
#include "store/shares.h"

#include <stdlib.h>

void shares_fini(struct shares *s)
{
    free(s->of);
    *s = (struct shares){ 0 };
}

static struct share *find(const struct shares *s, uint32_t owner)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->of[i].owner == owner)
            return &s->of[i];
    return NULL;
}

/* An owner with no bytes has no entry: shares_even divides by those who have some. */
static struct share *new_share(struct shares *s, uint32_t owner)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 8;
        void *mem = realloc(s->of, cap * sizeof(*s->of));

        if (!mem)
            return NULL;
        s->of = mem;
        s->cap = cap;
    }
    s->of[s->n] = (struct share){ .owner = owner };
    return &s->of[s->n++];
}

void shares_add(struct shares *s, uint32_t owner, uint64_t bytes)
{
    struct share *x = find(s, owner);

    if (!x)
        x = new_share(s, owner);
    if (x)
        x->bytes += bytes;
}

/* Of one who was not counted when memory was short there may be less than that. */
void shares_take(struct shares *s, uint32_t owner, uint64_t bytes)
{
    struct share *x = find(s, owner);

    if (!x)
        return;
    x->bytes -= x->bytes < bytes ? x->bytes : bytes;
    if (x->bytes == 0)
        *x = s->of[--s->n]; /* in no order */
}

uint64_t shares_of(const struct shares *s, uint32_t owner)
{
    const struct share *x = find(s, owner);

    return x ? x->bytes : 0;
}

/* The owner who asks counts, though it may have nothing yet: it wants something. */
uint64_t shares_even(const struct shares *s, uint32_t owner, uint64_t all)
{
    return all / (s->n + !find(s, owner));
}
