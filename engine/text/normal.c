#include "engine/text/normal.h"

#include "base/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define DECOMPOSED_MAX 4   /* code points of one, in NFD */
#define POINTS_MIN     256 /* room that nearly all runs do with */
#define OPTIONS        (UTF8PROC_STABLE | UTF8PROC_COMPOSE)

void normal_fini(struct normal *n)
{
    free(n->points);
    *n = (struct normal){ .points = NULL };
}

/* Marks that are younger than the tables of Hugging Face `tokenizers` 0.23, which models' texts go
 * through: there each is a character like others, which joins nothing and is not sorted. Found by
 * comparing both on all characters of Unicode 15; tests/reference/tokenizer_equal.py holds it. */
static const struct range {
    uint32_t first, last;
} younger[] = {
    { 0x7fd, 0x7fd },     { 0x898, 0x89f },     { 0x8ca, 0x8d3 },     { 0x9fe, 0x9fe },
    { 0xc3c, 0xc3c },     { 0xd3b, 0xd3c },     { 0xeba, 0xeba },     { 0x1715, 0x1715 },
    { 0x1abf, 0x1ace },   { 0x1df6, 0x1dfa },   { 0xa82c, 0xa82c },   { 0x10d24, 0x10d27 },
    { 0x10eab, 0x10eac }, { 0x10efd, 0x10eff }, { 0x10f46, 0x10f50 }, { 0x10f82, 0x10f85 },
    { 0x11070, 0x11070 }, { 0x1133b, 0x1133b }, { 0x1145e, 0x1145e }, { 0x11839, 0x1183a },
    { 0x11930, 0x11930 }, { 0x1193d, 0x1193e }, { 0x11943, 0x11943 }, { 0x119e0, 0x119e0 },
    { 0x11a34, 0x11a34 }, { 0x11a47, 0x11a47 }, { 0x11a99, 0x11a99 }, { 0x11d42, 0x11d42 },
    { 0x11d44, 0x11d45 }, { 0x11d97, 0x11d97 }, { 0x11f41, 0x11f42 }, { 0x16ff0, 0x16ff1 },
    { 0x1e08f, 0x1e08f }, { 0x1e130, 0x1e136 }, { 0x1e2ae, 0x1e2ae }, { 0x1e2ec, 0x1e2ef },
    { 0x1e4ec, 0x1e4ef }
};
#define N_YOUNGER (sizeof(younger) / sizeof(younger[0]))

bool normal_is_younger(uint32_t c)
{
    size_t lo = 0, hi = N_YOUNGER;

    while (lo < hi) {
        size_t mid = (lo + hi) / 2;

        if (c > younger[mid].last)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < N_YOUNGER && c >= younger[lo].first;
}

/* Whether nothing on the left can change it or be changed by it. Below U+0300 that is so for all.
 * Above, what joins to the left is a mark, or a vowel or final consonant of Hangul; that some marks
 * join nothing does no harm. It is asked of every character that is not ASCII, so it is a range and
 * a look into a table. */
static bool begins_anew(uint32_t c)
{
    if (c < 0x300)
        return true;
    if ((c >= 0x1160 && c <= 0x11ff) || (c >= 0xd7b0 && c <= 0xd7ff))
        return false;
    switch (utf8proc_category((int32_t)c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
        return normal_is_younger(c);
    default:
        return true;
    }
}

/* Whether it is its own NFC when it stands alone. Not sure: false. */
static bool is_itself(uint32_t c)
{
    if (c < 0x300 ||
        (c >= 0xac00 && c < 0xd7a4)) /* syllables of Hangul come apart and join again */
        return true;
    return utf8proc_get_property((int32_t)c)->decomp_seqindex == UINT16_MAX;
}

/* Bytes at the start of text that stay as they are because every character begins anew and is
 * itself; the last one is left out, unless it is the end: what follows may join it. Nearly all text
 * is such a span, and costs no more than this look and a copy. */
static size_t plain_span(const uint8_t *text, size_t len, bool end)
{
    size_t at = 0, last = 0, n;

    while (at < len) {
        uint32_t c = text[at];

        n = 1;
        if (c >= 0x80) {
            (void)utf8_check(text + at, len - at, &n);
            c = utf8_get(text + at, n);
            if (!begins_anew(c))
                return last;
            if (!is_itself(c))
                return at;
        }
        last = at;
        at += n;
    }
    return end ? len : last;
}

/* The length of the run at the start: to the next character that begins anew, or, with *ret_whole
 * false, to the end of what there is. No more than NORMAL_RUN_MAX and a character. A character that
 * is at NORMAL_RUN_MAX or behind it begins a run of its own: there the cut is. */
static size_t run_len(const uint8_t *text, size_t len, bool *ret_whole)
{
    size_t at = 0, n;

    *ret_whole = true;
    while (at < len) {
        (void)utf8_check(text + at, len - at, &n);
        if (at > 0 && (at >= NORMAL_RUN_MAX || begins_anew(utf8_get(text + at, n))))
            return at;
        at += n;
    }
    *ret_whole = at >= NORMAL_RUN_MAX;
    return at;
}

/* For points, and as many behind them for sort_marks. Old contents are not kept. */
static int reserve(struct normal *n, size_t points)
{
    int32_t *p;

    if (points <= n->cap)
        return 0;
    if (points < POINTS_MIN)
        points = POINTS_MIN;
    p = malloc(2 * points * sizeof(*p));
    if (!p)
        return -ENOMEM;
    free(n->points);
    n->points = p;
    n->cap = points;
    return 0;
}

/* Unicode's canonical combining class; 0: not moved. */
static uint8_t class_of(int32_t c)
{
    return (uint8_t)utf8proc_get_property(c)->combining_class;
}

/* Marks behind each other in the order of their classes, those of one class as they stood. By
 * counting: the time of a long run grows by its length alone. Stable, which the standard demands.
 */
static void sort_marks(int32_t *marks, size_t n, int32_t *spare)
{
    size_t counts[256] = { 0 }, at = 0;

    for (size_t i = 0; i < n; i++)
        counts[class_of(marks[i])]++;
    for (size_t k = 0; k < 256; k++) {
        size_t count = counts[k];

        counts[k] = at;
        at += count;
    }
    for (size_t i = 0; i < n; i++)
        spare[counts[class_of(marks[i])]++] = marks[i];
    memcpy(marks, spare, n * sizeof(*marks));
}

/* Sorts each stretch of marks (class not 0) in which two stand the wrong way round. */
static void sort_all(int32_t *points, size_t n, int32_t *spare)
{
    for (size_t i = 0, end; i < n; i = end) {
        bool sorted = true;

        end = i + 1;
        if (class_of(points[i]) == 0)
            continue;
        for (; end < n && class_of(points[end]) != 0; end++)
            sorted &= class_of(points[end - 1]) <= class_of(points[end]);
        if (!sorted)
            sort_marks(points + i, end - i, spare);
    }
}

/* One run of len bytes to NFC: taken apart, sorted, put together. Characters are taken apart one by
 * one and sorted here, because utf8proc_decompose sorts in the square of a run's length, and sorts
 * the younger marks, too. */
static int put_run(struct normal *n, const uint8_t *text, size_t len, uint8_t *ret, size_t *ret_n)
{
    utf8proc_ssize_t n_points = 0;
    size_t at = 0, out = 0, n_bytes, first;
    int r = reserve(n, DECOMPOSED_MAX * len); /* no code point is less than a byte */

    if (r < 0)
        return r;
    for (; at < len; at += n_bytes) {
        (void)utf8_check(text + at, len - at, &n_bytes);
        n_points +=
            utf8proc_decompose_char((int32_t)utf8_get(text + at, n_bytes), n->points + n_points,
                                    DECOMPOSED_MAX, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, NULL);
    }
    first = normal_is_younger((uint32_t)n->points[0]); /* it begins a run, and stays there */
    sort_all(n->points + first, (size_t)n_points - first, n->points + n->cap);
    n_points = utf8proc_normalize_utf32(n->points, n_points, OPTIONS);
    for (utf8proc_ssize_t i = 0; i < n_points; i++)
        out += utf8_put((uint32_t)n->points[i], ret + out);
    *ret_n = out;
    return 0;
}

/* Spans that stay as they are and runs that may change, in turns. A run that may go on behind the
 * text is left for the next call, unless this is the end. */
int normal_put(struct normal *n, const uint8_t *text, size_t len, bool end, uint8_t *ret,
               size_t *ret_read, size_t *ret_written)
{
    size_t at = 0, out = 0;

    while (at < len) {
        size_t span = plain_span(text + at, len - at, end), run, wrote;
        bool whole;
        int r;

        memcpy(ret + out, text + at, span);
        at += span;
        out += span;
        if (at == len)
            break;
        run = run_len(text + at, len - at, &whole);
        if (!whole && !end)
            break;
        r = put_run(n, text + at, run, ret + out, &wrote);
        if (r < 0)
            return r;
        at += run;
        out += wrote;
    }
    *ret_read = at;
    *ret_written = out;
    return 0;
}
