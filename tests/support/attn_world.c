#include "tests/support/attn_world.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FREQ_BASE 500000.0

const struct world_shape world_shapes[WORLD_SHAPES] = {
    { "SmolLM2-135M", 9, 3, 64 }, { "Llama-3.1-8B", 32, 8, 128 }, { "Qwen2-7B", 28, 4, 128 },
    { "no groups", 3, 3, 16 },    { "one KV head", 8, 1, 40 },
};

static float noise(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (float)((double)(*state >> 33) / (double)(1u << 30) - 1.0);
}

static float *random_rows(uint64_t *seed, size_t n)
{
    float *x = malloc(n * sizeof(float));

    for (size_t i = 0; x && i < n; i++)
        x[i] = noise(seed);
    return x;
}

/* Angles of one size of heads are the same in every world, and take longer than most tests: made
 * once. */
static int find_angles(const float *freq, uint32_t hd, const struct rotary **ret)
{
    static struct rotary made[WORLD_SHAPES + 2]; /* tests may have shapes of their own */

    for (uint32_t i = 0; i < sizeof(made) / sizeof(*made); i++) {
        if (made[i].hd == 0 && rotary_open(&made[i], freq, hd) < 0)
            return -ENOMEM;
        if (made[i].hd == hd) {
            *ret = &made[i];
            return 0;
        }
    }
    return -ENOMEM;
}

struct backend *world_backend(struct world *w)
{
    if (!w->backend && (backend_cpu_open(w->k, w->w, WORLD_CONTEXT, &w->backend) < 0 ||
                        w->backend->ops->set_model(w->backend, &w->m, NULL) < 0))
        return NULL;
    return w->backend;
}

int world_open(struct world *w, const struct world_shape *s, const struct kernels *k,
               enum kv_type kv, uint32_t n_workers, uint32_t seg_len, uint32_t pos0)
{
    uint64_t seed = 11;
    int r;

    memset(w, 0, sizeof(*w));
    w->m = (struct model){
        .n_layer = 1, .n_head = s->n_head, .n_head_kv = s->n_head_kv, .head_dim = s->head_dim
    };
    w->k = k;
    w->account.limit = UINT32_MAX;
    for (uint32_t i = 0; i < s->head_dim / 2; i++)
        w->freq[i] = (float)pow(FREQ_BASE, -2.0 * i / s->head_dim);
    w->m.rope_freq = w->freq;
    r = workers_open(n_workers, false, &w->w);
    if (r == 0)
        r = find_angles(w->freq, s->head_dim, &w->rotary);
    if (r == 0)
        r = attend_open(&w->m, k, w->w, w->rotary, &w->a);
    if (r == 0)
        r = pool_open(&w->pool, NULL, &w->m, kv, 32u << 20, NULL);
    if (r == 0)
        r = seq_open(&w->seq, &w->pool, &w->account, WORLD_CONTEXT, seg_len, pos0);
    if (r == 0)
        r = seq_reserve(&w->seq, WORLD_CONTEXT);
    if (r == 0)
        r = plan_open(&w->plan, WORLD_CONTEXT, 4 * w->pool.n_pages);
    w->q = random_rows(&seed, (size_t)WORLD_CONTEXT * s->n_head * s->head_dim);
    w->kk = random_rows(&seed, (size_t)WORLD_CONTEXT * s->n_head_kv * s->head_dim);
    w->v = random_rows(&seed, (size_t)WORLD_CONTEXT * s->n_head_kv * s->head_dim);
    return r;
}

void world_close(struct world *w)
{
    plan_close(&w->plan);
    seq_close(&w->seq);
    pool_close(&w->pool);
    attend_close(w->a);
    if (w->backend)
        backend_close(w->backend);
    else
        workers_close(w->w);
    free(w->q);
    free(w->kk);
    free(w->v);
}

static void store(struct world *w, uint32_t t, const float *angles)
{
    uint32_t hd = w->m.head_dim, off = t % w->seq.seg_len;
    uint8_t *page = w->pool.mem + seq_pages(&w->seq, t / w->seq.seg_len)[off / POOL_PAGE_TOKENS] *
                                      w->pool.page_bytes;
    float key[KERNELS_HEAD_DIM_MAX];

    for (uint32_t h = 0; h < w->m.n_head_kv; h++) {
        size_t at = ((size_t)t * w->m.n_head_kv + h) * hd;

        memcpy(key, w->kk + at, hd * sizeof(float));
        w->k->rope(key, 1, hd, angles);
        w->k->kv_store[w->pool.kv](key, w->v + at, hd, off % POOL_PAGE_TOKENS,
                                   page + pool_k_off(&w->pool, 0, h),
                                   page + pool_v_off(&w->pool, 0, h));
    }
}

void world_look(struct world *w, const struct seq *seq, uint32_t t0, uint32_t n)
{
    static const uint32_t ids[WORLD_CONTEXT]; /* nobody asks which */
    struct seq s = *seq;
    struct forward_run run = { .seq = &s, .tokens = ids, .n_tokens = n };

    s.n_tokens = t0;
    s.n_reserved = t0 + n;
    if (plan_add(&w->plan, &run, 1) < 0)
        abort();
}

void world_run(struct world *w, const float *q, float *out)
{
    attend_run(w->a, &w->plan, 0, &(struct attend_rows){ .q = q }, out);
    plan_clear(&w->plan);
}

void world_queries(const struct world *w, uint32_t t0, uint32_t n, uint32_t off, float *ret)
{
    uint32_t width = w->m.n_head * w->m.head_dim;

    memcpy(ret, w->q + (size_t)t0 * width, (size_t)n * width * sizeof(float));
    for (uint32_t i = 0; i < n; i++) {
        w->k->rope(ret + (size_t)i * width, w->m.n_head, w->m.head_dim,
                   rotary_by(w->rotary, (off + i) % w->seq.seg_len, NULL));
        w->k->scale(ret + (size_t)i * width, width, 1.0f / sqrtf((float)w->m.head_dim));
    }
}

void world_attend(struct world *w, uint32_t t0, uint32_t n, float *weights, float *out)
{
    uint32_t width = w->m.n_head * w->m.head_dim, L = w->seq.seg_len;
    float *q = malloc((size_t)n * width * sizeof(float));

    world_queries(w, t0, n, t0 % L, q);
    for (uint32_t t = t0; t < t0 + n; t++)
        store(w, t, rotary_by(w->rotary, t % L, NULL));
    world_look(w, &w->seq, t0, n);
    w->plan.pieces[w->plan.n_pieces - 1].weights = weights;
    w->plan.pieces[w->plan.n_pieces - 1].seg_len = L;
    for (uint32_t i = 0; w->n_shares && i < w->plan.n_pieces; i++) {
        w->plan.pieces[i].shares = w->shares;
        w->plan.pieces[i].n_shares = w->n_shares;
    }
    world_run(w, q, out);
    if (t0 + n > w->seq.n_tokens)
        w->seq.n_tokens = t0 + n;
    free(q);
}

void world_rotate(const struct world *w, const float *x, double pos, double *ret)
{
    uint32_t hd = w->m.head_dim;

    for (uint32_t i = 0; i < hd / 2; i++) {
        double c = cos(pos * (double)w->freq[i]), s = sin(pos * (double)w->freq[i]);

        ret[i] = x[i] * c - x[hd / 2 + i] * s;
        ret[hd / 2 + i] = x[i] * s + x[hd / 2 + i] * c;
    }
}

void world_textbook(const struct world *w, uint32_t t, double pos, uint32_t head, uint32_t n,
                    const uint32_t *keys, const double *positions, double *ret, double *ret_p)
{
    uint32_t hd = w->m.head_dim, kv = head / (w->m.n_head / w->m.n_head_kv);
    double q[KERNELS_HEAD_DIM_MAX], k[KERNELS_HEAD_DIM_MAX], sum = 0, top = -INFINITY;
    double *p = malloc(n * sizeof(*p));

    world_rotate(w, w->q + ((size_t)t * w->m.n_head + head) * hd, pos, q);
    for (uint32_t j = 0; j < n; j++) {
        world_rotate(w, w->kk + ((size_t)keys[j] * w->m.n_head_kv + kv) * hd, positions[j], k);
        p[j] = 0;
        for (uint32_t i = 0; i < hd; i++)
            p[j] += q[i] * k[i];
        p[j] /= sqrt(hd);
        top = fmax(top, p[j]);
    }
    memset(ret, 0, hd * sizeof(*ret));
    for (uint32_t j = 0; j < n; j++)
        sum += p[j] = exp(p[j] - top);
    for (uint32_t j = 0; j < n; j++) {
        p[j] /= sum;
        for (uint32_t i = 0; i < hd; i++)
            ret[i] += p[j] * w->v[((size_t)keys[j] * w->m.n_head_kv + kv) * hd + i];
    }
    if (ret_p)
        memcpy(ret_p, p, n * sizeof(*p));
    free(p);
}
