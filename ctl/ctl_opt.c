/* ctl/ctl_opt.c - getopt_long over a table, with sentences for what is wrong. Each command has its
 * table, and --socket and --help stand behind it (`common`). getopt_long is used for the splitting
 * alone; its own messages are off, since they don't say what would be right. */
#include "ctl/ctl_opt.h"

#include "ctl/ctl.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPTS_MAX   40u
#define FIRST_CODE 256 /* of getopt_long's return for table entry 0: above every letter */

static const struct ctl_opt common[] = {
    { .name = "socket",
      .letter = 'S',
      .kind = CTL_OPT_STRING,
      .value = "PATH",
      .help = "the daemon's socket" },
    { .name = "help", .letter = 'h', .kind = CTL_OPT_FLAG, .help = "this text" },
};
#define N_COMMON (sizeof(common) / sizeof(common[0]))

static void print_option(const struct ctl_opt *o)
{
    char left[64];

    snprintf(left, sizeof(left), "%c%c%s --%s%s%s", o->letter ? '-' : ' ',
             o->letter ? o->letter : ' ', o->letter ? "," : " ", o->name, o->value ? " " : "",
             o->value ? o->value : "");
    printf("  %-26s %s\n", left, o->help);
}

static void print_help(const struct ctl_opt_usage *usage, const struct ctl_opt *opts, size_t n_opts)
{
    printf("usage: gistctl %s\n\n%s\n", usage->synopsis, usage->about);
    for (size_t i = 0; i < n_opts; i++)
        print_option(&opts[i]);
    for (size_t i = 0; i < N_COMMON; i++)
        print_option(&common[i]);
}

static int bad_number(const struct ctl_opt *o, const char *text)
{
    return ctl_fail(CTL_USAGE, "--%s needs a %snumber from %.15g to %.15g, not '%s'.", o->name,
                    o->kind == CTL_OPT_FLOAT ? "" : "whole ", o->min, o->max, text);
}

/* The table's limits are doubles, which hold every bound that is used exactly. */
static int set_number(const struct ctl_opt *o, const char *text)
{
    char *end;

    errno = 0;
    if (o->kind == CTL_OPT_FLOAT) {
        double v = strtod(text, &end);

        if (errno || end == text || *end || !(v >= o->min && v <= o->max)) /* a NaN fails too */
            return bad_number(o, text);
        *(float *)o->to = (float)v;
    } else {
        unsigned long long v = strtoull(text, &end, 10);

        /* strtoull takes "-1" for a large number. */
        if (errno || end == text || *end || strchr(text, '-') || (double)v < o->min ||
            (double)v > o->max)
            return bad_number(o, text);
        if (o->kind == CTL_OPT_U32)
            *(uint32_t *)o->to = (uint32_t)v;
        else
            *(uint64_t *)o->to = v;
    }
    return 0;
}

/* Suffixes as gistd.conf has them. */
static int set_size(const struct ctl_opt *o, const char *text)
{
    static const char suffixes[] = "KMGT";
    unsigned long long v;
    const char *at;
    unsigned shift = 0;
    char *end;

    errno = 0;
    v = strtoull(text, &end, 10);
    at = *end ? strchr(suffixes, toupper((unsigned char)*end)) : NULL;
    if (at) {
        shift = 10 * (unsigned)(at - suffixes + 1);
        end++;
    }
    if (errno || !isdigit((unsigned char)text[0]) || *end || v > (uint64_t)INT64_MAX >> shift)
        return ctl_fail(CTL_USAGE, "--%s needs a size, such as 500M or 2G, not '%s'.", o->name,
                        text);
    *(uint64_t *)o->to = (uint64_t)v << shift;
    return 0;
}

static int set_option(const struct ctl_opt *o, char *text)
{
    struct ctl_opt_list *list;

    switch (o->kind) {
    case CTL_OPT_FLAG:
        *(bool *)o->to = true;
        return 0;
    case CTL_OPT_STRING:
        *(const char **)o->to = text;
        return 0;
    case CTL_OPT_LIST:
        list = o->to;
        if (list->n == CTL_OPT_LIST_MAX)
            return ctl_fail(CTL_USAGE, "--%s may be given %u times at most.", o->name,
                            CTL_OPT_LIST_MAX);
        list->v[list->n++] = text;
        return 0;
    case CTL_OPT_SIZE:
        return set_size(o, text);
    case CTL_OPT_U32:
    case CTL_OPT_U64:
    case CTL_OPT_FLOAT:
        break;
    }
    return set_number(o, text);
}

/* A code of getopt_long to a table entry: common ones stand behind the command's. */
static const struct ctl_opt *find_option(const struct ctl_opt *opts, size_t n_opts, int code)
{
    for (size_t i = 0; i < n_opts + N_COMMON; i++) {
        const struct ctl_opt *o = i < n_opts ? &opts[i] : &common[i - n_opts];

        if (code == FIRST_CODE + (int)i || code == o->letter)
            return o;
    }
    return NULL;
}

/* What getopt_long could not read: its optopt is a letter, a long option's code, or 0. */
static int bad_option(const struct ctl_opt *opts, size_t n_opts, int code, char **argv)
{
    const char *cmd = argv[0];

    if (code == ':') {
        const struct ctl_opt *o = find_option(opts, n_opts, optopt);

        assert(o);
        return ctl_fail(CTL_USAGE, "--%s needs a value: %s.", o->name, o->value);
    }
    if (optopt >= FIRST_CODE)
        return ctl_fail(CTL_USAGE, "--%s takes no value.", find_option(opts, n_opts, optopt)->name);
    if (optopt)
        return ctl_fail(CTL_USAGE, "%s has no option -%c; see `gistctl %s --help`.", cmd, optopt,
                        cmd);
    return ctl_fail(CTL_USAGE, "%s has no option %s; see `gistctl %s --help`.", cmd,
                    argv[optind - 1], cmd);
}

/* Both forms of an option lead to the same entry: a letter as itself, a name as its number. */
static void fill_tables(const struct ctl_opt *opts, size_t n_opts, struct option *longs,
                        char *letters)
{
    *letters++ = ':'; /* a missing value is told apart from an unknown option */
    for (size_t i = 0; i < n_opts + N_COMMON; i++) {
        const struct ctl_opt *o = i < n_opts ? &opts[i] : &common[i - n_opts];

        longs[i] = (struct option){ o->name, o->value ? required_argument : no_argument, NULL,
                                    FIRST_CODE + (int)i };
        if (o->letter) {
            *letters++ = o->letter;
            if (o->value)
                *letters++ = ':';
        }
    }
    longs[n_opts + N_COMMON] = (struct option){ 0 };
    *letters = '\0';
}

/* Options and words may be mixed: getopt_long moves the words to the end, and they begin at what is
 * returned. */
int ctl_opt_parse(const struct ctl_opt_usage *usage, const struct ctl_opt *opts, size_t n_opts,
                  int argc, char **argv, int *ret_exit)
{
    struct option longs[OPTS_MAX + N_COMMON + 1];
    char letters[2 * (OPTS_MAX + N_COMMON) + 2];
    int code;

    assert(n_opts <= OPTS_MAX);
    fill_tables(opts, n_opts, longs, letters);
    opterr = 0;
    *ret_exit = CTL_OK;
    while ((code = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
        const struct ctl_opt *o = find_option(opts, n_opts, code);

        if (code == '?' || code == ':' || !o) {
            *ret_exit = bad_option(opts, n_opts, code, argv);
            return -1;
        }
        if (o == &common[1]) {
            print_help(usage, opts, n_opts);
            *ret_exit = CTL_OK;
            return -1;
        }
        if (o == &common[0])
            *ret_exit = setenv("GISTD_SOCKET", optarg, 1) < 0 ? CTL_FAILED : CTL_OK;
        else
            *ret_exit = set_option(o, optarg);
        if (*ret_exit != CTL_OK)
            return -1;
    }
    return optind;
}

int ctl_opt_parse_all(const struct ctl_opt_usage *usage, const struct ctl_opt *opts, size_t n_opts,
                      int argc, char **argv, int *ret_exit)
{
    int first = ctl_opt_parse(usage, opts, n_opts, argc, argv, ret_exit);

    if (first < 0)
        return -1;
    if (first == argc)
        return 0;
    *ret_exit = ctl_fail(CTL_USAGE, "%s takes no arguments, but got '%s'.", argv[0], argv[first]);
    return -1;
}
