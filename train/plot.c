#include "train/plot.h"

#include "base/chart.h"
#include "train/run_log.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POINTS_MAX 1200u

_Static_assert(CHART_COLOURS >= RUN_LOG_RATIOS_MAX, "one colour a ratio");

/* --- training loss ---------------------------------------------------------------------------- */

/* One point for each step, or of some hundred equal parts of them the mean: of tens of thousands of
 * steps a picture shows no more than POINTS_MAX. */
static void draw_line(const struct chart *p, const struct run_log_data *d, const double *y,
                      const char *class)
{
    size_t part = (d->n_steps + POINTS_MAX - 1) / POINTS_MAX;

    chart_line(p, class, NULL);
    for (size_t i = 0; i < d->n_steps; i += part) {
        size_t n = d->n_steps - i < part ? d->n_steps - i : part;
        double sum = 0, count = 0;

        for (size_t k = i; k < i + n; k++) {
            if (!isfinite(y[k]))
                continue;
            sum += y[k];
            count++;
        }
        if (count > 0)
            chart_to(p, (double)d->steps[i + n - 1].tokens, sum / count);
    }
    chart_line_end(p);
}

/* Of finite values: there is an order of all of them. */
static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* The range without the highest and lowest hundredth. Sorts v. One step at the start of a run, or
 * one that went wild, would flatten all others. */
static void set_range(struct chart *p, double *v, size_t n)
{
    size_t m = 0;

    for (size_t i = 0; i < n; i++)
        if (isfinite(v[i]))
            v[m++] = v[i];
    qsort(v, m, sizeof(*v), compare);
    if (m > 0) {
        chart_take_y(p, v[m / 100]);
        chart_take_y(p, v[m - 1 - m / 100]);
    }
    chart_widen(p);
}

/* A mean that forgets over a fiftieth of the run, without the pull of where it began; of values
 * within the picture, as one wild step would hide many others. */
static void smooth(const struct chart *p, const struct run_log_data *d, double *ret)
{
    double keep = 1 - 1 / (1 + (double)d->n_steps / 50), sum = 0, weight = 0;

    for (size_t i = 0; i < d->n_steps; i++) {
        double v = d->steps[i].loss;

        if (isfinite(v)) {
            v = v < p->y_min ? p->y_min : v > p->y_max ? p->y_max : v;
            sum = keep * sum + (1 - keep) * v;
            weight = keep * weight + (1 - keep);
        }
        ret[i] = weight > 0 ? sum / weight : NAN;
    }
}

/* Each step's, and over these the smoothed ones. */
static int draw_training(struct chart *p, const struct run_log_data *d, const char *x_name)
{
    /* Three copies: set_range sorts its own. */
    double *raw = calloc(d->n_steps, sizeof(*raw)), *smoothed = calloc(d->n_steps, sizeof(*raw));
    double *sorted = calloc(d->n_steps, sizeof(*raw));
    int r = raw && smoothed && sorted ? 0 : -ENOMEM;

    if (r == 0) {
        for (size_t i = 0; i < d->n_steps; i++)
            sorted[i] = raw[i] = d->steps[i].loss;
        set_range(p, sorted, d->n_steps);
        smooth(p, d, smoothed);
        chart_axes(p, "training loss", x_name);
        draw_line(p, d, raw, "r");
        draw_line(p, d, smoothed, "s");
        chart_legend(p, "r", NULL, "each step");
        chart_legend(p, "s", NULL, "smoothed");
    }
    free(raw);
    free(smoothed);
    free(sorted);
    return r;
}

/* --- held-out text ---------------------------------------------------------------------------- */

/* By its number and not its place: a run may have gone on with other ratios. */
static double ratio_nll(const struct run_log_eval *e, uint32_t ratio)
{
    for (uint32_t i = 0; i < e->n_ratios; i++)
        if (e->ratios[i] == ratio)
            return e->nll[i];
    return NAN;
}

/* A line through all evaluations, with a dot at each: where there is one alone the line is nothing.
 */
static void draw_ratio(struct chart *p, const struct run_log_data *d, uint32_t ratio,
                       const char *colour)
{
    char text[64];
    double last = NAN;

    chart_line(p, "l", colour);
    for (size_t i = 0; i < d->n_evals; i++) {
        double y = ratio_nll(&d->evals[i], ratio);

        chart_to(p, (double)d->evals[i].tokens, y);
        last = isfinite(y) ? y : last;
    }
    chart_line_end(p);
    for (size_t i = 0; i < d->n_evals; i++)
        chart_dot(p, colour, (double)d->evals[i].tokens, ratio_nll(&d->evals[i], ratio));
    (void)snprintf(text, sizeof(text), "ratio %u: %.3f", ratio, last);
    chart_legend(p, "l", colour, text);
}

/* The same all over the run, so a line and a name. */
static void draw_level(struct chart *p, double y, const char *name)
{
    char text[64];

    (void)snprintf(text, sizeof(text), "%s: %.3f", name, y);
    chart_level(p, y, name, text);
}

/* Only where evaluations were logged. */
static void draw_heldout(struct chart *p, const struct run_log_data *d)
{
    /* The levels of full attention and of none stay the same through a run. */
    const struct run_log_eval *last = &d->evals[d->n_evals - 1];

    /* Both ends of what gists can do are always in the picture. */
    chart_take_y(p, last->full);
    chart_take_y(p, last->none);
    for (size_t i = 0; i < d->n_evals; i++)
        for (uint32_t k = 0; k < d->evals[i].n_ratios; k++)
            chart_take_y(p, d->evals[i].nll[k]);
    chart_widen(p);
    chart_axes(p, "held-out text, negative log-likelihood a token", "tokens");
    draw_level(p, last->none, "segment alone");
    draw_level(p, last->full, "full attention");
    for (uint32_t k = 0; k < last->n_ratios; k++)
        draw_ratio(p, d, last->ratios[k], chart_colours[k]);
}

/* --- the file --------------------------------------------------------------------------------- */

static int draw_all(FILE *f, const struct run_log_data *d, const char *title)
{
    double x_max = (double)d->steps[d->n_steps - 1].tokens;
    struct chart c;
    int r;

    if (d->n_evals && (double)d->evals[d->n_evals - 1].tokens > x_max)
        x_max = (double)d->evals[d->n_evals - 1].tokens;
    x_max = x_max > 0 ? x_max : 1;
    /* Panels below each other, with one axis of tokens. */
    chart_begin(f, d->n_evals ? 2 : 1, title);
    chart_panel(&c, f, 0);
    c.x_max = x_max;
    r = draw_training(&c, d, d->n_evals ? NULL : "tokens");
    if (r == 0 && d->n_evals) {
        chart_panel(&c, f, 1);
        c.x_max = x_max;
        draw_heldout(&c, d);
    }
    chart_end(f);
    return r;
}

int plot_write(const struct run_log_data *d, const char *title, const char *out, struct why *why)
{
    char *part;
    FILE *f;
    int r;

    /* Also a log that a run has just begun. */
    if (d->n_steps == 0)
        return why_set(why, -ENODATA, "%s: the log contains no steps to draw", title);
    /* Beside it and renamed: a picture that is shown meanwhile is whole. */
    if (asprintf(&part, "%s.part", out) < 0)
        return why_set(why, -ENOMEM, "%s: no memory", out);
    f = fopen(part, "we");
    if (!f) {
        r = why_set(why, -errno, "%s: %s", part, strerror(errno));
        free(part);
        return r;
    }
    r = draw_all(f, d, title);
    /* Which call failed stdio does not say. */
    if (ferror(f) && r == 0)
        r = -EIO;
    if (fclose(f) != 0 && r == 0)
        r = -errno;
    if (r == 0 && rename(part, out) < 0)
        r = -errno;
    if (r < 0) {
        (void)unlink(part);
        (void)why_set(why, r, "%s: %s", out, strerror(-r));
    }
    free(part);
    return r;
}
