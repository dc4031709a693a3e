/* eval/page.h - headings, text, tables and charts as Markdown or as one HTML page of its own.
 *
 * Text may be anything: it is escaped. A chart (base/chart.h) stands in the HTML page itself;
 * Markdown shows a file of a folder, one for each chart, or has none where no folder is named.
 *
 * Threads    none of its own.
 * Errors     the stream's: ferror() at the end; err is of a chart's file, and charts stop there.
 */
#ifndef EVAL_PAGE_H
#define EVAL_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct page {
    FILE *f;
    bool html;
    size_t n_columns, column; /* of the table that is open; cells of its row so far */
    const char *plots;        /* a folder for Markdown's charts, or NULL; it outlives the page */
    unsigned n_charts;
    int err; /* -errno of the first chart that could not be written; 0: none */
};

/* plots: a folder that is there, for the charts of Markdown; NULL: none, and always for HTML. */
void page_begin(struct page *p, FILE *f, bool html, const char *plots, const char *title);
void page_end(struct page *p);

void page_heading(struct page *p, unsigned level, const char *text); /* 2: a section; 3: a part */
__attribute__((format(printf, 2, 3))) void page_text(struct page *p, const char *fmt, ...);

/* The first column is of names, the others of numbers. Rows are filled cell by cell. */
void page_table(struct page *p, const char *const *columns, size_t n_columns);
__attribute__((format(printf, 2, 3))) void page_cell(struct page *p, const char *fmt, ...);
void page_table_end(struct page *p);

/* Where to draw a chart of one panel, or NULL where the page has none. */
FILE *page_chart(struct page *p, const char *title);
void page_chart_end(struct page *p, FILE *chart);

#endif
