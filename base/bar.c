/* base/bar.c - a line that is written over, on a terminal; in a file whole lines, seldom. */

#include "base/bar.h"

#include "base/shown.h"

#include <math.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Often enough to look alive, and seldom enough that drawing takes nothing. A log wants to be read
 * later. */
#define TTY_EVERY_S  0.2
#define FILE_EVERY_S 30.0
#define COLUMNS_MAX  160u
#define WIDTH_MAX    30u

void bar_start(struct bar *b, FILE *out, double now)
{
    struct winsize size;
    int fd = fileno(out);

    *b = (struct bar){ .out = out, .columns = 80, .shown = -INFINITY };
    b->tty = fd >= 0 && isatty(fd);
    if (b->tty && ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        b->columns = size.ws_col < COLUMNS_MAX ? size.ws_col : COLUMNS_MAX;
    if (!b->tty)
        b->shown = now; /* a log wants no line that says that nothing was done yet */
}

bool bar_due(struct bar *b, double now)
{
    if (now - b->shown < (b->tty ? TTY_EVERY_S : FILE_EVERY_S))
        return false;
    b->shown = now;
    return true;
}

void bar_draw(struct bar *b, double share, const char *text)
{
    char bar[WIDTH_MAX + 1];
    unsigned len = (unsigned)strlen(text), width = 0;

    /* No longer than the terminal is wide: a line that wraps is not written over. */
    if (b->tty && len + 6 < b->columns)
        width = b->columns - len - 6 < WIDTH_MAX ? b->columns - len - 6 : WIDTH_MAX;
    if (width == 0) {
        bar_draw_text(b, text);
        return;
    }
    /* What is done, the head of it, and what is left. */
    for (unsigned i = 0; i < width; i++)
        bar[i] = (double)i < share * (double)width - 1 ? '='
                 : (double)i < share * (double)width   ? '>'
                                                       : ' ';
    (void)fprintf(b->out, "\r[%.*s]  %s\033[K", (int)width, bar, text);
    b->drawn = true;
    (void)fflush(b->out);
}

/* \033[K clears what a longer line has left to the right. */
void bar_draw_text(struct bar *b, const char *text)
{
    if (b->tty)
        (void)fprintf(b->out, "\r%.*s\033[K", (int)b->columns - 1, text);
    else
        (void)fprintf(b->out, "%s\n", text);
    b->drawn = b->tty;
    (void)fflush(b->out);
}

/* Before something else is printed on the same terminal, so that it does not stand behind half a
 * bar. */
void bar_clear(struct bar *b)
{
    if (b->drawn)
        (void)fputs("\r\033[K", b->out);
    b->drawn = false;
    (void)fflush(b->out);
}

void bar_say(struct bar *b, const char *line)
{
    bar_clear(b);
    shown_line(b->out, "%s", line);
    (void)fflush(b->out);
}

/* The last state stays, and what is printed next begins on a line of its own. */
void bar_end(struct bar *b)
{
    if (b->drawn)
        (void)fputc('\n', b->out);
    b->drawn = false;
    (void)fflush(b->out);
}

const char *bar_time(double seconds, char ret[BAR_TIME_CAP])
{
    unsigned long t = seconds > 0 ? (unsigned long)seconds : 0;

    if (t >= 3600)
        (void)snprintf(ret, BAR_TIME_CAP, "%lu:%02lu:%02lu", t / 3600, t / 60 % 60, t % 60);
    else
        (void)snprintf(ret, BAR_TIME_CAP, "%lu:%02lu", t / 60, t % 60);
    return ret;
}
