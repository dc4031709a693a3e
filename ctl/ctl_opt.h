/* ctl/ctl_opt.h - one table a command: its options are parsed and its --help printed from it.
 *
 * --socket and --help are added to every table. Values are checked against their range here, so a
 * command sees only what it can use; a mistake is one sentence on stderr.
 */
#ifndef CTL_CTL_OPT_H
#define CTL_CTL_OPT_H

#include <stddef.h>

enum ctl_opt_kind {
    CTL_OPT_FLAG,   /* to: bool */
    CTL_OPT_U32,    /* to: uint32_t */
    CTL_OPT_U64,    /* to: uint64_t */
    CTL_OPT_SIZE,   /* to: uint64_t, bytes; K, M, G and T are taken */
    CTL_OPT_FLOAT,  /* to: float */
    CTL_OPT_STRING, /* to: const char * */
    CTL_OPT_LIST    /* to: struct ctl_opt_list; may be given again and again */
};

#define CTL_OPT_LIST_MAX 64u

struct ctl_opt_list {
    const char *v[CTL_OPT_LIST_MAX];
    size_t n;
};

struct ctl_opt {
    const char *name;
    char letter; /* 0: none */
    enum ctl_opt_kind kind;
    const char *value; /* the value's name in --help: N, FILE; NULL for a flag */
    void *to;
    double min, max; /* allowed, both included; numbers only */
    const char *help;
};

struct ctl_opt_usage {
    const char *synopsis; /* "ask [OPTIONS] QUESTION" */
    const char *about;    /* lines of text, ends with \n */
};

/* The index of the first operand (argv is permuted: options first), or -1: end the program with
 * *ret_exit. */
int ctl_opt_parse(const struct ctl_opt_usage *usage, const struct ctl_opt *opts, size_t n_opts,
                  int argc, char **argv, int *ret_exit);

/* Of a command that has no operands: 0, or -1 as above. */
int ctl_opt_parse_all(const struct ctl_opt_usage *usage, const struct ctl_opt *opts, size_t n_opts,
                      int argc, char **argv, int *ret_exit);

#endif
