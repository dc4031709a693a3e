/* tests/support/lost_device.h - the shim's device (cuda/shim/), which is lost when a test says so:
 * at the n-th call when there is a file, and until that is gone (cuda/shim/memory.c).
 *
 * Errors     a test's helper: what can't go wrong in a test is asserted.
 */
#ifndef TESTS_SUPPORT_LOST_DEVICE_H
#define TESTS_SUPPORT_LOST_DEVICE_H

#include "tests/support/answered.h"

/* Of the daemons that start from now on. */
void lost_device_begin(void);

/* At the n-th call from now on, n > 0. */
void lost_device_lose(unsigned n);
void lost_device_return(void);

/* The session, of its first n tokens, answers so as soon as the device was tried again. */
void lost_device_answers(gist_conn *c, gist_session *s, uint32_t n,
                         const struct answered *expected);

#endif
