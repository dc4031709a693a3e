/* How a job is handed out
 *
 *     owner  writes fn and arg; done = 0; gives each worker an equal range of slices (release);
 *            posted++; wakes sleepers
 *     any    takes slices from the front of its own range (acquire), runs them, and when that is
 *            empty from the others' ranges; adds the number of slices it ran to done (release)
 *     owner  returns when done == n_slices (acquire)
 *
 * A range is its own cache line, so while all go at the same speed nobody touches another's; and
 * the slices of a worker are neighbours, and the same ones in every step.
 *
 * Whoever took a slice has not added it to done yet, so the owner is still in that job: fn and its
 * arguments can't change under it. And a worker that comes late, with the value of a range from a
 * job long over, either fails to take or takes a slice of the job that is on now, whose fn it reads
 * only afterwards. So ranges need no generation, and the job's fields need no atomics.
 */
#include "engine/cpu/workers.h"

#include "base/clock.h"
#include "base/thread.h"
#include "engine/cpu/place.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* About what a sleep and a wake-up cost together, so that spinning at worst doubles the price of a
 * gap. Between two jobs of a step there are a few microseconds. */
#define WORKERS_SPIN_NS 20000

struct worker {
    /* Slices [next, end) that nobody took yet, next in the upper half. */
    _Alignas(64) _Atomic uint64_t range;
    struct workers *pool;
    uint32_t index;
    pthread_t thread;
};

struct workers {
    /* Written by the owner between jobs, read by whoever took a slice. */
    workers_fn *fn;
    void *arg;

    uint32_t n;
    int owner_cpu; /* see workers_owner_cpu */
    bool crowded;  /* more threads than CPUs: a spinning one would keep a working one off */

    _Alignas(64) _Atomic uint32_t done; /* slices that ran; futex of the owner */
    _Atomic bool owner_sleeps;
    _Alignas(64) _Atomic uint32_t posted; /* jobs so far; futex of the workers */
    _Atomic uint32_t n_sleeping;
    _Atomic bool rest, stop;

    uint32_t n_started;
    struct worker workers[]; /* (n); the first one is the owner, and has no thread */
};

/* Private: word is in no shared mapping, so the kernel needs no page lookup. Whoever waits looks
 * again: a return says nothing. */
static void futex_wait(_Atomic uint32_t *word, uint32_t seen)
{
    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

/* Taking a slice adds 1 to next by one compare-and-swap; end stays, so 32 bits never run into each
 * other. */
static bool is_empty(uint64_t range)
{
    return (uint32_t)(range >> 32) == (uint32_t)range;
}

/* Runs the slices of a range that nobody takes before. The acquire of a swap that succeeds pairs
 * with the release store of the range, behind which fn and arg were written. One that fails has put
 * into seen what is there now. */
static uint32_t run_range(struct workers *w, _Atomic uint64_t *r, uint32_t index)
{
    uint64_t seen = atomic_load_explicit(r, memory_order_relaxed);
    uint32_t ran = 0;

    while (!is_empty(seen)) {
        if (!atomic_compare_exchange_weak_explicit(r, &seen, seen + (UINT64_C(1) << 32),
                                                   memory_order_acquire, memory_order_relaxed))
            continue;
        w->fn(w->arg, (uint32_t)(seen >> 32), index);
        ran++;
        seen = atomic_load_explicit(r, memory_order_relaxed);
    }
    return ran;
}

/* Its own slices, then those that others have not come to. From its neighbour on, and so each from
 * another one: those who are done do not all go to the same. */
static uint32_t run_slices(struct workers *w, uint32_t index)
{
    uint32_t ran = 0;

    for (uint32_t i = 0; i < w->n; i++)
        ran += run_range(w, &w->workers[(index + i) % w->n].range, index);
    return ran;
}

/* True when work came (or the end) while spinning. Only its own range is looked at, a line that
 * nobody writes to before the next job. The clock is asked every 16th time, as that costs more than
 * a look. */
static bool spin_for_job(struct workers *w, const struct worker *self)
{
    uint64_t until = 0;

    if (w->crowded)
        return false;
    for (uint32_t i = 1;; i++) {
        if (!is_empty(atomic_load_explicit(&self->range, memory_order_relaxed)))
            return true;
        if (atomic_load_explicit(&w->rest, memory_order_relaxed))
            return false;
        clock_pause();
        if (i % 16)
            continue;
        if (!until)
            until = clock_ns() + WORKERS_SPIN_NS;
        else if (clock_ns() > until)
            return false;
    }
}

/* The owner adds to posted and then looks at n_sleeping; a worker adds to n_sleeping and then the
 * kernel looks at posted. Both in one total order (seq_cst), so not both can miss the other. */
static void sleep_for_job(struct workers *w, const struct worker *self)
{
    uint32_t seen = atomic_load(&w->posted);

    /* Looked at behind posted: a job that was posted before that is found here, a later one by the
     * kernel, which does not put to sleep who has seen another number. */
    if (!is_empty(atomic_load_explicit(&self->range, memory_order_relaxed)) ||
        atomic_load(&w->stop))
        return;
    atomic_fetch_add(&w->n_sleeping, 1);
    futex_wait(&w->posted, seen);
    atomic_fetch_sub(&w->n_sleeping, 1);
}

static void *worker_main(void *arg)
{
    struct worker *self = arg;
    struct workers *w = self->pool;

    (void)pthread_setname_np(pthread_self(), "gist-worker");
    while (!atomic_load_explicit(&w->stop, memory_order_relaxed)) {
        uint32_t ran = run_slices(w, self->index);

        if (ran) {
            /* seq_cst, before the look at owner_sleeps: pairs with wait_done. */
            (void)atomic_fetch_add(&w->done, ran);
            if (atomic_load(&w->owner_sleeps))
                futex_wake(&w->done, 1);
        } else if (!spin_for_job(w, self)) {
            sleep_for_job(w, self);
        }
    }
    return NULL;
}

/* A worker that lost its CPU in the middle of a slice may be away for milliseconds: the owner
 * spins as long as workers do and then sleeps too. */
static void wait_done(struct workers *w, uint32_t n_slices)
{
    uint32_t done = atomic_load_explicit(&w->done, memory_order_acquire);
    uint64_t until = 0;

    for (uint32_t i = 1; done != n_slices && !w->crowded; i++) {
        clock_pause();
        if (i % 16 == 0) {
            if (!until)
                until = clock_ns() + WORKERS_SPIN_NS;
            else if (clock_ns() > until)
                break;
        }
        done = atomic_load_explicit(&w->done, memory_order_acquire);
    }
    if (done == n_slices)
        return;

    /* The flag is set before done is looked at again, and all of these are seq_cst: a worker that
     * adds to done after that look sees the flag and wakes us; one that added before it is seen. */
    atomic_store(&w->owner_sleeps, true);
    while ((done = atomic_load(&w->done)) != n_slices)
        futex_wait(&w->done, done);
    atomic_store(&w->owner_sleeps, false);
}

/* One slice, or one worker: nothing to hand over. done and rest come before the ranges, whose
 * release store lets workers begin; the owner's own range is given last, as its worker begins
 * last. */
void workers_run(struct workers *w, workers_fn *fn, void *arg, uint32_t n_slices)
{
    uint32_t ran, n_sleeping;

    if (w->n == 1 || n_slices <= 1) {
        for (uint32_t i = 0; i < n_slices; i++)
            fn(arg, i, 0);
        return;
    }

    w->fn = fn;
    w->arg = arg;
    atomic_store_explicit(&w->done, 0, memory_order_relaxed);
    atomic_store_explicit(&w->rest, false, memory_order_relaxed);
    for (uint32_t i = w->n; i-- > 0;) {
        uint64_t next = (uint64_t)n_slices * i / w->n, end = (uint64_t)n_slices * (i + 1) / w->n;

        atomic_store_explicit(&w->workers[i].range, next << 32 | end, memory_order_release);
    }
    (void)atomic_fetch_add(&w->posted, 1);
    n_sleeping = atomic_load(&w->n_sleeping);
    /* No more workers than there are slices beside the owner's first one. */
    if (n_sleeping > 0)
        futex_wake(&w->posted, n_slices > INT_MAX ? INT_MAX : (int)n_slices - 1);

    ran = run_slices(w, 0);
    /* Relaxed: the owner need not be told of what it did itself. */
    (void)atomic_fetch_add_explicit(&w->done, ran, memory_order_relaxed);
    wait_done(w, n_slices);
}

void workers_rest(struct workers *w)
{
    atomic_store_explicit(&w->rest, true, memory_order_relaxed);
}

uint32_t workers_n(const struct workers *w)
{
    return w->n;
}

int workers_owner_cpu(const struct workers *w)
{
    return w->owner_cpu;
}

/* Refused, or no memory for the mask: the thread runs where it runs. */
static void pin_thread(pthread_t thread, uint32_t cpu)
{
    size_t len = CPU_ALLOC_SIZE(cpu + 1);
    cpu_set_t *mask = CPU_ALLOC(cpu + 1);

    if (!mask)
        return;
    CPU_ZERO_S(len, mask);
    CPU_SET_S(cpu, len, mask);
    (void)pthread_setaffinity_np(thread, len, mask);
    CPU_FREE(mask);
}

/* Workers get no signals: these are for the thread that asked for them. But for SIGSYS, which comes
 * to who makes a forbidden call (daemon/calls.h) and says which that was. */
static int start_worker(struct workers *w, uint32_t index, bool pin)
{
    struct worker *self = &w->workers[index];
    sigset_t all, old;
    int r;

    self->pool = w;
    self->index = index;
    (void)sigfillset(&all);
    (void)sigdelset(&all, SIGSYS);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(&self->thread, NULL, worker_main, self);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r)
        return -r;
    w->n_started++;
    if (pin)
        pin_thread(self->thread, place_cpu(index));
    return 0;
}

int workers_open(uint32_t n, bool pin, struct workers **ret)
{
    struct workers *w;
    size_t len = sizeof(*w) + n * sizeof(w->workers[0]); /* both multiples of 64 */
    uint32_t n_cpus;
    int r;

    if (n < 1 || n > WORKERS_MAX)
        return -EINVAL;
    w = aligned_alloc(64, len);
    if (!w)
        return -ENOMEM;
    memset(w, 0, len);
    w->n = n;
    n_cpus = thread_n_cpus();
    w->crowded = n > n_cpus;
    w->owner_cpu = pin && !w->crowded && n > 1 ? (int)place_cpu(0) : -1;

    /* The owner's thread is left where it is: it was not made here, threads that it makes later
     * would inherit the mask, and between steps it may be better off elsewhere. With more threads
     * than CPUs a pin could only do harm. */
    for (uint32_t i = 1; i < n; i++) {
        r = start_worker(w, i, pin && !w->crowded);
        if (r < 0) {
            workers_close(w);
            return r;
        }
    }
    *ret = w;
    return 0;
}

/* n_started, not n: it is also what ends a start that failed half-way. */
void workers_close(struct workers *w)
{
    if (!w)
        return;
    atomic_store(&w->stop, true);
    atomic_store(&w->rest, true);
    (void)atomic_fetch_add(&w->posted, 1);
    futex_wake(&w->posted, INT_MAX);
    for (uint32_t i = 1; i <= w->n_started; i++)
        (void)pthread_join(w->workers[i].thread, NULL);
    free(w);
}
