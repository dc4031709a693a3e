#include "store/when.h"

#include "base/clock.h"

uint64_t when_s(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec < 0 ? 0 : (uint64_t)t.tv_sec; /* a clock before 1970 */
}

uint64_t when_ns(void)
{
    return clock_ns();
}
