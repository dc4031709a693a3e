/* bench/kernels.c - what one kernel does in a second: products of each weight type and shape, and
 * attention, for each table this CPU has, on one thread and on several.
 *
 *     kernels [THREADS [WORD]]    THREADS: default all CPUs; WORD: only lines that contain it
 *
 * A product's line: billions of multiply-adds a second, and gigabytes of weights a second. With up
 * to eight rows of activations the weights are 256 MB, so that they come from memory; with more, a
 * matrix stays where it is. Others use the machine too: times are the best of several runs, and on
 * one thread they are the thread's CPU time.
 */
#include "engine/cpu/kernels.h"
#include "base/seat.h"
#include "base/thread.h"
#include "engine/cpu/linear.h"
#include "engine/cpu/place.h"
#include "engine/cpu/workers.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MEMORY      ((size_t)256 << 20)
#define RUN_SECONDS 0.02
#define BEST_OF     15
#define X_MAX       512u
#define COLS_MAX    14336u

struct shape {
    uint32_t n_rows, n_cols;
};

struct bench {
    const struct kernels *k;
    struct workers *w;
    uint8_t *memory; /* MEMORY bytes of weights or KV */
    float *x, *y;    /* (X_MAX, COLS_MAX) */
    struct kernels_q8 *q;
    uint16_t *bf16;
    const char *word;
};

static double now(clockid_t clock)
{
    struct timespec t;

    (void)clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Random bytes whose every f16 is small: no infinities, no denormal products to slow things down.
 */
static void fill_memory(uint8_t *mem, size_t len)
{
    uint64_t s = 88172645463325252u;

    for (size_t i = 0; i + 8 <= len; i += 8) {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        uint64_t v = (s & 0x83ff83ff83ff83ffu) | 0x2000200020002000u;

        memcpy(mem + i, &v, 8);
    }
}

/* Seconds of one call: as many as fill a run, and the best of some runs. */
static double time_calls(const struct bench *b, void (*fn)(void *arg), void *arg)
{
    clockid_t clock = workers_n(b->w) == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
    double best = INFINITY;

    fn(arg);
    for (int i = 0; i < BEST_OF; i++) {
        double start = now(clock), spent;
        uint32_t n = 0;

        do {
            fn(arg);
            n++;
            spent = now(clock) - start;
        } while (spent < RUN_SECONDS);
        if (spent / n < best)
            best = spent / n;
    }
    return best;
}

/* --- products --------------------------------------------------------------------------------- */

struct product {
    struct bench *b;
    struct kernels_matmul a;
    enum quant type;
    uint32_t n_rows, slice_rows;
};

static void product_slice(void *arg, uint32_t slice, uint32_t worker)
{
    struct product *p = arg;
    uint32_t r0 = slice * p->slice_rows, r1 = r0 + p->slice_rows;

    (void)worker;
    p->b->k->matmul[p->type](&p->a, r0, r1 < p->n_rows ? r1 : p->n_rows);
}

static void product_call(void *arg)
{
    struct product *p = arg;

    workers_run(p->b->w, product_slice, p, (p->n_rows + p->slice_rows - 1) / p->slice_rows);
}

static void bench_product(struct bench *b, enum quant type, struct shape s, uint32_t n_x)
{
    const void *x[] = {
        [KERNELS_FORM_F32] = b->x, [KERNELS_FORM_Q8] = b->q, [KERNELS_FORM_BF16] = b->bf16
    };
    size_t tile = tile_len(type, s.n_cols);
    struct product p = { .b = b, .type = type, .n_rows = s.n_rows };
    enum kernels_form form = b->k->form[type];
    double seconds, macs;
    char line[128];

    (void)snprintf(line, sizeof(line), "%-10s x%u %-5s %5ux%-5u n_x %-4u", b->k->name,
                   workers_n(b->w), quant_info(type)->name, s.n_rows, s.n_cols, n_x);
    if (b->word && !strstr(line, b->word))
        return;
    if (n_x <= 8)
        p.n_rows = (uint32_t)(MEMORY / tile) * TILE_ROWS; /* many matrices, one after another */
    p.slice_rows = (uint32_t)(64 * 1024 / tile) * TILE_ROWS;
    p.slice_rows = p.slice_rows < TILE_ROWS ? TILE_ROWS : p.slice_rows;
    p.a = (struct kernels_matmul){ .type = type,
                                   .w = b->memory,
                                   .tile_len = tile,
                                   .n_rows = p.n_rows,
                                   .n_cols = s.n_cols,
                                   .x = x[form],
                                   .x_row_bytes = linear_row_bytes(form, s.n_cols),
                                   .n_x = n_x,
                                   .y = b->y,
                                   .y_stride = p.n_rows,
                                   .ahead = b->k->ahead };
    seconds = time_calls(b, product_call, &p);
    macs = (double)p.n_rows * s.n_cols * n_x;
    printf("%s %8.1f GMAC/s %7.2f GB/s\n", line, 1e-9 * macs / seconds,
           1e-9 * (double)tile_count(p.n_rows) * (double)tile / seconds);
    (void)fflush(stdout);
}

static void bench_products(struct bench *b)
{
    static const struct shape shapes[] = {
        { 576, 576 }, { 1536, 576 }, { 576, 1536 }, { 4096, 4096 }
    };
    static const uint32_t n_x[] = { 1, 2, 4, 8, 64, 512 };
    bool slow = b->k == &kernels_scalar;

    for (enum quant type = 0; type < QUANT__N; type++) {
        for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
            if (shapes[i].n_cols % quant_info(type)->block_cols)
                continue;
            if (slow && i != 1 && shapes[i].n_cols != 1536)
                continue;
            for (size_t j = 0; j < sizeof(n_x) / sizeof(n_x[0]); j++) {
                if (!slow || n_x[j] == 1 || n_x[j] == 8)
                    bench_product(b, type, shapes[i], n_x[j]);
            }
        }
    }
}

/* --- attention -------------------------------------------------------------------------------- */

#define SEGMENT_PAGES 32u /* 512 keys */

struct attention {
    struct bench *b;
    struct kernels_attn a;
    enum kv_type kv;
    uint32_t n_segments, n_heads;
    uint32_t *pages;
    struct kernels_joined joined[SEGMENT_PAGES];
    size_t tile;
};

/* One segment of one KV head, into results of its own. */
static void attention_slice(void *arg, uint32_t slice, uint32_t worker)
{
    struct attention *t = arg;
    struct kernels_attn a = t->a;
    uint32_t segment = slice % t->n_segments, head = slice / t->n_segments;
    size_t row0 = (size_t)worker * a.n_rows;

    a.pages = t->pages + segment * SEGMENT_PAGES;
    a.k_off = 2 * head * t->tile;
    a.v_off = a.k_off + t->tile;
    a.next_k_off = a.k_off;
    a.o = t->b->y + row0 * (a.head_dim + 2);
    a.m = a.o + a.n_rows * a.head_dim;
    a.l = a.m + a.n_rows;
    t->b->k->attn[t->kv](&a);
}

static void attention_call(void *arg)
{
    struct attention *t = arg;

    workers_run(t->b->w, attention_slice, t, t->n_segments * t->n_heads);
}

static const char *const kv_names[KV__N] = {
    [KV_F16] = "f16",
    [KV_F32] = "f32",
    [KV_Q8_0] = "q8_0",
};

/* n_heads: KV heads of all layers. joined: a segment of 512 keys is 32 of a page each. */
static void bench_attention(struct bench *b, enum kv_type kv, uint32_t hd, uint32_t group,
                            uint32_t n_heads, uint32_t n_keys, uint32_t n_tokens, bool joined)
{
    struct attention t = { .b = b, .kv = kv, .n_segments = n_keys / 512, .n_heads = n_heads };
    uint32_t n_pages = n_keys / PAGE_TOKENS;
    double seconds, macs, bytes;
    char line[128];

    t.tile = kv_tile_bytes(kv, hd);
    (void)snprintf(line, sizeof(line),
                   "%-10s x%u attn %s hd %u group %u heads %u keys %u tokens %u%s", b->k->name,
                   workers_n(b->w), kv_names[kv], hd, group, n_heads, n_keys, n_tokens,
                   joined ? " joined" : "");
    if ((b->word && !strstr(line, b->word)) || n_pages * n_heads * 2 * t.tile > MEMORY)
        return;
    t.pages = malloc(n_pages * sizeof(*t.pages));
    if (!t.pages)
        return;
    for (uint32_t i = 0; i < n_pages; i++)
        t.pages[i] = n_pages - 1 - i;
    t.a = (struct kernels_attn){ .q = b->x,
                                 .n_rows = n_tokens * group,
                                 .group = group,
                                 .head_dim = hd,
                                 .n_keys = 512,
                                 .first_visible = 512,
                                 .stride = 1,
                                 .pool = b->memory,
                                 .page_bytes = 2 * n_heads * t.tile,
                                 .joined = joined ? t.joined : NULL };
    for (uint32_t i = 0; i < SEGMENT_PAGES; i++) /* rows of a table of angles, 16 apart */
        t.joined[i] = (struct kernels_joined){ .cs = b->x + 16 * i * hd, .n_keys = PAGE_TOKENS };
    seconds = time_calls(b, attention_call, &t);
    macs = 2.0 * n_keys * n_heads * group * n_tokens * hd;
    bytes = 2.0 * (double)(n_pages * n_heads) * (double)t.tile;
    printf("%s: %.2f ms %8.1f GMAC/s %7.2f GB/s\n", line, 1e3 * seconds, 1e-9 * macs / seconds,
           1e-9 * bytes / seconds);
    (void)fflush(stdout);
    free(t.pages);
}

static void bench_attentions(struct bench *b)
{
    if (b->k == &kernels_scalar) {
        bench_attention(b, KV_F16, 64, 3, 3, 1024, 1, false);
        bench_attention(b, KV_F32, 64, 3, 3, 1024, 1, false);
        return;
    }
    for (enum kv_type kv = 0; kv < KV__N; kv++) {
        bench_attention(b, kv, 64, 3, 90, 2048, 1, false); /* SmolLM2-135M, a decode step */
        bench_attention(b, kv, 64, 3, 90, 6144, 1, false);
        bench_attention(b, kv, 64, 3, 90, 1024, 1, true); /* gists of many segments */
        bench_attention(b, kv, 64, 3, 90, 6144, 1, true);
        bench_attention(b, kv, 64, 3, 3, 2048, 21, true);
        bench_attention(b, kv, 64, 3, 3, 2048, 21,
                        false); /* a block of a prompt's tokens, one layer */
        bench_attention(b, kv, 128, 4, 64, 2048, 1, false); /* Llama 3 8B, 8 of 32 layers */
        bench_attention(b, kv, 128, 4, 8, 2048, 16, false);
        bench_attention(b, kv, 128, 7, 28, 2048, 1, false); /* Qwen2 7B, 7 of 28 layers */
        bench_attention(b, kv, 80, 1, 32, 2048, 1, false);  /* one query row */
    }
}

/* --- vectors ---------------------------------------------------------------------------------- */

static void call_quantise(void *arg)
{
    struct bench *b = arg;

    b->k->quantise(b->x, 4096, b->q);
}

static void call_rmsnorm(void *arg)
{
    struct bench *b = arg;

    b->k->rmsnorm(b->x, b->x + 4096, 4096, 1e-5f, b->y);
}

static void call_swiglu(void *arg)
{
    struct bench *b = arg;

    b->k->swiglu(b->y, b->x, 4096);
}

static void call_logsumexp(void *arg)
{
    struct bench *b = arg;

    (void)b->k->logsumexp(b->x, 49152);
}

static void bench_vectors(struct bench *b)
{
    static const struct {
        const char *name;
        void (*fn)(void *);
        uint32_t n;
    } of[] = {
        { "quantise", call_quantise, 4096 },
        { "rmsnorm", call_rmsnorm, 4096 },
        { "swiglu", call_swiglu, 4096 },
        { "logsumexp", call_logsumexp, 49152 },
    };
    char line[128];

    for (size_t i = 0; i < sizeof(of) / sizeof(of[0]); i++) {
        (void)snprintf(line, sizeof(line), "%-7s x1 %s of %u", b->k->name, of[i].name, of[i].n);
        if (b->word && !strstr(line, b->word))
            continue;
        printf("%s: %.3f ns a value\n", line, 1e9 * time_calls(b, of[i].fn, b) / of[i].n);
    }
}

static int bench_open(struct bench *b)
{
    size_t n = (size_t)X_MAX * COLS_MAX;
    void *memory;

    if (place_alloc(MEMORY, &memory) < 0)
        return -1;
    b->memory = memory;
    b->x = aligned_alloc(64, n * sizeof(float));
    b->y = aligned_alloc(64, n * sizeof(float));
    b->q = aligned_alloc(64, n / 32 * sizeof(*b->q));
    b->bf16 = aligned_alloc(64, n * sizeof(*b->bf16));
    if (!b->x || !b->y || !b->q || !b->bf16)
        return -1;
    fill_memory(b->memory, MEMORY);
    for (size_t i = 0; i < n; i++) {
        b->x[i] = b->y[i] = (float)(i * 2654435761u % 1000) / 500 - 1;
        memcpy(&b->bf16[i], (uint8_t *)&b->x[i] + 2, 2); /* the upper half of an f32 */
    }
    kernels_scalar.quantise(b->x, (uint32_t)n, b->q);
    return 0;
}

int main(int argc, char **argv)
{
    struct bench b = { .word = argc > 2 ? argv[2] : NULL };
    uint32_t n = argc > 1 ? (uint32_t)atoi(argv[1]) : thread_n_cpus();
    struct seat seat;
    const char *name;

    if (bench_open(&b) < 0) {
        (void)fprintf(stderr, "kernels: out of memory\n");
        return 1;
    }
    for (unsigned i = 0; (name = kernels_name(i)); i++) {
        if (kernels_pick(name, &b.k) < 0)
            return 1;
        for (uint32_t threads = 1; threads <= n; threads = threads < n ? n : n + 1) {
            if (workers_open(threads, true, &b.w) < 0)
                return 1;
            seat_init(&seat, workers_owner_cpu(b.w), true);
            seat_home(&seat);
            bench_products(&b);
            bench_attentions(&b);
            if (threads == 1)
                bench_vectors(&b);
            seat_free(&seat, -1); /* the next workers look at this thread's CPUs */
            workers_close(b.w);
        }
    }
    place_free(b.memory, MEMORY);
    free(b.x);
    free(b.y);
    free(b.q);
    free(b.bf16);
    return 0;
}
