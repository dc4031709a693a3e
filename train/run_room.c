/* train/run_room.c - what a run would take, counted from the model's header: shapes stand in for
 * the base, the gists and the step, and each module counts what its open would allocate.
 */
#include "train/run_room.h"

#include "engine/file/model.h"
#include "train/net/gemm.h"
#include "train/net/tensors_cpu.h"

#include <errno.h>
#include <string.h>

#define TEXT_MAX 32

struct gists_shape run_room_gists(const struct recipe *c)
{
    /* How many, counted from ADAPTER_Q on. */
    static const uint32_t n_projections[] = { [RECIPE_NONE] = 0,
                                              [RECIPE_QKV] = ADAPTER_QKV__N,
                                              [RECIPE_QKVO] = ADAPTER_O + 1,
                                              [RECIPE_ALL] = ADAPTER_PROJECTION__N };
    struct gists_shape s = { .method = (enum adapter_method)c->method,
                             .mask = (enum adapter_mask)c->mask,
                             .embedding = ADAPTER_EMBED_LAST,
                             .n_embds = 1,
                             .n_projections = n_projections[c->projections],
                             .rank = c->rank,
                             .seg_len = c->segment,
                             .sinks = c->sinks,
                             .n_ratios = c->ratios.n,
                             .seed = c->seed };

    memcpy(s.ratios, c->ratios.v, c->ratios.n * sizeof(*s.ratios));
    return s;
}

struct step_rule run_room_rule(const struct recipe *c)
{
    return (struct step_rule){ .lm = c->loss_lm,
                               .distill = c->loss_distill,
                               .distill_top = c->distill_top,
                               .tie = c->loss_tie,
                               .tie_gamma = c->tie_gamma,
                               .ae = c->loss_ae,
                               .ae_share = c->ae_share,
                               .seed = c->seed };
}

/* The losses that ask the base ask it as it was, so it is there twice. */
bool run_room_asks_original(const struct recipe *c)
{
    return c->train_base && (c->loss_tie || c->loss_distill > 0);
}

/* A device multiplies bf16 in any case. */
enum tensors_type run_room_type(const struct recipe *c, bool on_device)
{
    /* Without instructions for bf16 a CPU widens each value first, and is faster in f32. */
    bool fast = on_device || gemm_has_bf16();

    return c->precision == RECIPE_BF16 || (c->precision == RECIPE_AUTO && fast) ? TENSORS_BF16
                                                                                : TENSORS_F32;
}

/* Nothing of the model is read but its shape: data pointers are NULL. */
static int count(const struct recipe *c, const struct model *m, struct tensors *on,
                 struct run_room *ret)
{
    struct base b = base_shape(m, run_room_type(c, on != NULL), 2 * c->sequence + 1);
    struct gists g = { .b = &b, .shape = run_room_gists(c) };
    struct step_rule rule = run_room_rule(c);
    struct step_room step;
    size_t n_gists;
    int r = step_room(&g, c->train_base, c->sequence, c->checkpointing, &rule,
                      on ? on->ops : &tensors_cpu, &step);

    if (r < 0)
        return r;
    *ret = (struct run_room){ .base = base_room(&b, c->train_base),
                              .gists = gists_room(&b, &g.shape, &n_gists),
                              .rows = step.rows,
                              .attention = step.attention,
                              .logits = step.head,
                              .decoder = step.decoder,
                              .left = on ? on->ops->left(on) : 0 };
    if (run_room_asks_original(c))
        ret->base += base_room(&b, false);
    ret->n_values = n_gists + step.n_values + (c->train_base ? base_n_values(&b) : 0);
    /* p, g, m and v of struct optim_tensor. */
    ret->trained = 4 * sizeof(float) * ret->n_values;
    ret->all = ret->base + ret->trained + ret->gists + ret->rows + ret->attention + ret->logits +
               ret->decoder;
    return 0;
}

/* The header is read and closed again: nothing is held of the file. */
int run_room_make(const struct recipe *c, struct tensors *on, struct run_room *ret, struct why *why)
{
    struct model *m;
    int r = model_shape(c->model, &m, why);

    if (r < 0)
        return r;
    r = count(c, m, on, ret);
    if (r < 0)
        why_set(why, r, "%s: what training takes cannot be counted: %s", c->model, strerror(-r));
    model_close(m);
    return r;
}

/* --- in words --------------------------------------------------------------------------------- */

/* GB and MB of thousands. */
static const char *text(char ret[TEXT_MAX], uint64_t bytes)
{
    if (bytes >= 100000000u)
        (void)snprintf(ret, TEXT_MAX, "%.1f GB", (double)bytes / 1e9);
    else
        (void)snprintf(ret, TEXT_MAX, "%.1f MB", (double)bytes / 1e6);
    return ret;
}

/* left is 0 where nobody knows: then the first step finds out. */
int run_room_check(const struct run_room *r, const char *device, struct why *why)
{
    char all[TEXT_MAX], left[TEXT_MAX];

    /* What the libraries take for themselves is not counted: a run that just fits may still fail.
     */
    if (r->left == 0 || r->all <= r->left)
        return 0;
    return why_set(why, -ENOMEM,
                   "device %s has no room for this: it takes %s, and %s are free: use "
                   "--checkpointing yes, a shorter --sequence, or --rank (--plan shows what takes "
                   "how much)",
                   device, text(all, r->all), text(left, r->left));
}

void run_room_line(const struct run_room *r, const char *device, char *ret, size_t cap)
{
    char all[TEXT_MAX], left[TEXT_MAX];

    (void)snprintf(ret, cap, "On %s: this takes %s of its memory%s%s%s.", device, text(all, r->all),
                   r->left ? ", and " : "", r->left ? text(left, r->left) : "",
                   r->left ? " are free" : "");
}

void run_room_print(const struct run_room *r, const char *device, FILE *f)
{
    const struct {
        uint64_t bytes;
        const char *what;
    } parts[] = { { r->base, "the model" },
                  { r->trained, "what is trained: values, gradients, AdamW's moments" },
                  { r->gists, "gists' matrices, and derivatives of whole ones" },
                  { r->rows, "rows of a sequence, until the way back" },
                  { r->attention, "attention" },
                  { r->logits, "logits" },
                  { r->decoder, "the decoder of loss-ae" } };
    char line[256], bytes[TEXT_MAX];

    run_room_line(r, device, line, sizeof(line));
    fprintf(f, "%s\n", line);
    /* Parts of nothing are left out. */
    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
        if (parts[i].bytes)
            fprintf(f, "  %10s  %s\n", text(bytes, parts[i].bytes), parts[i].what);
    fprintf(f, "%.1f million values are trained.\n", (double)r->n_values / 1e6);
}
