/* train/gist_train.c - gist-train: trains adapters, and makes the corpora for it
 * (docs/training.md).
 */
#include "base/options.h"
#include "base/shown.h"
#include "base/std.h"
#include "train/data/corpus.h"
#include "train/data/corpus_build.h"
#include "train/plot.h"
#include "train/run.h"
#include "train/run_log.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Exit codes, as help_tail says. */
enum { OK, FAILED, USAGE };

static const char help_head[] =
    "usage: gist-train [--config FILE] [--OPTION VALUE...]\n"
    "       gist-train corpus --model FILE [--long TOKENS] [--long-weight N] OUT "
    "INPUT...\n"
    "       gist-train plot LOG OUT.svg\n\n"
    "Trains a gist adapter of a model on a corpus; Ctrl-C ends a run with a "
    "checkpoint,\nand the same command goes on from it. corpus makes the corpus "
    "file OUT of text files,\nfolders and JSONL files; an input is PATH or "
    "SOURCE=PATH. plot draws a run's log.\n\n"
    "Options, also lines of the recipe FILE (key = value):\n\n";
static const char help_tail[] = "\nExit codes: 0 done, 1 failed, 2 wrong usage.\n";

/* The only thing that a signal touches. */
static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
    (void)sig;
    stop = 1;
}

static int fail(int code, const struct why *why)
{
    shown_line(stderr, "gist-train: %s", why->text);
    return code;
}

/* --- corpus ----------------------------------------------------------------------------------- */

/* Zeros: not given. */
struct corpus_opts {
    uint32_t long_tokens;
    double long_weight;
};

/* For the checks of numbers that base/options.c has; help and files know nothing of them. */
static const struct options_item corpus_items[] = {
    OPTIONS_ITEM(struct corpus_opts, long_tokens, "long", COUNT, "TOKENS", "", 1, UINT32_MAX, "",
                 ""),
    OPTIONS_ITEM(struct corpus_opts, long_weight, "long-weight", REAL, "N", "", 1e-6, 1e6, "", ""),
};
static const struct options corpus_options = { .items = corpus_items,
                                               .n_items =
                                                   sizeof(corpus_items) / sizeof(corpus_items[0]) };

/* Input after the output: argv's own strings, which stay. */
static int parse_corpus(int argc, char **argv, struct corpus_build *b, struct why *why)
{
    static const struct option options[] = { { "model", required_argument, NULL, 'm' },
                                             { "long", required_argument, NULL, 'l' },
                                             { "long-weight", required_argument, NULL, 'w' },
                                             { 0 } };
    struct corpus_opts opts = { 0 };
    int c, r = 0;

    opterr = 0;
    while (r == 0 && (c = getopt_long(argc, argv, "m:l:w:", options, NULL)) != -1) {
        if (c == 'm')
            b->model = optarg;
        else if (c == 'l')
            r = options_set(&corpus_options, &opts, "long", optarg, "the flag --long", why);
        else if (c == 'w')
            r = options_set(&corpus_options, &opts, "long-weight", optarg, "the flag --long-weight",
                            why);
        else
            return why_set(why, -EINVAL, "corpus: there is no option %s, or it lacks a value",
                           argv[optind - 1]);
    }
    if (r < 0)
        return r;
    /* OUT and an INPUT. */
    if (!b->model || argc - optind < 2)
        return why_set(why, -EINVAL,
                       "corpus needs --model FILE, an output file and at least one input");
    if ((opts.long_tokens == 0) != (opts.long_weight == 0))
        return why_set(why, -EINVAL,
                       "corpus: --long says which documents --long-weight weighs: both or none");
    b->long_tokens = opts.long_tokens;
    b->long_weight = (float)opts.long_weight;
    b->out = argv[optind];
    b->inputs = (const char *const *)&argv[optind + 1];
    /* All that stand behind the output. */
    b->n_inputs = (size_t)(argc - optind - 1);
    return 0;
}

/* The only use of progress here: an interrupted corpus leaves no file. */
static int stopped(void *arg, const char *path, uint64_t n_documents, uint64_t n_tokens)
{
    (void)arg;
    (void)path;
    (void)n_documents;
    (void)n_tokens;
    return stop;
}

/* What it is made of: the names that --weights takes. */
static int print_sources(const char *path, struct why *why)
{
    struct corpus_info info;
    struct corpus *c;
    int r = corpus_open(path, NULL, &c, why);

    if (r < 0)
        return r;
    corpus_info(c, &info);
    for (uint32_t i = 0; i < info.n_sources; i++) {
        struct corpus_source s;

        corpus_source(c, i, &s);
        shown_line(stdout,
                   "  %-16s %8" PRIu64 " documents %10" PRIu64 " tokens %10" PRIu64 " with loss",
                   s.name, s.n_documents, s.n_tokens, s.n_loss);
    }
    corpus_close(c);
    return 0;
}

static int make_corpus(int argc, char **argv)
{
    struct corpus_build b = { .progress = stopped };
    struct corpus_built built;
    struct why why = { "" };

    if (parse_corpus(argc, argv, &b, &why) < 0)
        return fail(USAGE, &why);
    if (corpus_build(&b, &built, &why) < 0)
        return fail(FAILED, &why);
    shown_line(stdout,
               "%s: %" PRIu64 " documents, %" PRIu64 " tokens, %" PRIu64
               " of them with loss, from %" PRIu64 " bytes of text",
               b.out, built.n_documents, built.n_tokens, built.n_loss, built.bytes_in);
    /* A vocabulary may lack some bytes. */
    if (built.bytes_lost)
        printf("%" PRIu64 " bytes have no token in this model's vocabulary and were left out\n",
               built.bytes_lost);
    return print_sources(b.out, &why) < 0 ? fail(FAILED, &why) : OK;
}

static int draw(int argc, char **argv)
{
    struct run_log_data data = { 0 };
    struct why why = { "" };
    int r;

    if (argc != 3) {
        why_set(&why, -EINVAL,
                "plot needs a log and the picture to write: gist-train plot LOG OUT.svg");
        return fail(USAGE, &why);
    }
    r = run_log_read(argv[1], &data, &why);
    if (r == 0)
        r = plot_write(&data, argv[1], argv[2], &why);
    run_log_data_fini(&data);
    return r < 0 ? fail(FAILED, &why) : OK;
}

/* --- training --------------------------------------------------------------------------------- */

static int train(int argc, char **argv)
{
    /* Static: it has a dozen paths of kilobytes. */
    static struct recipe recipe;
    struct why why = { "" };

    if (recipe_load(&recipe, argc, argv, &why) < 0)
        return fail(USAGE, &why);
    /* Each action but the run itself prints something, and needs no corpus. */
    if (recipe.action == RECIPE_HELP) {
        fputs(help_head, stdout);
        recipe_print_help(stdout);
        fputs(help_tail, stdout);
        return OK;
    }
    if (recipe.action == RECIPE_SHOW) {
        recipe_print(&recipe, stdout);
        return OK;
    }
    if (recipe.action == RECIPE_PLAN)
        return run_plan(&recipe, stdout, &why) < 0 ? fail(FAILED, &why) : OK;
    return run_train(&recipe, &stop, &why) < 0 ? fail(FAILED, &why) : OK;
}

/* OpenMP's threads spin for milliseconds at each barrier, as they think that they are alone on the
 * machine: on one that others use, a step takes ten times as long. Its run time reads how long to
 * spin from the environment, and only before main: so the program starts again, once. */
static void spin_briefly(char **argv)
{
    /* Set by whoever started it, or by this function before: either way it is the second time. */
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY"))
        return;
    /* Where it can't start again it goes on, more slowly. */
    if (setenv("GOMP_SPINCOUNT", "10000", 1) == 0)
        execv("/proc/self/exe", argv);
}

static int run(int argc, char **argv)
{
    /* A word in front is a command; options begin with dashes. */
    if (argc > 1 && strcmp(argv[1], "corpus") == 0)
        return make_corpus(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "plot") == 0)
        return draw(argc - 1, argv + 1);
    return train(argc, argv);
}

int main(int argc, char **argv)
{
    /* A second Ctrl-C ends the program at once. mpirun passes SIGUSR1 on, while at the others it
     * kills us a second later. */
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };
    int r, err;

    std_open();
    spin_briefly(argv);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    r = run(argc, argv);
    err = std_flush();
    if (err < 0)
        shown_line(stderr, "gist-train: cannot write the output: %s", strerror(-err));
    return err < 0 && r == OK ? FAILED : r;
}
