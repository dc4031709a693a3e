#include "train/run.h"

#include "train/corpus.h"
#include "train/eval.h"
#include "train/step.h"

#include <errno.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct run {
    const struct recipe *recipe;
    const volatile sig_atomic_t *stop;
    struct model *model;
    struct base base;
    struct gists gist;
    struct step *step;
    struct corpus *corpus;
    struct eval eval;
    struct optim_progress at;
    char *text; /* of the recipe, as checkpoints have it */
    uint32_t *ids;
    uint8_t *carries;
    FILE *log;
    double started;
    uint64_t tokens_at_start;
    double last_loss, last_norm;
};

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint64_t mix(uint64_t z)
{
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint32_t ratio_of(const struct recipe *c, uint64_t index)
{
    return c->ratios.v[mix(mix(c->seed) ^ index) % c->ratios.n];
}

/* What a run computes does not depend on these. */
static char *text_of(const struct recipe *c)
{
    struct recipe plain = *c;
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    if (!f)
        return NULL;
    plain.minutes = 0;
    plain.threads = plain.eval_every = plain.save_every = 0;
    plain.eval_docs = 1;
    plain.out[0] = plain.log[0] = plain.checkpoint[0] = plain.heldout[0] = '\0';
    recipe_print(&plain, f);
    fclose(f);
    return text;
}

static struct gists_shape shape_of(const struct recipe *c)
{
    struct gists_shape s = { .method = (enum adapter_method)c->method,
                             .mask = (enum adapter_mask)c->mask,
                             .embedding = ADAPTER_EMBED_LAST,
                             .n_embds = 1,
                             .rank = c->rank,
                             .seg_len = c->segment,
                             .sinks = c->sinks,
                             .n_ratios = c->ratios.n,
                             .seed = c->seed };

    memcpy(s.ratios, c->ratios.v, c->ratios.n * sizeof(*s.ratios));
    return s;
}

static int open_corpus(struct run *r, const char *path, struct corpus **ret, struct why *why)
{
    char digest[CORPUS_DIGEST_LEN];
    int err = corpus_digest(r->model->file, digest, why);

    return err < 0 ? err : corpus_open(path, digest, ret, why);
}

static int open_data(struct run *r, struct why *why)
{
    const struct recipe *c = r->recipe;
    int err = open_corpus(r, c->corpus, &r->corpus, why);

    for (uint32_t i = 0; err == 0 && i < c->weights.n; i++)
        err = corpus_weigh(r->corpus, c->weights.v[i].name, c->weights.v[i].weight, why);
    if (err == 0 && c->heldout[0])
        err = open_corpus(r, c->heldout, &r->eval.corpus, why);
    return err;
}

static int open_net(struct run *r, struct why *why)
{
    const struct recipe *c = r->recipe;
    struct gists_shape shape = shape_of(c);
    struct step_rule rule = { c->loss_lm,   c->loss_distill, c->distill_top, c->loss_tie,
                              c->tie_gamma, c->loss_ae,      c->ae_share,    c->seed };
    bool bf16 = c->precision == RECIPE_BF16 || (c->precision == RECIPE_AUTO && gemm_has_bf16());
    int err = base_open(&r->base, r->model, bf16 ? GEMM_BF16 : GEMM_F32, 2 * c->sequence + 1);

    if (err == 0)
        err = gists_open(&r->gist, &r->base, &shape);
    if (err == 0)
        err = step_open(&r->gist, c->sequence, c->checkpointing, &rule, &r->step);
    if (err < 0)
        return why_set(why, err, "the network could not be made: %s", strerror(-err));
    if (access(c->checkpoint, F_OK) == 0)
        return optim_load(&r->gist.params, c->checkpoint, r->text, &r->at, why);
    return c->init[0] ? gists_load(&r->gist, c->init, why) : 0;
}

static int open_rest(struct run *r, struct why *why)
{
    const struct recipe *c = r->recipe;

    r->ids = malloc(c->sequence * sizeof(*r->ids));
    r->carries = malloc(c->sequence);
    if (!r->ids || !r->carries)
        return why_set(why, -ENOMEM, "no memory");
    if (c->log[0]) {
        r->log = fopen(c->log, r->at.step ? "ae" : "we");
        if (!r->log)
            return why_set(why, -errno, "%s: %s", c->log, strerror(errno));
    }
    step_refresh(r->step);
    r->started = now();
    r->tokens_at_start = r->at.tokens;
    r->eval.step = r->step;
    r->eval.n_docs = c->eval_docs;
    r->eval.n_tokens = c->sequence;
    r->eval.seg_len = c->segment;
    r->eval.n_ratios = c->ratios.n;
    r->eval.ratios = c->ratios.v;
    return c->heldout[0] ? eval_open(&r->eval, why) : 0;
}

static int run_open(struct run *r, struct why *why)
{
    const struct recipe *c = r->recipe;
    int err;

    if (c->threads)
        omp_set_num_threads((int)c->threads);
    if (!c->model[0] || !c->corpus[0])
        return why_set(why, -EINVAL, "a run needs a model and a corpus");
    if (c->sequence % c->segment != 0 || c->sequence < 2 * c->segment)
        return why_set(
            why, -EINVAL,
            "sequence is %u: a multiple of segment (%u), at least two of them, was expected",
            c->sequence, c->segment);
    r->text = text_of(c);
    if (!r->text)
        return why_set(why, -ENOMEM, "no memory");
    err = model_open(c->model, NULL, NULL, &r->model, why);
    if (err == 0)
        err = open_data(r, why);
    if (err == 0)
        err = open_net(r, why);
    return err < 0 ? err : open_rest(r, why);
}

static void run_close(struct run *r)
{
    if (r->log)
        fclose(r->log);
    eval_close(&r->eval);
    step_close(r->step);
    gists_close(&r->gist);
    if (r->base.m)
        base_close(&r->base);
    corpus_close(r->corpus);
    corpus_close(r->eval.corpus);
    model_close(r->model);
    free(r->ids);
    free(r->carries);
    free(r->text);
}

/* --- steps ------------------------------------------------------------------------------------------------ */

static int step_once(struct run *r, struct why *why)
{
    const struct recipe *c = r->recipe;
    const struct optim_rule rule = { c->beta1, c->beta2, c->eps, c->weight_decay, c->clip };
    double loss = 0;
    uint32_t used = 0;

    gists_zero_gradients(&r->gist);
    for (uint32_t i = 0; i < c->batch; i++) {
        uint64_t index = r->at.step * c->batch + i;
        struct step_loss l;
        int err;

        corpus_sample(r->corpus, c->seed, index, c->sequence, r->ids, r->carries);
        err = step_learn(r->step, r->ids, r->carries, ratio_of(c, index), index,
                         1.0f / (float)c->batch, &l);
        if (err < 0)
            return why_set(why, err, "step %llu: %s", (unsigned long long)r->at.step,
                           strerror(-err));
        if (!isfinite(l.all))
            return why_set(why, -EDOM,
                           "step %llu: the loss of sequence %llu of seed %llu is not finite",
                           (unsigned long long)r->at.step, (unsigned long long)index,
                           (unsigned long long)c->seed);
        loss += l.all;
        used += l.n_tokens > 0;
    }
    gists_collect(&r->gist, step_gemm(r->step));
    r->last_norm =
        optim_step(&r->gist.params, &rule,
                   optim_lr(c->lr, c->lr_floor, c->warmup, c->steps, r->at.step), r->at.step + 1);
    if (!isfinite(r->last_norm))
        return why_set(why, -EDOM, "step %llu: the gradient is not finite",
                       (unsigned long long)r->at.step);
    step_refresh(r->step);
    r->last_loss = used ? loss / used : 0;
    r->at.step++;
    r->at.tokens += (uint64_t)c->batch * c->sequence;
    return 0;
}

static void report(const struct run *r)
{
    const struct recipe *c = r->recipe;
    double spent = now() - r->started,
           rate = (double)(r->at.tokens - r->tokens_at_start) / (spent > 0 ? spent : 1);
    double lr = optim_lr(c->lr, c->lr_floor, c->warmup, c->steps, r->at.step - 1);

    if (r->log) {
        fprintf(r->log,
                "{\"step\":%llu,\"tokens\":%llu,\"loss\":%.6f,\"norm\":%.4f,\"lr\":%.3e,\"tokens_"
                "per_second\":%.1f}\n",
                (unsigned long long)r->at.step, (unsigned long long)r->at.tokens, r->last_loss,
                r->last_norm, lr, rate);
        fflush(r->log);
    }
    if (isatty(STDERR_FILENO) || r->at.step % 20 == 0)
        fprintf(stderr, "step %llu/%u  loss %.4f  norm %.3f  lr %.2e  %.0f tokens/s\n",
                (unsigned long long)r->at.step, c->steps, r->last_loss, r->last_norm, lr, rate);
}

static int evaluate(struct run *r, struct why *why)
{
    int err;

    if (!r->eval.corpus)
        return 0;
    err = eval_run(&r->eval);
    if (err < 0)
        return why_set(why, err, "the evaluation failed: %s", strerror(-err));
    if (r->log) {
        eval_print_json(&r->eval, r->at.step, r->at.tokens, r->log);
        fflush(r->log);
    }
    eval_print(&r->eval, stderr);
    return 0;
}

static int save(struct run *r, struct why *why)
{
    const struct recipe *c = r->recipe;
    char notes[128];
    int err = 0;

    snprintf(notes, sizeof(notes), "%llu steps, %llu tokens, seed %llu",
             (unsigned long long)r->at.step, (unsigned long long)r->at.tokens,
             (unsigned long long)c->seed);
    if (c->checkpoint[0])
        err = optim_save(&r->gist.params, c->checkpoint, &r->at, r->text, why);
    if (err == 0 && c->out[0])
        err = gists_save(&r->gist, c->out, notes, why);
    return err;
}

static bool due(uint32_t every, uint64_t step)
{
    return every && step % every == 0;
}

static int go(struct run *r, struct why *why)
{
    const struct recipe *c = r->recipe;
    int err = r->at.step == 0 ? evaluate(r, why) : 0;
    bool evaluated = err == 0;

    while (err == 0 && r->at.step < c->steps && !*r->stop &&
           (c->minutes <= 0 || now() - r->started < 60 * c->minutes)) {
        err = step_once(r, why);
        if (err < 0)
            break;
        report(r);
        evaluated = due(c->eval_every, r->at.step);
        if (evaluated)
            err = evaluate(r, why);
        if (err == 0 && due(c->save_every, r->at.step))
            err = save(r, why);
    }
    if (err == 0)
        err = save(r, why);
    if (err == 0 && !evaluated && !*r->stop)
        err = evaluate(r, why);
    return err;
}

int run_train(const struct recipe *recipe, const volatile sig_atomic_t *stop, struct why *why)
{
    struct run r = { .recipe = recipe, .stop = stop };
    int err = run_open(&r, why);

    if (err == 0)
        err = go(&r, why);
    run_close(&r);
    return err;
}
