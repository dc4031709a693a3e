/* train/run.c - a run, from its recipe to its files: all is opened in the order in which one thing
 * needs another, then steps follow until the recipe, the clock or a signal ends them.
 *
 * Functions of train/ranks.h are calls that all processes make, in the same order. Whoever leaves
 * that order does so with an error and exits, and MPI ends the others: so an error of one process
 * never needs to be told to the rest. What a run writes is written by process 0, which alone
 * evaluates; only the teacher's cache is everybody's.
 */
#include "train/run.h"

#include "base/draw.h"
#include "train/data/corpus.h"
#include "train/eval.h"
#include "train/file/model_write.h"
#include "train/progress.h"
#include "train/ranks.h"
#include "train/run_agree.h"
#include "train/run_check.h"
#include "train/run_device.h"
#include "train/run_log.h"
#include "train/run_room.h"
#include "train/step.h"
#include "train/teacher.h"

#include <errno.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

struct run {
    const struct recipe *recipe;
    const volatile sig_atomic_t *stop;
    struct ranks ranks;
    struct model *model;
    struct tensors *on; /* what computes; NULL: the CPU */
    struct base base;
    struct base original; /* train-base: what the losses that ask the base model ask */
    struct gists gist;
    struct step *step;
    struct corpus *corpus;
    struct teacher *teacher;
    struct eval eval;
    uint64_t eval_key;
    bool goes_on; /* from its checkpoint */
    struct optim_progress at;
    uint64_t saved, evaluated; /* at these steps; UINT64_MAX: not yet */
    uint64_t compared;         /* with other processes, at this step */
    char *text;                /* of the recipe, as checkpoints have it */
    uint32_t *ids;
    uint8_t *carries;
    float *between; /* for a device's gradients on their way to other processes, or NULL */
    struct run_log *log;
    struct progress progress;
    double started;
    char before[512]; /* what the adapter that the run begins with says about its training */
};

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* By the sequence's number alone: a run that goes on, and one of more processes, draw the same. */
static uint32_t ratio_of(const struct recipe *c, uint64_t index)
{
    return c->ratios.v[draw_at(c->seed, index) % c->ratios.n];
}

/* Of a text of lines that begin with keys. */
static void cut_line(char *text, const char *key)
{
    size_t n = strlen(key);
    char *at = text, *end;

    while (at && strncmp(at, key, n) != 0)
        at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL;
    end = at ? strchr(at, '\n') : NULL;
    if (end)
        memmove(at, end + 1, strlen(end + 1) + 1);
}

/* The recipe without what a run's numbers don't depend on, and what model and corpus hold in the
 * place of their names. A run may go on on another device, and from checkpoints of before there
 * were any. */
static char *text_of(const struct run *r)
{
    struct recipe plain = *r->recipe;
    struct corpus_info info;
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    if (!f)
        return NULL;
    corpus_info(r->corpus, &info);
    plain.minutes = 0;
    plain.threads = plain.eval_every = plain.eval_recall = plain.save_every = 0;
    plain.eval_docs = 1;
    plain.distill_cache[0] = plain.out[0] = plain.model_out[0] = plain.log[0] =
        plain.checkpoint[0] = plain.heldout[0] = plain.model[0] = plain.corpus[0] = '\0';
    recipe_print(&plain, f);
    fprintf(f, "# model %s, corpus %016llx\n", r->model->digest, (unsigned long long)info.hash);
    if (fclose(f) == 0) {
        cut_line(text, "device = ");
        return text;
    }
    free(text);
    return NULL;
}

static int open_corpus(struct run *r, const char *path, struct corpus **ret, struct why *why)
{
    char digest[CORPUS_DIGEST_LEN];
    int err = corpus_digest(r->model->file, digest, why);

    return err < 0 ? err : corpus_open(path, digest, ret, why);
}

/* The held-out text is process 0's, as evaluations are. */
static int open_data(struct run *r, struct why *why)
{
    const struct recipe *c = r->recipe;
    int err = open_corpus(r, c->corpus, &r->corpus, why);

    for (uint32_t i = 0; err == 0 && i < c->weights.n; i++)
        err = corpus_weigh(r->corpus, c->weights.v[i].name, c->weights.v[i].weight, why);
    if (err == 0 && c->heldout[0] && r->ranks.rank == 0)
        err = open_corpus(r, c->heldout, &r->eval.corpus, why);
    return err;
}

/* What the teacher says follows from these. */
static uint64_t teacher_key(const struct run *r, enum tensors_type type)
{
    const struct recipe *c = r->recipe;
    struct corpus_info info;
    char text[2048];
    int n;

    corpus_info(r->corpus, &info);
    n = snprintf(text, sizeof(text), "%s %016llx %llu %u %u %d %d", r->model->digest,
                 (unsigned long long)info.hash, (unsigned long long)c->seed, c->sequence,
                 c->segment, (int)type, c->mask == ADAPTER_IN_SEGMENT || c->train_base);
    for (uint32_t i = 0; i < c->weights.n && n < (int)sizeof(text) - 96; i++)
        n += snprintf(text + n, sizeof(text) - (size_t)n, " %s=%.9g", c->weights.v[i].name,
                      c->weights.v[i].weight);
    return XXH3_64bits(text, (size_t)n);
}

static int open_teacher(struct run *r, enum tensors_type type, struct why *why)
{
    const struct recipe *c = r->recipe;

    if (!c->distill_cache[0] || c->loss_distill <= 0)
        return 0;
    return teacher_open(c->distill_cache, teacher_key(r, type), c->sequence, c->distill_top,
                        &r->teacher, why);
}

static void say(struct run *r, const char *text)
{
    if (r->ranks.rank == 0)
        progress_say(&r->progress, text);
}

static int open_device(struct run *r, struct why *why)
{
    char note[640] = "";
    struct run_room room;
    int err = run_device_open(r->recipe, &r->ranks, &r->on, note, sizeof(note), why);

    if (err == 0 && r->on)
        err = run_room_make(r->recipe, r->on, &room, why);
    if (err == 0 && r->on)
        run_room_line(&room, r->recipe->device, note, sizeof(note));
    if (err == 0 && note[0])
        say(r, note);
    return err == 0 && r->on ? run_room_check(&room, r->recipe->device, why) : err;
}

/* It does nothing any more. Operations behind the first that failed are none (engine/tensors.h): so
 * it is enough to ask when a step has been queued. */
static bool is_lost(const struct run *r)
{
    return r->on && r->on->ops->error(r->on) < 0;
}

static int say_no_room(const struct run *r, struct why *why)
{
    return why_set(why, -ENOMEM,
                   "device %s has no room for this: use --checkpointing yes, a shorter --sequence, "
                   "or --rank",
                   r->recipe->device);
}

/* What attention takes it takes in the first step. */
static int say_lost(const struct run *r, struct why *why)
{
    if (r->on->ops->error(r->on) == -ENOMEM)
        return say_no_room(r, why);
    return why_set(why, -EIO,
                   "step %llu: device %s failed: what was saved before stays, and the same command "
                   "goes on from it",
                   (unsigned long long)r->at.step, r->recipe->device);
}

/* Of processes on unlike CPUs each would take another one, and their gradients would be of two
 * models. */
static enum tensors_type choose_type(struct run *r)
{
    enum tensors_type own = run_room_type(r->recipe, r->on != NULL), type;
    uint32_t n_f32;
    char note[160];

    type = run_agree_type(&r->ranks, own, &n_f32);
    if (n_f32 > 0 && n_f32 < r->ranks.n) {
        (void)snprintf(note, sizeof(note),
                       "In f32: %u of %u processes have no instructions for bf16 (--precision bf16 "
                       "takes it all the same).",
                       n_f32, r->ranks.n);
        say(r, note);
    }
    return type;
}

/* In this order parameters have their numbers, by which checkpoints hold them: gists', the base's,
 * the decoder's. */
static int open_net(struct run *r, struct why *why)
{
    const struct recipe *c = r->recipe;
    struct gists_shape shape = run_room_gists(c);
    struct step_rule rule = run_room_rule(c);
    enum tensors_type type = choose_type(r);
    int err = open_teacher(r, type, why);

    if (err < 0)
        return err;
    rule.teacher = r->teacher;
    /* Positions are of tokens and gists, and there are never more gists than tokens. */
    err = base_open(&r->base, r->on, r->model, type, 2 * c->sequence + 1);
    if (err == 0 && run_room_asks_original(c)) {
        err = base_open(&r->original, r->on, r->model, type, 2 * c->sequence + 1);
        rule.original = &r->original;
    }
    if (err == 0)
        err = gists_open(&r->gist, &r->base, &shape);
    if (err == 0 && c->train_base)
        err = base_train(&r->base, &r->gist.params);
    if (err == 0)
        err = step_open(&r->gist, c->sequence, c->checkpointing, &rule, &r->step);
    /* A probe measures what gists hold already: it trains the decoder and nothing else. */
    for (uint32_t i = 0; err == 0 && c->probe && i < r->gist.params.n; i++)
        r->gist.params.t[i].fixed = strncmp(r->gist.params.t[i].name, "ae.", 3) != 0;
    /* Before the code itself is looked at: NULL from a device that failed looks like no memory. */
    if (err < 0 && is_lost(r))
        return say_lost(r, why);
    if (err == -ENOMEM && r->on)
        return say_no_room(r, why);
    return err < 0 ? why_set(why, err, "the network could not be made: %s", strerror(-err)) : 0;
}

/* What evaluations give before anything is trained follows from these. */
static uint64_t eval_key(const struct run *r)
{
    const struct recipe *c = r->recipe;
    struct corpus_info info;
    char text[512];
    int n;

    corpus_info(r->eval.corpus, &info);
    n = snprintf(text, sizeof(text), "%s %016llx %u %u %u %u %u %d %d %d", r->model->digest,
                 (unsigned long long)info.hash, c->eval_docs, c->eval_recall, c->sequence,
                 c->segment, c->sinks, (int)c->method, (int)c->mask, (int)r->base.type);
    for (uint32_t i = 0; i < c->ratios.n; i++)
        n += snprintf(text + n, sizeof(text) - (size_t)n, " %u", c->ratios.v[i]);
    return XXH3_64bits(text, (size_t)n);
}

/* A run that goes on has measured that once: its log's last line about it. */
static bool find_known(const struct run *r, struct run_log_eval *ret)
{
    struct run_log_data d;
    bool found = false;

    if (!r->goes_on || !r->recipe->log[0] || run_log_read(r->recipe->log, &d, NULL) < 0)
        return false;
    for (size_t i = 0; i < d.n_evals; i++)
        if (d.evals[i].asked == r->eval_key) {
            *ret = d.evals[i];
            found = true;
        }
    run_log_data_fini(&d);
    return found;
}

static void tell_eval(void *arg, uint32_t done, uint32_t n)
{
    struct run *r = arg;

    progress_beside(&r->progress, "evaluation", (double)done / n, now());
}

/* The first process alone evaluates, while gists are still untrained. */
static int open_eval(struct run *r, struct why *why)
{
    const struct recipe *c = r->recipe;
    struct run_log_eval known;
    struct why failed = { "" };
    int err;

    if (!r->eval.corpus)
        return 0;
    r->eval_key = eval_key(r);
    r->eval.tell = tell_eval;
    r->eval.arg = r;
    r->eval.rebuilds = c->loss_ae > 0;
    r->eval.step = r->step;
    r->eval.n_docs = c->eval_docs;
    r->eval.n_recall = c->eval_recall;
    r->eval.n_tokens = c->sequence;
    r->eval.seg_len = c->segment;
    r->eval.n_ratios = c->ratios.n;
    r->eval.ratios = c->ratios.v;
    r->eval.stop = r->stop;
    err = eval_open(&r->eval, find_known(r, &known) ? &known : NULL, &failed);
    if (err < 0 && is_lost(r))
        return say_lost(r, why);
    return err < 0 ? why_set(why, err, "%s", failed.text) : 0;
}

/* After parameters changed. Products are made with copies in another type, or with B A added up:
 * they follow what was trained. */
static void refresh(struct run *r)
{
    base_refresh(&r->base);
    step_refresh(r->step);
}

static int read_state(struct run *r, struct why *why)
{
    const struct recipe *c = r->recipe;
    /* A run that goes on needs no more than that note of the file. */
    int err = c->init[0]
                  ? gists_notes(c->init, r->before, sizeof(r->before), r->goes_on ? NULL : why)
                  : 0;

    if (r->goes_on)
        return optim_load(&r->gist.params, c->checkpoint, r->text, &r->at, why);
    return err == 0 && c->init[0] ? gists_load(&r->gist, c->init, why) : err;
}

static int open_start(struct run *r, struct why *why)
{
    const struct recipe *c = r->recipe;
    int err = r->ranks.rank == 0 ? read_state(r, why) : 0;

    if (err < 0)
        return err;
    /* What the first process read went to the host's copies, and optim_load put it on its own
     * device alone. */
    run_agree_share(&r->ranks, &r->gist.params, &r->at);
    r->compared = r->at.step;
    refresh(r);
    r->ids = malloc(c->sequence * sizeof(*r->ids));
    r->carries = malloc(c->sequence);
    err = run_device_between(r->on, &r->ranks, &r->gist.params, &r->between);
    if (err < 0 || !r->ids || !r->carries)
        return why_set(why, -ENOMEM, "no memory");
    /* The log is not opened yet: opening it cuts what lies behind the checkpoint. */
    if (*r->stop)
        return why_set(why, -ECANCELED, "interrupted before the first step");
    if (c->log[0] && r->ranks.rank == 0)
        err = run_log_open(c->log, r->at.step, &r->log, why);
    return err;
}

static int open_model(struct run *r, struct why *why)
{
    const struct recipe *c = r->recipe;
    int err = model_open(c->model, NULL, NULL, &r->model, why);

    if (err == 0 && c->rank > r->model->n_embd)
        return why_set(why, -EINVAL,
                       "option rank: found %u, allowed: up to the model's width, which is %u",
                       c->rank, r->model->n_embd);
    return err;
}

/* The first process looks for the checkpoint, all begin from what it holds. */
static int agree(struct run *r, struct why *why)
{
    const char *path = r->recipe->checkpoint;
    uint64_t key, first;

    r->text = text_of(r);
    if (!r->text)
        return why_set(why, -ENOMEM, "no memory");
    /* Errors here are seen by the process that differs, which ends the run for all. */
    first = key = XXH3_64bits(r->text, strlen(r->text));
    ranks_share(&r->ranks, &first, sizeof(first));
    if (key != first)
        return why_set(why, -EINVAL,
                       "process %u has a different recipe, model or corpus from process 0",
                       r->ranks.rank);
    if (r->ranks.rank == 0 && path[0]) {
        r->goes_on = access(path, F_OK) == 0;
        if (!r->goes_on && errno != ENOENT)
            return why_set(why, -errno, "%s: %s", path, strerror(errno));
    }
    ranks_share(&r->ranks, &r->goes_on, sizeof(r->goes_on));
    return 0;
}

static int run_open(struct run *r, struct why *why)
{
    const struct recipe *c = r->recipe;
    int err = ranks_open(&r->ranks);

    if (err < 0)
        return why_set(why, err, "MPI cannot be started");
    if (c->threads)
        omp_set_num_threads((int)c->threads);
    progress_start(&r->progress, stderr, 0, c->steps, 0, now());
    /* What costs little comes first: a wrong recipe, or a device that is too small, is said before
     * gigabytes are read. */
    err = run_check(c, &r->ranks, why);
    if (err == 0)
        err = open_device(r, why);
    if (err == 0)
        err = open_model(r, why);
    if (err == 0)
        err = open_data(r, why);
    if (err == 0)
        err = agree(r, why);
    if (err == 0)
        err = open_net(r, why);
    if (err == 0)
        err = open_eval(r, why);
    return err < 0 ? err : open_start(r, why);
}

/* What borrows goes before what it borrows from; the device last of all that has memory on it.
 * Gists hold the parameters, the base's among them. */
static void run_close(struct run *r)
{
    run_log_close(r->log);
    eval_close(&r->eval);
    step_close(r->step);
    gists_close(&r->gist);
    if (r->base.m)
        base_close(&r->base);
    if (r->original.m)
        base_close(&r->original);
    if (r->on)
        r->on->ops->close(r->on);
    teacher_close(r->teacher);
    corpus_close(r->corpus);
    corpus_close(r->eval.corpus);
    model_close(r->model);
    free(r->ids);
    free(r->carries);
    free(r->between);
    free(r->text);
}

/* --- steps ------------------------------------------------------------------------------------ */

/* This process' sequences of the step. Sums over them: losses, how many had one, the ratio if all
 * had the same. Sequence i of a step is process i % n's, so the batch is the same text however many
 * there are. */
static int learn(struct run *r, double sums[5], struct why *why)
{
    const struct recipe *c = r->recipe;

    for (uint32_t i = r->ranks.rank; i < c->batch; i += r->ranks.n) {
        uint64_t index = r->at.step * c->batch + i;
        struct step_loss l;
        int err;

        /* The gradient is that of the mean over the batch: processes add theirs up as they are. */
        corpus_sample(r->corpus, c->seed, index, c->sequence, r->ids, r->carries);
        err = step_learn(r->step, r->ids, r->carries, ratio_of(c, index), index,
                         1.0f / (float)c->batch, &l);
        if (err < 0 && is_lost(r))
            return say_lost(r, why);
        if (err < 0)
            return why_set(why, err, "step %llu: %s", (unsigned long long)r->at.step,
                           strerror(-err));
        /* Of the sum over all sequences nobody could say any more which one it was. */
        if (!isfinite(l.all))
            return why_set(
                why, -EDOM,
                "step %llu: the loss of sequence %llu of seed %llu (ratio %u) is not finite",
                (unsigned long long)r->at.step, (unsigned long long)index,
                (unsigned long long)c->seed, ratio_of(c, index));
        sums[0] += l.all;
        sums[1] += l.lm;
        sums[2] += l.ae;
        sums[3] += l.distill;
        sums[4] += l.n_tokens > 0;
    }
    return 0;
}

static uint32_t common_ratio(const struct run *r)
{
    const struct recipe *c = r->recipe;
    uint32_t first = ratio_of(c, r->at.step * c->batch);

    for (uint32_t i = 1; i < c->batch; i++)
        if (ratio_of(c, r->at.step * c->batch + i) != first)
            return 0;
    return first;
}

static int step_once(struct run *r, struct run_log_step *ret, struct why *why)
{
    const struct recipe *c = r->recipe;
    const struct optim_rule rule = { c->beta1, c->beta2, c->eps, c->weight_decay, c->clip };
    double sums[5] = { 0 }, before = now();
    int err;

    gists_zero_gradients(&r->gist);
    err = learn(r, sums, why);
    if (err < 0)
        return err;
    /* Before the sum over processes: the gradients of A and B are far smaller than that of the
     * matrix they make. */
    gists_collect(&r->gist);
    if (run_device_sum(r->on, &r->ranks, &r->gist.params, r->between) < 0)
        return say_lost(r, why);
    ranks_sum_double(&r->ranks, sums, 5);
    run_log_step_init(ret);
    ret->ratio = common_ratio(r);
    ret->lr = optim_lr(c->lr, c->lr_floor, c->warmup, c->steps, r->at.step);
    ret->norm = optim_step(&r->gist.params, &rule, ret->lr, r->at.step + 1);
    /* The norm of a lost device is NaN, too, and the gradient is not to blame. */
    if (is_lost(r))
        return say_lost(r, why);
    /* optim_step has changed nothing then. */
    if (!isfinite(ret->norm))
        return why_set(why, -EDOM, "step %llu: the gradient is not finite",
                       (unsigned long long)r->at.step);
    refresh(r);
    /* From here on the step counts: it is what a checkpoint would say. */
    r->at.step++;
    r->at.tokens += (uint64_t)c->batch * c->sequence;
    ret->step = r->at.step;
    ret->tokens = r->at.tokens;
    /* Sequences without a token that carries loss are no part of the mean. */
    ret->loss = sums[4] > 0 ? sums[0] / sums[4] : NAN;
    ret->lm = sums[4] > 0 ? sums[1] / sums[4] : NAN;
    ret->ae = c->loss_ae > 0 && sums[4] > 0 ? sums[2] / sums[4] : NAN;
    ret->distill = c->loss_distill > 0 && sums[4] > 0 ? sums[3] / sums[4] : NAN;
    ret->seconds = now() - before;
    return 0;
}

static int report(struct run *r, const struct run_log_step *s, struct why *why)
{
    int err = r->log ? run_log_step(r->log, s) : 0;

    if (err < 0)
        return why_set(why, err, "%s: %s", r->recipe->log, strerror(-err));
    if (r->ranks.rank == 0)
        progress_step(&r->progress, s->step, (uint64_t)r->recipe->batch * r->recipe->sequence,
                      s->loss, s->lr, now());
    return 0;
}

/* Of process 0; the others go on, and wait for it in the next step's sum. */
static int evaluate(struct run *r, bool thorough, struct why *why)
{
    double before = now();
    char line[1024] = "";
    int err;

    if (!r->eval.corpus)
        return 0;
    err = eval_run(&r->eval, thorough);
    if (err == -ECANCELED)
        return 0; /* the run ends, and saves */
    if (err < 0 && is_lost(r))
        return say_lost(r, why);
    if (err < 0)
        return why_set(why, err, "the evaluation failed: %s", strerror(-err));
    r->eval.last.asked = r->eval_key;
    r->eval.last.step = r->at.step;
    r->eval.last.tokens = r->at.tokens;
    r->eval.last.seconds = now() - before;
    r->evaluated = r->at.step;
    eval_print(&r->eval, line, sizeof(line));
    progress_say(&r->progress, line);
    err = r->log ? run_log_eval(r->log, &r->eval.last) : 0;
    return err < 0 ? why_set(why, err, "%s: %s", r->recipe->log, strerror(-err)) : 0;
}

/* By all processes: what one of them saves is what each of them goes on from, so that a run which
 * is interrupted there is the same one. */
static int compare(struct run *r, struct why *why)
{
    char line[256];
    uint32_t n_other;
    int err;

    if (r->compared == r->at.step)
        return 0;
    r->compared = r->at.step;
    err = run_agree_state(&r->ranks, &r->gist.params, &r->at, &n_other);
    if (err < 0 && is_lost(r))
        return say_lost(r, why);
    if (err < 0)
        return why_set(why, err, "step %llu: processes could not be compared: %s",
                       (unsigned long long)r->at.step, strerror(-err));
    if (n_other == 0)
        return 0;
    refresh(r);
    (void)snprintf(line, sizeof(line),
                   "Step %llu: %u of %u processes had other parameters than process 0, and go on "
                   "from its: their CPUs or libraries round differently.",
                   (unsigned long long)r->at.step, n_other, r->ranks.n);
    say(r, line);
    return 0;
}

/* All that can be written is, whatever else can't. Nothing is written twice, nor before the first
 * step: a checkpoint of step 0 would be the recipe alone. */
static int save(struct run *r, struct why *why)
{
    const struct recipe *c = r->recipe;
    char notes[640], digest[33];
    int err = 0, err_out = 0;

    if (r->ranks.rank > 0 || r->at.step == 0 || r->at.step == r->saved)
        return 0;
    snprintf(notes, sizeof(notes), "%s%s%llu steps, %llu tokens, seed %llu", r->before,
             r->before[0] ? "; " : "", (unsigned long long)r->at.step,
             (unsigned long long)r->at.tokens, (unsigned long long)c->seed);
    if (c->checkpoint[0])
        err = optim_save(&r->gist.params, c->checkpoint, &r->at, r->text, why);
    /* An adapter names the model that it belongs to. With train-base that is the file which was
     * just written: where that failed there is none to name. */
    snprintf(digest, sizeof(digest), "%s", r->model->digest);
    if (c->model_out[0])
        err_out = model_write(c->model_out, &r->base, digest, why);
    if (err_out == 0 && c->out[0])
        err_out = gists_save(&r->gist, c->out, digest, notes, why);
    if (err == 0)
        err = err_out;
    if (err == 0)
        r->saved = r->at.step;
    return err;
}

static bool due(uint32_t every, uint64_t step)
{
    return every && step % every == 0;
}

/* All processes stop together. */
static bool ends(const struct run *r)
{
    const struct recipe *c = r->recipe;
    /* One process has heard the signal, or has a clock that is ahead: all stop in the same step. */
    double stop = *r->stop || (c->minutes > 0 && now() - r->started >= 60 * c->minutes);

    ranks_sum_double(&r->ranks, &stop, 1);
    return stop > 0 || r->at.step >= c->steps;
}

/* The error that ended the steps is said before one of the save behind them. */
static int go(struct run *r, struct why *why)
{
    const struct recipe *c = r->recipe;
    struct run_log_step s;
    int err = r->at.step == 0 ? evaluate(r, false, why) : 0, saved;

    r->started = now();
    progress_start(&r->progress, stderr, r->at.step, c->steps, 60 * c->minutes, r->started);
    while (err == 0 && !ends(r)) {
        err = step_once(r, &s, why);
        if (err < 0)
            return err; /* what gave such a step is not to take a good checkpoint's place */
        err = report(r, &s, why);
        if (err == 0 && due(c->eval_every, r->at.step) && r->at.step < c->steps)
            err = evaluate(r, false, why);
        if (err == 0 && due(c->save_every, r->at.step))
            err = compare(r, why);
        if (err == 0 && due(c->save_every, r->at.step))
            err = save(r, why);
    }
    /* An error is one process' alone: the others may not be here. */
    if (err == 0)
        err = compare(r, why);
    /* Steps were good even where a report or an evaluation failed. */
    saved = save(r, why);
    if (err == 0)
        err = saved;
    /* A run that came to its end is measured thoroughly; one that ran out of minutes as usual; one
     * that somebody interrupted not at all, as they are waiting. */
    if (err == 0 && !*r->stop && (r->at.step >= c->steps || r->evaluated != r->at.step))
        err = evaluate(r, r->at.step >= c->steps, why);
    return err;
}

/* One process alone, which is why MPI is not started. */
int run_plan(const struct recipe *recipe, FILE *f, struct why *why)
{
    const struct ranks alone = { 0, 1, 0, 1 };
    struct tensors *on = NULL;
    struct run_room room;
    char note[640] = "";
    int err = recipe->model[0] ? run_device_open(recipe, &alone, &on, note, sizeof(note), why)
                               : why_set(why, -EINVAL, "--plan needs a model (--model FILE)");

    if (err == 0 && note[0])
        fprintf(f, "%s\n", note);
    if (err == 0)
        err = run_room_make(recipe, on, &room, why);
    if (err == 0)
        run_room_print(&room, on ? recipe->device : "the CPU", f);
    if (err == 0)
        err = run_room_check(&room, recipe->device, why);
    if (on)
        on->ops->close(on);
    return err;
}

int run_train(const struct recipe *recipe, const volatile sig_atomic_t *stop, struct why *why)
{
    struct run r = { .recipe = recipe, .stop = stop, .saved = UINT64_MAX, .evaluated = UINT64_MAX };
    int err = run_open(&r, why);

    if (err == 0)
        err = go(&r, why);
    progress_end(&r.progress);
    run_close(&r);
    if (err == 0) /* else other processes may wait for this one: MPI ends them when it exits */
        ranks_close(&r.ranks);
    return err;
}
