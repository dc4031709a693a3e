#include "ctl/ctl_memory.h"

#include "ctl/ctl.h"

#include <stdio.h>
#include <string.h>

#define NOT_SAID UINT32_MAX /* none of the option's values */

void ctl_memory_defaults(struct ctl_memory_opts *o)
{
    *o = (struct ctl_memory_opts){ .sinks = NOT_SAID };
}

static int bad_name(const char *name)
{
    char known[128];
    size_t n = 0;

    for (unsigned i = 0; gist_compressor_name(i) && n < sizeof(known); i++)
        n += (size_t)snprintf(known + n, sizeof(known) - n, "%s%s", i ? ", " : "",
                              gist_compressor_name(i));
    return ctl_fail(CTL_USAGE, "there is no compressor '%s'; there are %s.", name, known);
}

/* An option that only compressors look at. */
static const char *says_nothing(const struct ctl_memory_opts *o)
{
    return o->ratio       ? "ratio"
           : o->keep_tail ? "keep-tail"
           : o->late      ? "late"
           : o->fixed     ? "fixed-ratio"
                          : NULL;
}

int ctl_memory_read(const struct ctl_memory_opts *o, struct gist_memory *ret)
{
    unsigned i = GIST_FULL;

    *ret = (struct gist_memory){ .size = sizeof(*ret),
                                 .ratio = o->ratio,
                                 .sinks = o->sinks == NOT_SAID ? 0
                                          : o->sinks           ? o->sinks
                                                               : GIST_NO_SINKS,
                                 .keep_tail = o->keep_tail,
                                 .adapter = o->adapter,
                                 .budget = o->budget,
                                 .flags = (o->late ? GIST_LATE : 0) | (o->fixed ? GIST_FIXED : 0) };
    if (!o->compressor) {
        const char *name = says_nothing(o);

        if (!o->adapter && name)
            return ctl_fail(CTL_USAGE, "--%s says nothing without --compressor or --adapter.",
                            name);
        return 0;
    }
    while (gist_compressor_name(i) && strcmp(gist_compressor_name(i), o->compressor) != 0)
        i++;
    if (!gist_compressor_name(i))
        return bad_name(o->compressor);
    if (i == GIST_FULL && !o->adapter && says_nothing(o))
        return ctl_fail(CTL_USAGE,
                        "--%s says nothing with --compressor full, which keeps everything.",
                        says_nothing(o));
    ret->compressor = i;
    return 0;
}
