/* tests/support/fault_life.h - the life of an object with each of its calls failing in turn.
 *
 * A life opens, uses and closes something and gives 0 or a negative errno; it closes what it opened
 * in either case, and leaves a sentence in why where its module gives one. For every n its nth call
 * fails (tests/support/fault.h), until there are fewer than n. Each time
 *
 *   - it is an error with the errno of that call, or none at all where the call was not needed;
 *   - no descriptor, no mapping and (address sanitizer) no memory is left behind;
 *
 * and in the end it lives once more without a fault.
 *
 * Errors     a test's helper: fails with the call, its number and what came of it.
 */
#ifndef TESTS_SUPPORT_FAULT_LIFE_H
#define TESTS_SUPPORT_FAULT_LIFE_H

#include "base/why.h"

#include <stdbool.h>

struct fault_life {
    const char *name;
    int (*live)(void *arg, struct why *why);
    void *arg;
    int also;  /* another errno that it may give in place of the call's; 0: none */
    bool says; /* an error has a sentence in why */
};

void fault_life(const struct fault_life *l);

#endif
