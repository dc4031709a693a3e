/* eval/page.h - headings, text, tables and charts as Markdown or as one HTML page of its own.
 *
 * Text may be anything: it is escaped. Markdown has no charts: page_charts says whether to draw
 * them, into the page's stream (base/chart.h).
 *
 * Threads    none of its own.
 * Errors     the stream's: ferror() at the end.
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
};

void page_begin(struct page *p, FILE *f, bool html, const char *title);
void page_end(struct page *p);

void page_heading(struct page *p, unsigned level, const char *text); /* 2: a section; 3: a part */
__attribute__((format(printf, 2, 3))) void page_text(struct page *p, const char *fmt, ...);

/* The first column is of names, the others of numbers. Rows are filled cell by cell. */
void page_table(struct page *p, const char *const *columns, size_t n_columns);
__attribute__((format(printf, 2, 3))) void page_cell(struct page *p, const char *fmt, ...);
void page_table_end(struct page *p);

bool page_charts(const struct page *p);

#endif
