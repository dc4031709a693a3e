/* engine/cpu/place.c - memory in huge pages on all nodes, memory behind a descriptor, CPUs in
 * order.
 *
 * What the kernel refuses (huge pages, a node) costs speed and is no error. Order matters:
 * advice and policy hold for pages that are not there yet, so they come between the mapping and the
 * first touch.
 */
#include "engine/cpu/place.h"

#include "base/pages.h"
#include "base/thread.h"
#include "engine/cpu/workers.h"

#include <errno.h>
#include <fcntl.h>
#include <numa.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The order in which workers take a CPU: cores before their second hardware threads, and within
 * these the nodes in turn. */
struct place_slot {
    uint32_t sibling; /* 0: the first hardware thread of its core */
    uint32_t turn;    /* CPUs of this node and sibling that come before it */
    int node;
    uint32_t cpu;
};

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* Weights and KV are read by workers of every node, so no node is the right one for a page:
 * interleaving at least uses the bandwidth of all. Must come before the first touch. */
static void interleave(void *mem, size_t len)
{
    struct bitmask *nodes;

    /* Without NUMA in the kernel no other function of libnuma may be called. */
    if (numa_available() < 0)
        return;
    nodes = numa_get_mems_allowed();
    if (!nodes)
        return;
    if (numa_bitmask_weight(nodes) > 1)
        numa_interleave_memory(mem, len, nodes);
    numa_bitmask_free(nodes);
}

int place_alloc(size_t len, void **ret)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *mem;

    if (len == 0 || len > SIZE_MAX - PAGES_HUGE - page)
        return -ENOMEM;
    len = round_up(len, page);
    mem = pages_map(len, len >= PAGES_HUGE ? PAGES_HUGE : page, PROT_READ | PROT_WRITE);
    if (!mem)
        return -ENOMEM;

    /* Before anything touches it: pages that exist keep their size and node. */
    interleave(mem, len);
    if (len >= PAGES_HUGE)
        (void)madvise(mem, len, MADV_HUGEPAGE);
    *ret = mem;
    return 0;
}

void place_free(void *mem, size_t len)
{
    if (mem)
        (void)munmap(mem, round_up(len, (size_t)sysconf(_SC_PAGESIZE)));
}

/* The most that one worker touches at a time; huge pages stay whole. */
#define POPULATE_BYTES ((size_t)16 << 20)

/* Of kernels that are younger than some C libraries. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

struct populate {
    uint8_t *mem;
    size_t len;
    int advice;    /* MADV_POPULATE_READ or _WRITE */
    bool collapse; /* to huge pages first */
    _Atomic int result;
};

/* Kernels before 5.14 don't know the advice: then a byte of each page is taken as it is. */
static void populate_slice(void *arg, uint32_t slice, uint32_t worker)
{
    struct populate *p = arg;
    size_t off = slice * POPULATE_BYTES, page = (size_t)sysconf(_SC_PAGESIZE);
    size_t n = p->len - off < POPULATE_BYTES ? p->len - off : POPULATE_BYTES;
    int r;

    (void)worker;
    /* Before the pages are there: to collapse is to copy, and then it is one small page of each. */
    if (p->collapse)
        pages_collapse(p->mem + off, n);
    do
        r = madvise(p->mem + off, n, p->advice);
    while (r < 0 && (errno == EINTR || errno == EAGAIN));
    if (r == 0)
        return;
    /* Of several slices that fail one's error is kept: any will do. */
    if (errno != EINVAL) {
        atomic_store_explicit(&p->result, -errno, memory_order_relaxed);
        return;
    }
    for (size_t at = off; at < off + n; at += page) {
        uint8_t byte = *(volatile uint8_t *)(p->mem + at);

        /* The byte that was there, so that it also serves for memory with something in it. */
        if (p->advice == MADV_POPULATE_WRITE)
            *(volatile uint8_t *)(p->mem + at) = byte;
    }
}

static int populate(struct workers *w, struct populate *p)
{
    workers_run(w, populate_slice, p, (uint32_t)((p->len + POPULATE_BYTES - 1) / POPULATE_BYTES));
    return atomic_load_explicit(&p->result, memory_order_relaxed);
}

int place_populate(struct workers *w, void *mem, size_t len)
{
    struct populate p = { .mem = mem,
                          .len = round_up(len, (size_t)sysconf(_SC_PAGESIZE)),
                          .advice = MADV_POPULATE_WRITE };

    return populate(w, &p);
}

/* Of Linux 5.18; older kernels give nothing of locked memory back. */
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

/* The plain advice is refused for locked memory, with EINVAL. */
int place_discard(void *mem, size_t len)
{
    if (madvise(mem, len, MADV_DONTNEED) == 0)
        return 0;
    return errno == EINVAL && madvise(mem, len, MADV_DONTNEED_LOCKED) == 0 ? 0 : -errno;
}

/* --- memory that outlives the process ----------------------------------------------------------
 */

#define KEPT_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/* In the place of a reservation at `mem`, so that the place is never anybody else's. */
static int map_at(void *mem, size_t len, int prot, int fd)
{
    if (mmap(mem, len, prot, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED)
        return 0;
    /* Kernels before 6.7 count every shared mapping as one that could be made writable, which the
     * seal forbids. */
    if (errno == EPERM && prot == PROT_READ &&
        mmap(mem, len, prot, MAP_PRIVATE | MAP_FIXED, fd, 0) != MAP_FAILED)
        return 0;
    return -errno;
}

/* mmap of a descriptor can't be told to align: so an aligned range is taken first, and mapped
 * over. */
static void *reserve(size_t len, size_t page)
{
    return pages_map(len, len >= PAGES_HUGE ? PAGES_HUGE : page, PROT_NONE);
}

int place_kept_alloc(struct workers *w, size_t len, void **ret, int *ret_fd)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct populate p = { .advice = MADV_POPULATE_WRITE, .collapse = true };
    int fd, r;

    if (len == 0 || len > SIZE_MAX - PAGES_HUGE - page)
        return -ENOMEM;
    p.len = round_up(len, page);
    fd = pages_memfd("gistd-weights", MFD_ALLOW_SEALING, p.len);
    if (fd < 0)
        return fd;
    p.mem = reserve(p.len, page);
    r = p.mem ? map_at(p.mem, p.len, PROT_READ | PROT_WRITE, fd) : -ENOMEM;
    if (r == 0) {
        interleave(p.mem, p.len);
        r = populate(w, &p);
    }
    if (r < 0) {
        place_free(p.mem, p.len);
        (void)close(fd);
        return r;
    }
    *ret = p.mem;
    *ret_fd = fd;
    return 0;
}

int place_kept_seal(void *mem, size_t len, int fd)
{
    int r;

    len = round_up(len, (size_t)sysconf(_SC_PAGESIZE));
    /* A mapping that could be made writable again stands against the seal: none for a moment. */
    if (mmap(mem, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        return -errno;
    r = fcntl(fd, F_ADD_SEALS, KEPT_SEALS | F_SEAL_SEAL) < 0 ? -errno : 0;
    /* Without it there is nothing at this address, whether the seals are there or not. */
    if (map_at(mem, len, PROT_READ, fd) < 0)
        return -EFAULT;
    return r;
}

/* From whoever had the descriptor before, systemd or an older daemon. Without the seals somebody
 * could still change weights while they are used, or cut them off, which would end in SIGBUS. */
int place_kept_map(struct workers *w, int fd, size_t len, void **ret)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct populate p = { .advice = MADV_POPULATE_READ };
    int seals = fcntl(fd, F_GET_SEALS), r;
    struct stat st;

    if (seals < 0 || (seals & KEPT_SEALS) != KEPT_SEALS)
        return -EPERM;
    if (len == 0 || len > SIZE_MAX - PAGES_HUGE - page)
        return -EINVAL;
    p.len = round_up(len, page);
    if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != p.len)
        return -EINVAL;
    p.mem = reserve(p.len, page);
    if (!p.mem)
        return -ENOMEM;
    r = map_at(p.mem, p.len, PROT_READ, fd);
    if (r == 0)
        r = populate(w, &p);
    if (r < 0) {
        place_free(p.mem, p.len);
        return r;
    }
    *ret = p.mem;
    return 0;
}

/* 0 when the CPU comes first in its core's list of hardware threads, or when there is no list. */
static uint32_t sibling_of(uint32_t cpu)
{
    char path[96];
    uint32_t first = cpu;
    FILE *f;

    (void)snprintf(path, sizeof(path),
                   "/sys/devices/system/cpu/cpu%u/topology/thread_siblings_list", cpu);
    f = fopen(path, "re");
    if (!f)
        return 0;
    if (fscanf(f, "%u", &first) != 1)
        first = cpu;
    (void)fclose(f);
    return first != cpu;
}

/* All first hardware threads before any second one: two workers in one core share its units. Then
 * one of each node in turn, so that few workers use the memory of all. */
static int compare_slots(const void *a, const void *b)
{
    const struct place_slot *x = a, *y = b;

    if (x->sibling != y->sibling)
        return x->sibling < y->sibling ? -1 : 1;
    if (x->turn != y->turn)
        return x->turn < y->turn ? -1 : 1;
    if (x->node != y->node)
        return x->node < y->node ? -1 : 1;
    return x->cpu < y->cpu ? -1 : 1;
}

/* Turns are counted among equals, by increasing number of the CPU. Quadratic in CPUs, once a worker
 * at start. */
static void order_slots(struct place_slot *slots, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = 0; j < i; j++)
            slots[i].turn += slots[j].node == slots[i].node && slots[j].sibling == slots[i].sibling;
    }
    qsort(slots, n, sizeof(*slots), compare_slots);
}

/* The order is made anew for each worker: it is asked at start only, and so nothing has to be
 * kept. */
uint32_t place_cpu(uint32_t i)
{
    unsigned long mask[THREAD_CPU_SET];
    uint32_t n_cpus = thread_cpus((cpu_set_t *)mask, sizeof(mask)), n = 0, cpu = 0;
    struct place_slot *slots = calloc(n_cpus, sizeof(*slots));
    bool numa = numa_available() >= 0;

    if (!slots)
        return 0;
    for (uint32_t c = 0; c < THREAD_CPUS_MAX && n < n_cpus; c++) {
        if (!CPU_ISSET_S(c, sizeof(mask), (cpu_set_t *)mask))
            continue;
        slots[n++] = (struct place_slot){ .sibling = sibling_of(c),
                                          .node = numa ? numa_node_of_cpu((int)c) : 0,
                                          .cpu = c };
    }
    order_slots(slots, n);
    cpu = slots[i % n].cpu;
    free(slots);
    return cpu;
}
