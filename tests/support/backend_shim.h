/* tests/support/backend_shim.h - CUDA's kernels on the CPU as a backend
 * ($BUILD/libgistd-cuda-shim.so, cuda/shim/).
 *
 * Errors     a test's helper: what can't go wrong in a test ends it.
 */
#ifndef TESTS_SUPPORT_BACKEND_SHIM_H
#define TESTS_SUPPORT_BACKEND_SHIM_H

#include "engine/backend.h"

const struct backend_ops *backend_shim(void);
const struct backend_ops *backend_library(const char *name);

/* A library of the build, by its name. */
int backend_of_build(const char *name, const struct backend_ops **ret, struct why *why);

#endif
