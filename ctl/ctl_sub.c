/* ctl/ctl_sub.c - commands that have commands: gistctl doc add. */
#include "ctl/ctl.h"

#include <stdio.h>
#include <string.h>

static void print_help(FILE *out, const struct ctl_sub_usage *usage, const struct ctl_sub *subs,
                       size_t n)
{
    fprintf(out, "usage: gistctl %s COMMAND [OPTIONS] ...\n\n%s\n", usage->name, usage->about);
    for (size_t i = 0; i < n; i++)
        fprintf(out, "  %-12s %s\n", subs[i].name, subs[i].help);
    fprintf(out, "\nOptions of each: gistctl %s COMMAND --help\n", usage->name);
}

int ctl_sub_run(const struct ctl_sub_usage *usage, const struct ctl_sub *subs, size_t n, int argc,
                char **argv)
{
    char both[64];

    if (argc < 2) {
        print_help(stderr, usage, subs, n);
        return CTL_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help(stdout, usage, subs, n);
        return CTL_OK;
    }
    for (size_t i = 0; i < n; i++) {
        if (strcmp(argv[1], subs[i].name) != 0)
            continue;
        /* What is wrong with its options names the whole command. */
        (void)snprintf(both, sizeof(both), "%s %s", usage->name, subs[i].name);
        argv[1] = both;
        return subs[i].run(argc - 1, argv + 1);
    }
    return ctl_fail(CTL_USAGE, "%s has no command '%s'; `gistctl %s --help` lists them.",
                    usage->name, argv[1], usage->name);
}
