/* One set of calls, two kinds of output. What differs is decided here, line by line, so that a
 * report is written once. */
#include "eval/page.h"

#include "base/chart.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>

static const char head[] =
    "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width\">\n<style>\n"
    ":root{color-scheme:light dark}\n"
    "body{font:15px sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}\n"
    "table{border-collapse:collapse;margin:1em 0;display:block;overflow-x:auto}\n"
    "th,td{padding:3px 10px;border-bottom:1px solid #8886;text-align:right;white-space:nowrap}\n"
    "th:first-child,td:first-child{text-align:left}svg{max-width:100%;height:auto}\n"
    "</style>\n";

/* One line of Markdown: a bar would end a table's cell, the others would be markup. */
static void put_markdown(FILE *f, const char *s)
{
    for (; *s; s++) {
        if (*s == '|' || *s == '\\' || *s == '<' || *s == '*' || *s == '`')
            (void)fputc('\\', f);
        (void)fputc((unsigned char)*s < ' ' ? ' ' : *s, f);
    }
}

/* Everything that is not markup of ours goes through here. */
static void put(const struct page *p, const char *s)
{
    if (p->html)
        chart_text(p->f, s);
    else
        put_markdown(p->f, s);
}

__attribute__((format(printf, 2, 0))) static void put_formatted(const struct page *p,
                                                                const char *fmt, va_list ap)
{
    char text[1024];

    (void)vsnprintf(text, sizeof(text), fmt, ap);
    put(p, text);
}

void page_begin(struct page *p, FILE *f, bool html, const char *plots, const char *title)
{
    *p = (struct page){ .f = f, .html = html, .plots = plots };
    if (html) {
        (void)fputs(head, f);
        (void)fputs("<title>", f);
        put(p, title);
        (void)fputs("</title>\n", f);
    }
    page_heading(p, 1, title);
}

void page_end(struct page *p)
{
    if (p->html)
        (void)fputs("</html>\n", p->f);
}

void page_heading(struct page *p, unsigned level, const char *text)
{
    if (p->html)
        (void)fprintf(p->f, "<h%u>", level);
    else
        (void)fprintf(p->f, "%.*s ", (int)level, "####");
    put(p, text);
    if (p->html)
        (void)fprintf(p->f, "</h%u>\n", level);
    else
        (void)fputs("\n\n", p->f);
}

void page_text(struct page *p, const char *fmt, ...)
{
    va_list ap;

    if (p->html)
        (void)fputs("<p>", p->f);
    va_start(ap, fmt);
    put_formatted(p, fmt, ap);
    va_end(ap);
    (void)fputs(p->html ? "</p>\n" : "\n\n", p->f);
}

/* --- tables ----------------------------------------------------------------------------------- */

void page_table(struct page *p, const char *const *columns, size_t n_columns)
{
    p->n_columns = n_columns;
    p->column = 0;
    if (p->html)
        (void)fputs("<table>\n<tr>", p->f);
    for (size_t i = 0; i < n_columns; i++) {
        (void)fputs(p->html ? "<th>" : "| ", p->f);
        put(p, columns[i]);
        (void)fputs(p->html ? "</th>" : " ", p->f);
    }
    (void)fputs(p->html ? "</tr>\n" : "|\n", p->f);
    for (size_t i = 0; !p->html && i < n_columns; i++)
        (void)fputs(i == 0 ? "|---" : "|---:", p->f);
    if (!p->html)
        (void)fputs("|\n", p->f);
}

/* A row ends with its last cell, so nobody has to say so. */
void page_cell(struct page *p, const char *fmt, ...)
{
    va_list ap;

    if (p->html && p->column == 0)
        (void)fputs("<tr>", p->f);
    (void)fputs(p->html ? "<td>" : "| ", p->f);
    va_start(ap, fmt);
    put_formatted(p, fmt, ap);
    va_end(ap);
    (void)fputs(p->html ? "</td>" : " ", p->f);
    if (++p->column < p->n_columns)
        return;
    p->column = 0;
    (void)fputs(p->html ? "</tr>\n" : "|\n", p->f);
}

void page_table_end(struct page *p)
{
    (void)fputs(p->html ? "</table>\n" : "\n", p->f);
}

/* --- charts ----------------------------------------------------------------------------------- */

/* FOLDER/NUMBER-TITLE.svg, the title in small letters and dashes. The number keeps titles that are
 * alike apart. NULL with errno set. */
static FILE *open_chart(const struct page *p, const char *title, char *ret, size_t cap)
{
    int at = snprintf(ret, cap, "%s/%02u-", p->plots, p->n_charts);
    size_t n;

    if (at < 0 || (size_t)at + strlen(title) + sizeof(".svg") > cap) {
        errno = ENAMETOOLONG;
        return NULL;
    }
    n = (size_t)at;
    for (; *title; title++) {
        if (isalnum((unsigned char)*title))
            ret[n++] = (char)tolower((unsigned char)*title);
        else if (ret[n - 1] != '-')
            ret[n++] = '-';
    }
    (void)strcpy(ret + n, ".svg");
    return fopen(ret, "we");
}

/* For HTML the chart is written into the page, for Markdown into a file that the page shows. After
 * a failure no more are begun. */
FILE *page_chart(struct page *p, const char *title)
{
    char path[PATH_MAX];
    FILE *f;

    if (!p->html && (!p->plots || p->err < 0))
        return NULL;
    p->n_charts++;
    if (p->html) {
        chart_begin(p->f, 1, title);
        return p->f;
    }
    f = open_chart(p, title, path, sizeof(path));
    if (!f) {
        p->err = -errno;
        return NULL;
    }
    (void)fputs("![", p->f);
    put_markdown(p->f, title);
    (void)fprintf(p->f, "](%s)\n\n", path);
    chart_begin(f, 1, title);
    return f;
}

void page_chart_end(struct page *p, FILE *chart)
{
    bool bad;

    chart_end(chart);
    if (chart == p->f)
        return;
    bad = ferror(chart);
    p->err = fclose(chart) != 0 ? -errno : bad ? -EIO : 0;
}
