/* base/why.c - the first sentence stands: who fails knows more of why than who called it. */

#include "base/why.h"

#include "base/shown.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int why_set(struct why *why, int err, const char *fmt, ...)
{
    char text[WHY_MAX];
    va_list ap;
    size_t n;

    if (!why || why->text[0])
        return err;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    /* It may quote a file or an option, and goes to terminals and logs. */
    n = shown_put(SHOWN_LINE, text, strlen(text), why->text, sizeof(why->text) - 1);
    why->text[n] = '\0';
    return err;
}
