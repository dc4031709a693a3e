/* tests/jumps.c - the clock of a machine that takes the process off its CPU now and then, and whose
 * pages come slowly: LD_PRELOAD makes monotonic time jump by up to JUMPS_US now and then, but go no
 * more than five times as fast as it does. JUMPS_SEED says where. By tests/run-jumps: what passes
 * here does not fail because a machine is slow or busy.
 *
 * Threads    any.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#define FASTER 4          /* by how much more it may go */
#define AHEAD  20000000ll /* ns, before any time has passed */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int (*real)(clockid_t clock, struct timespec *ret);
static int64_t began, jumped;
static unsigned seed, most;

static unsigned number_of(const char *name)
{
    const char *s = getenv(name);

    return s ? (unsigned)strtoul(s, NULL, 10) : 0;
}

static void begin(int64_t now)
{
    began = now;
    most = number_of("JUMPS_US");
    seed = number_of("JUMPS_SEED");
}

static int64_t jump(int64_t now)
{
    if (!began)
        begin(now);
    if (most > 0 && jumped < FASTER * (now - began) + AHEAD && rand_r(&seed) % 4 == 0)
        jumped += rand_r(&seed) % most * INT64_C(1000);
    return now + jumped;
}

int clock_gettime(clockid_t clock, struct timespec *ret)
{
    int64_t ns;
    int r;

    pthread_mutex_lock(&lock);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    r = real(clock, ret);
    if (r == 0 && clock == CLOCK_MONOTONIC) {
        ns = jump(ret->tv_sec * INT64_C(1000000000) + ret->tv_nsec);
        ret->tv_sec = ns / 1000000000;
        ret->tv_nsec = ns % 1000000000;
    }
    pthread_mutex_unlock(&lock);
    return r;
}
