#include "eval/run.h"

#include "base/clock.h"
#include "eval/metrics.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* --- interrupts ------------------------------------------------------------------------------- */

/* Both are written before the handler is there, or by it. */
static _Atomic(gist_conn *) caught;
static atomic_bool came;

static void on_signal(int sig)
{
    gist_conn *c = atomic_load(&caught);

    (void)sig;
    atomic_store(&came, true);
    if (c)
        gist_cancel_async(c);
}

/* SA_RESETHAND: a second signal finds the default, which ends the program. */
void run_catch(gist_conn *c)
{
    struct sigaction sa = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };

    if (!c)
        sa = (struct sigaction){ .sa_handler = SIG_DFL };
    atomic_store(&caught, c);
    (void)sigaction(SIGINT, &sa, NULL);
    (void)sigaction(SIGTERM, &sa, NULL);
}

bool run_interrupted(void)
{
    return atomic_load(&came);
}

/* --- progress --------------------------------------------------------------------------------- */

static double now_s(void)
{
    return (double)clock_ns() / (double)CLOCK_S;
}

void run_start(struct run *r, FILE *progress, double todo)
{
    r->todo = todo;
    r->done = r->known = 0;
    r->start = now_s();
    bar_start(&r->bar, progress, r->start);
}

/* By what was measured in this run, and not by what an earlier one left. */
static void show(struct run *r, bool at_once)
{
    double now = now_s(), done = r->done + r->reading, measured = done - r->known;
    char text[96], left[BAR_TIME_CAP] = "?";

    if (!bar_due(&r->bar, now) && !at_once)
        return;
    if (measured > 0)
        (void)bar_time((now - r->start) / measured * (r->todo - done), left);
    (void)snprintf(text, sizeof(text), "%.0f %%  %s left", 100 * done / r->todo, left);
    bar_draw(&r->bar, done / r->todo, text);
}

/* Most of the work of a text's first question, which is what comes next. */
static void on_read(void *arg, uint32_t n_read, uint32_t n_tokens)
{
    struct run *r = arg;

    r->reading = n_tokens > 0 ? r->next * n_read / n_tokens : 0;
    show(r, false);
}

void run_skip(struct run *r, double work)
{
    r->done += work;
    r->known += work;
}

bool run_knows(struct run *r, const struct results_item *name, double work)
{
    if (!results_find(r->results, name))
        return false;
    run_skip(r, work);
    return true;
}

int run_keep(struct run *r, const struct results_item *it, double work, struct why *why)
{
    int err = results_add(r->results, it, why);

    r->done += work;
    r->reading = 0;
    if (err == 0)
        show(r, false);
    return err;
}

void run_end(struct run *r)
{
    if (r->bar.drawn)
        show(r, true);
    bar_end(&r->bar);
}

/* After an interrupt every failure is that interrupt. */
int run_failed(const struct run *r, int err, struct why *why)
{
    const char *text = gist_error(r->c);

    if (run_interrupted())
        return why_set(why, -ECANCELED, "interrupted");
    return why_set(why, err, "%s", text && *text ? text : strerror(-err));
}

/* --- one question ----------------------------------------------------------------------------- */

/* Takes the answer's text. */
static void fill_item(const struct ask_session *a, const struct ask_answer *got,
                      struct results_item *ret)
{
    ret->read_ns = a->read_ns;
    ret->first_token_ns = got->first_token_ns;
    ret->prompt_tokens = got->usage.prompt_tokens;
    ret->gist_tokens = got->usage.gist_tokens;
    ret->gists = got->usage.gists;
    ret->hydrated_tokens = got->usage.hydrated_tokens;
    ret->missed_tokens = got->usage.missed_tokens;
    ret->answer = got->text;
}

static int begin(struct run *r, const struct run_ask *ask, const struct grid_cell *cell,
                 struct ask_session *ret)
{
    const struct ask_text text = {
        .text = ask->text, .n_tokens = ask->n_tokens, .on_progress = on_read, .arg = r
    };

    r->next = ask->reading;
    return ask_begin(r->c, cell, r->adapter, &text, ret);
}

void run_close(struct run_reader *reader)
{
    ask_end(&reader->session);
}

/* Of those that are known nothing is read. A text that does not fit is remembered in the reader, so
 * that its other questions are not tried. */
int run_ask(struct run *r, struct run_reader *reader, const struct run_ask *ask,
            struct results_item *it, struct why *why)
{
    struct ask_answer got = { 0 };
    int err = 0;

    if (run_knows(r, it, ask->work))
        return 0;
    if (run_interrupted())
        return run_failed(r, -ECANCELED, why);
    if (!reader->session.s && !reader->too_long)
        err = begin(r, ask, &it->cell, &reader->session);
    if (err == 0 && !reader->too_long)
        err = ask_question(&reader->session, ask->question, ask->max_tokens, &got);
    if (err < 0 && gist_error_code(r->c) == GIST_E_CONTEXT_LENGTH_EXCEEDED) {
        reader->too_long = true;
        err = 0;
    }
    if (err < 0)
        return run_failed(r, err, why);
    if (!reader->too_long) {
        ask->score(ask->arg, got.text, it);
        fill_item(&reader->session, &got, it);
    }
    return run_keep(r, it, ask->work, why);
}

/* --- questions about made texts --------------------------------------------------------------- */

static void name_item(const struct run_text *t, const struct grid_cell *cell, uint32_t i,
                      struct results_item *ret)
{
    results_item_init(ret);
    ret->kind = t->kind;
    (void)snprintf(ret->task, sizeof(ret->task), "%s", task_traits(t->spec->kind)->name);
    ret->cell = *cell;
    ret->length = t->length;
    ret->depth = t->spec->depth[i];
    ret->index = t->first + i;
    ret->asks = t->spec->n_asks;
    ret->seed = t->seed;
    ret->offset = t->offset;
}

/* Of one question in one cell: its part of reading the text, and the answer. In tokens read; one
 * that is written costs about as much as four. */
static double item_work(const struct run_text *t)
{
    return (double)t->length / t->n_asks + 4 * task_traits(t->spec->kind)->answer;
}

double run_text_work(const struct run *r, const struct run_text *t)
{
    return item_work(t) * t->n_asks * (double)r->grid->n;
}

bool run_text_known(struct run *r, const struct run_text *t)
{
    struct results_item it;

    for (size_t k = 0; k < r->grid->n; k++) {
        for (uint32_t i = 0; i < t->n_asks; i++) {
            name_item(t, &r->grid->cells[k], i, &it);
            if (!results_find(r->results, &it))
                return false;
        }
    }
    run_skip(r, run_text_work(r, t));
    return true;
}

/* The mean over what the question wants: a right answer has all of it. */
static double score(const struct task_ask *ask, const char *answer)
{
    double sum = 0;

    for (uint32_t i = 0; i < ask->n_wants; i++)
        sum += metrics_subem(answer, ask->want[i]);
    return sum / ask->n_wants;
}

static void score_task(void *arg, const char *answer, struct results_item *ret)
{
    const struct task_ask *ask = arg;

    ret->score = score(ask, answer);
    ret->prefix = metrics_prefix(answer, ask->want[0]);
}

/* One session a cell: the first question that is not known reads the text, the others fork. */
static int ask_cell(struct run *r, const struct run_text *t, const struct grid_cell *cell,
                    struct why *why)
{
    struct run_reader reader = { 0 };
    int err = 0;

    for (uint32_t i = 0; err == 0 && i < t->n_asks; i++) {
        const struct run_ask ask = { .text = t->task->text,
                                     .question = t->task->asks[i].question,
                                     .n_tokens = t->length,
                                     .max_tokens = task_traits(t->spec->kind)->answer,
                                     .reading = (double)t->length / t->n_asks,
                                     .work = item_work(t),
                                     .score = score_task,
                                     .arg = (void *)&t->task->asks[i] };
        struct results_item it;

        name_item(t, cell, i, &it);
        err = run_ask(r, &reader, &ask, &it, why);
    }
    run_close(&reader);
    return err;
}

int run_text(struct run *r, const struct run_text *t, struct why *why)
{
    int err = 0;

    for (size_t k = 0; err == 0 && k < r->grid->n; k++)
        err = ask_cell(r, t, &r->grid->cells[k], why);
    return err;
}
