#include "ctl/ctl_memory.h"

#include "base/options.h"
#include "ctl/ctl.h"

#include <stdio.h>
#include <string.h>

#define NOT_SAID UINT32_MAX /* none of the option's values */

#define MODE_HELP                                                                                  \
    "auto: compress the oldest text when all does not fit; full: keep all, and fail then"

/* All names, with commas between them, behind what ret has. */
static void add_names(char *ret, size_t cap)
{
    size_t n = strlen(ret);

    for (unsigned i = 0; gist_compressor_name(i) && n < cap; i++)
        n += (size_t)snprintf(ret + n, cap - n, "%s%s", i ? ", " : "", gist_compressor_name(i));
}

/* The help texts name the compressors that this libgist knows, so they are made here and live in o.
 */
void ctl_memory_defaults(struct ctl_memory_opts *o, bool automatic)
{
    size_t cap = sizeof(o->compressor_help);

    *o = (struct ctl_memory_opts){ .sinks = NOT_SAID,
                                   .automatic = automatic,
                                   .compressor_help = "how to compress old context: " };
    (void)snprintf(o->mode_help, sizeof(o->mode_help), MODE_HELP " (%s)",
                   automatic ? "auto" : "full");
    add_names(o->compressor_help, cap);
    (void)snprintf(o->compressor_help + strlen(o->compressor_help),
                   cap - strlen(o->compressor_help), " (--memory says)");
}

static int bad_name(const char *name)
{
    char known[160] = "";

    add_names(known, sizeof(known));
    return ctl_fail(CTL_USAGE, "unknown compressor '%s'; known: %s.", name, known);
}

/* An option that only compressors look at. An option that changes nothing is told, and not passed
 * over: whoever gave it expects something of it. */
static const char *without_effect(const struct ctl_memory_opts *o)
{
    return o->ratio       ? "ratio"
           : o->keep_tail ? "keep-tail"
           : o->late      ? "late"
           : o->fixed     ? "fixed-ratio"
                          : NULL;
}

/* Any of them, also one that says the default. */
bool ctl_memory_said(const struct ctl_memory_opts *o)
{
    return o->mode || o->compressor || o->adapter || o->ratio || o->segment ||
           o->sinks != NOT_SAID || o->keep_tail || o->budget || o->late || o->fixed || o->hydrate;
}

/* NULL: off. */
static int read_hydrate(const char *text, uint32_t *ret)
{
    *ret = 0;
    if (text && !options_read_auto(text, GIST_HYDRATE_AUTO - 1, ret))
        return ctl_fail(CTL_USAGE, "--hydrate %s is neither auto nor off nor a number of segments.",
                        text);
    return 0;
}

static int find_compressor(const char *name, enum gist_compressor *ret)
{
    unsigned i = GIST_FULL;

    while (gist_compressor_name(i) && strcmp(gist_compressor_name(i), name) != 0)
        i++;
    if (!gist_compressor_name(i))
        return bad_name(name);
    *ret = i;
    return 0;
}

/* Who names a compressor or an adapter has chosen, and means what these mean alone. */
static int read_mode(const struct ctl_memory_opts *o, bool *ret_automatic)
{
    bool chosen = o->compressor || o->adapter;

    *ret_automatic = o->mode ? strcmp(o->mode, "auto") == 0 : o->automatic && !chosen;
    if (!o->mode || *ret_automatic)
        return 0;
    if (strcmp(o->mode, "full") != 0)
        return ctl_fail(CTL_USAGE, "unknown memory mode '%s'; known: auto, full.", o->mode);
    if (chosen)
        return ctl_fail(CTL_USAGE,
                        "--memory full keeps everything: leave it out, or leave --%s out.",
                        o->compressor ? "compressor" : "adapter");
    return 0;
}

/* A 0 that was said is marked by its flag, for to libgist a field of 0 means "not said". */
int ctl_memory_read(const struct ctl_memory_opts *o, struct gist_memory *ret)
{
    enum gist_compressor compressor = GIST_FULL;
    const char *name = without_effect(o);
    uint32_t hydrate;
    bool automatic;
    int r = read_mode(o, &automatic);

    if (r == 0)
        r = read_hydrate(o->hydrate, &hydrate);
    if (r == 0 && o->compressor)
        r = find_compressor(o->compressor, &compressor);
    if (r != 0)
        return r;
    *ret = (struct gist_memory){ .size = sizeof(*ret),
                                 .compressor = compressor,
                                 .ratio = o->ratio,
                                 .sinks = o->sinks == NOT_SAID ? 0 : o->sinks,
                                 .keep_tail = o->keep_tail,
                                 .adapter = o->adapter,
                                 .budget = o->budget,
                                 .flags = (o->late ? GIST_LATE : 0) | (o->fixed ? GIST_FIXED : 0) |
                                          (automatic ? GIST_AUTO : 0) |
                                          (o->sinks == NOT_SAID ? 0 : GIST_SET_SINKS) |
                                          (o->hydrate ? GIST_SET_HYDRATE : 0),
                                 .hydrate = hydrate };
    if (!name && hydrate)
        name = "hydrate";
    if (automatic || o->adapter || compressor != GIST_FULL || !name)
        return 0;
    if (o->compressor || o->mode)
        return ctl_fail(CTL_USAGE, "--%s has no effect with --%s full, which keeps everything.",
                        name, o->compressor ? "compressor" : "memory");
    return ctl_fail(CTL_USAGE,
                    "--%s has no effect without --memory auto, --compressor or --adapter.", name);
}
