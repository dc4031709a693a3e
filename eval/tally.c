#include "eval/tally.h"

#include "eval/stats.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const unsigned tally_prefixes[TALLY_PREFIXES] = { 4, 8, 16, 32 };

struct tally_filter tally_all(enum results_kind kind)
{
    return (struct tally_filter){
        .kind = kind, .length = TALLY_ANY, .depth = TALLY_ANY, .offset = TALLY_ANY
    };
}

static bool is_one(uint64_t v, uint64_t wanted)
{
    return wanted == TALLY_ANY || v == wanted;
}

static bool is_among(const char *task, const struct tally_tasks *tasks)
{
    size_t i = 0;

    while (i < tasks->n && strcmp(task, tasks->v[i]) != 0)
        i++;
    return i < tasks->n;
}

static bool match(const struct results_item *it, const struct tally_filter *f)
{
    return it->kind == f->kind && (!f->cell || grid_same_cell(&it->cell, f->cell)) &&
           (!f->task || strcmp(it->task, f->task) == 0) &&
           (!f->tasks || is_among(it->task, f->tasks)) && is_one(it->length, f->length) &&
           is_one(it->depth, f->depth) && is_one(it->offset, f->offset);
}

/* --- sums ------------------------------------------------------------------------------------- */

/* Means of windows, each of which has a value at every place that it has at all. */
struct means {
    double sum[RESULTS_BINS];
    size_t n[RESULTS_BINS];
};

static void add_list(struct means *m, const double *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(v[i]))
            continue;
        m->sum[i] += v[i];
        m->n[i]++;
    }
}

static void take_list(const struct means *m, double *ret, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ret[i] = m->n[i] ? m->sum[i] / (double)m->n[i] : NAN;
}

struct sums {
    struct tally t;
    double held, hydrated, nll;
    double *added; /* (n_pairs) */
    size_t prefix[TALLY_PREFIXES];
    struct means segment, quarter;
};

/* The item's twin of full attention: the same in all but the cell. */
static void add_pair(struct sums *s, const struct results *r, const struct results_item *it)
{
    struct results_item name = *it;
    const struct results_item *full;

    name.cell = (struct grid_cell){ .compressor = GIST_FULL };
    full = results_find(r, &name);
    if (!full || !isfinite(full->score))
        return;
    s->t.pairs_sum += it->score;
    s->t.full_sum += full->score;
    s->added[s->t.n_pairs++] = ((double)it->first_token_ns - (double)full->first_token_ns) * 1e-9;
}

/* A text that did not fit has no score and counts as that, not as a wrong answer. */
static void add_answer(struct sums *s, const struct results *r, const struct results_item *it)
{
    double n = (double)it->prompt_tokens;

    if (!isfinite(it->score)) {
        s->t.n_too_long++;
        return;
    }
    s->t.n++;
    s->t.sum += it->score;
    if (n > 0) {
        s->held += (n - (double)it->gist_tokens + (double)it->gists) / n;
        s->hydrated += (double)it->hydrated_tokens / n;
    }
    if (strcmp(it->task, "uuid") == 0 || strcmp(it->task, "json") == 0) {
        s->t.n_prefix++;
        for (size_t i = 0; i < TALLY_PREFIXES; i++)
            s->prefix[i] += it->prefix >= tally_prefixes[i];
    }
    add_pair(s, r, it);
}

static void add_window(struct sums *s, const struct results_item *it)
{
    if (!isfinite(it->nll))
        return;
    s->nll += it->nll * (double)it->n_scored;
    s->t.n_scored += it->n_scored;
    add_list(&s->segment, it->by_segment, RESULTS_BINS);
    add_list(&s->quarter, it->by_quarter, RESULTS_QUARTERS);
}

static void finish(struct sums *s)
{
    struct tally *t = &s->t;
    double n = (double)t->n;

    t->held = t->n ? s->held / n : NAN;
    t->hydrated = t->n ? s->hydrated / n : NAN;
    t->added_p50 = stats_percentile(s->added, t->n_pairs, 50);
    t->added_p99 = stats_percentile(s->added, t->n_pairs, 99);
    for (size_t i = 0; i < TALLY_PREFIXES; i++)
        t->prefix[i] = t->n_prefix ? (double)s->prefix[i] / (double)t->n_prefix : NAN;
    t->nll = t->n_scored ? s->nll / (double)t->n_scored : NAN;
    take_list(&s->segment, t->by_segment, RESULTS_BINS);
    take_list(&s->quarter, t->by_quarter, RESULTS_QUARTERS);
}

/* added has room for every item, for each may have a pair. */
int tally_make(const struct results *r, const struct tally_filter *f, struct tally *ret)
{
    struct sums s = { .added = calloc(r->n + 1, sizeof(*s.added)) };

    if (!s.added)
        return -ENOMEM;
    for (size_t i = 0; i < r->n; i++) {
        const struct results_item *it = &r->items[i];

        if (!match(it, f))
            continue;
        if (it->kind == RESULTS_PPL)
            add_window(&s, it);
        else
            add_answer(&s, r, it);
    }
    finish(&s);
    free(s.added);
    *ret = s.t;
    return 0;
}

/* --- lists ------------------------------------------------------------------------------------ */

/* What is beyond the list's room is left out; a grid has no more cells. */
void tally_cells(const struct results *r, const struct tally_filter *f, struct tally_cells *ret)
{
    ret->n = 0;
    for (size_t i = 0; i < r->n; i++) {
        size_t k = 0;

        if (!match(&r->items[i], f))
            continue;
        while (k < ret->n && !grid_same_cell(&ret->v[k], &r->items[i].cell))
            k++;
        if (k == ret->n && k < GRID_CELLS_MAX)
            ret->v[ret->n++] = r->items[i].cell;
    }
}

void tally_tasks(const struct results *r, const struct tally_filter *f, struct tally_tasks *ret)
{
    ret->n = 0;
    for (size_t i = 0; i < r->n; i++) {
        size_t k = 0;

        if (!match(&r->items[i], f))
            continue;
        while (k < ret->n && strcmp(ret->v[k], r->items[i].task) != 0)
            k++;
        if (k == ret->n && k < TALLY_LIST_MAX)
            ret->v[ret->n++] = r->items[i].task;
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

void tally_numbers(const struct results *r, const struct tally_filter *f, enum tally_of of,
                   struct tally_numbers *ret)
{
    ret->n = 0;
    for (size_t i = 0; i < r->n; i++) {
        const struct results_item *it = &r->items[i];
        uint64_t v = of == TALLY_LENGTH ? it->length : of == TALLY_DEPTH ? it->depth : it->offset;
        size_t k = 0;

        if (!match(it, f))
            continue;
        while (k < ret->n && ret->v[k] != v)
            k++;
        if (k == ret->n && k < TALLY_LIST_MAX)
            ret->v[ret->n++] = v;
    }
    qsort(ret->v, ret->n, sizeof(*ret->v), compare);
}
