/* train/step.c - for one sequence: which rows carry loss, what the base and the teacher say about
 * them, and the way forward and back.
 *
 * One net does it all, and holds the rows of its last forward pass alone. So the base is asked
 * first, and gists' rows come last: the way back needs them.
 */
#include "train/step.h"

#include "base/draw.h"
#include "train/net/ae.h"
#include "train/net/head.h"
#include "train/teacher.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct step {
    struct gists *gist;
    uint32_t n_tokens, max_rows;
    bool base_trains;
    struct net *net;
    struct head *head;
    struct layout layouts[ADAPTER_RATIOS_MAX]; /* of the ratios that are trained */
    struct layout none, full, alone;           /* alone: no sinks either */
    struct step_rule rule;
    struct head_row *rows; /* (n_tokens) */
    float *logp, *other;   /* (n_tokens) */
    uint32_t *teacher_ids; /* (n_tokens, distill_top) */
    float *teacher_p;
    struct ae *ae;   /* NULL: not wanted */
    uint32_t *gists; /* that are rebuilt */
    float *dx;       /* (max_rows, n_embd) */
};

static struct layout_shape shape_of(const struct step *s, enum layout_kind kind, uint32_t ratio)
{
    const struct gists_shape *g = &s->gist->shape;

    return (struct layout_shape){ .kind = kind,
                                  .method = g->method,
                                  .mask = g->mask,
                                  .n_tokens = s->n_tokens,
                                  .seg_len = g->seg_len,
                                  .ratio = ratio,
                                  .sinks = g->sinks,
                                  .base_trains = s->base_trains };
}

/* They depend on shapes and not on text, so each is made once. The one with most rows says how
 * large the net is. */
static int make_layouts(struct step *s)
{
    const struct gists_shape *g = &s->gist->shape;
    struct layout_shape none = shape_of(s, LAYOUT_NONE, 0), full = shape_of(s, LAYOUT_FULL, 0),
                        alone = none;
    int r = layout_make(&s->none, &none);

    /* For loss-tie a segment sees nothing before itself, not even the sinks that evaluations leave
     * it. */
    alone.sinks = 0;
    if (r == 0)
        r = layout_make(&s->alone, &alone);
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

/* Lists are the host's; dx is where it is computed. */
static int take_buffers(struct step *s)
{
    struct tensors *on = s->gist->b->on;
    size_t n = s->n_tokens, n_teacher = s->rule.distill > 0 ? n * s->rule.distill_top : 0;

    s->rows = calloc(n, sizeof(*s->rows));
    s->dx = on->ops->alloc(on, (size_t)s->max_rows * s->gist->b->m->n_embd * sizeof(float));
    s->logp = malloc(n * sizeof(float));
    s->other = malloc(n * sizeof(float));
    if (!s->rows || !s->dx || !s->logp || !s->other)
        return -ENOMEM;
    if (n_teacher == 0)
        return 0;
    s->teacher_ids = malloc(n_teacher * sizeof(*s->teacher_ids));
    s->teacher_p = malloc(n_teacher * sizeof(*s->teacher_p));
    return s->teacher_ids && s->teacher_p ? 0 : -ENOMEM;
}

static struct ae_shape shape_of_ae(const struct step *s)
{
    const struct gists_shape *g = &s->gist->shape;
    struct ae_shape shape = { .n_ratios = g->n_ratios, .max_tokens = s->n_tokens, .seed = g->seed };

    memcpy(shape.ratios, g->ratios, sizeof(shape.ratios));
    return shape;
}

static int open_ae(struct step *s)
{
    struct ae_shape shape = shape_of_ae(s);
    /* Of the ratio with most of them; with soft tokens more than it needs. */
    uint32_t n_gists = s->max_rows - s->n_tokens;

    s->gists = malloc(n_gists * sizeof(*s->gists));
    return s->gists ? ae_open(s->gist->b, &s->gist->params, &shape, &s->ae) : -ENOMEM;
}

static bool is_staged(const struct step *s)
{
    return s->gist->shape.method == ADAPTER_COARSE_REC;
}

static void free_layouts(struct step *s)
{
    for (uint32_t i = 0; i < ADAPTER_RATIOS_MAX; i++)
        layout_fini(&s->layouts[i]);
    layout_fini(&s->none);
    layout_fini(&s->full);
    layout_fini(&s->alone);
}

static void enlarge(struct tensors_sizes *most, const struct layout *l)
{
    uint32_t all = 0;

    for (uint32_t i = 0; i < l->n_segments; i++)
        all += sight_n_keys(&l->segments[i]);
    most->n_rows = l->n_rows > most->n_rows ? l->n_rows : most->n_rows;
    most->n_memory = l->n_memory > most->n_memory ? l->n_memory : most->n_memory;
    most->max_keys = l->max_keys > most->max_keys ? l->max_keys : most->max_keys;
    most->all_keys = all > most->all_keys ? all : most->all_keys;
}

/* Layouts of evaluations are among them: the whole text's attention is the largest. */
static size_t attention_room(const struct step *s, const struct tensors_ops *ops)
{
    struct tensors_heads heads = base_heads(s->gist->b);
    struct tensors_sizes most = { 0 };

    for (uint32_t i = 0; i < s->gist->shape.n_ratios; i++)
        enlarge(&most, &s->layouts[i]);
    enlarge(&most, &s->none);
    enlarge(&most, &s->alone);
    enlarge(&most, &s->full);
    return ops->attn_room(&heads, &most);
}

/* Each gist has a slot beside its tokens, and a token at least: rows are no more than twice the
 * tokens. */
static size_t decoder_room(const struct step *s, const struct tensors_ops *ops, size_t *ret_values)
{
    struct ae_shape shape = shape_of_ae(s);
    struct tensors_heads heads = ae_heads(s->gist->b, &shape);
    struct tensors_sizes most = { 2 * s->n_tokens, 0, heads.block, 2 * s->n_tokens };

    return ae_room(s->gist->b, &shape, ret_values) + ops->attn_room(&heads, &most);
}

int step_room(struct gists *g, bool base_trains, uint32_t n_tokens, bool checkpointing,
              const struct step_rule *rule, const struct tensors_ops *ops, struct step_room *ret)
{
    /* Layouts are made to be counted. Nothing is allocated where it would be computed. */
    struct step s = { .gist = g, .n_tokens = n_tokens, .rule = *rule, .base_trains = base_trains };
    int r = make_layouts(&s);

    *ret = (struct step_room){ 0 };
    if (r == 0) {
        ret->rows = net_room(g->b, s.max_rows, checkpointing, is_staged(&s)) +
                    (size_t)s.max_rows * g->b->m->n_embd * sizeof(float);
        ret->head = head_room(g->b);
        ret->attention = attention_room(&s, ops);
        if (rule->ae > 0)
            ret->decoder = decoder_room(&s, ops, &ret->n_values);
    }
    free_layouts(&s);
    return r;
}

int step_open(struct gists *g, uint32_t n_tokens, bool checkpointing, const struct step_rule *rule,
              struct step **ret)
{
    struct step *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return -ENOMEM;
    s->gist = g;
    s->n_tokens = n_tokens;
    s->rule = *rule;
    /* base_train gives gradients to all of the base or to nothing. */
    s->base_trains = g->b->d_embd != NULL;
    r = make_layouts(s);
    if (r == 0)
        r = net_open(g->b, s->max_rows, checkpointing, is_staged(s), &s->net);
    if (r == 0)
        r = head_open(g->b, &s->head);
    if (r == 0)
        r = take_buffers(s);
    if (r == 0 && rule->ae > 0)
        r = open_ae(s);
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
    free_layouts(s);
    ae_close(s->ae);
    free(s->gists);
    head_close(s->head);
    net_close(s->net);
    free(s->rows);
    if (s->dx)
        s->gist->b->on->ops->free(s->gist->b->on, s->dx);
    free(s->logp);
    free(s->other);
    free(s->teacher_ids);
    free(s->teacher_p);
    free(s);
}

size_t step_bytes(const struct step *s)
{
    return net_bytes(s->net);
}

/* NULL: the recipe does not train this ratio. */
static const struct layout *layout_of(const struct step *s, enum layout_kind kind, uint32_t ratio)
{
    if (kind != LAYOUT_GISTS)
        return kind == LAYOUT_NONE ? &s->none : &s->full;
    for (uint32_t i = 0; i < s->gist->shape.n_ratios; i++)
        if (s->gist->shape.ratios[i] == ratio)
            return &s->layouts[i];
    return NULL;
}

/* Rows of tokens from `first` on whose next token carries loss. */
static uint32_t list_rows(struct step *s, const struct layout *l, uint32_t first,
                          const uint32_t *ids, const uint8_t *carries)
{
    uint32_t n = 0;

    for (uint32_t i = first; i + 1 < s->n_tokens; i++)
        /* The row of token i is what predicts token i + 1. */
        if (carries[i + 1])
            s->rows[n++] = (struct head_row){ .row = l->tokens[i], .target = ids[i + 1] };
    return n;
}

/* The teacher's words, kept or from x: the base's last hidden states under full attention. A cache
 * that can't be written to is as none: the words are there. n rows, (n, distill_top) words. */
static int ask_teacher(struct step *s, const float *x, uint32_t n, uint64_t index)
{
    int r = head_top(s->head, x, s->rows, n, s->rule.distill_top, s->teacher_ids, s->teacher_p);

    if (r == 0 && s->rule.teacher)
        (void)teacher_put(s->rule.teacher, index, n, s->teacher_ids, s->teacher_p);
    return r;
}

/* Token weights and the teacher's words, from the base under full attention and with each segment
 * alone. */
static int ask_base(struct step *s, const uint32_t *ids, uint32_t n, uint64_t index)
{
    bool known = s->rule.distill > 0 && s->rule.teacher &&
                 teacher_get(s->rule.teacher, index, n, s->teacher_ids, s->teacher_p);
    const float *x;
    double sum = 0;
    int r;

    /* A pass over the whole text is saved: that is what the cache is for. */
    if (known && !s->rule.tie)
        return 0;
    r = net_forward(s->net, NULL, &s->full, ids, &x);
    if (r == 0 && s->rule.distill > 0 && !known)
        r = ask_teacher(s, x, n, index);
    if (r < 0 || !s->rule.tie)
        return r;
    r = head_run(s->head, x, s->rows, n, 0, s->logp, NULL, NULL);
    if (r == 0)
        r = net_forward(s->net, NULL, &s->alone, ids, &x);
    if (r == 0)
        r = head_run(s->head, x, s->rows, n, 0, s->other, NULL, NULL);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < n; i++) {
        double diff = (double)s->logp[i] - s->other[i];

        s->logp[i] = (float)exp(diff < s->rule.tie_gamma ? diff : s->rule.tie_gamma);
        sum += s->logp[i];
    }
    for (uint32_t i = 0; i < n; i++)
        s->logp[i] *= (float)(n / sum);
    return 0;
}

/* Likewise, of the base as it was. With train-base the base changes while it is trained: what gists
 * are held to is the model of the file. Shapes are the same, so net and head take it for this call.
 */
static int ask_original(struct step *s, const uint32_t *ids, uint32_t n, uint64_t index)
{
    int r;

    if (s->rule.original) {
        net_set_base(s->net, s->rule.original);
        head_set_base(s->head, s->rule.original);
    }
    r = ask_base(s, ids, n, index);
    net_set_base(s->net, s->gist->b);
    head_set_base(s->head, s->gist->b);
    return r;
}

/* The rows' weights by the rule; asked: ask_base has. n: the loss is a mean over the sequence. */
static void weigh_rows(struct step *s, uint32_t n, float scale)
{
    uint32_t top = s->rule.distill_top;

    /* Their mean is 1, so that the loss stays on its scale. */
    for (uint32_t i = 0; i < n; i++) {
        struct head_row *row = &s->rows[i];

        row->weight = (float)(scale * s->rule.lm / n) * (s->rule.tie ? s->logp[i] : 1.0f);
        if (s->rule.distill <= 0)
            continue;
        row->teacher_weight = (float)(scale * s->rule.distill / n);
        row->teacher_ids = s->teacher_ids + (size_t)i * top;
        row->teacher_p = s->teacher_p + (size_t)i * top;
    }
}

/* Gists that become memory, each with probability share (at least one). By the sequence's number,
 * so that a run that goes on draws the same ones. */
static uint32_t draw_gists(struct step *s, const struct layout *l, double share, uint64_t index)
{
    uint32_t n = 0, end = l->n_kept;
    uint64_t seed = draw_at(s->rule.seed, index);

    for (uint32_t j = 0; j < end; j++)
        if (draw_unit(draw_at(seed, j)) < share)
            s->gists[n++] = j;
    if (n == 0 && end > 0)
        s->gists[n++] = (uint32_t)(seed % end);
    return n;
}

/* ret_more: derivatives by those gists' keys and values, for the way back. */
static int learn_to_rebuild(struct step *s, const struct layout *l, const uint32_t *ids,
                            uint64_t index, float scale, struct net_more *ret_more, double *ret)
{
    struct ae_job job = { s->net, l, ids, s->gists, 0, (float)(scale * s->rule.ae) };

    job.n = draw_gists(s, l, s->rule.ae_share, index);
    return ae_run(s->ae, s->head, &job, ret_more, ret, NULL);
}

/* Without a token that carries loss and that gists could have helped with: 0, and no loss. */
int step_learn(struct step *s, const uint32_t *ids, const uint8_t *carries, uint32_t ratio,
               uint64_t index, float scale, struct step_loss *ret)
{
    const struct layout *l = layout_of(s, LAYOUT_GISTS, ratio);
    struct head_loss loss;
    struct net_more more;
    const float *x;
    uint32_t n;
    int r = 0;

    if (!l)
        return -EINVAL;
    if (s->rule.tie || s->rule.distill > 0) {
        n = list_rows(s, &s->full, l->n_frozen, ids, carries); /* as alone has them */
        r = n ? ask_original(s, ids, n, index) : 0;
    }
    /* The same tokens as before, in rows of another layout: weights and words of the teacher stay
     * in their order. */
    n = list_rows(s, l, l->n_frozen, ids, carries);
    *ret = (struct step_loss){ .n_tokens = n };
    if (n == 0)
        return 0;
    if (r == 0)
        r = net_forward(s->net, &s->gist->net, l, ids, &x);
    if (r < 0)
        return r;
    weigh_rows(s, n, scale);
    /* The head adds to the rows that carry loss; all others have no derivative. */
    s->gist->b->on->ops->clear(s->gist->b->on, s->dx,
                               (size_t)l->n_rows * s->gist->b->m->n_embd * sizeof(float));
    r = head_run(s->head, x, s->rows, n, s->rule.distill_top, NULL, s->dx, &loss);
    if (r == 0 && s->ae)
        r = learn_to_rebuild(s, l, ids, index, scale, &more, &ret->ae);
    if (r < 0)
        return r;
    /* The head's sums have scale and weights in them. */
    ret->lm = s->rule.lm > 0 ? loss.targets / scale / s->rule.lm : 0;
    ret->distill = s->rule.distill > 0 ? loss.teacher / scale / s->rule.distill : 0;
    ret->all = (loss.targets + loss.teacher) / scale + s->rule.ae * ret->ae;
    return net_back(s->net, &s->gist->net, l, ids, s->dx, s->ae ? &more : NULL);
}

/* Frozen rows too: an answer counts wherever it stands. */
int step_recall(struct step *s, enum layout_kind kind, uint32_t ratio, const uint32_t *ids,
                const uint8_t *carries, struct step_recalled *ret)
{
    const struct layout *l = layout_of(s, kind, ratio);
    struct head_loss loss;
    const float *x;
    uint32_t n;
    int r;

    if (!l)
        return -EINVAL;
    n = list_rows(s, l, 0, ids, carries);
    r = net_forward(s->net, &s->gist->net, l, ids, &x);
    if (r == 0)
        r = head_run(s->head, x, s->rows, n, 0, NULL, NULL, &loss);
    if (r == 0)
        *ret = (struct step_recalled){ n, loss.n_right };
    return r;
}

int step_rebuild(struct step *s, uint32_t ratio, const uint32_t *ids, double *ret)
{
    const struct layout *l = layout_of(s, LAYOUT_GISTS, ratio);
    struct ae_job job = { s->net, l, ids, s->gists, 0, 1.0f };
    const float *x;
    double loss;
    uint32_t right;
    int r;

    if (!s->ae)
        return -ENOTSUP;
    if (!l)
        return -EINVAL;
    r = net_forward(s->net, &s->gist->net, l, ids, &x);
    /* With a share of 1 all are drawn, whatever the seed. */
    job.n = draw_gists(s, l, 1.0, 0);
    if (r == 0)
        r = ae_run(s->ae, s->head, &job, NULL, &loss, &right);
    if (r == 0)
        *ret = (double)right / ((double)job.n * ratio);
    return r;
}

void step_refresh(struct step *s)
{
    gists_refresh(s->gist);
    if (s->ae)
        ae_refresh(s->ae);
}

int step_score(struct step *s, enum layout_kind kind, uint32_t ratio, const uint32_t *ids,
               uint32_t first, float *ret_logp)
{
    const struct layout *l = layout_of(s, kind, ratio);
    const float *x;
    uint32_t n = 0;
    int r;

    if (!l)
        return -EINVAL;
    r = net_forward(s->net, &s->gist->net, l, ids, &x);
    if (r < 0)
        return r;
    for (uint32_t i = first; i < s->n_tokens; i++)
        /* As in list_rows, seen from the token that is predicted. */
        s->rows[n++] = (struct head_row){ .row = l->tokens[i - 1], .target = ids[i] };
    return head_run(s->head, x, s->rows, n, 0, ret_logp + first, NULL, NULL);
}
