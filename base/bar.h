/* base/bar.h - how far something is, in one line of a terminal.
 *
 *     [=======>            ]  380/1000  17:05 left
 *
 * On a terminal the line is written over, a few times a second; elsewhere it is a line every half
 * minute. What stands behind the bar is the caller's.
 *
 * Threads    one at a time.
 * Ownership  the stream is borrowed.
 */
#ifndef BASE_BAR_H
#define BASE_BAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define BAR_TIME_CAP 32u

struct bar {
    FILE *out;
    bool tty, drawn; /* drawn: a line is there to be written over */
    unsigned columns;
    double shown; /* when its last line was, in seconds of the caller's clock */
};

void bar_start(struct bar *b, FILE *out, double now);
/* Whether a line is due; the next one is not for a while then. */
bool bar_due(struct bar *b, double now);
/* A line: share of 1 is done. Cut to the terminal's width; text without control characters. */
void bar_draw(struct bar *b, double share, const char *text);
/* The same without the bar itself. */
void bar_draw_text(struct bar *b, const char *text);
/* A line that stays, which may quote anything. */
void bar_say(struct bar *b, const char *line);
/* No line is there any more, as if none had been. */
void bar_clear(struct bar *b);
/* The last thing: the line stays. */
void bar_end(struct bar *b);

/* "4:10", "1:00:09"; returns ret. */
const char *bar_time(double seconds, char ret[BAR_TIME_CAP]);

#endif
