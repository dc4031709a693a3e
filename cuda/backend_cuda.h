/* cuda/backend_cuda.h - the backend whose memory and computing are a device's (engine/backend.h).
 *
 * One source makes two libraries, which differ in what stands behind cuda/rt.h and in who compiles
 * the kernels: libgistd-cuda.so (nvcc, CUDA's runtime) and libgistd-cuda-shim.so (g++, the shim).
 *
 * Of several devices each has some layers (engine/divide.h) and memory that stands for all of
 * theirs (cuda/spread.h); the rows of a step go from one to the next (cuda/link.h), so that one of
 * them computes at a time.
 *
 * Host work, and the host's part of sampling, are the CPU backend's, which is opened beside it.
 */
#ifndef CUDA_BACKEND_CUDA_H
#define CUDA_BACKEND_CUDA_H

#include "engine/backend.h"

/* What engine/plugin.h looks for. */
__attribute__((visibility("default"))) const struct backend_ops *gistd_backend(void);

#endif
