/* train/progress.c - the line that shows how a run is getting on: means that forget, each divided
 * by the sum of its own weights, so that the first steps are shown as they are and not as part of a
 * zero.
 */
#include "train/progress.h"

#include <math.h>

#define KEEP     0.95 /* of the smoothed values at each step */
#define TEXT_CAP 160u

void progress_start(struct progress *p, FILE *out, uint64_t done, uint64_t steps,
                    double seconds_max, double now)
{
    *p = (struct progress){
        .step = done, .steps = steps, .seconds_max = seconds_max, .start = now, .before = now
    };
    bar_start(&p->bar, out, now);
}

/* By the steps or by --minutes, whichever ends first. */
static double seconds_left(const struct progress *p)
{
    double left = p->seconds / p->weight * (double)(p->steps - p->step);
    double limit = p->seconds_max - (p->before - p->start);

    if (p->seconds_max > 0 && limit < left)
        left = limit;
    return left > 0 ? left : 0;
}

static void draw(struct progress *p)
{
    char text[TEXT_CAP], left[BAR_TIME_CAP];

    (void)snprintf(text, sizeof(text), "%llu/%llu  %.0f tokens/s  loss %.3f  lr %.1e  %s left",
                   (unsigned long long)p->step, (unsigned long long)p->steps,
                   p->seconds > 0 ? p->tokens / p->seconds : 0, p->loss / p->loss_weight, p->lr,
                   bar_time(seconds_left(p), left));
    bar_draw(&p->bar, p->steps ? (double)p->step / (double)p->steps : 1, text);
}

void progress_beside(struct progress *p, const char *what, double share, double now)
{
    char text[TEXT_CAP];

    if (!bar_due(&p->bar, now))
        return;
    (void)snprintf(text, sizeof(text), "%s  %.0f %%", what, 100 * share);
    bar_draw_text(&p->bar, text);
}

void progress_step(struct progress *p, uint64_t step, uint64_t tokens, double loss, double lr,
                   double now)
{
    double gain = 1 - KEEP;

    p->seconds = KEEP * p->seconds + gain * (now - p->before);
    p->tokens = KEEP * p->tokens + gain * (double)tokens;
    /* A step without a loss leaves the mean as it was. */
    if (!isnan(loss)) {
        p->loss = KEEP * p->loss + gain * loss;
        p->loss_weight = KEEP * p->loss_weight + gain;
    }
    p->weight = KEEP * p->weight + gain;
    p->before = now;
    p->step = step;
    p->lr = lr;
    /* The last step is drawn in any case: it is what stays on the screen. */
    if (bar_due(&p->bar, now) || step == p->steps)
        draw(p);
}

void progress_say(struct progress *p, const char *line)
{
    bar_say(&p->bar, line);
}

void progress_end(struct progress *p)
{
    bar_end(&p->bar);
}
