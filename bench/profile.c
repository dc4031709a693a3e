/* bench/profile.c - where the time of one decode step and of one prefill batch goes, kernel by
 * kernel.
 *
 *     profile [-c CPU] [-k KV] [-t THREADS] [-d DEPTH] [-r RATIO] [-n TOKENS] [-s SESSIONS] MODEL
 *     profile -b MODEL        only the bytes of weights that a decode step reads
 *
 * With -s so many sessions decode a token each in a step. With -r full segments of the context keep
 * their first keys only, as many as a compressor of that ratio leaves: what they say is of no
 * matter here.
 *
 * The engine runs as it is, on a table of kernels whose entries take the time and call the real
 * ones. Prints one JSON object; "us" of a kind is its time summed over the threads, divided by
 * their number, so that all kinds and "waiting" (barriers, embedding, what no kernel does) add up
 * to the step. The fastest of some steps is shown. bench/profile_table.py sets it beside the
 * machine's peaks.
 */
#include "base/seat.h"
#include "base/thread.h"
#include "engine/cpu/backend_cpu.h"
#include "engine/file/gguf.h"
#include "engine/forward.h"
#include "engine/sampler.h"

#include <getopt.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

#define BATCH        512u
#define DECODE_STEPS 24
#define PREFILLS     4
#define ENOUGH_S     20.0 /* no more steps of a kind after this */
#define SESSIONS_MAX 32u

enum kind {
    KIND_QKV,
    KIND_ATTENTION,
    KIND_O,
    KIND_GATE_UP,
    KIND_DOWN,
    KIND_HEAD,
    KIND_NORM,
    KIND_QUANTISE,
    KIND_PLACE,
    KIND_MERGE,
    KIND_SWIGLU,
    KIND_SAMPLE,
    KIND__N
};

static const char *const kind_names[KIND__N] = {
    [KIND_QKV] = "q, k, v",
    [KIND_ATTENTION] = "attention",
    [KIND_O] = "o",
    [KIND_GATE_UP] = "gate, up",
    [KIND_DOWN] = "down",
    [KIND_HEAD] = "output",
    [KIND_NORM] = "norm, add",
    [KIND_QUANTISE] = "quantise",
    [KIND_PLACE] = "rotary, scale, store",
    [KIND_MERGE] = "merge",
    [KIND_SWIGLU] = "SwiGLU",
    [KIND_SAMPLE] = "sampling",
};

static void die(const char *what)
{
    (void)fprintf(stderr, "profile: %s\n", what);
    exit(1);
}

static double now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* --- the tallies ------------------------------------------------------------------------------ */

/* Kernels get no argument of ours: who calls and for what has to be found in static variables. A
 * thread writes its own tally only; they are read between steps. */
struct tally {
    _Alignas(64) uint64_t ticks[KIND__N];
    uint64_t bytes[KIND__N], macs[KIND__N];
};
static struct tally tallies[WORKERS_MAX];
static atomic_uint n_tallies;
static _Thread_local struct tally *mine;

static void count(enum kind kind, uint64_t start, uint64_t bytes, uint64_t macs)
{
    uint64_t ticks = __rdtsc() - start;

    if (!mine)
        mine = &tallies[atomic_fetch_add(&n_tallies, 1)];
    mine->ticks[kind] += ticks;
    mine->bytes[kind] += bytes;
    mine->macs[kind] += macs;
}

/* Which product a weight belongs to, sorted by address. */
struct role {
    const void *w;
    enum kind kind;
};
static struct role *roles;
static size_t n_roles;

static int compare_roles(const void *a, const void *b)
{
    const uint8_t *x = ((const struct role *)a)->w, *y = ((const struct role *)b)->w;

    return (x > y) - (x < y);
}

static void find_roles(const struct model *m)
{
    roles = malloc((7 * (size_t)m->n_layer + 1) * sizeof(*roles));
    if (!roles)
        die("out of memory");
    for (uint32_t i = 0; i < m->n_layer; i++) {
        const struct model_layer *l = &m->layers[i];
        const struct role of[] = {
            { l->wq.data, KIND_QKV },       { l->wk.data, KIND_QKV },
            { l->wv.data, KIND_QKV },       { l->wo.data, KIND_O },
            { l->w_up.data, KIND_GATE_UP }, { l->w_gate.data, KIND_GATE_UP },
            { l->w_down.data, KIND_DOWN },
        };

        memcpy(roles + n_roles, of, sizeof(of));
        n_roles += sizeof(of) / sizeof(of[0]);
    }
    roles[n_roles++] = (struct role){ m->output.data, KIND_HEAD };
    qsort(roles, n_roles, sizeof(*roles), compare_roles);
}

/* --- the table -------------------------------------------------------------------------------- */

static const struct kernels *real;
static enum kv_type kv;

static void timed_matmul(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    const struct role key = { .w = a->w };
    uint64_t rows = r1 - r0, start = __rdtsc(); /* the search is no waiting */
    const struct role *role = bsearch(&key, roles, n_roles, sizeof(*roles), compare_roles);

    if (!role)
        die("a product with a weight that is none of the model's");
    real->matmul[a->type](a, r0, r1);
    count(role->kind, start, rows * a->tile_len / TILE_ROWS, rows * a->n_cols * a->n_x);
}

static void timed_attn(const struct kernels_attn *a)
{
    uint64_t start = __rdtsc(), pairs = 0;

    real->attn[kv](a);
    for (uint32_t i = 0; i < a->n_rows; i++) {
        uint32_t sees = a->first_visible + i / a->group * a->stride;

        pairs += sees < a->n_keys ? sees : a->n_keys;
    }
    count(KIND_ATTENTION, start, 2 * kv_tile_bytes(kv, a->head_dim) * a->n_keys / PAGE_TOKENS,
          2 * pairs * a->head_dim);
}

static void timed_quantise(const float *x, uint32_t n, struct kernels_q8 *ret)
{
    uint64_t start = __rdtsc();

    real->quantise(x, n, ret);
    count(KIND_QUANTISE, start, 0, 0);
}

static void timed_to_bf16(const float *x, uint32_t n, uint16_t *ret)
{
    uint64_t start = __rdtsc();

    real->to_bf16(x, n, ret);
    count(KIND_QUANTISE, start, 0, 0);
}

static void timed_rmsnorm(const float *x, const float *w, uint32_t n, float eps, float *ret)
{
    uint64_t start = __rdtsc();

    real->rmsnorm(x, w, n, eps, ret);
    count(KIND_NORM, start, 0, 0);
}

static void timed_add(float *x, const float *y, uint32_t n)
{
    uint64_t start = __rdtsc();

    real->add(x, y, n);
    count(KIND_NORM, start, 0, 0);
}

static void timed_swiglu(float *gate, const float *up, uint32_t n)
{
    uint64_t start = __rdtsc();

    real->swiglu(gate, up, n);
    count(KIND_SWIGLU, start, 0, 0);
}

static void timed_rope(float *x, uint32_t n_heads, uint32_t hd, const float *cs)
{
    uint64_t start = __rdtsc();

    real->rope(x, n_heads, hd, cs);
    count(KIND_PLACE, start, 0, 0);
}

static void timed_kv_store(const float *k, const float *v, uint32_t hd, uint32_t slot, void *k_tile,
                           void *v_tile)
{
    uint64_t start = __rdtsc();

    real->kv_store[kv](k, v, hd, slot, k_tile, v_tile);
    count(KIND_PLACE, start, 0, 0);
}

static void timed_attn_merge(float *m, float *l, float *o, float m2, float l2, const float *o2,
                             uint32_t hd)
{
    uint64_t start = __rdtsc();

    real->attn_merge(m, l, o, m2, l2, o2, hd);
    count(KIND_MERGE, start, 0, 0);
}

static void timed_scale(float *x, uint32_t n, float by)
{
    uint64_t start = __rdtsc();

    real->scale(x, n, by);
    count(KIND_PLACE, start, 0, 0);
}

/* A copy of the real table, so that entries this program knows nothing of stay as they are. */
static struct kernels timed_table(void)
{
    struct kernels k = *real;

    for (int t = 0; t < QUANT__N; t++)
        k.matmul[t] = real->matmul[t] ? timed_matmul : NULL;
    k.attn[kv] = timed_attn;
    k.kv_store[kv] = timed_kv_store;
    k.quantise = timed_quantise;
    k.to_bf16 = real->to_bf16 ? timed_to_bf16 : NULL;
    k.rmsnorm = timed_rmsnorm;
    k.add = timed_add;
    k.swiglu = timed_swiglu;
    k.rope = timed_rope;
    k.attn_merge = timed_attn_merge;
    k.scale = timed_scale;
    return k;
}

/* --- steps ------------------------------------------------------------------------------------ */

struct bench {
    struct model *model;
    struct kernels table;
    struct backend *backend;
    struct workers *workers;
    struct pool pool;
    struct pool_account account;
    struct forward forward;
    struct seq seqs[SESSIONS_MAX];
    struct sampler samplers[SESSIONS_MAX];
    struct sampler_candidate *candidates; /* (n_seqs, n_vocab), and so are: */
    float *logits;
    uint32_t *ids;
    uint32_t n_ids, depth, ratio, n_prefill, n_seqs;
};

struct step {
    double seconds, ticks;
    struct tally sum;
};

static void bench_open(struct bench *b, const char *path, const char *cpu, uint32_t threads)
{
    const struct sampler_params sampling = {
        .temperature = 0.8f, .top_p = 0.95f, .repeat_penalty = 1, .seed = 1
    };
    struct why why = { 0 };
    struct seat seat;
    uint64_t pages;

    b->n_ids = b->depth + DECODE_STEPS + 1;
    if (b->n_ids < b->n_prefill)
        b->n_ids = b->n_prefill;
    if (kernels_pick(cpu, &real) < 0)
        die("no such kernels here");
    if (workers_open(threads, true, &b->workers) < 0)
        die("no threads");
    seat_init(&seat, workers_owner_cpu(b->workers), true);
    seat_home(&seat); /* as the daemon does */
    if (backend_cpu_open(&b->table, b->workers, BATCH, &b->backend) < 0)
        die("out of memory");
    b->table = *real;
    if (model_open(path, b->backend, NULL, &b->model, &why) < 0)
        die(why.text);
    find_roles(b->model);
    b->table = timed_table();
    pages = (uint64_t)b->n_seqs * ((b->n_ids + POOL_PAGE_TOKENS - 1) / POOL_PAGE_TOKENS);
    if (b->backend->ops->set_model(b->backend, b->model, &why) < 0 ||
        pool_open(&b->pool, b->backend, b->model, kv, pages * pool_page_bytes(b->model, kv), &why) <
            0)
        die(why.text);
    if (forward_open(&b->forward, b->model, b->backend, BATCH, b->pool.n_pages) < 0)
        die("out of memory");
    b->account.limit = b->pool.n_pages;
    b->logits = malloc((size_t)b->n_seqs * b->model->n_vocab * sizeof(*b->logits));
    b->candidates = malloc((size_t)b->n_seqs * b->model->n_vocab * sizeof(*b->candidates));
    b->ids = malloc(b->n_ids * sizeof(*b->ids));
    if (!b->logits || !b->candidates || !b->ids)
        die("out of memory");
    for (uint32_t i = 0; i < b->n_ids; i++)
        b->ids[i] = (uint32_t)(i * 2654435761u >> 8) % b->model->n_vocab;
    for (uint32_t i = 0; i < b->n_seqs; i++)
        sampler_init(&b->samplers[i], &sampling);
}

static void bench_close(struct bench *b)
{
    forward_close(&b->forward);
    pool_close(&b->pool);
    model_close(b->model);
    backend_close(b->backend);
    free(b->logits);
    free(b->candidates);
    free(b->ids);
    free(roles);
}

static void open_seq(struct bench *b, struct seq *seq)
{
    if (seq_open(seq, &b->pool, &b->account, b->n_ids, SEQ_SEGMENT_DEFAULT, 0) < 0)
        die("no room for a sequence");
}

/* The next n tokens of each. */
static void feed(struct bench *b, struct seq *seqs, uint32_t n_seqs, uint32_t n)
{
    struct forward_run runs[SESSIONS_MAX];
    uint32_t n_out;

    for (uint32_t i = 0; i < n_seqs; i++) {
        runs[i] = (struct forward_run){ .seq = &seqs[i],
                                        .tokens = b->ids + seqs[i].n_tokens,
                                        .n_tokens = n,
                                        .want = FORWARD_WANT_LAST };
        if (seq_reserve(&seqs[i], n) < 0)
            die("no room for a token");
    }
    if (forward_step(&b->forward, runs, n_seqs, NULL, &n_out) < 0)
        die("a step failed");
}

/* Reads n tokens, in batches as the daemon does: a segment each. */
static void read_tokens(struct bench *b, struct seq *seq, uint32_t n)
{
    _Static_assert(BATCH == SEQ_SEGMENT_DEFAULT, "full segments are shortened one by one");
    for (uint32_t at = 0; at < n; at += BATCH) {
        feed(b, seq, 1, n - at < BATCH ? n - at : BATCH);
        if (n - at >= BATCH && b->ratio > 1)
            seq_shorten(seq, at / BATCH, BATCH / b->ratio);
    }
}

static void sample_row(void *arg, uint32_t i, uint32_t worker)
{
    struct bench *b = arg;
    uint32_t n = b->model->n_vocab;
    uint64_t start = __rdtsc();

    (void)worker;
    (void)sampler_pick(&b->samplers[i], &real->sampling, b->logits + (size_t)i * n, n,
                       b->candidates + (size_t)i * n);
    count(KIND_SAMPLE, start, 0, 0);
}

struct part {
    void (*fn)(void *arg, uint32_t part, uint32_t who);
    void *arg;
};

static void timed_part(void *arg, uint32_t part, uint32_t worker)
{
    const struct part *p = arg;
    uint64_t start = __rdtsc();

    p->fn(p->arg, part, worker);
    count(KIND_SAMPLE, start, 0, 0);
}

static void run_crew(void *to, void (*fn)(void *arg, uint32_t part, uint32_t who), void *arg,
                     uint32_t n)
{
    struct part p = { fn, arg };

    workers_run(to, timed_part, &p, n);
}

/* As the daemon does: a row by all workers, or several side by side. */
static void decode_step(struct bench *b)
{
    const struct sampler_crew crew = { run_crew, b->workers };

    feed(b, b->seqs, b->n_seqs, 1);
    (void)forward_logits(&b->forward, 0, b->n_seqs, b->logits);
    if (b->n_seqs > 1)
        workers_run(b->workers, sample_row, b, b->n_seqs);
    else
        (void)sampler_pick_by(&b->samplers[0], &real->sampling, &crew, b->logits, b->model->n_vocab,
                              b->candidates);
}

static void prefill_step(struct bench *b)
{
    read_tokens(b, b->seqs, b->n_prefill);
}

/* Runs one step and keeps it when it is the fastest so far. */
static void time_step(struct bench *b, void (*fn)(struct bench *b), struct step *best)
{
    struct step s = { 0 };
    uint64_t ticks;
    double start;

    memset(tallies, 0, sizeof(tallies));
    start = now();
    ticks = __rdtsc();
    fn(b);
    s.ticks = (double)(__rdtsc() - ticks);
    s.seconds = now() - start;
    for (uint32_t i = 0; i < atomic_load(&n_tallies); i++) {
        for (int k = 0; k < KIND__N; k++) {
            s.sum.ticks[k] += tallies[i].ticks[k];
            s.sum.bytes[k] += tallies[i].bytes[k];
            s.sum.macs[k] += tallies[i].macs[k];
        }
    }
    if (best->seconds <= 0 || s.seconds < best->seconds)
        *best = s;
}

static void print_step(const struct bench *b, const char *name, uint32_t tokens, uint32_t depth,
                       const struct step *s)
{
    double us_per_tick = 1e6 * s->seconds / s->ticks / workers_n(b->workers), left = 0;

    printf("\"%s\": {\"tokens\": %u, \"depth\": %u, \"us\": %.1f, \"kinds\": [", name, tokens,
           depth, 1e6 * s->seconds);
    for (int k = 0; k < KIND__N; k++) {
        double us = (double)s->sum.ticks[k] * us_per_tick;

        left += us;
        printf("\n{\"kind\": \"%s\", \"us\": %.1f, \"bytes\": %llu, \"macs\": %llu},",
               kind_names[k], us, (unsigned long long)s->sum.bytes[k],
               (unsigned long long)s->sum.macs[k]);
    }
    printf("\n{\"kind\": \"waiting\", \"us\": %.1f, \"bytes\": 0, \"macs\": 0}]}",
           1e6 * s->seconds - left);
}

static void run_prefill(struct bench *b, struct step *best)
{
    double start = now();

    for (int i = 0; i < PREFILLS && (i < 2 || now() - start < ENOUGH_S); i++) {
        open_seq(b, b->seqs);
        time_step(b, prefill_step, best);
        seq_close(b->seqs);
    }
}

static void run_decode(struct bench *b, struct step *best)
{
    double start;

    for (uint32_t i = 0; i < b->n_seqs; i++) {
        open_seq(b, &b->seqs[i]);
        read_tokens(b, &b->seqs[i], b->depth);
    }
    start = now();
    for (int i = 0; i < DECODE_STEPS && now() - start < ENOUGH_S; i++)
        time_step(b, decode_step, best);
    for (uint32_t i = 0; i < b->n_seqs; i++)
        seq_close(&b->seqs[i]);
}

/* All matrices are read, and of the embedding a row, unless it is the output too. */
static int print_step_bytes(const char *path)
{
    struct why why = { 0 };
    struct gguf *g;
    uint64_t sum = 0;
    bool untied;

    if (gguf_open(path, &g, &why) < 0)
        die(why.text);
    untied = gguf_find_tensor(g, "output.weight");
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);
        enum quant type;

        if (t->n_dims == 2 && quant_from_gguf(t->type, &type) == 0 &&
            !(untied && t == gguf_find_tensor(g, "token_embd.weight")))
            sum += quant_row_bytes(type, t->dims[0]) * t->dims[1];
    }
    printf("%llu\n", (unsigned long long)sum);
    gguf_close(g);
    return 0;
}

static enum kv_type kv_of(const char *name)
{
    static const char *const names[KV__N] = {
        [KV_F16] = "f16", [KV_F32] = "f32", [KV_Q8_0] = "q8_0"
    };
    enum kv_type k;

    for (k = 0; k < KV__N; k++)
        if (strcmp(names[k], name) == 0)
            return k;
    die("KV is f16, f32 or q8_0");
    return k;
}

int main(int argc, char **argv)
{
    struct bench b = { .depth = 2048, .n_prefill = BATCH, .n_seqs = 1 };
    struct step prefill = { 0 }, decode = { 0 };
    uint32_t threads = thread_n_cpus();
    const char *cpu = "auto";
    bool bytes_only = false;
    int o;

    while ((o = getopt(argc, argv, "bc:k:t:d:r:n:s:")) != -1) {
        if (o == 'b')
            bytes_only = true;
        else if (o == 'c')
            cpu = optarg;
        else if (o == 'k')
            kv = kv_of(optarg);
        else if (o == 't')
            threads = (uint32_t)strtoul(optarg, NULL, 10);
        else if (o == 'd')
            b.depth = (uint32_t)strtoul(optarg, NULL, 10);
        else if (o == 'r')
            b.ratio = (uint32_t)strtoul(optarg, NULL, 10);
        else if (o == 'n')
            b.n_prefill = (uint32_t)strtoul(optarg, NULL, 10);
        else if (o == 's')
            b.n_seqs = (uint32_t)strtoul(optarg, NULL, 10);
        else
            optind = argc;
    }
    if (optind != argc - 1 || b.n_prefill == 0 || b.ratio > BATCH || b.n_seqs == 0 ||
        b.n_seqs > SESSIONS_MAX)
        die("[-b] [-c CPU] [-k KV] [-t THREADS] [-d DEPTH] [-r RATIO] [-n TOKENS] [-s SESSIONS] "
            "MODEL");
    if (bytes_only)
        return print_step_bytes(argv[optind]);
    bench_open(&b, argv[optind], cpu, threads);
    run_prefill(&b, &prefill);
    run_decode(&b, &decode);
    printf("{\"cpu\": \"%s\", \"threads\": %u, ", real->name, threads);
    print_step(&b, "prefill", b.n_prefill, 0, &prefill);
    printf(",\n");
    print_step(&b, "decode", b.n_seqs, b.depth, &decode);
    printf("}\n");
    bench_close(&b);
    return 0;
}
