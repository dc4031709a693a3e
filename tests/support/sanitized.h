/* tests/support/sanitized.h - what a build under a sanitizer leaves out, since it would take
 * minutes.
 *
 * Kernels are not instrumented (the Makefile says why), so one table of them shows all that a
 * sanitizer can see of the code around them; the released build runs every table that the CPU has.
 */
#ifndef TESTS_SUPPORT_SANITIZED_H
#define TESTS_SUPPORT_SANITIZED_H

#include "base/sanitized.h"

/* Tables of kernels that whole models are run on: the first of kernels_name. */
#define SANITIZED_TABLES (SANITIZED ? 1u : ~0u)

#endif
