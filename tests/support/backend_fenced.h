/* tests/support/backend_fenced.h - a backend whose memory the host may not touch.
 *
 * It computes by the CPU's scalar kernels, in memory that is closed to reading and writing
 * (mprotect) whenever none of its own functions runs, and now and then while stop is asked. Who
 * looks behind a pointer that is the backend's ends by SIGSEGV: what passes here on a tensor, a
 * page or a weight keeps the cut of engine/backend.h.
 *
 * Copies with a ticket are late: they are made when a later call waits for all (another copy, say,
 * but no step), or when done was asked about them twice. Until then the memory that they write is
 * as it was, and host memory that is reused too early shows in the result.
 *
 * Threads    as a backend.
 */
#ifndef TESTS_SUPPORT_BACKEND_FENCED_H
#define TESTS_SUPPORT_BACKEND_FENCED_H

#include "engine/backend.h"

extern const struct backend_ops backend_fenced;
extern bool backend_fenced_pins; /* host memory can be pinned */

#endif
