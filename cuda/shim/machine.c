/* Blocks of fibres. A fibre runs until it waits; then the next of its warp does, else of another:
 * so a warp that shuffles stays in the cache, and a switch is a few pushes and pops.
 *
 *     ready --barrier, collective--> waiting --the last one comes--> ready        end: not live
 */
#include "cuda/shim/machine.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef __x86_64__
#error "cuda/shim switches stacks by x86-64's instructions"
#endif

#define WARPS_MAX (SHIM_THREADS_MAX / 32)
/* Plain: not a power of two, or all stacks would share a few sets of the cache. */
#if defined(SHIM_ASAN) || defined(SHIM_TSAN)
#define STACK (256u << 10)
#else
#define STACK ((64u << 10) + 832)
#endif
/* At a stack's lowest address, as long as it was not too small. A stack grows down: whoever needs
 * more writes over it. It is looked at when a launch is over: a page more for each thread. */
#define STACK_END   0x5bad5bad5bad5badull
#define STATICS_MAX 16u
#define STATICS_LEN (64u << 10)
#define DYNAMIC_LEN ((SHIM_SHARED_MAX + 4095u) & ~4095u)
#define GUARD       4096u

#ifdef SHIM_ASAN
void __sanitizer_start_switch_fiber(void **fake, const void *stack, size_t len);
void __sanitizer_finish_switch_fiber(void *fake, const void **ret_stack, size_t *ret_len);
#endif

/* sp: where it goes on. fake, tsan: what sanitizers know it by. warp, mates: its own, and the lanes
 * of that, found at each switch. */
struct fibre {
    struct shim_thread self; /* first: shim_self points to it */
    void *sp, *fake, *tsan;
    uint8_t *stack;
    struct warp *warp;
    struct fibre *mates;
};

/* A lane is in one of ready, arrived, waiting, or has ended. */
struct warp {
    uint32_t ready, live; /* lanes */
    uint32_t arrived;     /* that wait in a collective */
    uint32_t waiting;     /* at the barrier */
    uint32_t mask[32];    /* of the collective that a lane waits in */
    enum shim_op op[32];
    bool mixed; /* not all who wait have last_mask and last_op */
    uint32_t last_mask;
    enum shim_op last_op;
    struct warp_lane lanes[32];
    unsigned turn; /* of the two syncs */
    char sync[2];
};

/* By a tag, as each array of a kernel has an address of its own that names it. */
struct statics {
    const void *tag;
    void *mem;
    size_t len;
    uint64_t block; /* that has seen it: filled with NaN once a block */
};

/* One block at a time, all of whose threads are fibres of the thread that called. */
struct machine {
    struct fibre *fibres;
    struct fibre host; /* who called machine_run */
    const void *host_stack;
    size_t host_stack_len;
    struct warp warps[WARPS_MAX];
    unsigned n, n_warps, n_live, n_waiting, phase;
    uint64_t block;
    struct statics statics[STATICS_MAX];
    unsigned n_statics;
    size_t statics_used;
    uint8_t *stacks, *statics_mem, *dynamic_mem, *dynamic;
    const struct machine_launch *launch;
    char barrier[2], end[2]; /* syncs; end: of every other block */
};

/* NULL between blocks. */
struct shim_thread *shim_self;
struct shim_block shim_now;
static struct machine *m; /* that runs */

/* A trap and no exit: a debugger is where it happened, and a test has failed. */
void shim_fail(const char *what)
{
    const struct shim_dim *b = &shim_now.block;

    if (shim_self)
        fprintf(stderr, "cuda shim: %s: block (%u, %u, %u), thread (%u, %u, %u)\n", what, b->x,
                b->y, b->z, shim_self->thread.x, shim_self->thread.y, shim_self->thread.z);
    else
        fprintf(stderr, "cuda shim: %s\n", what);
    fflush(stderr);
    __builtin_trap();
}

/* --- switching -------------------------------------------------------------------------------- */

void shim_swap(void **save, void *to);
__asm__(".text\n"
        ".globl shim_swap\n"
        ".hidden shim_swap\n"
        ".type shim_swap, @function\n"
        "shim_swap:\n"
        "    push %rbp\n"
        "    push %rbx\n"
        "    push %r12\n"
        "    push %r13\n"
        "    push %r14\n"
        "    push %r15\n"
        "    mov %rsp, (%rdi)\n"
        "    mov %rsi, %rsp\n"
        "    pop %r15\n"
        "    pop %r14\n"
        "    pop %r13\n"
        "    pop %r12\n"
        "    pop %rbx\n"
        "    pop %rbp\n"
        "    ret\n"
        ".size shim_swap, . - shim_swap\n"
        ".section .note.GNU-stack,\"\",@progbits\n"
        ".text\n");

/* last: from ends, and its stack is nobody's. Switched first for sanitizers, then in fact. */
static void go(struct fibre *from, struct fibre *to, bool last)
{
    if (from == to)
        return;
    (void)last;
    shim_self = to == &m->host ? NULL : &to->self;
#ifdef SHIM_TSAN
    __tsan_switch_to_fiber(to->tsan, 1);
#endif
#ifdef SHIM_ASAN
    __sanitizer_start_switch_fiber(last ? NULL : &from->fake,
                                   to == &m->host ? m->host_stack : to->stack,
                                   to == &m->host ? m->host_stack_len : STACK);
#endif
    shim_swap(&from->sp, to->sp);
#ifdef SHIM_ASAN
    __sanitizer_finish_switch_fiber(from->fake, NULL, NULL);
#endif
}

/* Of a mask that is not 0. */
static unsigned first_of(uint32_t lanes)
{
    return m->launch->backwards ? 31 - (unsigned)__builtin_clz(lanes)
                                : (unsigned)__builtin_ctz(lanes);
}

/* Of whatever warp, or the host when all threads have ended. */
static __attribute__((noinline)) struct fibre *next_elsewhere(void)
{
    for (unsigned i = 0; i < m->n_warps; i++) {
        unsigned at = m->launch->backwards ? m->n_warps - 1 - i : i;

        if (m->warps[at].ready)
            return &m->fibres[at * 32 + first_of(m->warps[at].ready)];
    }
    if (m->n_live > 0)
        shim_fail("all threads wait, for a barrier or a shuffle that not all of them reach");
    return &m->host;
}

/* The own warp first: its lanes are about to meet. */
static inline struct fibre *next_after(const struct fibre *f)
{
    uint32_t ready = f->warp->ready;

    return ready ? f->mates + first_of(ready) : next_elsewhere();
}

/* --- barriers and collectives ----------------------------------------------------------------- */

/* Everybody goes on, in whatever order. */
static void open_barrier(void)
{
    m->n_waiting = 0;
    m->phase ^= 1;
    for (unsigned i = 0; i < m->n_warps; i++) {
        m->warps[i].ready |= m->warps[i].waiting;
        m->warps[i].waiting = 0;
    }
}

/* Two syncs in turn: who is early at the next barrier adds nothing to what the late ones of this
 * one are about to receive. */
void shim_barrier(void)
{
    struct fibre *f = (struct fibre *)shim_self;
    struct warp *w = f->warp;
    char *sync = &m->barrier[m->phase];

    SYNC_RELEASE(sync);
    w->ready &= ~(1u << f->self.lane);
    w->waiting |= 1u << f->self.lane;
    /* Threads that have ended do not count, as on a device since sm_70. */
    if (++m->n_waiting == m->n_live)
        open_barrier();
    go(f, next_after(f), false);
    SYNC_ACQUIRE(sync);
}

/* Whether all lanes of the mask have come. Lanes may wait with other masks, as long as nobody of
 * them waits for this one: that is the end of both. mixed: only then masks are compared one by one.
 */
static bool all_there(const struct warp *w, unsigned lane, unsigned mask, enum shim_op op)
{
    bool ret = (w->arrived & mask) == mask;

    for (uint32_t with = w->mixed ? w->arrived & mask : 0; with; with &= with - 1) {
        unsigned i = (unsigned)__builtin_ctz(with);
        bool same = w->mask[i] == mask && w->op[i] == op;

        if (!same && w->mask[i] >> lane & 1)
            shim_fail("lanes of a warp meet in different collectives");
        ret = ret && same;
    }
    return ret;
}

static void arrive(struct warp *w, unsigned lane, unsigned mask, enum shim_op op)
{
    if (!(mask >> lane & 1))
        shim_fail("a lane calls a collective whose mask it is not in");
    if (mask & ~w->live)
        shim_fail("a lane of the mask has ended, or never was");
    if (!w->arrived) {
        w->mixed = false;
        w->last_mask = mask;
        w->last_op = op;
    } else if (mask != w->last_mask || op != w->last_op) {
        w->mixed = true;
    }
    w->mask[lane] = mask;
    w->op[lane] = op;
    w->arrived |= 1u << lane;
}

void shim_together(unsigned mask, enum shim_op op, unsigned arg, const uint32_t *in, unsigned n_in,
                   uint32_t *ret, unsigned n_ret)
{
    struct fibre *f = (struct fibre *)shim_self;
    struct warp *w = f->warp;
    unsigned lane = f->self.lane;
    char *sync = &w->sync[w->turn];

    if (op == SHIM_SYNCWARP)
        SYNC_RELEASE(sync);
    /* Registers go to the warp; the last lane that comes computes for all. */
    for (unsigned i = 0; i < n_in; i++)
        w->lanes[lane].in[i] = in[i];
    w->lanes[lane].arg = arg;
    arrive(w, lane, mask, op);
    if (all_there(w, lane, mask, op)) {
        w->arrived &= ~mask;
        w->ready |= mask;
        if (op == SHIM_SYNCWARP)
            w->turn ^= 1;
        else
            warp_compute(op, mask, w->lanes);
    } else {
        w->ready &= ~(1u << lane);
        /* Woken by the last of them, with its result in `out`. */
        go(f, next_after(f), false);
    }
    if (op == SHIM_SYNCWARP)
        SYNC_ACQUIRE(sync);
    for (unsigned i = 0; i < n_ret; i++)
        ret[i] = w->lanes[lane].out[i];
}

/* From here on it knows all that came before. */
void shim_grid_wait(void)
{
    SYNC_ACQUIRE(m->launch->after);
    shim_self->waited = true;
}

/* --- shared memory ---------------------------------------------------------------------------- */

/* With ASan an array is an allocation, so that its end is known; with TSan it may not be one that a
 * thread of the block makes, as that would be its write. */
static void *static_new(size_t len)
{
    void *ret;

#ifdef SHIM_ASAN
    ret = exact_alloc(16, len);
#else
    ret = m->statics_mem + m->statics_used;
    m->statics_used += (len + 127) & ~(size_t)127;
    if (m->statics_used > STATICS_LEN)
        ret = NULL;
#endif
    if (!ret)
        shim_fail("no room for static shared memory: 48 KB are the most");
    return ret;
}

void *shim_static(const void *tag, size_t len)
{
    struct statics *s = m->statics;

    while (s < m->statics + m->n_statics && s->tag != tag)
        s++;
    if (s == m->statics + m->n_statics) {
        if (m->n_statics == STATICS_MAX)
            shim_fail("too many static shared arrays in one kernel");
        *s = (struct statics){ tag, static_new(len), len, 0 };
        m->n_statics++;
    }
    /* Each block finds it as a device leaves it: with anything in it. */
    if (s->block != m->block) {
        fill_nan(s->mem, len);
        s->block = m->block;
    }
    return s->mem;
}

/* Ends where nobody may write: ASan's zone behind an allocation, or a page. */
static void dynamic_set(size_t len)
{
#ifdef SHIM_ASAN
    free(m->dynamic);
    m->dynamic = len ? exact_alloc(16, len) : NULL;
    if (len && !m->dynamic)
        shim_fail("no memory for dynamic shared memory");
#else
    /* Aligned to 16, so up to 15 bytes behind the end are still there. */
    m->dynamic = m->dynamic_mem + ((DYNAMIC_LEN - len) & ~(size_t)15);
#endif
}

static void statics_clear(void)
{
#ifdef SHIM_ASAN
    for (unsigned i = 0; i < m->n_statics; i++)
        free(m->statics[i].mem);
#endif
    m->n_statics = 0;
    m->statics_used = 0;
}

/* --- blocks ----------------------------------------------------------------------------------- */

static void end_of(struct fibre *f)
{
    struct warp *w = f->warp;
    uint32_t bit = 1u << f->self.lane;

    if (!f->self.waited)
        shim_fail("a kernel's thread ended that never called grid_wait()");
    if (f->self.n_copies)
        shim_fail("a kernel's thread ended before what it had copied came");
    w->ready &= ~bit;
    w->live &= ~bit;
    m->n_live--;
    /* It may be the one that the others waited for. */
    if (m->n_live && m->n_waiting == m->n_live)
        open_barrier();
    for (uint32_t with = w->arrived; with; with &= with - 1)
        if (w->mask[__builtin_ctz(with)] & bit)
            shim_fail("a lane ends that others of its warp wait for");
}

/* Where a fibre begins: as if `ret` of the first switch to it had called it. */
static void enter(void)
{
    struct fibre *f = (struct fibre *)shim_self;

#ifdef SHIM_ASAN
    const void *s;
    size_t n;

    __sanitizer_finish_switch_fiber(NULL, &s, &n);
    if (!m->host_stack) {
        m->host_stack = s;
        m->host_stack_len = n;
    }
#endif
    SYNC_ACQUIRE(&m->end[(m->block - 1) % 2]); /* it has their shared memory */
    SYNC_ACQUIRE(m->launch->host);
    SYNC_ACQUIRE(m->launch->before);
    m->launch->fn(m->launch->arg);
    SYNC_RELEASE(&m->end[m->block % 2]);
    end_of(f);
    go(f, next_after(f), true);
    __builtin_unreachable();
}

/* By a fibre that never received anything: whoever makes one gives it all that it knows, and a
 * kernel that begins early may not know of the one before it. */
#ifdef SHIM_TSAN
static void *tsan_new(void)
{
    static void *root;
    void *me = __tsan_get_current_fiber(), *ret;

    if (!root)
        root = __tsan_create_fiber(0);
    __tsan_switch_to_fiber(root, 1);
    ret = __tsan_create_fiber(0);
    __tsan_switch_to_fiber(me, 1);
    return ret;
}
#endif

static void set_fibre(struct fibre *f, const struct shim_dim *at)
{
    void **sp =
        (void **)(void *)(f->stack + STACK - 64); /* 16-aligned once `ret` took its address */

    f->self.thread = *at;
    f->self.waited = false;
    f->self.n_copies = f->self.n_groups = 0;
    f->fake = NULL;
    /* shim_swap pops six registers, then returns to it. */
    sp[0] = (void *)enter;
    f->sp = sp - 6;
#ifdef SHIM_TSAN
    if (!f->tsan)
        f->tsan = tsan_new();
#endif
}

static void set_fibres(const struct shim_dim *dim)
{
    struct fibre *f = m->fibres;
    struct shim_dim at;

    for (at.z = 0; at.z < dim->z; at.z++)
        for (at.y = 0; at.y < dim->y; at.y++)
            for (at.x = 0; at.x < dim->x; at.x++)
                set_fibre(f++, &at);
}

/* Warps that are not full have fewer lanes. */
static void begin_block(const struct shim_dim *at)
{
    const struct machine_launch *l = m->launch;

    shim_now = (struct shim_block){ *at, l->grid, l->dim, m->dynamic };
    m->block++;
    if (l->shared)
        fill_nan(m->dynamic, l->shared);
    m->n = m->n_live = l->dim.x * l->dim.y * l->dim.z;
    m->n_warps = (m->n + 31) / 32;
    m->n_waiting = 0;
    for (unsigned i = 0; i < m->n_warps; i++) {
        struct warp *w = &m->warps[i];
        unsigned k = m->n - i * 32;

        w->arrived = w->waiting = 0;
        w->ready = w->live = k >= 32 ? ~0u : (1u << k) - 1;
    }
    set_fibres(&l->dim);
}

/* Back when no thread is live. */
static void run_block(const struct shim_dim *at)
{
    struct fibre *first;

    begin_block(at);
    first = &m->fibres[m->launch->backwards ? m->n - 1 : 0];
    go(&m->host, first, false);
}

static void check_stacks(void)
{
    for (unsigned i = 0; i < m->n; i++)
        if (*(const uint64_t *)(const void *)m->fibres[i].stack != STACK_END)
            shim_fail("a thread's local variables need more than the shim's stacks have");
}

void machine_run(struct machine *of, const struct machine_launch *l)
{
    size_t n = (size_t)l->grid.x * l->grid.y * l->grid.z;

    assert(!m);
    m = of;
    m->launch = l;
    dynamic_set(l->shared);
    statics_clear();
#ifdef SHIM_TSAN
    m->host.tsan = __tsan_get_current_fiber();
#endif
    /* In either order: results must not depend on it. */
    for (size_t j = 0; j < n; j++) {
        size_t i = l->backwards ? n - 1 - j : j;
        struct shim_dim at = { (unsigned)(i % l->grid.x), (unsigned)(i / l->grid.x % l->grid.y),
                               (unsigned)(i / l->grid.x / l->grid.y) };

        run_block(&at);
    }
    check_stacks();
    SYNC_ACQUIRE(&m->end[0]);
    SYNC_ACQUIRE(&m->end[1]);
    statics_clear(); /* nobody comes back for them when this was the last kernel */
    m->launch = NULL;
    m = NULL;
}

/* --- life ------------------------------------------------------------------------------------- */

/* Pages are made when they are touched: most blocks have few threads. */
static void *map_new(size_t n)
{
    void *ret =
        mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return ret == MAP_FAILED ? NULL : ret;
}

struct machine *machine_new(void)
{
    struct machine *ret = calloc(1, sizeof(*ret));

    if (!ret)
        return NULL;
    ret->fibres = calloc(SHIM_THREADS_MAX, sizeof(*ret->fibres));
    ret->stacks = map_new((size_t)SHIM_THREADS_MAX * STACK);
    ret->statics_mem = map_new(STATICS_LEN);
    ret->dynamic_mem = map_new(DYNAMIC_LEN + GUARD);
    if (!ret->fibres || !ret->stacks || !ret->statics_mem || !ret->dynamic_mem ||
        mprotect(ret->dynamic_mem + DYNAMIC_LEN, GUARD, PROT_NONE) < 0) {
        machine_free(ret);
        return NULL;
    }
    for (unsigned i = 0; i < SHIM_THREADS_MAX; i++) {
        struct fibre *f = &ret->fibres[i];

        f->self.warp = i / 32;
        f->self.lane = i % 32;
        f->warp = &ret->warps[i / 32];
        f->mates = &ret->fibres[i / 32 * 32];
        f->stack = ret->stacks + (size_t)i * STACK;
        *(uint64_t *)(void *)f->stack = STACK_END;
    }
    return ret;
}

void machine_free(struct machine *of)
{
    if (!of)
        return;
#ifdef SHIM_TSAN
    for (unsigned i = 0; of->fibres && i < SHIM_THREADS_MAX; i++)
        if (of->fibres[i].tsan)
            __tsan_destroy_fiber(of->fibres[i].tsan);
#endif
    if (of->stacks)
        munmap(of->stacks, (size_t)SHIM_THREADS_MAX * STACK);
    if (of->statics_mem)
        munmap(of->statics_mem, STATICS_LEN);
    if (of->dynamic_mem)
        munmap(of->dynamic_mem, DYNAMIC_LEN + GUARD);
#ifdef SHIM_ASAN
    free(of->dynamic);
#endif
    free(of->fibres);
    free(of);
}
