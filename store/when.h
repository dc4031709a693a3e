/* store/when.h - what time it is, in one place: tests of the store have days pass.
 *
 * Threads    any.
 */
#ifndef STORE_WHEN_H
#define STORE_WHEN_H

#include <stdint.h>

uint64_t when_s(void);  /* of the real-time clock, since 1970: what files are dated with */
uint64_t when_ns(void); /* of the monotonic clock: how long something takes */

#endif
