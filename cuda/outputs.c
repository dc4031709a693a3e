/* cuda/outputs.c - what is asked of a step's outputs: logits, or what sampling wants of them. Of
 * the device with the last layers. */
#include "cuda/step_inner.h"

#include <assert.h>
#include <string.h>

/* Of up to ROOM_HEAD_ROWS outputs, to the room's logits. In int8 each takes two rows of the
 * product: what 8 bits leave over is multiplied, too (engine/cpu/layers.c, fine_logits). Results
 * stay in room.logits until the next block of rows. */
static int head(struct step *s, uint32_t first, uint32_t n)
{
    const struct model_tensor *w = &s->m->output;
    const float *x = s->room.out + (size_t)first * s->m->n_embd;
    /* Float output matrices take f32 rows. */
    bool q8 = k_matvec_takes_q8(w->type);
    struct k_matvec a = products_matvec(w);
    int r;

    a.x = x;
    a.x_stride = w->n_cols * sizeof(float);
    a.n_x = n;
    a.y = s->room.logits;
    a.y_stride = w->n_rows;
    if (!q8)
        return k_matvec(s->products.stream, &a);
    a.x = s->room.q8;
    a.x_stride = w->n_cols / 32 * sizeof(struct k_q8);
    a.n_x = 2 * n;
    a.y = s->room.head;
    r = k_fine(s->products.stream, &(struct k_fine){ x, n, w->n_cols, s->room.q8 });
    if (r == 0)
        r = k_matvec(s->products.stream, &a);
    return r == 0 ? k_fold(s->products.stream,
                           &(struct k_fold){ s->room.head, n, w->n_rows, s->room.logits })
                  : r;
}

/* So many as a product of few rows has, at two rows an output. */
static uint32_t head_rows(uint32_t left)
{
    return left < ROOM_HEAD_ROWS ? left : ROOM_HEAD_ROWS;
}

int step_logits(struct step *s, uint32_t first, uint32_t n, float *host)
{
    size_t n_vocab = s->m->n_vocab;
    int r = stage_join(s->stage);

    /* Of a step that was given up there are none. */
    assert(first + n <= s->n_out);
    /* Each block is fetched before the next one overwrites it. */
    for (uint32_t at = 0, k; at < n && r == 0; at += k) {
        k = head_rows(n - at);
        r = head(s, first + at, k);
        if (r == 0)
            r = stage_get(s->stage, host + at * n_vocab, s->room.logits,
                          k * n_vocab * sizeof(float), NULL);
    }
    return r;
}

/* Logits stay on the device: of each row one number is fetched. */
int step_logprobs(struct step *s, uint32_t first, uint32_t n, const uint32_t *ids, float *host)
{
    int r = stage_put(s->stage, s->room.ids, ids, n * sizeof(*ids), NULL);

    assert(first + n <= s->n_out);
    if (r == 0)
        r = stage_join(s->stage);
    for (uint32_t at = 0, k; at < n && r == 0; at += k) {
        k = head_rows(n - at);
        r = head(s, first + at, k);
        if (r == 0)
            r = k_logprobs(s->products.stream, &(struct k_logprobs){ .logits = s->room.logits,
                                                                     .ids = s->room.ids + at,
                                                                     .n = k,
                                                                     .n_vocab = s->m->n_vocab,
                                                                     .to = s->room.logprobs + at });
    }
    return r == 0 ? stage_get(s->stage, host, s->room.logprobs, n * sizeof(*host), NULL) : r;
}

/* Asks and the ids of their penalties, one behind the other. put is copied into a slot before this
 * returns, as is ask_ids. */
static int put_asks(struct step *s, const struct sampler_ask *asks, uint32_t n, bool *ret_draws)
{
    struct k_pick_ask put[ROOM_PICKS];
    uint32_t n_ids = 0;
    int r;

    /* Only the best is wanted of all, then: no weights, no candidates. */
    *ret_draws = false;
    for (uint32_t i = 0; i < n; i++) {
        const struct sampler_ask *a = &asks[i];

        assert(a->n_ids <= SAMPLER_REPEAT_MAX);
        put[i] = (struct k_pick_ask){ .least = a->least,
                                      .penalty = a->penalty,
                                      .temperature = a->temperature,
                                      .min_p = a->min_p,
                                      .top_k = a->top_k,
                                      .first_id = n_ids,
                                      .n_ids = a->n_ids };
        memcpy(s->ask_ids + n_ids, a->ids, a->n_ids * sizeof(*a->ids));
        n_ids += a->n_ids;
        *ret_draws |= a->temperature != 0;
    }
    r = stage_put(s->stage, s->room.asks, put, n * sizeof(*put), NULL);
    if (r == 0 && n_ids)
        r = stage_put(s->stage, s->room.ask_ids, s->ask_ids, n_ids * sizeof(*s->ask_ids), NULL);
    return r == 0 ? stage_join(s->stage) : r;
}

/* More than there is room for: the caller takes the logits instead. */
static bool has_candidates(const struct sampler_found *f)
{
    return f->n > 0 && f->n <= SAMPLER_CANDIDATES_MAX;
}

/* Of rows that have some, and not too many. The last is waited for, and with it all. */
static int get_candidates(struct step *s, uint32_t n, const struct sampler_found *found,
                          struct sampler_candidate *ret)
{
    uint64_t ticket;
    int r = 0;

    while (n > 0 && !has_candidates(&found[n - 1]))
        n--;
    for (uint32_t i = 0; i < n && r == 0; i++) {
        size_t at = (size_t)i * SAMPLER_CANDIDATES_MAX;

        if (has_candidates(&found[i]))
            r = stage_get(s->stage, ret + at, s->room.candidates + at, found[i].n * sizeof(*ret),
                          i + 1 < n ? &ticket : NULL);
    }
    return r;
}

/* Waits for all rows. */
static int get_found(struct step *s, uint32_t n, struct sampler_found *ret)
{
    struct k_pick_found got[ROOM_PICKS];
    int r = stage_get(s->stage, got, s->room.found, n * sizeof(*got), NULL);

    for (uint32_t i = 0; i < n && r == 0; i++)
        ret[i] = (struct sampler_found){ .mass = got[i].mass,
                                         .best = got[i].best,
                                         .n_bad = got[i].n_bad,
                                         .n = got[i].n,
                                         .n_likely = got[i].n_likely };
    return r;
}

/* Of up to ROOM_PICKS outputs. Logits are overwritten block by block; what was found of each row
 * stays. */
static int pick_some(struct step *s, uint32_t first, uint32_t n, const struct sampler_ask *asks,
                     struct sampler_found *ret, struct sampler_candidate *ret_c)
{
    bool draws;
    int r = put_asks(s, asks, n, &draws);

    for (uint32_t at = 0, k; at < n && r == 0; at += k) {
        k = head_rows(n - at);
        r = head(s, first + at, k);
        if (r == 0)
            r = k_pick(s->products.stream,
                       &(struct k_pick){ .logits = s->room.logits,
                                         .asks = s->room.asks + at,
                                         .ids = s->room.ask_ids,
                                         .n = k,
                                         .n_vocab = s->m->n_vocab,
                                         .draws = draws,
                                         .max = SAMPLER_CANDIDATES_MAX,
                                         .found = s->room.found + at,
                                         .candidates = s->room.candidates +
                                                       (size_t)at * SAMPLER_CANDIDATES_MAX,
                                         .scratch = s->room.pick });
    }
    if (r == 0)
        r = get_found(s, n, ret);
    /* How many there are is known now, so no more is fetched. */
    return r == 0 && draws ? get_candidates(s, n, ret, ret_c) : r;
}

int step_pick(struct step *s, uint32_t first, uint32_t n, const struct sampler_ask *asks,
              struct sampler_found *ret, struct sampler_candidate *ret_c)
{
    int r = 0;

    assert(first + n <= s->n_out);
    /* Asks and results have room for so many. */
    for (uint32_t at = 0, k; at < n && r == 0; at += k) {
        k = n - at < ROOM_PICKS ? n - at : ROOM_PICKS;
        r = pick_some(s, first + at, k, asks + at, ret + at,
                      ret_c + (size_t)at * SAMPLER_CANDIDATES_MAX);
    }
    return r;
}

/* In the order of the computing stream; nobody waits. */
int step_hidden(struct step *s, uint32_t first, uint32_t n, float *to)
{
    size_t row = s->m->n_embd;

    assert(first + n <= s->n_out);
    return rt_copy(s->rt, RT_COMPUTE, to, s->room.out + first * row, n * row * sizeof(float));
}
