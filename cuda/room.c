#include "cuda/room.h"

#include "base/parts.h"
#include "cuda/gemm.h"
#include "engine/file/adapter.h"

struct k_attend_shape room_attend_shape(const struct model *m, uint32_t kv)
{
    return (struct k_attend_shape){
        .n_head = m->n_head, .n_head_kv = m->n_head_kv, .head_dim = m->head_dim, .kv = kv
    };
}

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Of a layer's matrices: the output matrix is never made bf16. A weight that is larger is made bf16
 * and multiplied piece by piece. */
static size_t slab_bytes(const struct model *m)
{
    size_t largest =
        (size_t)m->n_embd * max_size(m->n_ff, (size_t)m->n_head * m->head_dim) * sizeof(uint16_t);

    return largest < ROOM_SLAB_BYTES ? largest : ROOM_SLAB_BYTES;
}

/* Whose products of many rows are of high and low parts. Without layers
 * nobody knows: none. */
static bool has_floats(const struct model *m)
{
    for (uint32_t i = 0; m->layers && i < m->n_layer; i++) {
        const struct model_layer *l = &m->layers[i];

        for (unsigned k = 0; k < ADAPTER_PROJECTION__N; k++)
            if (!k_matvec_takes_q8(adapter_projection_weight(l, k)->type))
                return true;
    }
    return false;
}

/* Gives every buffer its place; with r->mem NULL only counts. Parts begin at multiples of 256, as
 * the widest loads want it. Returns the bytes. */
static size_t lay_out(struct room *r, const struct model *m)
{
    /* t rows; f bytes a float. */
    size_t t = r->max_rows, n_q = (size_t)m->n_head * m->head_dim;
    size_t n_kv = (size_t)m->n_head_kv * m->head_dim, f = sizeof(float);
    size_t widest = max_size(max_size(m->n_embd, m->n_ff), n_q);
    struct k_attend_shape shape = room_attend_shape(m, KV_F16);
    bool floats = has_floats(m);
    const struct part parts[] = {
        /* The residual, normed rows, what is added next; queries, attention's result, keys, values;
         * both halves of the feed-forward. gate and up are scratch, too, and so as wide as
         * anything.
         */
        { &r->x, t * m->n_embd * f },
        { &r->xn, t * m->n_embd * f },
        { &r->y, t * m->n_embd * f },
        { &r->q, t * n_q * f },
        { &r->att, t * n_q * f },
        { &r->kk, t * n_kv * f },
        { &r->vv, t * n_kv * f },
        { &r->gate, t * widest * f },
        { &r->up, t * widest * f },
        { &r->out, t * m->n_embd * f },
        /* The head multiplies each output as two rows of int8: K_MATVEC_ROWS of them, however few a
         * step has. */
        { &r->q8, max_size(t, K_MATVEC_ROWS) * (widest / 32) * sizeof(struct k_q8) },
        { &r->bf16, t * widest * sizeof(uint16_t) },
        { &r->slab, slab_bytes(m) },
        { &r->bf16_low, floats ? t * widest * sizeof(uint16_t) : 0 },
        { &r->slab_low, floats ? slab_bytes(m) : 0 },
        { &r->low, (size_t)K_MATVEC_ROWS * ADAPTER_RANK_MAX * f },
        { &r->head, (size_t)K_MATVEC_ROWS * m->n_vocab * f },
        { &r->logits, (size_t)ROOM_HEAD_ROWS * m->n_vocab * f },
        { &r->ids, t * sizeof(uint32_t) },
        { &r->logprobs, t * f },
        { &r->asks, ROOM_PICKS * sizeof(*r->asks) },
        { &r->ask_ids, (size_t)ROOM_PICKS * SAMPLER_REPEAT_MAX * sizeof(*r->ask_ids) },
        { &r->found, ROOM_PICKS * sizeof(*r->found) },
        { &r->candidates, (size_t)ROOM_PICKS * SAMPLER_CANDIDATES_MAX * sizeof(*r->candidates) },
        { &r->pick, k_pick_scratch(ROOM_HEAD_ROWS, m->n_vocab) },
        { &r->attend, k_attend_scratch(&shape, r->max_rows) },
        { &r->gemm, gemm_workspace },
    };

    r->widest = (uint32_t)widest;
    return parts_lay_out(r->mem, parts, sizeof(parts) / sizeof(*parts), 256);
}

size_t room_need(const struct model *m, uint32_t max_rows)
{
    struct room r = { .max_rows = max_rows };

    return lay_out(&r, m);
}

/* Counted first, then laid out in what was given: the same function, so both agree. */
int room_open(struct rt *rt, const struct model *m, uint32_t max_rows, struct room *ret)
{
    struct room r = { .rt = rt, .max_rows = max_rows };
    int e;

    r.len = lay_out(&r, m);
    e = rt_alloc(rt, r.len, &r.mem);
    if (e < 0)
        return e;
    (void)lay_out(&r, m);
    *ret = r;
    return 0;
}

void room_close(struct room *r)
{
    if (r->mem)
        rt_free(r->rt, r->mem);
    *r = (struct room){ .mem = NULL };
}
