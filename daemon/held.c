#include "daemon/held.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* The first that has no room for so many bytes more. NULL: all have. */
static const struct held_account *full_for(const struct held_account *a, size_t more)
{
    for (; a; a = a->above)
        if (more > a->limit - a->used)
            return a;
    return NULL;
}

/* Looked at first, and then charged to all or none. Less is never refused. */
int held_charge(struct held_account *a, size_t *len, size_t n)
{
    const struct held_account *full = n > *len ? full_for(a, n - *len) : NULL;
    size_t was = *len;

    assert(a->used >= was && a->used <= a->limit);
    if (full) {
        a->refused = n - was;
        a->by = full;
        return -EDQUOT;
    }
    *len = n;
    for (; a; a = a->above)
        a->used = a->used - was + n;
    return 0;
}

/* Given back first: what is above both has room for them as before. */
int held_move(struct held_account *from, struct held_account *to, size_t len)
{
    size_t had = len, none = 0;
    int r, e;

    (void)held_charge(from, &had, 0);
    r = held_charge(to, &none, len);
    e = r < 0 ? held_charge(from, &had, len) : 0;
    assert(e == 0); /* it had as much a moment ago */
    (void)e;
    return r;
}

/* Charged before it is taken, so that no moment has more memory than is counted. */
int held_resize(struct held_account *a, void **mem, size_t *len, size_t n)
{
    size_t was = *len;
    void *p = NULL;
    int e = held_charge(a, len, n);

    if (e < 0)
        return e;
    if (n == 0)
        free(*mem);
    else
        p = realloc(*mem, n);
    if (n > 0 && !p) {
        e = held_charge(a, len, was);
        assert(e == 0); /* it had as much a moment ago */
        return -ENOMEM;
    }
    *mem = p;
    return 0;
}
