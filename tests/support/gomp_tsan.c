/* What TSan does not see of OpenMP: gcc's run time wakes threads and waits for them by futexes of
 * its own, and is not built for TSan, which then takes what a region reads of its caller, and the
 * caller of the region, for races. These stand before the run time's functions and say what they
 * order: a region's begin, its end, and barriers in it. Races within a region are still found. */
#include "base/sanitized.h"

#if defined(__SANITIZE_THREAD__)

#include <dlfcn.h>
#include <string.h>

void __tsan_acquire(void *at);
void __tsan_release(void *at);

typedef void region_fn(void *);
typedef void parallel_fn(region_fn *, void *, unsigned, unsigned);
typedef void barrier_fn(void);

/* Also for oneDNN's regions, and for TSan's run time. */
#define FOR_ALL __attribute__((visibility("default")))

FOR_ALL void GOMP_parallel(region_fn *fn, void *data, unsigned n_threads, unsigned flags);
FOR_ALL void GOMP_barrier(void);
FOR_ALL const char *__tsan_default_suppressions(void);

/* What threads share inside of oneDNN is not ours to order: it is not built for TSan either. */
const char *__tsan_default_suppressions(void)
{
    return "called_from_lib:libdnnl.so\n";
}

struct region {
    region_fn *fn;
    void *data;
    char begins, ends; /* these are what is released and acquired */
};

static char barrier;

static void next(const char *name, void *ret_function)
{
    void *p = dlsym(RTLD_NEXT, name);

    memcpy(ret_function, &p, sizeof(p));
}

static void run(void *arg)
{
    struct region *r = arg;

    __tsan_acquire(&r->begins);
    r->fn(r->data);
    __tsan_release(&r->ends);
}

void GOMP_parallel(region_fn *fn, void *data, unsigned n_threads, unsigned flags)
{
    struct region r = { .fn = fn, .data = data };
    parallel_fn *parallel;

    next("GOMP_parallel", &parallel);
    __tsan_release(&r.begins);
    parallel(run, &r, n_threads, flags);
    __tsan_acquire(&r.ends);
}

void GOMP_barrier(void)
{
    barrier_fn *wait;

    next("GOMP_barrier", &wait);
    __tsan_release(&barrier);
    wait();
    __tsan_acquire(&barrier);
}

#endif
