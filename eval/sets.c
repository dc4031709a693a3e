#include "eval/sets.h"

#include "base/files.h"
#include "eval/ask.h"
#include "eval/example.h"

#include <errno.h>
#include <fts.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the folder ------------------------------------------------------------------------------- */

static bool ends_in(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);

    return n >= m && strcmp(s + n - m, end) == 0;
}

static int add_path(struct sets *s, const char *path)
{
    char **more = reallocarray(s->paths, s->n + 1, sizeof(*more));

    if (!more)
        return -ENOMEM;
    s->paths = more;
    s->paths[s->n] = strdup(path);
    return s->paths[s->n++] ? 0 : -ENOMEM;
}

static int compare(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* In order of names, so that two runs ask in the same order. */
int sets_open(const struct sets_opts *o, struct sets *ret, struct why *why)
{
    char *roots[] = { (char *)o->data, NULL };
    struct sets s = { .opts = o };
    FTSENT *e;
    FTS *fts;
    int r = 0;

    if (!*o->data)
        return why_set(why, -EINVAL, "sets needs --data FOLDER, which has the sets' JSONL files");
    fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, compare);
    if (!fts)
        return why_set(why, -errno, "%s: %s", o->data, strerror(errno));
    while (r == 0 && (e = fts_read(fts)) != NULL) {
        if (e->fts_info == FTS_NS || e->fts_info == FTS_DNR || e->fts_info == FTS_ERR)
            r = why_set(why, -e->fts_errno, "%s: %s", e->fts_path, strerror(e->fts_errno));
        else if (e->fts_info == FTS_F && ends_in(e->fts_path, ".jsonl"))
            r = add_path(&s, e->fts_path);
    }
    (void)fts_close(fts);
    if (r == 0 && s.n == 0)
        r = why_set(why, -ENOENT, "%s: no .jsonl file is in it", o->data);
    if (r < 0) {
        sets_close(&s);
        return why_set(why, r, "out of memory");
    }
    *ret = s;
    return 0;
}

void sets_close(struct sets *s)
{
    for (size_t i = 0; i < s->n; i++)
        free(s->paths[i]);
    free(s->paths);
    *s = (struct sets){ 0 };
}

/* The path below the folder, without what says nothing. */
static void name_task(const struct sets *s, const char *path, char ret[RESULTS_NAME_CAP])
{
    static const char *const ends[] = { ".jsonl", "/validation", "/test" };
    size_t skip = strlen(s->opts->data);

    path += strncmp(path, s->opts->data, skip) == 0 ? skip : 0;
    path += strspn(path, "/");
    (void)snprintf(ret, RESULTS_NAME_CAP, "%.*s", (int)RESULTS_NAME_CAP - 1, path);
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
        if (ends_in(ret, ends[i]))
            ret[strlen(ret) - strlen(ends[i])] = '\0';
}

/* --- items ------------------------------------------------------------------------------------ */

static void score(void *arg, const char *answer, struct results_item *ret)
{
    ret->score = example_score(arg, answer);
}

static void name_item(const char *task, uint64_t index, const struct grid_cell *cell,
                      struct results_item *ret)
{
    results_item_init(ret);
    ret->kind = RESULTS_SET;
    (void)snprintf(ret->task, sizeof(ret->task), "%.*s", (int)sizeof(ret->task) - 1, task);
    ret->cell = *cell;
    ret->index = index;
}

/* In all cells; each line is as much work as another, as its length is not known before. */
static int ask_example(struct run *r, const char *task, uint64_t index, struct example *e,
                       struct why *why)
{
    size_t n_tokens;
    int err = ask_count(r->c, e->text, strlen(e->text), &n_tokens);

    if (err < 0)
        return run_failed(r, err, why);
    for (size_t i = 0; err == 0 && i < r->grid->n; i++) {
        const struct run_ask ask = { .text = e->text,
                                     .question = e->question,
                                     .n_tokens = (uint32_t)n_tokens,
                                     .max_tokens = e->max_tokens,
                                     .reading = 1,
                                     .work = 1,
                                     .score = score,
                                     .arg = e };
        struct run_reader reader = { 0 };
        struct results_item it;

        name_item(task, index, &r->grid->cells[i], &it);
        err = run_ask(r, &reader, &ask, &it, why);
        run_close(&reader);
    }
    return err;
}

static bool known(struct run *r, const char *task, uint64_t index)
{
    struct results_item it;

    for (size_t i = 0; i < r->grid->n; i++) {
        name_item(task, index, &r->grid->cells[i], &it);
        if (!results_find(r->results, &it))
            return false;
    }
    run_skip(r, (double)r->grid->n);
    return true;
}

/* A line that is known is not even parsed. */
static int ask_line(struct run *r, const char *path, const char *task, uint64_t index,
                    const char *line, struct why *why)
{
    struct example e = { 0 };
    int err;

    if (known(r, task, index))
        return 0;
    err = example_parse(line, task, &e);
    if (err < 0)
        return why_set(why, err,
                       err == -ENOMEM ? "out of memory"
                                      : "%s, line %llu: not a line of RULER, LongBench, HELMET or "
                                        "RepoBench",
                       path, (unsigned long long)index + 1);
    err = ask_example(r, task, index, &e, why);
    example_fini(&e);
    return err;
}

static int ask_file(struct run *r, const struct sets *s, const char *path, struct why *why)
{
    char task[RESULTS_NAME_CAP], *line = NULL;
    FILE *f = fopen(path, "re");
    ssize_t len = 0;
    size_t cap = 0;
    int err = 0;

    if (!f)
        return why_set(why, -errno, "%s: %s", path, strerror(errno));
    name_task(s, path, task);
    for (uint64_t i = 0; err == 0 && i < s->opts->items && (len = getline(&line, &cap, f)) > 0; i++)
        err = ask_line(r, path, task, i, line, why);
    if (err == 0 && len < 0 && (err = files_lines_end(f)) < 0)
        why_set(why, err, "%s: %s", path, strerror(-err));
    free(line);
    (void)fclose(f);
    return err;
}

/* Files that have fewer lines make the bar jump, and no more. */
double sets_work(const struct run *r, const struct sets *s)
{
    return !s->n ? 0 : (double)s->n * s->opts->items * (double)r->grid->n;
}

int sets_run(struct run *r, const struct sets *s, struct why *why)
{
    int err = 0;

    for (size_t i = 0; err == 0 && i < s->n; i++)
        err = ask_file(r, s, s->paths[i], why);
    return err;
}
