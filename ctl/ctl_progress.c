#include "ctl/ctl_progress.h"

#include "ctl/ctl.h"

#include <stdio.h>

#define FIRST_NS 500000000u /* nobody wants a bar that is gone at once */

void ctl_progress_begin(struct ctl_progress *p)
{
    *p = (struct ctl_progress){ .begun_ns = ctl_now_ns() };
    bar_start(&p->bar, stderr, (double)p->begun_ns / 1e9);
}

/* By the rate of what was computed: what earlier sessions had read came at another one. */
static void describe(const struct ctl_progress *p, uint64_t now, char *ret, size_t cap)
{
    uint32_t n = p->n_read - p->n_found, left = p->n_tokens - p->n_read;
    char time[BAR_TIME_CAP];

    if (n == 0)
        (void)snprintf(ret, cap, "reading: %u of %u tokens", p->n_read, p->n_tokens);
    else
        (void)snprintf(ret, cap, "reading: %u of %u tokens  %s left", p->n_read, p->n_tokens,
                       bar_time((double)(now - p->counted_ns) / 1e9 * left / n, time));
}

/* The first call says how much was found; only from there on something is computed. */
void ctl_progress_tell(void *arg, uint32_t n_read, uint32_t n_tokens)
{
    struct ctl_progress *p = arg;
    uint64_t now = ctl_now_ns();
    char text[128];

    if (n_tokens == 0)
        return;
    if (p->n_tokens == 0) {
        p->n_found = n_read;
        p->counted_ns = now;
    }
    p->n_read = n_read;
    p->n_tokens = n_tokens;
    if (!p->bar.tty || now - p->begun_ns < FIRST_NS || !bar_due(&p->bar, (double)now / 1e9))
        return;
    describe(p, now, text, sizeof(text));
    bar_draw(&p->bar, (double)n_read / n_tokens, text);
}

void ctl_progress_end(struct ctl_progress *p)
{
    bar_clear(&p->bar);
}
