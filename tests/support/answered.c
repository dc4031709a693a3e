#include "tests/support/answered.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

int answered_take(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    struct answered *a = arg;

    (void)text;
    (void)len;
    assert_true(n_ids <= ANSWERED_MAX - a->n);
    if (n_ids)
        memcpy(a->ids + a->n, ids, n_ids * sizeof(*ids));
    a->n += n_ids;
    return 0;
}
