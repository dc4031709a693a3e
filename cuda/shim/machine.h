/* cuda/shim/machine.h - what runs the blocks of one launch after the other, inside the shim.
 *
 * Two machines of a stream take turns, so that a kernel which begins early has other threads than
 * the one before it, to TSan as well: each fibre is one of its own there, with a stack of its own.
 *
 * Threads    the one that holds the shim (stream.c).
 */
#ifndef CUDA_SHIM_MACHINE_H
#define CUDA_SHIM_MACHINE_H

#include "cuda/shim/shim.h"

#include <stdlib.h>

struct machine;

struct machine_launch {
    struct shim_dim grid, dim;
    size_t shared;
    void (*fn)(const void *arg);
    const void *arg;
    bool backwards;
    void *host, *before, *after; /* syncs: who launched it; what a thread may look at before it
                                  * calls grid_wait; and behind that */
};

struct machine *machine_new(void);
void machine_free(struct machine *m);
void machine_run(struct machine *m, const struct machine_launch *l);

/* Of the warp's registers: what op makes of in for all lanes of mask (cuda/shim/warp.c). */
struct warp_lane {
    uint32_t in[SHIM_REGS], out[SHIM_REGS];
    unsigned arg;
};
void warp_compute(enum shim_op op, unsigned mask, struct warp_lane lanes[32]);

/* What TSan is told; nothing without it. A sync is an address that stands for an order. */
#ifdef SHIM_TSAN
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void *fiber);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
void __tsan_acquire(const void *addr);
void __tsan_release(const void *addr);
void __tsan_read_range(void *addr, unsigned long n);
void __tsan_write_range(void *addr, unsigned long n);
#define SYNC_ACQUIRE(p) __tsan_acquire(p)
#define SYNC_RELEASE(p) __tsan_release(p)
#else
#define SYNC_ACQUIRE(p) ((void)(p))
#define SYNC_RELEASE(p) ((void)(p))
#endif

/* Of this length to the byte, so that ASan knows its end. NULL: no memory. */
static inline void *exact_alloc(size_t align, size_t n)
{
    void *ret;

    return posix_memalign(&ret, align, n) == 0 ? ret : NULL;
}

/* By instructions that no sanitizer intercepts: what the hardware writes is nobody's. */
static inline void fill_nan(void *p, size_t n)
{
    __asm__ volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(0xff) : "memory");
}
static inline void copy_unseen(void *to, const void *from, size_t n)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

#endif
