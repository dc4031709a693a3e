/* bench/peaks.c - what this machine can do at most: memory read, f32 and int8 and bf16 arithmetic.
 *
 *     peaks         one JSON object: with 1 thread and with all, each instruction set of this CPU
 *     peaks -m N    {"gb_s": ...}: memory read by N threads only
 *
 * Memory is read by plain sums over 512 MB, arithmetic is chains of independent instructions on
 * registers. A multiply and an add are two operations. Each figure is the best of some runs: others
 * use the machine too, and it is a ceiling that is looked for.
 */
#include "base/seat.h"
#include "base/thread.h"
#include "engine/cpu/place.h"
#include "engine/cpu/workers.h"

#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MEMORY      ((size_t)512 << 20)
#define SLICE       ((size_t)2 << 20)
#define READ_PASSES 8
#define BEST_OF     150
#define LOOPS       100000u /* well under a scheduler's time slice */
#define CHAINS      12      /* latency 4 or 5, two a cycle */

static double now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Keeps v from being known, so that nothing with it moves out of its loop. */
#define OPAQUE(v) __asm__ volatile("" : "+v"(v))

/* --- arithmetic: LOOPS times CHAINS instructions ---------------------------------------------- */

__attribute__((target("avx2,fma"))) static void fma_avx2(void)
{
    __m256 acc[CHAINS], a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(1);

    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm256_set1_ps((float)i);
    for (uint32_t n = 0; n < LOOPS; n++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            acc[i] = _mm256_fmadd_ps(acc[i], a, b);
    }
    for (int i = 0; i < CHAINS; i++)
        OPAQUE(acc[i]);
}

__attribute__((target("avx512f"))) static void fma_avx512(void)
{
    __m512 acc[CHAINS], a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(1);

    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm512_set1_ps((float)i);
    for (uint32_t n = 0; n < LOOPS; n++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            acc[i] = _mm512_fmadd_ps(acc[i], a, b);
    }
    for (int i = 0; i < CHAINS; i++)
        OPAQUE(acc[i]);
}

/* Without VNNI a product of bytes is three instructions. */
__attribute__((target("avx2"))) static void int8_avx2(void)
{
    __m256i acc[CHAINS], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-1);
    const __m256i ones = _mm256_set1_epi16(1);

    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm256_set1_epi32(i);
    for (uint32_t n = 0; n < LOOPS; n++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) {
            OPAQUE(a);
            acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
        }
    }
    for (int i = 0; i < CHAINS; i++)
        OPAQUE(acc[i]);
}

__attribute__((target("avx2,avxvnni"))) static void int8_avxvnni(void)
{
    __m256i acc[CHAINS], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-1);

    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm256_set1_epi32(i);
    for (uint32_t n = 0; n < LOOPS; n++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            acc[i] = _mm256_dpbusd_avx_epi32(acc[i], a, b);
    }
    for (int i = 0; i < CHAINS; i++)
        OPAQUE(acc[i]);
}

__attribute__((target("avx512f,avx512vnni"))) static void int8_avx512(void)
{
    __m512i acc[CHAINS], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-1);

    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm512_set1_epi32(i);
    for (uint32_t n = 0; n < LOOPS; n++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            acc[i] = _mm512_dpbusd_epi32(acc[i], a, b);
    }
    for (int i = 0; i < CHAINS; i++)
        OPAQUE(acc[i]);
}

__attribute__((target("avx512f,avx512bw,avx512bf16"))) static void bf16_avx512(void)
{
    __m512 acc[CHAINS];
    __m512i ones = _mm512_set1_epi16(0x3f80);
    __m512bh a;

    memcpy(&a, &ones, sizeof(a));
    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm512_set1_ps((float)i);
    for (uint32_t n = 0; n < LOOPS; n++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            acc[i] = _mm512_dpbf16_ps(acc[i], a, a);
    }
    for (int i = 0; i < CHAINS; i++)
        OPAQUE(acc[i]);
}

struct arithmetic {
    const char *kind, *isa;
    void (*fn)(void);
    uint32_t ops; /* of one chain's step */
    bool here;
};

static void arithmetic_slice(void *arg, uint32_t slice, uint32_t worker)
{
    (void)slice;
    (void)worker;
    ((const struct arithmetic *)arg)->fn();
}

/* 10^9 operations a second, all workers together. */
static double run_arithmetic(struct arithmetic *a, struct workers *w)
{
    double best = 0;

    for (int i = 0; i < BEST_OF; i++) {
        double start = now(), speed;

        workers_run(w, arithmetic_slice, a, workers_n(w));
        speed = 1e-9 * a->ops * CHAINS * LOOPS * workers_n(w) / (now() - start);
        if (speed > best)
            best = speed;
    }
    return best;
}

/* --- memory ----------------------------------------------------------------------------------- */

struct memory {
    const uint8_t *mem;
    uint64_t sum[WORKERS_MAX];
};

static void memory_slice(void *arg, uint32_t slice, uint32_t worker)
{
    typedef uint64_t line __attribute__((vector_size(64)));
    struct memory *m = arg;
    const line *p = (const line *)(m->mem + slice * SLICE), *end = p + SLICE / sizeof(*p);
    line a = { 0 }, b = { 0 };

    for (; p < end; p += 2) {
        a += p[0];
        b += p[1];
    }
    a += b;
    m->sum[worker] += a[0] + a[7];
}

static double run_memory(struct memory *m, struct workers *w)
{
    double best = 0;

    for (int i = 0; i < READ_PASSES; i++) {
        double start = now(), speed;

        workers_run(w, memory_slice, m, (uint32_t)(MEMORY / SLICE));
        speed = 1e-9 * (double)MEMORY / (now() - start);
        if (speed > best)
            best = speed;
    }
    return best;
}

/* --- all of it -------------------------------------------------------------------------------- */

static void print_all(struct memory *m, uint32_t n)
{
    struct arithmetic all[] = {
        { "f32", "avx2", fma_avx2, 16, __builtin_cpu_supports("avx2") },
        { "f32", "avx512", fma_avx512, 32, __builtin_cpu_supports("avx512f") },
        { "int8", "avx2", int8_avx2, 64, __builtin_cpu_supports("avx2") },
        { "int8", "avxvnni", int8_avxvnni, 64, __builtin_cpu_supports("avxvnni") },
        { "int8", "avx512", int8_avx512, 128, __builtin_cpu_supports("avx512vnni") },
        { "bf16", "avx512", bf16_avx512, 64, __builtin_cpu_supports("avx512bf16") },
    };
    const char *comma = "";
    struct seat seat;

    printf("{\"peaks\": [");
    for (uint32_t threads = 1; threads <= n; threads = threads < n ? n : n + 1) {
        struct workers *w;

        if (workers_open(threads, true, &w) < 0)
            exit(1);
        seat_init(&seat, workers_owner_cpu(w), true);
        seat_home(&seat);
        printf("%s\n{\"kind\": \"memory\", \"isa\": \"\", \"threads\": %u, \"gb_s\": %.2f}", comma,
               threads, run_memory(m, w));
        comma = ",";
        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
            if (all[i].here)
                printf(",\n{\"kind\": \"%s\", \"isa\": \"%s\", \"threads\": %u, \"gop_s\": %.1f}",
                       all[i].kind, all[i].isa, threads, run_arithmetic(&all[i], w));
        seat_free(&seat, -1); /* the next workers look at this thread's CPUs */
        workers_close(w);
    }
    printf("]}\n");
}

int main(int argc, char **argv)
{
    bool memory_only = argc == 3 && strcmp(argv[1], "-m") == 0;
    struct memory m = { 0 };
    struct workers *w;
    struct seat seat;
    void *mem;

    if ((argc != 1 && !memory_only) || place_alloc(MEMORY, &mem) < 0) {
        (void)fprintf(stderr, "peaks [-m THREADS]; 512 MB of memory\n");
        return 1;
    }
    memset(mem, 1, MEMORY);
    m.mem = mem;
    if (memory_only) {
        if (workers_open((uint32_t)atoi(argv[2]), true, &w) < 0)
            return 1;
        seat_init(&seat, workers_owner_cpu(w), true);
        seat_home(&seat);
        printf("{\"gb_s\": %.2f}\n", run_memory(&m, w));
        workers_close(w);
    } else {
        print_all(&m, thread_n_cpus());
    }
    place_free(mem, MEMORY);
    return 0;
}
