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

/* A timeout of poll until `at`, rounded up: nobody wakes for nothing. An hour at most, since days
 * don't fit into it: then it is looked again. */
static inline int clock_until_ms(uint64_t at, uint64_t now)
{
    uint64_t ns = at > now ? at - now : 0;

    if (ns >= 3600 * CLOCK_S)
        return 3600 * 1000;
    return ns ? (int)(ns / CLOCK_MS) + 1 : 0;
}

/* The sooner one of two timeouts; -1: never. */
static inline int clock_sooner_ms(int a, int b)
{
    return a < 0 || (b >= 0 && b < a) ? b : a;
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
