#include "train/step.h"

#include "train/head.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct step {
    struct gists *gist;
    uint32_t n_tokens, max_rows;
    struct net *net;
    struct head *head;
    struct layout layouts[ADAPTER_RATIOS_MAX]; /* of the ratios that are trained */
    struct layout none, full;
    struct head_row *rows; /* (n_tokens) */
    float *dx;             /* (max_rows, n_embd) */
};

static struct layout_shape shape_of(const struct step *s, enum layout_kind kind, uint32_t ratio)
{
    const struct gists_shape *g = &s->gist->shape;

    return (
        struct layout_shape){ kind, g->method, g->mask, s->n_tokens, g->seg_len, ratio, g->sinks };
}

static int make_layouts(struct step *s)
{
    const struct gists_shape *g = &s->gist->shape;
    struct layout_shape none = shape_of(s, LAYOUT_NONE, 0), full = shape_of(s, LAYOUT_FULL, 0);
    int r = layout_make(&s->none, &none);

    if (r == 0)
        r = layout_make(&s->full, &full);
    s->max_rows = s->n_tokens;
    for (uint32_t i = 0; r == 0 && i < g->n_ratios; i++) {
        struct layout_shape shape = shape_of(s, LAYOUT_GISTS, g->ratios[i]);

        r = layout_make(&s->layouts[i], &shape);
        if (r == 0 && s->layouts[i].n_rows > s->max_rows)
            s->max_rows = s->layouts[i].n_rows;
    }
    return r;
}

int step_open(struct gists *g, uint32_t n_tokens, bool checkpointing, struct step **ret)
{
    struct step *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return -ENOMEM;
    s->gist = g;
    s->n_tokens = n_tokens;
    r = make_layouts(s);
    if (r == 0)
        r = net_open(g->b, s->max_rows, checkpointing, &s->net);
    if (r == 0)
        r = head_open(g->b, net_gemm(s->net), &s->head);
    if (r == 0) {
        s->rows = calloc(n_tokens, sizeof(*s->rows));
        s->dx = malloc((size_t)s->max_rows * g->b->m->n_embd * sizeof(float));
        r = s->rows && s->dx ? 0 : -ENOMEM;
    }
    if (r < 0) {
        step_close(s);
        return r;
    }
    *ret = s;
    return 0;
}

void step_close(struct step *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < ADAPTER_RATIOS_MAX; i++)
        layout_fini(&s->layouts[i]);
    layout_fini(&s->none);
    layout_fini(&s->full);
    head_close(s->head);
    net_close(s->net);
    free(s->rows);
    free(s->dx);
    free(s);
}

struct gemm *step_gemm(struct step *s)
{
    return net_gemm(s->net);
}

size_t step_bytes(const struct step *s)
{
    return net_bytes(s->net);
}

static const struct layout *layout_of(const struct step *s, enum layout_kind kind, uint32_t ratio)
{
    if (kind != LAYOUT_GISTS)
        return kind == LAYOUT_NONE ? &s->none : &s->full;
    for (uint32_t i = 0; i < s->gist->shape.n_ratios; i++)
        if (s->gist->shape.ratios[i] == ratio)
            return &s->layouts[i];
    return NULL;
}

/* Rows that are not frozen and whose next token carries loss. */
static uint32_t list_rows(struct step *s, const struct layout *l, const uint32_t *ids,
                          const uint8_t *carries)
{
    uint32_t n = 0;

    for (uint32_t i = l->n_frozen; i + 1 < s->n_tokens; i++)
        if (carries[i + 1])
            s->rows[n++] = (struct head_row){ .row = i, .target = ids[i + 1] };
    return n;
}

int step_learn(struct step *s, const uint32_t *ids, const uint8_t *carries, uint32_t ratio,
               float scale, struct step_loss *ret)
{
    const struct layout *l = layout_of(s, LAYOUT_GISTS, ratio);
    const float *x;
    double loss = 0;
    uint32_t n;
    int r;

    if (!l)
        return -EINVAL;
    n = list_rows(s, l, ids, carries);
    *ret = (struct step_loss){ 0, n };
    if (n == 0)
        return 0;
    for (uint32_t i = 0; i < n; i++)
        s->rows[i].weight = scale / (float)n;
    r = net_forward(s->net, &s->gist->net, l, ids, &x);
    if (r < 0)
        return r;
    memset(s->dx, 0, (size_t)l->n_rows * s->gist->b->m->n_embd * sizeof(float));
    r = head_run(s->head, x, s->rows, n, 0, 0, NULL, s->dx, &loss);
    if (r < 0)
        return r;
    ret->lm = loss / scale;
    return net_back(s->net, &s->gist->net, l, s->dx, NULL);
}

int step_score(struct step *s, enum layout_kind kind, uint32_t ratio, const uint32_t *ids,
               float *ret_logp)
{
    const struct layout *l = layout_of(s, kind, ratio);
    const float *x;
    double loss;
    int r;

    if (!l)
        return -EINVAL;
    r = net_forward(s->net, &s->gist->net, l, ids, &x);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i + 1 < s->n_tokens; i++)
        s->rows[i] = (struct head_row){ .row = i, .target = ids[i + 1] };
    ret_logp[0] = 0;
    return head_run(s->head, x, s->rows, s->n_tokens - 1, 0, 0, ret_logp + 1, NULL, &loss);
}
