#include "tests/support/store_names.h"

#include "base/clock.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

char *rig_path(const struct store_rig *r, char ret[SCRATCH_PATH_MAX], const char *name)
{
    assert_true(snprintf(ret, SCRATCH_PATH_MAX, "%s/%s", r->path, name) < SCRATCH_PATH_MAX);
    return ret;
}

void rig_count(void *arg, int result)
{
    struct rig_called *c = arg;

    c->n++;
    c->result = result;
}

int rig_put_name(struct store_rig *r, uint32_t owner, uint32_t kind, const char *name,
                 const char *text)
{
    struct rig_called c = { 0 };
    int err = store_name_put(r->store, owner, kind, name, text, strlen(text), rig_count, &c);

    if (err < 0)
        return err;
    assert_true(store_flush(r->store, 60 * CLOCK_S));
    assert_int_equal(c.n, 1);
    return c.result;
}

void rig_assert_name(struct store_rig *r, uint32_t owner, uint32_t kind, const char *name,
                     const char *text)
{
    void *bytes = NULL;
    size_t len = 0;
    int err = store_name_get(r->store, owner, kind, name, &bytes, &len);

    assert_int_equal(store_name_has(r->store, owner, kind, name), text != NULL);
    if (!text) {
        assert_int_equal(err, -ENOENT);
        return;
    }
    assert_int_equal(err, 0);
    assert_int_equal(len, strlen(text));
    assert_memory_equal(bytes, text, len);
    free(bytes);
}
