/* ctl/ctl_memory.h - the options that say what becomes of old context.
 */
#ifndef CTL_CTL_MEMORY_H
#define CTL_CTL_MEMORY_H

#include "client/gist.h"
#include "ctl/ctl_opt.h"

#include <stdbool.h>

struct ctl_memory_opts {
    const char *mode;       /* "auto", "full"; NULL: as the command does it */
    bool automatic;         /* what is chosen when nothing else is said */
    const char *compressor; /* NULL: the mode's, or the adapter's */
    char mode_help[112];
    char compressor_help[192];
    const char *adapter; /* NULL: none */
    uint32_t ratio, segment, sinks, keep_tail, budget;
    bool late, fixed;
    const char *hydrate; /* NULL: off */
};

/* The rows of the option table for them. */
/* clang-format off */
#define CTL_MEMORY_OPTIONS(o)                                                                   \
    { "memory", 0, CTL_OPT_STRING, "MODE", &(o)->mode, 0, 0, (o)->mode_help },                  \
    { "compressor", 0, CTL_OPT_STRING, "NAME", &(o)->compressor, 0, 0, (o)->compressor_help },  \
    { "adapter", 0, CTL_OPT_STRING, "NAME", &(o)->adapter, 0, 0,                                \
      "the gist adapter to use; `gistctl status` lists them (none)" },                          \
    { "ratio", 0, CTL_OPT_U32, "N", &(o)->ratio, 2, 64,                                      \
      "tokens per gist (4 with --memory auto, else 8)" },                                       \
    { "segment", 0, CTL_OPT_U32, "N", &(o)->segment, 0, 4294967295.0,                           \
      "tokens per segment; 0: the adapter's, or the daemon's default (0)" },                    \
    { "sinks", 0, CTL_OPT_U32, "N", &(o)->sinks, 0, 16,                                         \
      "first tokens that are never compressed (the adapter's, or 4)" },                         \
    { "keep-tail", 0, CTL_OPT_U32, "N", &(o)->keep_tail, 0, 8388608,                            \
      "last tokens to leave uncompressed; 0: the mode's (0)" },                                 \
    { "budget", 0, CTL_OPT_U32, "N", &(o)->budget, 0, 8388608,                                  \
      "most keys to hold; older text is compressed further; 0: the context window (0)" },       \
    { "late", 0, CTL_OPT_FLAG, NULL, &(o)->late, 0, 0,                                          \
      "compress only when the budget runs short" },                                             \
    { "fixed-ratio", 0, CTL_OPT_FLAG, NULL, &(o)->fixed, 0, 0,                                  \
      "compress all text at --ratio; an error when the budget is used up" },                    \
    { "hydrate", 0, CTL_OPT_STRING, "auto|off|N", &(o)->hydrate, 0, 0,                          \
      "bring back as read the compressed segments that a prompt points to: N at most,"          \
      " or as many as fit (auto with --memory auto, else off)" }
/* clang-format on */

/* Before the options are parsed: help names the compressors. automatic: who says nothing gets that,
 * else full. */
void ctl_memory_defaults(struct ctl_memory_opts *o, bool automatic);

/* Any of them was given. */
bool ctl_memory_said(const struct ctl_memory_opts *o);

/* 0, or the exit code of a mistake, which was said. */
int ctl_memory_read(const struct ctl_memory_opts *o, struct gist_memory *ret);

#endif
