/* A plan is a product: lengths, tasks, items, and for the boundary probe places of a segment.
 * each_text walks it twice, once to add up the work and once to do it.
 *
 * A text is asked several questions where its task allows: reading is most of the work. Its name is
 * that of its first question, and all else follows from the plan, so a run that was ended finds the
 * same texts again. */
#include "eval/recall.h"

#include "base/draw.h"
#include "eval/ask.h"
#include "eval/words.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUND     32u /* tokens that question and message heads may have, beside the answer's */
#define OFFSETS   4u  /* places of a segment where the prompt ends, of boundary */
#define PAD_MAX   128u
#define PAD_TRIES 12

int recall_add(struct recall_plan *p, const char *names, struct why *why)
{
    const char *word;

    for (size_t len; (len = words_next(&names, &word));) {
        enum task_kind kind = task_find(word, len);

        if (kind == TASK__N) {
            char known[256] = "";
            size_t n = 0;

            for (enum task_kind k = 0; k < TASK__N; k++)
                n += (size_t)snprintf(known + n, sizeof(known) - n, "%s%s", k ? ", " : "",
                                      task_traits(k)->name);
            return why_set(why, -EINVAL, "--tasks: unknown task '%.*s'; known: %s", (int)len, word,
                           known);
        }
        if (p->n_kinds == RECALL_PLANS_MAX)
            return why_set(why, -EINVAL, "--tasks: more than %u names", RECALL_PLANS_MAX);
        p->kinds[p->n_kinds++] = kind;
    }
    return 0;
}

/* --- one text --------------------------------------------------------------------------------- */

struct text {
    struct task_spec spec;
    struct run_text run; /* of this spec */
};

/* The text that the question of this index is the first of. Texts of two lengths are drawn apart.
 */
static void name_text(const struct recall_plan *p, enum task_kind kind, uint32_t length,
                      uint32_t first, struct text *ret)
{
    const struct recall_opts *o = p->opts;
    uint32_t most = task_traits(kind)->asks_max;
    struct text t = { .spec = { .kind = kind, .seed = draw_at(draw_at(p->seed, first), length) },
                      .run = { .kind = p->boundary ? RESULTS_BOUNDARY : RESULTS_RECALL,
                               .length = length,
                               .first = first,
                               .seed = p->seed } };

    t.spec.n_asks = p->boundary ? 1 : o->asks < most ? o->asks : most;
    for (uint32_t i = 0; i < t.spec.n_asks; i++)
        t.spec.depth[i] = o->depths.v[(first + i) % o->depths.n];
    t.run.n_asks = o->items - first < t.spec.n_asks ? o->items - first : t.spec.n_asks;
    *ret = t;
    ret->run.spec = &ret->spec;
}

static int fit(struct run *r, const struct text *t, size_t n_tokens, struct task *ret,
               struct why *why)
{
    int err = task_fit(&t->spec, n_tokens, ask_count, r->c, ret);

    if (err == -EINVAL)
        return why_set(why, err, "--lengths: the task %s does not fit into %u tokens",
                       task_traits(t->spec.kind)->name, t->run.length);
    return err < 0 ? run_failed(r, err, why) : 0;
}

/* Room for the longest question that the task has, in UUIDs, and its answer. A question names a key
 * as long as an answer, which is why the answer's room is taken twice. */
static int ask_text(struct run *r, struct text *t, struct why *why)
{
    uint32_t room = 2 * task_traits(t->spec.kind)->answer + ROUND;
    struct task task = { 0 };
    int err;

    if (run_text_known(r, &t->run))
        return 0;
    err = fit(r, t, t->run.length > room ? t->run.length - room : 1, &task, why);
    t->run.task = &task;
    if (err == 0)
        err = run_text(r, &t->run, why);
    task_fini(&task);
    return err;
}

/* --- prompts that end where they are told to -------------------------------------------------- */

/* The text with n pads behind it; free() it. NULL: no memory. */
static char *padded(const struct task *t, const char *pad, uint32_t n)
{
    size_t len = strlen(pad);
    char *text = malloc(t->len + n * len + 1);

    if (!text)
        return NULL;
    memcpy(text, t->text, t->len);
    for (uint32_t i = 0; i < n; i++)
        memcpy(text + t->len + i * len, pad, len);
    text[t->len + n * len] = '\0';
    return text;
}

/* 1: it is n_tokens long now. 0: not with this pad. A pad may join what is before it, so the number
 * is corrected by what the count says, a few times. */
static int try_pad(struct run *r, struct task *t, const char *pad, size_t n_tokens, struct why *why)
{
    int64_t n = 0;

    for (int i = 0; i < PAD_TRIES && n >= 0 && n <= (int64_t)PAD_MAX; i++) {
        char *text = padded(t, pad, (uint32_t)n);
        size_t got = 0;
        int err = text ? ask_count(r->c, text, strlen(text), &got) : -ENOMEM;

        if (err == 0 && got == n_tokens) {
            free(t->text);
            t->text = text;
            t->len = strlen(text);
            return 1;
        }
        free(text);
        if (err < 0)
            return run_failed(r, err, why);
        n += (int64_t)n_tokens - (int64_t)got;
    }
    return 0;
}

/* The task's text made n_tokens long, exactly. A pad is a token for some vocabularies: the word for
 * those of words, the sign for those of bytes. */
static int make_exact(struct run *r, struct task *t, size_t n_tokens, struct why *why)
{
    static const char *const pads[] = { " and", ".", "\n" };
    int err = 0;

    for (size_t i = 0; err == 0 && i < sizeof(pads) / sizeof(pads[0]); i++)
        err = try_pad(r, t, pads[i], n_tokens, why);
    if (err == 0)
        return why_set(why, -EINVAL, "no text of exactly %zu tokens could be made", n_tokens);
    return err < 0 ? err : 0;
}

/* So that the question's last token is `offset` tokens into a segment: at 0 all before the answer
 * is packed. Two texts are made: a first one only to have its question, whose tokens are part of
 * the prompt; then the one that is as long as that leaves room for. */
static int end_at(struct run *r, struct text *t, uint32_t segment, struct why *why)
{
    size_t overhead, end = (size_t)t->run.length / segment * segment + t->run.offset;
    struct task task = { 0 };
    int err;

    if (run_text_known(r, &t->run))
        return 0;
    err = fit(r, t, t->run.length > PAD_MAX ? t->run.length - PAD_MAX : 1, &task, why);
    if (err == 0) {
        err = ask_overhead(r->c, task.asks[0].question, &overhead);
        err = err < 0 ? run_failed(r, err, why) : 0;
    }
    task_fini(&task);
    if (err < 0)
        return err;
    if (end < overhead + PAD_MAX)
        return why_set(why, -EINVAL, "--lengths: %u tokens are less than a segment", t->run.length);
    task = (struct task){ 0 };
    err = fit(r, t, end - overhead, &task, why);
    if (err == 0)
        err = make_exact(r, &task, end - overhead, why);
    t->run.task = &task;
    if (err == 0)
        err = run_text(r, &t->run, why);
    task_fini(&task);
    return err;
}

/* The first that a cell names: places are of one segment for all cells, or columns of the table
 * would mean different things. */
static uint32_t boundary_segment(const struct run *r)
{
    struct gist_info info;

    gist_info(r->c, &info);
    for (size_t i = 0; i < r->grid->n; i++)
        if (r->grid->cells[i].segment)
            return r->grid->cells[i].segment;
    return info.segment_default;
}

/* --- all of a plan ---------------------------------------------------------------------------- */

/* Calls fn for each text, until one fails. */
typedef int text_fn(struct run *r, struct text *t, void *arg, struct why *why);

static int each_offset(struct run *r, const struct recall_plan *p, struct text *t, text_fn *fn,
                       void *arg, struct why *why)
{
    uint32_t segment = boundary_segment(r);
    int err = 0;

    for (uint32_t i = 0; err == 0 && i < (p->boundary ? OFFSETS : 1); i++) {
        t->run.offset = (uint64_t)segment * i / OFFSETS;
        err = fn(r, t, arg, why);
    }
    return err;
}

static int each_text(struct run *r, const struct recall_plan *p, text_fn *fn, void *arg,
                     struct why *why)
{
    const struct recall_opts *o = p->opts;
    int err = 0;

    for (uint32_t l = 0; l < o->lengths.n; l++) {
        for (size_t k = 0; k < p->n_kinds; k++) {
            struct text t;

            for (uint32_t i = 0; err == 0 && i < o->items; i += t.spec.n_asks) {
                name_text(p, p->kinds[k], o->lengths.v[l], i, &t);
                err = each_offset(r, p, &t, fn, arg, why);
            }
        }
    }
    return err;
}

static int add_work(struct run *r, struct text *t, void *arg, struct why *why)
{
    (void)why;
    *(double *)arg += run_text_work(r, &t->run);
    return 0;
}

double recall_work(struct run *r, const struct recall_plan *p)
{
    double work = 0;

    (void)each_text(r, p, add_work, &work, NULL);
    return work;
}

static int measure(struct run *r, struct text *t, void *arg, struct why *why)
{
    const struct recall_plan *p = arg;

    return p->boundary ? end_at(r, t, boundary_segment(r), why) : ask_text(r, t, why);
}

int recall_run(struct run *r, const struct recall_plan *p, struct why *why)
{
    return each_text(r, p, measure, (void *)p, why);
}
