/* A section looks whether the results have anything for it, and writes nothing else. Every number
 * comes from tally(): a filter says which items, and cells of a table are filters that differ in
 * one thing. */
#include "eval/report.h"

#include "base/chart.h"
#include "eval/page.h"
#include "eval/paper.h"
#include "eval/stats.h"
#include "eval/tally.h"
#include "eval/task.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* Of one model; err: what a tally failed with, the sections after it are empty then. */
struct report {
    struct page *p;
    const struct results *r;
    int err;
};

/* Without memory zeros, and w->err, which the report ends with. */
static struct tally tally(struct report *w, const struct tally_filter *f)
{
    struct tally t = { 0 };
    int err = tally_make(w->r, f, &t);

    if (err < 0)
        w->err = err;
    return t;
}

static bool is_probe(const char *task)
{
    enum task_kind k = task_find(task, strlen(task));

    return k != TASK__N && task_traits(k)->is_probe;
}

/* Tasks of recall, or those of surprise. */
static struct tally_tasks tasks_of(const struct report *w, const struct tally_filter *f, bool probe)
{
    struct tally_tasks all, ret = { .n = 0 };

    tally_tasks(w->r, f, &all);
    for (size_t i = 0; i < all.n; i++)
        if (is_probe(all.v[i]) == probe)
            ret.v[ret.n++] = all.v[i];
    return ret;
}

/* --- cells of tables -------------------------------------------------------------------------- */

static void put_name(struct page *p, const struct grid_cell *c)
{
    char name[GRID_NAME_CAP];

    page_cell(p, "%s", grid_cell_name(c, name));
}

/* "83 (44 to 97)" */
static void put_share(struct page *p, double sum, size_t n)
{
    struct stats_interval i = stats_wilson(sum, n);

    if (n == 0)
        page_cell(p, "-");
    else
        page_cell(p, "%.0f (%.0f to %.0f)", 100 * sum / (double)n, 100 * i.low, 100 * i.high);
}

static void put_score(struct page *p, const struct tally *t)
{
    if (t->n == 0 && t->n_too_long > 0)
        page_cell(p, "too long");
    else
        put_share(p, t->sum, t->n);
}

/* What could not be measured is a dash, not a number. */
__attribute__((format(printf, 3, 0))) static void put_number(struct page *p, double v,
                                                             const char *fmt)
{
    char text[32];

    if (!isfinite(v)) {
        page_cell(p, "-");
        return;
    }
    (void)snprintf(text, sizeof(text), fmt, v);
    page_cell(p, "%s", text);
}

/* A cell a task, of what else the filter says. */
static void put_scores(struct report *w, struct tally_filter f, const struct tally_tasks *tasks)
{
    for (size_t i = 0; i < tasks->n; i++) {
        struct tally t;

        f.task = tasks->v[i];
        t = tally(w, &f);
        put_score(w->p, &t);
    }
}

/* Of the same questions only (pairs), so that a cell which could not be asked some of them is not
 * compared with all. */
static void put_of_full(struct page *p, const struct tally *t)
{
    put_number(p, t->full_sum > 0 ? 100 * t->pairs_sum / t->full_sum : NAN, "%.0f");
}

/* --- charts ----------------------------------------------------------------------------------- */

/* A chart of percents, all of them. False: the page has no charts. */
static bool begin_percents(const struct report *w, const char *title, struct chart *ret)
{
    FILE *f = page_chart(w->p, title);

    if (!f)
        return false;
    chart_panel(ret, f, 0);
    chart_take_y(ret, 0);
    chart_take_y(ret, 100);
    chart_widen(ret);
    return true;
}

/* Scores over a number that items differ in, a curve a cell. Curves are shifted by some pixels
 * each, so that their intervals do not lie on each other. */
static void draw_scores(struct report *w, struct tally_filter f, enum tally_of of,
                        const char *title, const char *x_name)
{
    struct tally_cells cells;
    struct tally_numbers xs;
    struct chart c;
    char name[GRID_NAME_CAP];

    tally_numbers(w->r, &f, of, &xs);
    if (xs.n < 2 || !begin_percents(w, title, &c))
        return;
    tally_cells(w->r, &f, &cells);
    c.x_min = (double)xs.v[0];
    c.x_max = (double)xs.v[xs.n - 1];
    c.powers = of == TALLY_LENGTH;
    chart_axes(&c, "right, %, with 95 % intervals", x_name);
    for (size_t k = 0; k < cells.n; k++) {
        const char *colour = chart_colours[k % CHART_COLOURS];
        struct tally at[TALLY_LIST_MAX];

        f.cell = &cells.v[k];
        c.shift = 3.0 * (double)(k % CHART_COLOURS);
        chart_line(&c, "l", colour);
        for (size_t i = 0; i < xs.n; i++) {
            *(of == TALLY_LENGTH ? &f.length : of == TALLY_DEPTH ? &f.depth : &f.offset) = xs.v[i];
            at[i] = tally(w, &f);
            chart_to(&c, (double)xs.v[i], at[i].n ? 100 * at[i].sum / (double)at[i].n : NAN);
        }
        chart_line_end(&c);
        for (size_t i = 0; i < xs.n; i++) {
            struct stats_interval v = stats_wilson(at[i].sum, at[i].n);

            if (at[i].n)
                chart_bar(&c, colour, (double)xs.v[i], 100 * v.low, 100 * v.high);
        }
        chart_legend(&c, "l", colour, grid_cell_name(&cells.v[k], name));
    }
    page_chart_end(w->p, c.f);
}

/* --- recall ----------------------------------------------------------------------------------- */

static void write_recall_row(struct report *w, const struct tally_filter *f,
                             const struct tally_tasks *tasks)
{
    struct page *p = w->p;
    struct tally all = tally(w, f);

    put_name(p, f->cell);
    put_scores(w, *f, tasks);
    put_of_full(p, &all);
    put_number(p, 100 * all.held, "%.0f");
    put_number(p, 100 * all.hydrated, "%.0f");
    put_number(p, 1e3 * all.added_p50, "%.0f");
    put_number(p, 1e3 * all.added_p99, "%.0f");
    page_cell(p, "%zu", all.n);
}

static void write_recall_length(struct report *w, struct tally_filter f,
                                const struct tally_tasks *tasks)
{
    static const char *const behind[] = { "of full, %",    "keys held, %",  "hydrated, %",
                                          "added ms, p50", "added ms, p99", "n" };
    const char *columns[1 + TALLY_LIST_MAX + 6] = { "old context" };
    struct tally_cells cells;
    char text[64];
    size_t n = 1;

    (void)snprintf(text, sizeof(text), "%llu tokens", (unsigned long long)f.length);
    page_heading(w->p, 3, text);
    for (size_t i = 0; i < tasks->n; i++)
        columns[n++] = tasks->v[i];
    for (size_t i = 0; i < sizeof(behind) / sizeof(behind[0]); i++)
        columns[n++] = behind[i];
    tally_cells(w->r, &f, &cells);
    page_table(w->p, columns, n);
    for (size_t i = 0; i < cells.n; i++) {
        f.cell = &cells.v[i];
        write_recall_row(w, &f, tasks);
    }
    page_table_end(w->p);
}

static void write_recall(struct report *w)
{
    struct tally_filter f = tally_all(RESULTS_RECALL);
    struct tally_tasks tasks = tasks_of(w, &f, false);
    struct tally_numbers lengths;

    if (tasks.n == 0)
        return;
    page_heading(w->p, 2, "Recall");
    page_text(w->p,
              "Right answers (SubEM) in %%, with Wilson intervals of 95 %%. Of full: what was "
              "right, in parts "
              "of what full attention had right of the same questions. Keys held: what stands "
              "for the prompt when it was read, in parts of its tokens. Hydrated: tokens that "
              "came back for the question, likewise. Added: time to the first token beyond that "
              "of full attention for the same question.");
    f.tasks = &tasks; /* and not those of surprise */
    tally_numbers(w->r, &f, TALLY_LENGTH, &lengths);
    for (size_t i = 0; i < lengths.n; i++) {
        f.length = lengths.v[i];
        write_recall_length(w, f, &tasks);
    }
    f.length = TALLY_ANY;
    for (size_t i = 0; i < tasks.n; i++) {
        f.task = tasks.v[i];
        draw_scores(w, f, TALLY_LENGTH, tasks.v[i], "tokens");
        draw_scores(w, f, TALLY_DEPTH, tasks.v[i], "depth in the text, %");
    }
    paper_write(w->p, PAPER_SYNTHETIC);
}

/* --- probes ----------------------------------------------------------------------------------- */

static void write_surprise(struct report *w)
{
    struct tally_filter f = tally_all(RESULTS_RECALL);
    struct tally_tasks tasks = tasks_of(w, &f, true);
    const char *columns[1 + TALLY_LIST_MAX] = { "old context" };
    struct tally_cells cells;

    if (tasks.n == 0)
        return;
    page_heading(w->p, 2, "Lost if surprise");
    page_text(w->p, "A sentence about the subject of its document, or (surprise) about Mr. Tree, "
                    "whom nothing else mentions. Right answers in %%.");
    for (size_t i = 0; i < tasks.n; i++)
        columns[1 + i] = tasks.v[i];
    tally_cells(w->r, &f, &cells);
    page_table(w->p, columns, 1 + tasks.n);
    for (size_t i = 0; i < cells.n; i++) {
        f.cell = &cells.v[i];
        put_name(w->p, f.cell);
        put_scores(w, f, &tasks);
    }
    page_table_end(w->p);
    paper_write(w->p, PAPER_SURPRISE);
}

static void draw_prefixes(struct report *w, const struct tally_cells *cells)
{
    struct tally_filter f = tally_all(RESULTS_RECALL);
    struct chart c;
    char name[GRID_NAME_CAP];

    if (!begin_percents(w, "UUIDs, right up to a digit", &c))
        return;
    c.x_min = tally_prefixes[0];
    c.x_max = tally_prefixes[TALLY_PREFIXES - 1];
    c.powers = true;
    chart_axes(&c, "right, %", "digits");
    for (size_t i = 0; i < cells->n; i++) {
        const char *colour = chart_colours[i % CHART_COLOURS];
        struct tally t;

        f.cell = &cells->v[i];
        t = tally(w, &f);
        chart_line(&c, "l", colour);
        for (size_t k = 0; k < TALLY_PREFIXES; k++)
            chart_to(&c, tally_prefixes[k], 100 * t.prefix[k]);
        chart_line_end(&c);
        chart_legend(&c, "l", colour, grid_cell_name(f.cell, name));
    }
    page_chart_end(w->p, c.f);
}

static void write_prefix(struct report *w)
{
    static const char *const columns[] = { "old context", "first 4",  "first 8",
                                           "first 16",    "first 32", "n" };
    struct tally_filter f = tally_all(RESULTS_RECALL);
    struct tally all = tally(w, &f);
    struct tally_cells cells;

    if (all.n_prefix == 0)
        return;
    page_heading(w->p, 2, "Lost along the way");
    page_text(w->p, "UUIDs of 32 digits (tasks uuid and json): answers in %% that are right in the "
                    "first digits.");
    tally_cells(w->r, &f, &cells);
    page_table(w->p, columns, sizeof(columns) / sizeof(columns[0]));
    for (size_t i = 0; i < cells.n; i++) {
        struct tally t;

        f.cell = &cells.v[i];
        t = tally(w, &f);
        if (t.n_prefix == 0)
            continue;
        put_name(w->p, f.cell);
        for (size_t k = 0; k < TALLY_PREFIXES; k++)
            put_share(w->p, t.prefix[k] * (double)t.n_prefix, t.n_prefix);
        page_cell(w->p, "%zu", t.n_prefix);
    }
    page_table_end(w->p);
    draw_prefixes(w, &cells);
    paper_write(w->p, PAPER_PREFIX);
    paper_write(w->p, PAPER_RECONSTRUCTION);
}

static void write_boundary_rows(struct report *w, const struct tally_numbers *offsets)
{
    struct tally_filter f = tally_all(RESULTS_BOUNDARY);
    struct tally_cells cells;

    tally_cells(w->r, &f, &cells);
    for (size_t i = 0; i < cells.n; i++) {
        f.cell = &cells.v[i];
        put_name(w->p, f.cell);
        for (size_t k = 0; k < offsets->n; k++) {
            struct tally t;

            f.offset = offsets->v[k];
            t = tally(w, &f);
            put_score(w->p, &t);
        }
        f.offset = TALLY_ANY;
    }
}

static void write_boundary(struct report *w)
{
    struct tally_filter f = tally_all(RESULTS_BOUNDARY);
    const char *columns[1 + TALLY_LIST_MAX] = { "old context" };
    char names[TALLY_LIST_MAX][32];
    struct tally_numbers offsets;

    tally_numbers(w->r, &f, TALLY_OFFSET, &offsets);
    if (offsets.n == 0)
        return;
    page_heading(w->p, 2, "Lost by the boundary");
    page_text(
        w->p,
        "Questions whose last token is so many tokens into a segment: at 0, all before the answer "
        "is packed, and a tail that is kept is what helps. Right answers in %%.");
    for (size_t i = 0; i < offsets.n; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "at %llu", (unsigned long long)offsets.v[i]);
        columns[1 + i] = names[i];
    }
    page_table(w->p, columns, 1 + offsets.n);
    write_boundary_rows(w, &offsets);
    page_table_end(w->p);
    draw_scores(w, f, TALLY_OFFSET, "where the prompt ends", "tokens into a segment");
    paper_write(w->p, PAPER_BOUNDARY);
}

/* --- public sets ------------------------------------------------------------------------------ */

static void write_sets(struct report *w)
{
    struct tally_filter f = tally_all(RESULTS_SET);
    const char *columns[1 + TALLY_LIST_MAX + 2] = { "old context" };
    struct tally_tasks tasks;
    struct tally_cells cells;
    size_t n = 1;

    tally_tasks(w->r, &f, &tasks);
    if (tasks.n == 0)
        return;
    page_heading(w->p, 2, "Public sets");
    page_text(w->p, "Means of each set's metric, in %%, with prompts that are not the sets' own.");
    for (size_t i = 0; i < tasks.n; i++)
        columns[n++] = tasks.v[i];
    columns[n++] = "of full, %";
    columns[n++] = "n";
    page_table(w->p, columns, n);
    tally_cells(w->r, &f, &cells);
    for (size_t i = 0; i < cells.n; i++) {
        struct tally all;

        f.cell = &cells.v[i];
        all = tally(w, &f);
        put_name(w->p, f.cell);
        put_scores(w, f, &tasks);
        put_of_full(w->p, &all);
        page_cell(w->p, "%zu", all.n);
    }
    page_table_end(w->p);
}

/* --- perplexity ------------------------------------------------------------------------------- */

/* The mean of some of the bins; those that are not there do not count. */
static double mean_bins(const double *v, size_t first, size_t end)
{
    double sum = 0, n = 0;

    for (size_t i = first; i < end; i++) {
        if (!isfinite(v[i]))
            continue;
        sum += v[i];
        n++;
    }
    return n > 0 ? sum / n : NAN;
}

/* The last one that any item has: segments of several lengths fill several of them. */
static size_t last_bin(const double *v)
{
    size_t n = RESULTS_BINS;

    while (n > 1 && !isfinite(v[n - 1]))
        n--;
    return n - 1;
}

/* nll of full attention (compressor GIST_FULL) or of no memory, with the cell's segment. No cell of
 * the grid need be of that kind: then the tally is empty, and NAN. */
static double bound(struct report *w, struct tally_filter f, enum gist_compressor compressor)
{
    struct grid_cell c = { .compressor = compressor, .segment = f.cell->segment };

    f.cell = &c;
    return tally(w, &f).nll;
}

/* The gap closed: 100 is as good as full attention, 0 as good as no memory at all. */
static void write_ppl_row(struct report *w, const struct tally_filter *f)
{
    struct page *p = w->p;
    struct tally t = tally(w, f);
    double full = bound(w, *f, GIST_FULL), none = bound(w, *f, GIST_NONE);
    size_t last = last_bin(t.by_segment);

    put_name(p, f->cell);
    put_number(p, t.nll, "%.4f");
    put_number(p, exp(t.nll), "%.3f");
    put_number(p, 100 * (none - t.nll) / (none - full) + 0.0, "%.1f"); /* no -0.0 */
    put_number(p, exp(mean_bins(t.by_segment, 0, 5)), "%.2f");
    put_number(p, exp(mean_bins(t.by_segment, 5, last)), "%.2f");
    put_number(p, exp(t.by_segment[last]), "%.2f");
    put_number(p, exp(t.by_quarter[0]), "%.2f");
    put_number(p, exp(t.by_quarter[RESULTS_QUARTERS - 1]), "%.2f");
    page_cell(p, "%llu", (unsigned long long)t.n_scored);
}

/* The first position of a bin, and 1 for the first: the axis is logarithmic. */
static double bin_x(size_t bin)
{
    return bin == 0 ? 1 : exp2((double)bin);
}

static void draw_positions(struct report *w, struct tally_filter f, const struct tally_cells *cells)
{
    struct tally t[GRID_CELLS_MAX];
    size_t n = cells->n < CHART_COLOURS ? cells->n : CHART_COLOURS, last = 1;
    FILE *to = page_chart(w->p, "Perplexity by position in the segment");
    struct chart c;
    char name[GRID_NAME_CAP];

    if (!to)
        return;
    chart_panel(&c, to, 0);
    for (size_t i = 0; i < n; i++) {
        f.cell = &cells->v[i];
        t[i] = tally(w, &f);
        last = last_bin(t[i].by_segment) > last ? last_bin(t[i].by_segment) : last;
        for (size_t k = 0; k < RESULTS_BINS; k++)
            chart_take_y(&c, exp(t[i].by_segment[k]));
    }
    c.x_min = 1;
    c.x_max = bin_x(last);
    c.powers = true;
    chart_widen(&c);
    chart_axes(&c, "perplexity", "tokens into the segment, up to");
    for (size_t i = 0; i < n; i++) {
        chart_line(&c, "l", chart_colours[i]);
        for (size_t k = 0; k < RESULTS_BINS; k++)
            chart_to(&c, bin_x(k), exp(t[i].by_segment[k]));
        chart_line_end(&c);
        chart_legend(&c, "l", chart_colours[i], grid_cell_name(&cells->v[i], name));
    }
    page_chart_end(w->p, to);
}

static void write_ppl_text(struct report *w, struct tally_filter f)
{
    static const char *const columns[] = {
        "old context",    "nll",    "ppl", "gap closed, %",
        "segment begins", "middle", "end", "window's 1st quarter",
        "last quarter",   "tokens"
    };
    struct tally_cells cells;

    page_heading(w->p, 3, f.task);
    tally_cells(w->r, &f, &cells);
    page_table(w->p, columns, sizeof(columns) / sizeof(columns[0]));
    for (size_t i = 0; i < cells.n; i++) {
        f.cell = &cells.v[i];
        write_ppl_row(w, &f);
    }
    page_table_end(w->p);
    f.cell = NULL;
    draw_positions(w, f, &cells);
}

static void write_ppl(struct report *w)
{
    struct tally_filter f = tally_all(RESULTS_PPL);
    struct tally_tasks texts;

    tally_tasks(w->r, &f, &texts);
    if (texts.n == 0)
        return;
    page_heading(w->p, 2, "Perplexity");
    page_text(w->p,
              "Of what stands behind a window's first segment. The gap is that between no memory "
              "of earlier "
              "segments (none) and full attention. A segment begins with its first 16 tokens and "
              "ends with its last half.");
    for (size_t i = 0; i < texts.n; i++) {
        f.task = texts.v[i];
        write_ppl_text(w, f);
    }
    page_text(
        w->p,
        "The paper shows perplexity as plots only: full attention best everywhere, Fine-KV at "
        "ratio 4 "
        "0.1 above it on Proof-Pile; by position flat for full attention, high at a segment's "
        "beginning and falling for compressed models.");
}

int report_write(FILE *f, bool html, const char *plots, const struct results *files, size_t n_files)
{
    struct page p;
    int err = 0;

    page_begin(&p, f, html, plots, "What old context is worth");
    for (size_t i = 0; err == 0 && i < n_files; i++) {
        struct report w = { .p = &p, .r = &files[i] };

        page_text(&p, "Model: %s (%.12s).", files[i].model, files[i].digest);
        write_recall(&w);
        write_surprise(&w);
        write_prefix(&w);
        write_boundary(&w);
        write_sets(&w);
        write_ppl(&w);
        err = w.err;
    }
    page_end(&p);
    return err < 0 ? err : p.err < 0 ? p.err : ferror(f) ? -EIO : 0;
}
