#include "bench/gpu/scene.h"

#include "engine/kv/pool.h"
#include "engine/kv/rotary.h"
#include "engine/kv/seq.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define BLOCK ((size_t)4 << 20)

void scene_shape(struct model *m, bool tiny)
{
    *m = tiny ? (struct model){ .n_layer = 2,
                                .n_embd = 256,
                                .n_ff = 512,
                                .n_vocab = 272,
                                .n_head = 4,
                                .n_head_kv = 2,
                                .head_dim = 64 }
              : (struct model){ .n_layer = 32,
                                .n_embd = 4096,
                                .n_ff = 14336,
                                .n_vocab = 128256,
                                .n_head = 32,
                                .n_head_kv = 8,
                                .head_dim = 128 };
    m->rms_eps = 1e-5f;
}

/* --- a step ----------------------------------------------------------------------------------- */

static uint32_t packed_keys(const struct scene_step *step)
{
    return step->ratio > 1 ? SCENE_PACKED : SCENE_SEGMENT;
}

static uint32_t n_earlier(const struct scene_step *step)
{
    return step->context / SCENE_SEGMENT - 1;
}

uint32_t scene_keys(const struct scene_step *step)
{
    return n_earlier(step) * packed_keys(step) + SCENE_SEGMENT;
}

uint32_t scene_pages(const struct scene_step *step)
{
    return step->sessions * (scene_keys(step) / PAGE_TOKENS);
}

/* Pages in the order in which a session would have taken them, were it the only one. */
static void add_segment(struct plan *p, uint32_t base, uint32_t n_keys)
{
    p->segments[p->n_segments++] = (struct plan_segment){ base, n_keys, p->n_pages };
    for (uint32_t i = 0; i < seq_n_pages(n_keys); i++, p->n_pages++)
        p->pages[p->n_pages] = p->n_pages;
}

static void add_session(struct plan *p, const struct scene_step *step)
{
    uint32_t n = n_earlier(step), off = SCENE_SEGMENT - step->rows;
    struct plan_piece piece = { .row = p->n_rows,
                                .n = step->rows,
                                .first_segment = p->n_segments,
                                .n_segments = n,
                                .base = n * SCENE_SEGMENT,
                                .off = off,
                                .stride = 1 };

    for (uint32_t i = 0; i < n; i++)
        add_segment(p, i * SCENE_SEGMENT, packed_keys(step));
    piece.first_page = p->n_pages;
    add_segment(p, piece.base, SCENE_SEGMENT);
    for (uint32_t i = off; i < SCENE_SEGMENT; i++)
        p->rows[p->n_rows++] =
            (struct plan_row){ .kind = PLAN_TOKEN,
                               .id = i % 256,
                               .piece = p->n_pieces,
                               .q_off = i,
                               .k_off = i,
                               .page = p->pages[piece.first_page + i / PAGE_TOKENS],
                               .slot = i % PAGE_TOKENS };
    p->out_rows[p->n_out++] = p->n_rows - 1;
    p->pieces[p->n_pieces++] = piece;
}

int scene_plan(struct scene *s, const struct scene_step *step)
{
    struct k_attend_shape shape = room_attend_shape(&s->m, step->kv);
    int r;

    plan_clear(&s->plan);
    for (uint32_t i = 0; i < step->sessions; i++)
        add_session(&s->plan, step);
    s->pool.kv = step->kv;
    s->pool.page_bytes = pool_page_bytes(&s->m, step->kv);
    s->pool.head_bytes = 2 * kv_tile_bytes(step->kv, s->m.head_dim);
    if (s->plan.n_pages * s->pool.page_bytes > s->pool_len)
        return -ENOMEM;
    r = upload_plan(&s->upload, &s->plan, &shape);
    return r == 0 ? rt_wait(s->rt, RT_COMPUTE) : r;
}

/* --- the device ------------------------------------------------------------------------------- */

/* Random bytes of which every two are a finite f16 and a finite bf16, and so are those of f32. */
static void finite_noise(uint8_t *to, size_t n)
{
    uint64_t x = 88172645463325252ull;

    for (size_t i = 0; i < n; i += sizeof(x)) {
        uint64_t v;

        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        v = x & 0xbb3bbb3bbb3bbb3bull;
        memcpy(to + i, &v, sizeof(v));
    }
}

static int fill(struct scene *s, void *to, size_t n)
{
    void *block;
    int r = rt_alloc_host(s->rt, BLOCK, &block);

    if (r < 0)
        return r;
    finite_noise(block, BLOCK);
    for (size_t at = 0; at < n && r == 0; at += BLOCK)
        r = rt_put(s->rt, RT_COMPUTE, (uint8_t *)to + at, block, n - at < BLOCK ? n - at : BLOCK);
    if (r == 0)
        r = rt_wait(s->rt, RT_COMPUTE);
    rt_free_host(s->rt, block);
    return r;
}

static int alloc_filled(struct scene *s, size_t n, void *ret_at)
{
    void *mem;
    int r = rt_alloc(s->rt, n, &mem);

    if (r < 0)
        return r;
    memcpy(ret_at, &mem, sizeof(mem)); /* a pointer to any type */
    return fill(s, mem, n);
}

/* A segment's pages, and every eighth of its keys. */
static int put_lists(struct scene *s)
{
    uint32_t n = SCENE_SEGMENT / PAGE_TOKENS, *host;
    void *mem;
    int r = rt_alloc_host(s->rt, (n + SCENE_PACKED) * sizeof(*host), &mem);

    if (r < 0)
        return r;
    host = mem;
    for (uint32_t i = 0; i < n; i++)
        host[i] = i;
    for (uint32_t i = 0; i < SCENE_PACKED; i++)
        host[n + i] = i * (SCENE_SEGMENT / SCENE_PACKED);
    r = rt_alloc(s->rt, (n + SCENE_PACKED) * sizeof(*host), &mem);
    if (r == 0) {
        s->pages = mem;
        s->kept = s->pages + n;
        r = rt_put(s->rt, RT_COMPUTE, mem, host, (n + SCENE_PACKED) * sizeof(*host));
    }
    if (r == 0)
        r = rt_wait(s->rt, RT_COMPUTE);
    rt_free_host(s->rt, host);
    return r;
}

static int open_parts(struct scene *s, uint32_t most_pages, uint32_t most_rows)
{
    const struct model *m = &s->m;
    size_t angles = (size_t)m->head_dim * sizeof(float);
    int r = room_open(s->rt, m, most_rows, &s->room);

    if (r == 0)
        r = fill(s, s->room.mem, s->room.len);
    s->pool_len = most_pages * pool_page_bytes(m, KV_F16);
    s->pool = (struct k_pool){ .n_layer = m->n_layer,
                               .n_head_kv = m->n_head_kv,
                               .head_dim = m->head_dim };
    if (r == 0)
        r = alloc_filled(s, s->pool_len, &s->pool.mem);
    if (r == 0)
        r = alloc_filled(s, s->window_len, &s->window);
    if (r == 0)
        r = alloc_filled(s, ROTARY_FINE * angles, &s->fine);
    if (r == 0)
        r = alloc_filled(s, ROTARY_COARSE * angles, &s->coarse);
    if (r == 0)
        r = alloc_filled(s, m->n_embd * sizeof(float), &s->norm);
    if (r == 0)
        r = alloc_filled(s, m->n_head_kv * SCENE_ASKED * (m->head_dim + 1) * sizeof(float),
                         &s->asked);
    s->angles = (struct k_angles){ s->fine, s->coarse };
    if (r == 0)
        r = put_lists(s);
    return r;
}

int scene_open(struct scene *s, unsigned device, bool tiny, uint32_t most_pages, uint32_t most_rows)
{
    struct why why = { 0 };
    struct k_fit f;
    int r;

    *s = (struct scene){ .window_len = tiny ? (size_t)1 << 20 : (size_t)2 << 30 };
    scene_shape(&s->m, tiny);
    r = rt_open(device, &s->rt, &why);
    if (r < 0) {
        (void)fprintf(stderr, "bench/gpu: %s\n", why.text);
        return r;
    }
    upload_init(&s->upload, s->rt, &s->m, NULL);
    r = open_parts(s, most_pages, most_rows);
    f = scene_fit(s);
    if (r == 0)
        r = rt_alloc(s->rt, k_fit_scratch(&f), &s->fit);
    if (r == 0)
        r = plan_open(&s->plan, most_rows, most_pages);
    if (r < 0)
        (void)fprintf(stderr, "bench/gpu: no memory: %s\n", strerror(-r));
    else if ((r = gemm_open(rt_stream(s->rt, RT_COMPUTE), s->room.gemm, &s->gemm, &why)) < 0)
        (void)fprintf(stderr, "bench/gpu: %s\n", why.text);
    if (r < 0)
        scene_close(s);
    return r;
}

void scene_close(struct scene *s)
{
    void *const all[] = { s->pool.mem, s->window, s->fine,  s->coarse,
                          s->norm,     s->asked,  s->pages, s->fit };

    gemm_close(s->gemm);
    plan_close(&s->plan);
    upload_fini(&s->upload);
    for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++)
        if (all[i])
            rt_free(s->rt, all[i]);
    if (s->rt)
        room_close(&s->room);
    rt_close(s->rt);
    *s = (struct scene){ .rt = NULL };
}

const void *scene_weight(const struct scene *s, size_t n, uint32_t i)
{
    size_t each = (n + 255) & ~(size_t)255, fit = s->window_len / each;

    return s->window + (fit ? i % fit : 0) * each;
}

struct k_fit scene_fit(const struct scene *s)
{
    return (struct k_fit){ .pool = s->pool,
                           .angles = s->angles,
                           .from = s->pages,
                           .to = s->pages,
                           .n_raw = SCENE_SEGMENT,
                           .n_keys = SCENE_PACKED,
                           .asked = s->asked,
                           .n_asked = SCENE_ASKED,
                           .n_lists = s->m.n_head_kv,
                           .scratch = s->fit };
}

struct k_move scene_move(const struct scene *s)
{
    return (struct k_move){ .pool = s->pool,
                            .angles = s->angles,
                            .from = s->pages,
                            .to = s->pages,
                            .kept = s->kept,
                            .n_keys = SCENE_PACKED };
}
