/* base/chart.c - SVG, written as it comes: panels of one width below each other, a legend to the
 * right of each. Nothing is kept but the ranges, so that whoever draws goes twice over the numbers:
 * for the ranges, then for the lines. */

#include "base/chart.h"

#include <math.h>

/* Of the picture, in the units of its viewBox; it is scaled by whoever shows it. */
#define WIDTH  980.0
#define LEFT   70.0
#define RIGHT  210.0 /* the legend's */
#define TOP    50.0
#define PANEL  300.0
#define GAP    70.0
#define BOTTOM 50.0
#define TICKS  6

/* The first six are Okabe and Ito's, which are told apart without red and green, too. */
const char *const chart_colours[CHART_COLOURS] = { "#0072b2", "#009e73", "#e69f00", "#d55e00",
                                                   "#cc79a7", "#56b4e9", "#8a7a00", "#7f5fa8" };

/* Both colour schemes in one file: a page that shows it follows its reader's. */
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

/* --- the picture ------------------------------------------------------------------------------ */

void chart_begin(FILE *f, unsigned n_panels, const char *title)
{
    double height = TOP + n_panels * PANEL + (n_panels - 1) * GAP + BOTTOM;

    (void)fprintf(f,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" width=\"%g\" "
                  "height=\"%g\">\n%s<rect class=\"b\" width=\"100%%\" height=\"100%%\"/>\n"
                  "<text class=\"t\" x=\"%g\" y=\"24\">",
                  WIDTH, height, WIDTH, height, style, LEFT);
    chart_text(f, title);
    (void)fprintf(f, "</text>\n");
}

void chart_end(FILE *f)
{
    (void)fprintf(f, "</svg>\n");
}

/* Titles and names may hold anything: markup is written as text, and control characters, which XML
 * has not, are left out. */
void chart_text(FILE *f, const char *s)
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

/* --- ranges ----------------------------------------------------------------------------------- */

void chart_panel(struct chart *c, FILE *f, unsigned index)
{
    double top = TOP + index * (PANEL + GAP);

    *c = (struct chart){
        .f = f, .top = top, .y_min = INFINITY, .y_max = -INFINITY, .legend = top + 14
    };
}

/* What is not finite is a gap in a line, and widens nothing. */
void chart_take_y(struct chart *c, double y)
{
    if (!isfinite(y))
        return;
    c->y_min = y < c->y_min ? y : c->y_min;
    c->y_max = y > c->y_max ? y : c->y_max;
}

/* Some room above and below; also where there is one value, or none, since axes divide by the
 * range. */
void chart_widen(struct chart *c)
{
    double room;

    if (c->y_max < c->y_min)
        c->y_min = c->y_max = 0;
    room = (c->y_max - c->y_min) * 0.06;
    room = room > 0 ? room : 0.5;
    c->y_min -= room;
    c->y_max += room;
}

static double x_at(const struct chart *c, double x)
{
    double share = c->powers ? log(x / c->x_min) / log(c->x_max / c->x_min)
                             : (x - c->x_min) / (c->x_max - c->x_min);

    return LEFT + share * (WIDTH - LEFT - RIGHT);
}

/* Outside of the panel nothing is drawn: a value beyond the range stands at its edge. */
static double y_at(const struct chart *c, double y)
{
    double share = (y - c->y_min) / (c->y_max - c->y_min);

    share = share < 0 ? 0 : share > 1 ? 1 : share;
    return c->top + PANEL * (1 - share);
}

/* --- axes ------------------------------------------------------------------------------------- */

/* A step of 1, 2 or 5 times a power of ten that makes about n of a range. */
static double nice_step(double range, int n)
{
    double rough = range / n, power = pow(10, floor(log10(rough)));
    double part = rough / power;

    return power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
}

static void draw_tick(const struct chart *c, double x, double unit)
{
    (void)fprintf(c->f, "<line class=\"g\" y1=\"%g\" y2=\"%g\" x1=\"%.1f\" x2=\"%.1f\"/>\n", c->top,
                  c->top + PANEL, x_at(c, x), x_at(c, x));
    (void)fprintf(c->f, "<text x=\"%.1f\" y=\"%g\" text-anchor=\"middle\">%g</text>\n", x_at(c, x),
                  c->top + PANEL + 18, x / unit);
}

static void draw_ticks(const struct chart *c, double unit)
{
    double step;

    /* One at each power of two: those are what such an axis is for. */
    if (c->powers) {
        for (double x = exp2(ceil(log2(c->x_min))); x <= c->x_max * 1.0001; x *= 2)
            draw_tick(c, x, unit);
        return;
    }
    step = nice_step(c->x_max - c->x_min, TICKS);
    for (double x = ceil(c->x_min / step) * step; x <= c->x_max * 1.0001; x += step)
        draw_tick(c, x, unit);
}

void chart_axes(const struct chart *c, const char *name, const char *x_name)
{
    double step = nice_step(c->y_max - c->y_min, TICKS), bottom = c->top + PANEL;
    double unit = c->powers ? 1 : c->x_max >= 2e6 ? 1e6 : c->x_max >= 2e3 ? 1e3 : 1;

    /* By whole numbers: a sum would come to -0 or to 0.3000000004. */
    for (double i = ceil(c->y_min / step); i * step <= c->y_max; i++) {
        double y = i == 0 ? 0 : i * step;

        (void)fprintf(c->f, "<line class=\"g\" x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\"/>\n",
                      LEFT, WIDTH - RIGHT, y_at(c, y), y_at(c, y));
        (void)fprintf(c->f, "<text x=\"%g\" y=\"%.1f\" text-anchor=\"end\">%.*f</text>\n", LEFT - 8,
                      y_at(c, y) + 4,
                      step < 0.01  ? 3
                      : step < 0.1 ? 2
                      : step < 10  ? 1
                                   : 0,
                      y);
    }
    draw_ticks(c, unit);
    (void)fprintf(c->f, "<path class=\"a\" d=\"M%g %gV%gH%g\"/>\n", LEFT, c->top, bottom,
                  WIDTH - RIGHT);
    (void)fprintf(c->f, "<text x=\"%g\" y=\"%g\">", LEFT, c->top - 8);
    chart_text(c->f, name);
    (void)fprintf(c->f, "</text>\n");
    if (x_name)
        (void)fprintf(c->f, "<text x=\"%g\" y=\"%g\" text-anchor=\"end\">%s%s</text>\n",
                      WIDTH - RIGHT, bottom + 36,
                      unit == 1e6   ? "million "
                      : unit == 1e3 ? "thousand "
                                    : "",
                      x_name);
}

/* --- what is drawn ---------------------------------------------------------------------------- */

static void put_colour(FILE *f, const char *colour)
{
    if (colour)
        (void)fprintf(f, " stroke=\"%s\"", colour);
}

void chart_legend(struct chart *c, const char *class, const char *colour, const char *text)
{
    (void)fprintf(c->f, "<line class=\"%s\"", class);
    put_colour(c->f, colour);
    (void)fprintf(c->f, " x1=\"%g\" x2=\"%g\" y1=\"%g\" y2=\"%g\"/>\n", WIDTH - RIGHT + 14,
                  WIDTH - RIGHT + 40, c->legend - 4, c->legend - 4);
    (void)fprintf(c->f, "<text x=\"%g\" y=\"%g\">", WIDTH - RIGHT + 48, c->legend);
    chart_text(c->f, text);
    (void)fprintf(c->f, "</text>\n");
    c->legend += 20;
}

void chart_line(const struct chart *c, const char *class, const char *colour)
{
    (void)fprintf(c->f, "<polyline class=\"%s\"", class);
    put_colour(c->f, colour);
    (void)fprintf(c->f, " points=\"");
}

/* `shift` moves a whole line by a few points, so that lines that coincide are both seen. */
void chart_to(const struct chart *c, double x, double y)
{
    if (isfinite(y))
        (void)fprintf(c->f, "%.1f,%.1f ", x_at(c, x) + c->shift, y_at(c, y) - c->shift);
}

void chart_line_end(const struct chart *c)
{
    (void)fprintf(c->f, "\"/>\n");
}

void chart_dot(const struct chart *c, const char *colour, double x, double y)
{
    if (isfinite(y))
        (void)fprintf(c->f, "<circle r=\"3\" fill=\"%s\" cx=\"%.1f\" cy=\"%.1f\"/>\n", colour,
                      x_at(c, x) + c->shift, y_at(c, y) - c->shift);
}

void chart_bar(const struct chart *c, const char *colour, double x, double low, double high)
{
    if (isfinite(low) && isfinite(high))
        (void)fprintf(c->f,
                      "<line stroke=\"%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>"
                      "\n",
                      colour, x_at(c, x) + c->shift, x_at(c, x) + c->shift, y_at(c, low) - c->shift,
                      y_at(c, high) - c->shift);
}

void chart_level(struct chart *c, double y, const char *name, const char *legend)
{
    if (!isfinite(y))
        return;
    (void)fprintf(c->f, "<line class=\"h\" x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\"/>\n", LEFT,
                  WIDTH - RIGHT, y_at(c, y), y_at(c, y));
    (void)fprintf(c->f, "<text x=\"%g\" y=\"%.1f\">", LEFT + 6, y_at(c, y) - 5);
    chart_text(c->f, name);
    (void)fprintf(c->f, "</text>\n");
    chart_legend(c, "h", NULL, legend);
}
