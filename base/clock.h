/* base/clock.h - monotonic time in nanoseconds, and what a thread does while it spins for
 * something.
 *
 * Reading the clock is no system call (the vDSO answers), but it takes longer than a message
 * through the ring does: spins look at it only now and then.
 *
 * Threads    any.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define CLOCK_MS UINT64_C(1000000)
#define CLOCK_S  UINT64_C(1000000000)

static inline uint64_t clock_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * CLOCK_S + (uint64_t)t.tv_nsec;
}

/* Tells the CPU that this is a spin: it leaves the loop without a mispredicted load, and the other
 * thread of the core has more of it meanwhile. */
static inline void clock_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
