#include "train/progress.h"

#include "base/shown.h"

#include <math.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define TTY_EVERY_S  0.2
#define FILE_EVERY_S 30.0
#define KEEP         0.95 /* of the smoothed values at each step */
#define COLUMNS_MAX  160u

void progress_start(struct progress *p, FILE *out, uint64_t done, uint64_t steps,
                    double seconds_max, double now)
{
    struct winsize size;
    int fd = fileno(out);

    *p = (struct progress){ .out = out,
                            .columns = 80,
                            .step = done,
                            .steps = steps,
                            .seconds_max = seconds_max,
                            .start = now,
                            .before = now,
                            .shown = -INFINITY };
    p->tty = fd >= 0 && isatty(fd);
    if (p->tty && ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        p->columns = size.ws_col < COLUMNS_MAX ? size.ws_col : COLUMNS_MAX;
    if (!p->tty)
        p->shown = now;
}

static double seconds_left(const struct progress *p)
{
    double left = p->seconds / p->weight * (double)(p->steps - p->step);
    double limit = p->seconds_max - (p->before - p->start);

    if (p->seconds_max > 0 && limit < left)
        left = limit;
    return left > 0 ? left : 0;
}

static void format_time(double s, char *ret, size_t cap)
{
    unsigned long t = (unsigned long)s;

    if (t >= 3600)
        (void)snprintf(ret, cap, "%lu:%02lu:%02lu", t / 3600, t / 60 % 60, t % 60);
    else
        (void)snprintf(ret, cap, "%lu:%02lu", t / 60, t % 60);
}

static void draw(struct progress *p)
{
    char text[COLUMNS_MAX], left[32], bar[64];
    size_t n = 0, width;
    double share = p->steps ? (double)p->step / (double)p->steps : 1;

    format_time(seconds_left(p), left, sizeof(left));
    (void)snprintf(text, sizeof(text), "%llu/%llu  %.0f tokens/s  loss %.3f  lr %.1e  %s left",
                   (unsigned long long)p->step, (unsigned long long)p->steps,
                   p->seconds > 0 ? p->tokens / p->seconds : 0, p->loss / p->loss_weight, p->lr,
                   left);
    if (!p->tty) {
        (void)fprintf(p->out, "%s\n", text);
        return;
    }
    width = strlen(text) + 6 < p->columns ? p->columns - strlen(text) - 6 : 0;
    if (width > 30)
        width = 30;
    for (; n < width; n++)
        bar[n] = (double)n < share * (double)width - 1 ? '='
                 : (double)n < share * (double)width   ? '>'
                                                       : ' ';
    /* No longer than the terminal is wide: a line that wraps is not written over. */
    if (width)
        (void)fprintf(p->out, "\r[%.*s]  %s\033[K", (int)width, bar, text);
    else
        (void)fprintf(p->out, "\r%.*s\033[K", (int)p->columns - 1, text);
    p->drawn = true;
    (void)fflush(p->out);
}

static bool too_soon(struct progress *p, double now)
{
    if (now - p->shown < (p->tty ? TTY_EVERY_S : FILE_EVERY_S))
        return true;
    p->shown = now;
    return false;
}

void progress_beside(struct progress *p, const char *what, double share, double now)
{
    if (too_soon(p, now))
        return;
    (void)fprintf(p->out, p->tty ? "\r%s  %.0f %%\033[K" : "%s  %.0f %%\n", what, 100 * share);
    p->drawn = p->tty;
    (void)fflush(p->out);
}

void progress_step(struct progress *p, uint64_t step, uint64_t tokens, double loss, double lr,
                   double now)
{
    double gain = 1 - KEEP;

    p->seconds = KEEP * p->seconds + gain * (now - p->before);
    p->tokens = KEEP * p->tokens + gain * (double)tokens;
    if (!isnan(loss)) {
        p->loss = KEEP * p->loss + gain * loss;
        p->loss_weight = KEEP * p->loss_weight + gain;
    }
    p->weight = KEEP * p->weight + gain;
    p->before = now;
    p->step = step;
    p->lr = lr;
    if (!too_soon(p, now) || step == p->steps)
        draw(p);
}

void progress_say(struct progress *p, const char *line)
{
    (void)fputs(p->drawn ? "\r\033[K" : "", p->out);
    shown_line(p->out, "%s", line);
    p->drawn = false;
    (void)fflush(p->out);
}

void progress_end(struct progress *p)
{
    if (p->drawn)
        (void)fputc('\n', p->out);
    p->drawn = false;
    (void)fflush(p->out);
}
