#include "eval/ppl.h"

#include "base/utf8.h"
#include "eval/prose.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the text --------------------------------------------------------------------------------- */

/* Enough sentences for so many tokens: each has more than eight words, and at least as many tokens
 * as words. */
static int make_prose(uint64_t seed, size_t n_tokens, char **ret, size_t *ret_len)
{
    char sentence[PROSE_SENTENCE_CAP];
    FILE *f = open_memstream(ret, ret_len);

    if (!f)
        return -ENOMEM;
    for (size_t i = 0; i * 8 < n_tokens + 8; i++)
        (void)fprintf(f, "%s%s", prose_sentence(seed, i, sentence), i % 6 == 5 ? "\n\n" : " ");
    return fclose(f) == 0 ? 0 : -ENOMEM;
}

/* At most max bytes, from the file's beginning. */
static int read_file(const char *path, size_t max, char **ret, size_t *ret_len, struct why *why)
{
    FILE *f = fopen(path, "re");
    char *text = f ? malloc(max + 1) : NULL;
    size_t len = 0, good;
    int err = f ? -ENOMEM : -errno;

    if (text) {
        len = fread(text, 1, max, f);
        err = ferror(f) ? -EIO : 0;
    }
    if (f)
        (void)fclose(f);
    if (err < 0) {
        free(text);
        return why_set(why, err, "%s: %s", path, strerror(-err));
    }
    good = utf8_span((const uint8_t *)text, len);
    if (good + 4 < len) { /* a character may be cut */
        free(text);
        return why_set(why, -EINVAL, "%s: not UTF-8 text", path);
    }
    text[len] = '\0';
    *ret_len = good;
    *ret = text;
    return 0;
}

static void name_text(const char *path, char ret[RESULTS_NAME_CAP])
{
    const char *slash = strrchr(path, '/');

    (void)snprintf(ret, RESULTS_NAME_CAP, "%.*s", (int)RESULTS_NAME_CAP - 1,
                   !*path  ? "made prose"
                   : slash ? slash + 1
                           : path);
}

/* The text is tokenized once, and windows are cut of the tokens: so all cells score the same ones.
 * Its name and seed are part of the items' names. */
int ppl_load(struct run *r, const struct ppl_opts *o, uint64_t seed, struct ppl_text *ret,
             struct why *why)
{
    struct ppl_text t = { .window = o->window, .seed = *o->text ? 0 : seed };
    size_t len = 0, n = 0;
    char *text = NULL;
    int err;

    /* No token has more than some 16 bytes of common text; a longer text is cut by tokens below. */
    if (*o->text)
        err = read_file(o->text, (size_t)o->tokens * 16, &text, &len, why);
    else
        err = make_prose(seed, o->tokens, &text, &len);
    if (err < 0) {
        free(text);
        return why_set(why, err, "out of memory");
    }
    name_text(o->text, t.name);
    err = gist_tokenize(r->c, text, len, 0, &t.ids, &n);
    free(text);
    if (err < 0)
        return run_failed(r, err, why);
    t.n_windows = (n < o->tokens ? n : o->tokens) / t.window;
    if (t.n_windows == 0) {
        ppl_fini(&t);
        return why_set(why, -EINVAL, "%s has %zu tokens, less than a window of %u: lower --window",
                       t.name, n, t.window);
    }
    *ret = t;
    return 0;
}

void ppl_fini(struct ppl_text *t)
{
    free(t->ids);
    t->ids = NULL;
}

/* --- scores ----------------------------------------------------------------------------------- */

struct mean {
    double sum;
    uint64_t n;
};

static void add(struct mean *m, float logprob)
{
    m->sum -= (double)logprob;
    m->n++;
}

static double mean_of(const struct mean *m)
{
    return m->n ? m->sum / (double)m->n : NAN;
}

/* 0, 1, 2 and 3, 4 to 7 ... */
static size_t bin_of(size_t position)
{
    size_t bin = 0;

    for (; position > 0 && bin + 1 < RESULTS_BINS; position /= 2)
        bin++;
    return bin;
}

/* The first segment is read without compressed memory in any cell, so it would only dilute the
 * difference. */
static void take_scores(const struct gist_score *s, uint32_t segment, struct results_item *ret)
{
    struct mean all = { 0 }, bins[RESULTS_BINS] = { 0 }, quarters[RESULTS_QUARTERS] = { 0 };

    for (size_t i = segment; i < s->n; i++) {
        if (isnan(s->logprobs[i]))
            continue;
        add(&all, s->logprobs[i]);
        add(&bins[bin_of(i % segment)], s->logprobs[i]);
        add(&quarters[i * RESULTS_QUARTERS / s->n], s->logprobs[i]);
    }
    ret->nll = mean_of(&all);
    ret->n_scored = all.n;
    for (size_t i = 0; i < RESULTS_BINS; i++)
        ret->by_segment[i] = mean_of(&bins[i]);
    for (size_t i = 0; i < RESULTS_QUARTERS; i++)
        ret->by_quarter[i] = mean_of(&quarters[i]);
}

static int score_window(struct run *r, const struct ppl_text *t, const struct grid_cell *cell,
                        size_t w, struct why *why)
{
    struct gist_memory memory = grid_memory(cell, r->adapter, t->window);
    const struct gist_score_opts o = {
        .size = sizeof(o), .window = t->window, .segment = cell->segment, .memory = &memory
    };
    struct gist_score s = { 0 };
    struct results_item it;
    struct gist_info info;
    int err;

    results_item_init(&it);
    it.kind = RESULTS_PPL;
    (void)snprintf(it.task, sizeof(it.task), "%s", t->name);
    it.cell = *cell;
    it.length = t->window;
    it.index = w;
    it.seed = t->seed;
    if (run_knows(r, &it, t->window))
        return 0;
    if (run_interrupted())
        return run_failed(r, -ECANCELED, why);
    gist_info(r->c, &info);
    err = gist_score_tokens(r->c, t->ids + w * t->window, t->window, &o, &s);
    if (err < 0)
        return run_failed(r, err, why);
    take_scores(&s, cell->segment ? cell->segment : info.segment_default, &it);
    it.gist_tokens = s.usage.gist_tokens;
    it.gists = s.usage.gists;
    it.prompt_tokens = s.usage.prompt_tokens;
    free(s.ids);
    free(s.logprobs);
    return run_keep(r, &it, t->window, why);
}

double ppl_work(const struct run *r, const struct ppl_text *t)
{
    return (double)t->window * (double)t->n_windows * (double)r->grid->n;
}

/* Window by window in all cells: an interrupted run has whole windows to compare. */
int ppl_run(struct run *r, const struct ppl_text *t, struct why *why)
{
    int err = 0;

    for (size_t w = 0; err == 0 && w < t->n_windows; w++)
        for (size_t k = 0; err == 0 && k < r->grid->n; k++)
            err = score_window(r, t, &r->grid->cells[k], w, why);
    return err;
}
