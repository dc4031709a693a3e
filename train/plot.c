#include "train/plot.h"

#include "train/run_log.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WIDTH      980.0
#define LEFT       70.0
#define RIGHT      210.0 /* the legend's */
#define TOP        50.0
#define PANEL      300.0
#define GAP        70.0
#define POINTS_MAX 1200u
#define TICKS      6

/* One colour a ratio, told apart by people who see few of them (after Okabe and Ito). */
static const char *const colours[RUN_LOG_RATIOS_MAX] = {
    "#0072b2", "#009e73", "#e69f00", "#d55e00", "#cc79a7", "#56b4e9", "#8a7a00", "#7f5fa8"
};

static const char style[] =
    "<style>\n"
    "text{font:13px "
    "sans-serif;fill:#222}.t{font-size:16px}.g{stroke:#ddd}.a{stroke:#555;fill:none}\n"
    ".b{fill:#fff}.r{stroke:#bbb;fill:none;stroke-width:1}.s{stroke:#222;fill:none;stroke-width:2}"
    "\n"
    ".h{stroke:#555;stroke-dasharray:6 4}.l{fill:none;stroke-width:2}\n"
    "@media "
    "(prefers-color-scheme:dark){text{fill:#ddd}.g{stroke:#333}.a{stroke:#999}.b{fill:#111}\n"
    ".r{stroke:#555}.s{stroke:#eee}.h{stroke:#aaa}}\n"
    "</style>\n";

struct panel {
    FILE *f;
    double top;
    double x_max, y_min, y_max; /* in data; x begins at 0 */
    double legend;              /* where its next line goes */
};

static double x_at(const struct panel *p, double x)
{
    return LEFT + x / p->x_max * (WIDTH - LEFT - RIGHT);
}

static double y_at(const struct panel *p, double y)
{
    double share = (y - p->y_min) / (p->y_max - p->y_min);

    share = share < 0 ? 0 : share > 1 ? 1 : share;
    return p->top + PANEL * (1 - share);
}

/* --- axes ------------------------------------------------------------------------------------- */

/* A step of 1, 2 or 5 times a power of ten that makes about n of a range. */
static double nice_step(double range, int n)
{
    double rough = range / n, power = pow(10, floor(log10(rough)));
    double part = rough / power;

    return power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
}

static void take(double *min, double *max, double v)
{
    if (!isfinite(v))
        return;
    *min = v < *min ? v : *min;
    *max = v > *max ? v : *max;
}

/* Some room around, and no empty range. */
static void widen(struct panel *p)
{
    double room;

    if (p->y_max < p->y_min)
        p->y_min = p->y_max = 0;
    room = (p->y_max - p->y_min) * 0.06;
    room = room > 0 ? room : 0.5;
    p->y_min -= room;
    p->y_max += room;
}

static void draw_axes(const struct panel *p, const char *name, bool x_labels)
{
    double step = nice_step(p->y_max - p->y_min, TICKS), bottom = p->top + PANEL;
    double unit = p->x_max >= 2e6 ? 1e6 : p->x_max >= 2e3 ? 1e3 : 1;

    for (double y = ceil(p->y_min / step) * step; y <= p->y_max; y += step) {
        fprintf(p->f, "<line class=\"g\" x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\"/>\n", LEFT,
                WIDTH - RIGHT, y_at(p, y), y_at(p, y));
        fprintf(p->f, "<text x=\"%g\" y=\"%.1f\" text-anchor=\"end\">%.*f</text>\n", LEFT - 8,
                y_at(p, y) + 4,
                step < 0.01  ? 3
                : step < 0.1 ? 2
                             : 1,
                y);
    }
    step = nice_step(p->x_max, TICKS);
    for (double x = 0; x <= p->x_max * 1.0001; x += step) {
        fprintf(p->f, "<line class=\"g\" y1=\"%g\" y2=\"%g\" x1=\"%.1f\" x2=\"%.1f\"/>\n", p->top,
                bottom, x_at(p, x), x_at(p, x));
        fprintf(p->f, "<text x=\"%.1f\" y=\"%g\" text-anchor=\"middle\">%g</text>\n", x_at(p, x),
                bottom + 18, x / unit);
    }
    fprintf(p->f, "<path class=\"a\" d=\"M%g %gV%gH%g\"/>\n", LEFT, p->top, bottom, WIDTH - RIGHT);
    fprintf(p->f, "<text x=\"%g\" y=\"%g\">%s</text>\n", LEFT, p->top - 8, name);
    if (x_labels)
        fprintf(p->f, "<text x=\"%g\" y=\"%g\" text-anchor=\"end\">%stokens</text>\n",
                WIDTH - RIGHT, bottom + 36,
                unit == 1e6   ? "million "
                : unit == 1e3 ? "thousand "
                              : "");
}

static void draw_legend(struct panel *p, const char *class, const char *colour, const char *text)
{
    fprintf(p->f, "<line class=\"%s\"%s%s%s x1=\"%g\" x2=\"%g\" y1=\"%g\" y2=\"%g\"/>\n", class,
            colour ? " stroke=\"" : "", colour ? colour : "", colour ? "\"" : "",
            WIDTH - RIGHT + 14, WIDTH - RIGHT + 40, p->legend - 4, p->legend - 4);
    fprintf(p->f, "<text x=\"%g\" y=\"%g\">%s</text>\n", WIDTH - RIGHT + 48, p->legend, text);
    p->legend += 20;
}

/* --- training loss ---------------------------------------------------------------------------- */

/* One point for each step, or of some hundred equal parts of them the mean. */
static void draw_line(const struct panel *p, const struct run_log_data *d, const double *y,
                      const char *class)
{
    size_t part = (d->n_steps + POINTS_MAX - 1) / POINTS_MAX;

    fprintf(p->f, "<polyline class=\"%s\" points=\"", class);
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
            fprintf(p->f, "%.1f,%.1f ", x_at(p, (double)d->steps[i + n - 1].tokens),
                    y_at(p, sum / count));
    }
    fprintf(p->f, "\"/>\n");
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* The range without the highest and lowest hundredth. Sorts v. */
static void set_range(struct panel *p, double *v, size_t n)
{
    size_t m = 0;

    p->y_min = INFINITY;
    p->y_max = -INFINITY;
    for (size_t i = 0; i < n; i++)
        if (isfinite(v[i]))
            v[m++] = v[i];
    qsort(v, m, sizeof(*v), compare);
    if (m > 0) {
        take(&p->y_min, &p->y_max, v[m / 100]);
        take(&p->y_min, &p->y_max, v[m - 1 - m / 100]);
    }
    widen(p);
}

/* A mean that forgets over a fiftieth of the run, without the pull of where it began; of values
 * within the picture, as one wild step would hide many others. */
static void smooth(const struct panel *p, const struct run_log_data *d, double *ret)
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

static int draw_training(struct panel *p, const struct run_log_data *d, bool x_labels)
{
    double *raw = calloc(d->n_steps, sizeof(*raw)), *smoothed = calloc(d->n_steps, sizeof(*raw));
    double *sorted = calloc(d->n_steps, sizeof(*raw));
    int r = raw && smoothed && sorted ? 0 : -ENOMEM;

    if (r == 0) {
        for (size_t i = 0; i < d->n_steps; i++)
            sorted[i] = raw[i] = d->steps[i].loss;
        set_range(p, sorted, d->n_steps);
        smooth(p, d, smoothed);
        draw_axes(p, "training loss", x_labels);
        draw_line(p, d, raw, "r");
        draw_line(p, d, smoothed, "s");
        draw_legend(p, "r", NULL, "each step");
        draw_legend(p, "s", NULL, "smoothed");
    }
    free(raw);
    free(smoothed);
    free(sorted);
    return r;
}

/* --- held-out text ---------------------------------------------------------------------------- */

static double ratio_nll(const struct run_log_eval *e, uint32_t ratio)
{
    for (uint32_t i = 0; i < e->n_ratios; i++)
        if (e->ratios[i] == ratio)
            return e->nll[i];
    return NAN;
}

static void draw_ratio(struct panel *p, const struct run_log_data *d, uint32_t ratio,
                       const char *colour)
{
    char text[64];
    double last = NAN;

    fprintf(p->f, "<polyline class=\"l\" stroke=\"%s\" points=\"", colour);
    for (size_t i = 0; i < d->n_evals; i++) {
        double y = ratio_nll(&d->evals[i], ratio);

        if (!isfinite(y))
            continue;
        last = y;
        fprintf(p->f, "%.1f,%.1f ", x_at(p, (double)d->evals[i].tokens), y_at(p, y));
    }
    fprintf(p->f, "\"/>\n");
    for (size_t i = 0; i < d->n_evals; i++) {
        double y = ratio_nll(&d->evals[i], ratio);

        if (isfinite(y))
            fprintf(p->f, "<circle r=\"3\" fill=\"%s\" cx=\"%.1f\" cy=\"%.1f\"/>\n", colour,
                    x_at(p, (double)d->evals[i].tokens), y_at(p, y));
    }
    (void)snprintf(text, sizeof(text), "ratio %u: %.3f", ratio, last);
    draw_legend(p, "l", colour, text);
}

static void draw_level(struct panel *p, double y, const char *name)
{
    char text[64];

    if (!isfinite(y))
        return;
    fprintf(p->f, "<line class=\"h\" x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\"/>\n", LEFT,
            WIDTH - RIGHT, y_at(p, y), y_at(p, y));
    fprintf(p->f, "<text x=\"%g\" y=\"%.1f\">%s</text>\n", LEFT + 6, y_at(p, y) - 5, name);
    (void)snprintf(text, sizeof(text), "%s: %.3f", name, y);
    draw_legend(p, "h", NULL, text);
}

static void draw_heldout(struct panel *p, const struct run_log_data *d)
{
    const struct run_log_eval *last = &d->evals[d->n_evals - 1];

    p->y_min = INFINITY;
    p->y_max = -INFINITY;
    take(&p->y_min, &p->y_max, last->full);
    take(&p->y_min, &p->y_max, last->none);
    for (size_t i = 0; i < d->n_evals; i++)
        for (uint32_t k = 0; k < d->evals[i].n_ratios; k++)
            take(&p->y_min, &p->y_max, d->evals[i].nll[k]);
    widen(p);
    draw_axes(p, "held-out text, negative log-likelihood a token", true);
    draw_level(p, last->none, "segment alone");
    draw_level(p, last->full, "full attention");
    for (uint32_t k = 0; k < last->n_ratios; k++)
        draw_ratio(p, d, last->ratios[k], colours[k]);
}

/* --- the file --------------------------------------------------------------------------------- */

static void put_escaped(FILE *f, const char *s)
{
    for (; *s; s++) {
        if (*s == '&')
            (void)fputs("&amp;", f);
        else if (*s == '<')
            (void)fputs("&lt;", f);
        else if ((unsigned char)*s >= ' ')
            (void)fputc(*s, f);
    }
}

static int draw_all(FILE *f, const struct run_log_data *d, const char *title)
{
    double height = TOP + PANEL + (d->n_evals ? GAP + PANEL : 0) + 50;
    struct panel p = { .f = f, .top = TOP, .legend = TOP + 14 };
    int r;

    p.x_max = (double)d->steps[d->n_steps - 1].tokens;
    if (d->n_evals && (double)d->evals[d->n_evals - 1].tokens > p.x_max)
        p.x_max = (double)d->evals[d->n_evals - 1].tokens;
    p.x_max = p.x_max > 0 ? p.x_max : 1;
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" width=\"%g\" "
            "height=\"%g\">\n%s<rect class=\"b\" width=\"100%%\" height=\"100%%\"/>\n"
            "<text class=\"t\" x=\"%g\" y=\"24\">",
            WIDTH, height, WIDTH, height, style, LEFT);
    put_escaped(f, title);
    fprintf(f, "</text>\n");
    r = draw_training(&p, d, d->n_evals == 0);
    if (r == 0 && d->n_evals) {
        p.top = TOP + PANEL + GAP;
        p.legend = p.top + 14;
        draw_heldout(&p, d);
    }
    fprintf(f, "</svg>\n");
    return r;
}

int plot_write(const struct run_log_data *d, const char *title, const char *out, struct why *why)
{
    char *part;
    FILE *f;
    int r;

    if (d->n_steps == 0)
        return why_set(why, -ENODATA, "%s: the log contains no steps to draw", title);
    if (asprintf(&part, "%s.part", out) < 0)
        return why_set(why, -ENOMEM, "%s: no memory", out);
    f = fopen(part, "we");
    if (!f) {
        r = why_set(why, -errno, "%s: %s", part, strerror(errno));
        free(part);
        return r;
    }
    r = draw_all(f, d, title);
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
