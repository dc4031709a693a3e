/* tests/support/store_names.h - what tests of the store ask of a rig beside its records: names,
 * paths, callbacks that are counted one by one.
 */
#ifndef TESTS_SUPPORT_STORE_NAMES_H
#define TESTS_SUPPORT_STORE_NAMES_H

#include "tests/support/store_rig.h"

/* A path below the rig's folder. */
char *rig_path(const struct store_rig *r, char ret[SCRATCH_PATH_MAX], const char *name);

struct rig_called {
    int n, result; /* callbacks, and what the last one said */
};
/* A store_done_fn; arg is a struct rig_called. */
void rig_count(void *arg, int result);

/* store_name_put's result, or that of its callback, which is waited for. */
int rig_put_name(struct store_rig *r, uint32_t owner, uint32_t kind, const char *name,
                 const char *text);
/* NULL: there is no such name. */
void rig_assert_name(struct store_rig *r, uint32_t owner, uint32_t kind, const char *name,
                     const char *text);

#endif
