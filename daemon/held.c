#include "daemon/held.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int held_resize(struct held_account *a, void **mem, size_t *len, size_t n)
{
    void *p = NULL;

    assert(a->used >= *len && a->used <= a->limit);
    if (n > *len && n - *len > a->limit - a->used) {
        a->refused = n - *len;
        return -EDQUOT;
    }
    if (n == 0)
        free(*mem);
    else
        p = realloc(*mem, n);
    if (n > 0 && !p)
        return -ENOMEM;
    a->used = a->used - *len + n;
    *mem = p;
    *len = n;
    return 0;
}
