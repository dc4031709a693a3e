/* eval/gist_eval.c - gist-eval: measures what a running daemon's model can still answer when its
 * old context is kept in one way or another.
 *
 * A command is planned, then measured, then reported:
 *
 *     opts_load ---> make_plan ---> connect ---> results_open ---> measure ---> report_write
 *
 * What is wrong with a plan is said before anything is asked of a daemon. What an earlier run
 * measured is in the results already and is not measured again. */
#include "base/shown.h"
#include "base/std.h"
#include "eval/opts.h"
#include "eval/report.h"
#include "eval/words.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK, FAILED, USAGE, NO_DAEMON, INTERRUPTED = 130 };

static const char help_text[] =
    "usage: gist-eval COMMAND [OPTION...]\n\n"
    "Measures what the model of a running gistd can still do when old context is compressed.\n\n"
    "  recall   questions about made texts that hide their answers\n"
    "  probes   the failure probes of the paper: UUIDs by prefix, surprise, boundary, position\n"
    "  ppl      perplexity of a text, by position and by ratio\n"
    "  sets     public sets in a folder: RULER, LongBench, HELMET, RepoBench\n"
    "  report   tables and plots of results files\n\n"
    "  -h, --help     this, or a command's own: gist-eval COMMAND --help\n"
    "  -V, --version\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no daemon, 130 interrupted. More in "
    "gist-eval(1).\n";

static const char *const heads[OPTS_COMMAND__N] = {
    "usage: gist-eval recall [--OPTION VALUE...]\n\n"
    "Makes texts that hide something, asks about it in every cell of a grid of ways to keep old\n"
    "context, beside full attention, and prints the table.\n\n",
    "usage: gist-eval probes [--OPTION VALUE...]\n\n"
    "Looks for the paper's three failures of compressed context and prints the tables.\n\n",
    "usage: gist-eval ppl [--OPTION VALUE...]\n\n"
    "Scores a text in every cell of a grid of ways to keep old context and prints the table.\n\n",
    "usage: gist-eval sets --data FOLDER [--OPTION VALUE...]\n\n"
    "Asks the questions of public sets that are in a folder, in every cell of a grid of ways to\n"
    "keep old context, and prints the table.\n\n",
};

static int fail(int code, const struct why *why)
{
    (void)fflush(stdout);
    shown_line(stderr, "gist-eval: %s", why->text);
    return code;
}

/* --- measuring -------------------------------------------------------------------------------- */

/* What a command measures, one after the other. */
struct plan {
    struct recall_plan recall, boundary;
    bool has_text;
    struct ppl_text text;
    struct sets sets; /* none: of another command */
    struct grid grid, by_segment;
};

enum probe { PREFIX, SURPRISE, BOUNDARY, POSITION, PROBES };

/* ret: which of them stand in the list. */
static int read_probes(const char *list, bool ret[PROBES], struct why *why)
{
    static const char *const known[PROBES] = { "prefix", "surprise", "boundary", "position" };
    const char *word;

    for (size_t len; (len = words_next(&list, &word));) {
        enum probe p = 0;

        while (p < PROBES && !words_same(word, len, known[p]))
            p++;
        if (p == PROBES)
            return why_set(why, -EINVAL,
                           "--probes: unknown probe '%.*s'; known: prefix, surprise, boundary, "
                           "position",
                           (int)len, word);
        ret[p] = true;
    }
    return 0;
}

/* What can be said without a daemon: a mistake costs no waiting. */
static int make_plan(enum opts_command command, const struct opts *o, struct plan *ret,
                     struct why *why)
{
    bool probes[PROBES] = { false };
    int r = grid_make(&o->grid, false, &ret->grid, why);

    ret->recall = ret->boundary = (struct recall_plan){ .opts = &o->recall, .seed = o->grid.seed };
    ret->boundary.boundary = true;
    if (r == 0)
        r = grid_make(&o->grid, true, &ret->by_segment, why);
    if (r == 0 && command == OPTS_PROBES)
        r = read_probes(o->probes, probes, why);
    if (r == 0 && o->recall.depths.n * o->recall.lengths.n == 0)
        r = why_set(why, -EINVAL, "lengths and depths need a value each");
    if (r == 0 && command == OPTS_SETS)
        r = sets_open(&o->sets, &ret->sets, why);
    if (r == 0 && command == OPTS_RECALL)
        r = recall_add(&ret->recall, o->tasks, why);
    if (r == 0 && probes[PREFIX])
        r = recall_add(&ret->recall, "uuid", why);
    if (r == 0 && probes[SURPRISE])
        r = recall_add(&ret->recall, "food food-surprise number number-surprise", why);
    if (r == 0 && probes[BOUNDARY])
        r = recall_add(&ret->boundary, "multikey", why);
    ret->has_text = command == OPTS_PPL || probes[POSITION];
    return r;
}

/* The work of everything is added up first, for the bar. Perplexity has a grid of its own, in which
 * `full` has cells by segment. */
static int measure(struct run *run, const struct opts *o, struct plan *p, struct why *why)
{
    double work =
        recall_work(run, &p->recall) + recall_work(run, &p->boundary) + sets_work(run, &p->sets);
    int r = 0;

    if (p->has_text) {
        r = ppl_load(run, &o->ppl, o->grid.seed, &p->text, why);
        run->grid = &p->by_segment;
        work += r == 0 ? ppl_work(run, &p->text) : 0;
        run->grid = &p->grid;
    }
    if (r < 0)
        return r;
    run_start(run, stderr, work);
    r = recall_run(run, &p->recall, why);
    if (r == 0)
        r = recall_run(run, &p->boundary, why);
    if (r == 0)
        r = sets_run(run, &p->sets, why);
    run->grid = &p->by_segment;
    if (r == 0 && p->has_text)
        r = ppl_run(run, &p->text, why);
    run_end(run);
    ppl_fini(&p->text);
    return r;
}

static int measure_into(gist_conn *c, const struct opts *o, struct plan *p, struct why *why)
{
    struct results results;
    struct run run = { .c = c,
                       .results = &results,
                       .grid = &p->grid,
                       .adapter = *o->grid.adapter ? o->grid.adapter : NULL };
    struct gist_info info;
    int r, shown;

    gist_info(c, &info);
    r = results_open(o->grid.out, info.model, info.model_digest, &results, why);
    if (r < 0)
        return r;
    run_catch(c);
    r = measure(&run, o, p, why);
    run_catch(NULL);
    /* Also of what an interrupted run has. */
    shown = results.n ? report_write(stdout, false, NULL, &results, 1) : 0;
    results_close(&results);
    if (r == 0 && shown < 0)
        r = why_set(why, shown, "cannot write the output: %s", strerror(-shown));
    return r;
}

static int run_command(enum opts_command command, int argc, char **argv)
{
    static struct opts o;
    static struct plan p;
    struct why why = { "" };
    gist_conn *c;
    bool help;
    int r = opts_load(command, argc, argv, &o, &help, &why);

    if (r == 0 && help) {
        (void)fputs(heads[command], stdout);
        opts_print_help(command, stdout);
        return OK;
    }
    if (r == 0)
        r = make_plan(command, &o, &p, &why);
    if (r < 0)
        return fail(USAGE, &why);
    r = gist_connect(*o.grid.socket ? o.grid.socket : NULL, "gist-eval", &c);
    if (r < 0) {
        (void)why_set(&why, r, "%s", gist_error(NULL));
        return fail(NO_DAEMON, &why);
    }
    r = measure_into(c, &o, &p, &why);
    gist_disconnect(c);
    sets_close(&p.sets);
    if (r == -ECANCELED && run_interrupted()) {
        if (*o.grid.out)
            shown_line(stderr, "gist-eval: interrupted; the same command continues from %s.",
                       o.grid.out);
        return INTERRUPTED;
    }
    return r < 0 ? fail(FAILED, &why) : OK;
}

/* --- report ----------------------------------------------------------------------------------- */

static const char report_help[] =
    "usage: gist-eval report [--html FILE | --plots FOLDER] FILE...\n\n"
    "Prints the tables of results files as Markdown. With --plots, the plots go to a folder that "
    "is\n"
    "there, an SVG each, and the Markdown shows them. With --html, writes one page with tables "
    "and\n"
    "plots, which needs no other file.\n";

static int write_html(const char *path, const struct results *files, size_t n, struct why *why)
{
    FILE *f = fopen(path, "we");
    int r;

    if (!f)
        return why_set(why, -errno, "%s: %s", path, strerror(errno));
    r = report_write(f, true, NULL, files, n);
    if (fclose(f) != 0 && r == 0)
        r = -errno;
    return r < 0 ? why_set(why, r, "%s: %s", path, strerror(-r)) : 0;
}

static int report_files(char *const *paths, size_t n, const char *html, const char *plots,
                        struct why *why)
{
    struct results *files = calloc(n, sizeof(*files));
    size_t i = 0;
    int r = files ? 0 : why_set(why, -ENOMEM, "out of memory");

    for (; r == 0 && i < n; i++)
        r = results_read(paths[i], &files[i], why);
    if (r == 0 && html)
        r = write_html(html, files, n, why);
    else if (r == 0 && (r = report_write(stdout, false, plots, files, n)) < 0)
        (void)why_set(why, r, "cannot write the output%s%s: %s", plots ? " and the plots in " : "",
                      plots ? plots : "", strerror(-r));
    for (size_t k = 0; files && k < i; k++)
        if (files[k].path)
            results_close(&files[k]);
    free(files);
    return r;
}

static int report(int argc, char **argv)
{
    static const struct option options[] = { { "html", required_argument, NULL, 'o' },
                                             { "plots", required_argument, NULL, 'p' },
                                             { "help", no_argument, NULL, 'h' },
                                             { 0 } };
    const char *html = NULL, *plots = NULL;
    struct why why = { "" };
    int c;

    opterr = 0;
    while ((c = getopt_long(argc, argv, "o:p:h", options, NULL)) != -1) {
        if (c == 'h') {
            (void)fputs(report_help, stdout);
            return OK;
        }
        if (c != 'o' && c != 'p') {
            (void)why_set(&why, -EINVAL, "report: there is no option %s, or it lacks a value",
                          argv[optind - 1]);
            return fail(USAGE, &why);
        }
        *(c == 'o' ? &html : &plots) = optarg;
    }
    if (html && plots) {
        (void)why_set(&why, -EINVAL, "report: --html has its plots in the page; leave --plots out");
        return fail(USAGE, &why);
    }
    if (optind == argc) {
        (void)why_set(&why, -EINVAL,
                      "report needs at least one results file, which --out of the "
                      "other commands names");
        return fail(USAGE, &why);
    }
    if (report_files(argv + optind, (size_t)(argc - optind), html, plots, &why) < 0)
        return fail(FAILED, &why);
    return OK;
}

/* --- all -------------------------------------------------------------------------------------- */

static int run(int argc, char **argv)
{
    static const char *const names[OPTS_COMMAND__N] = {
        [OPTS_RECALL] = "recall", [OPTS_PROBES] = "probes", [OPTS_PPL] = "ppl", [OPTS_SETS] = "sets"
    };
    struct why why = { "" };

    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        (void)fputs(help_text, stdout);
        return OK;
    }
    if (argc > 1 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)) {
        puts("gist-eval " GISTD_VERSION);
        return OK;
    }
    for (enum opts_command c = 0; argc > 1 && c < OPTS_COMMAND__N; c++)
        if (strcmp(argv[1], names[c]) == 0)
            return run_command(c, argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "report") == 0)
        return report(argc - 1, argv + 1);
    (void)why_set(&why, -EINVAL,
                  argc > 1 ? "unknown command '%s'; known: recall, probes, ppl, sets, report"
                           : "no command%s; see `gist-eval --help`",
                  argc > 1 ? argv[1] : "");
    return fail(USAGE, &why);
}

int main(int argc, char **argv)
{
    int r, err;

    std_open();
    r = run(argc, argv);
    err = std_flush();
    if (err < 0)
        shown_line(stderr, "gist-eval: cannot write the output: %s", strerror(-err));
    return err < 0 && r == OK ? FAILED : r;
}
