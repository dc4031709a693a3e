/* base/chart.h - pictures of curves: panels one below the other in an SVG.
 *
 *     chart_begin(f, 1, "title");
 *     chart_panel(&c, f, 0);          ranges: chart_take_y for all that is drawn, c.x_max
 *     chart_widen(&c);
 *     chart_axes(&c, "loss", "tokens");
 *     chart_line(&c, "l", chart_colours[0]); chart_to(&c, x, y)...; chart_line_end(&c);
 *     chart_legend(&c, "l", chart_colours[0], "ratio 4");
 *     chart_end(f);
 *
 * Classes of lines: "l" coloured, "s" in the text's colour, "r" thin and pale, "h" a level, dashed.
 * Colours follow the viewer's light or dark scheme; a viewer that knows none shows the light one.
 *
 * Threads    none of its own.
 * Errors     the stream's: ferror() at the end.
 */
#ifndef BASE_CHART_H
#define BASE_CHART_H

#include <stdbool.h>
#include <stdio.h>

#define CHART_COLOURS 8u

/* Told apart by people who see few colours (after Okabe and Ito). */
extern const char *const chart_colours[CHART_COLOURS];

struct chart {
    FILE *f;
    double top;                        /* of the panel, in the picture */
    double x_min, x_max, y_min, y_max; /* in data */
    bool powers;                       /* x in powers of two; x_min is above 0 */
    double legend;                     /* where its next line goes */
    double shift; /* pixels that curves are moved to the right and up: equal ones would hide */
};

/* The picture's head and its foot. */
void chart_begin(FILE *f, unsigned n_panels, const char *title);
void chart_end(FILE *f);

/* The index-th panel, with x from 0 and no range of y yet. */
void chart_panel(struct chart *c, FILE *f, unsigned index);
void chart_take_y(struct chart *c, double y); /* widens the range; not finite: left out */
void chart_widen(struct chart *c);            /* some room around, and no empty range */

/* x_name NULL: the axis has no name; "tokens" becomes "thousand tokens" where numbers are large. */
void chart_axes(const struct chart *c, const char *name, const char *x_name);
void chart_legend(struct chart *c, const char *class, const char *colour, const char *text);

/* A curve, by its points. colour NULL: its class's. */
void chart_line(const struct chart *c, const char *class, const char *colour);
void chart_to(const struct chart *c, double x, double y);
void chart_line_end(const struct chart *c);
void chart_dot(const struct chart *c, const char *colour, double x, double y);
/* From low to high at x. */
void chart_bar(const struct chart *c, const char *colour, double x, double low, double high);
void chart_level(struct chart *c, double y, const char *name, const char *legend);

/* Text of others, as XML has it; control characters are left out. */
void chart_text(FILE *f, const char *s);

#endif
