/* ctl/ctl_models_cmd.c - gistctl models, pull, use: which models there are, and which one is taken.
 */
#include "base/options.h"
#include "base/shown.h"
#include "ctl/ctl.h"
#include "ctl/ctl_conf.h"
#include "ctl/ctl_human.h"
#include "ctl/ctl_json.h"
#include "ctl/ctl_models.h"
#include "ctl/ctl_opt.h"
#include "ctl/ctl_tool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- models ----------------------------------------------------------------------------------- */

/* A row without a path is on the list of those that can be fetched. */
static const char *state_of(const struct ctl_model *model)
{
    return model->why ? "can't be loaded" : model->path ? "ready" : "to be fetched";
}

/* By path, which is what gistd.conf has: a model has as many names as there are places that it was
 * found in. */
static bool is_used(const struct ctl_model *model, const char *used)
{
    return model->path && strcmp(model->path, used) == 0;
}

static void print_rows(const struct ctl_models *m, const char *used)
{
    char bytes[CTL_HUMAN_CAP], window[16];
    int width = 4;

    for (size_t i = 0; i < m->n; i++)
        if ((int)strlen(m->v[i].name) > width && strlen(m->v[i].name) <= 60)
            width = (int)strlen(m->v[i].name);
    printf("%-*s  %10s  %7s  %-12s  %-12s  %s\n", width, "NAME", "SIZE", "WINDOW", "LICENCE",
           "FROM", "STATE");
    for (size_t i = 0; i < m->n; i++) {
        const struct ctl_model *v = &m->v[i];

        (void)snprintf(window, sizeof(window), "%u", v->window);
        shown_line(stdout, "%-*s  %10s  %7s  %-12s  %-12s  %s%s%s%s", width, v->name,
                   v->bytes ? ctl_human_bytes(v->bytes, bytes) : "-", v->window ? window : "-",
                   v->licence ? v->licence : "-", v->source, state_of(v), v->why ? ": " : "",
                   v->why ? v->why : "", is_used(v, used) ? ", taken by the next start" : "");
    }
    for (size_t i = 0; i < m->n; i++)
        if (!m->v[i].path && !m->v[i].why) {
            puts("\n`gistctl pull NAME` fetches one, `gistctl use NAME` takes it for the next "
                 "start.");
            break;
        }
}

static void print_json(const struct ctl_models *m, const char *used)
{
    struct ctl_json j = { .out = stdout };

    ctl_json_open(&j, NULL, '[');
    for (size_t i = 0; i < m->n; i++) {
        const struct ctl_model *v = &m->v[i];

        ctl_json_open(&j, NULL, '{');
        ctl_json_string(&j, "name", v->name);
        ctl_json_string(&j, "path", v->path);
        ctl_json_u64(&j, "bytes", v->bytes);
        ctl_json_u64(&j, "window", v->window);
        ctl_json_string(&j, "licence", v->licence);
        ctl_json_string(&j, "from", v->source);
        ctl_json_string(&j, "state", state_of(v));
        ctl_json_string(&j, "why", v->why);
        ctl_json_bool(&j, "used", is_used(v, used));
        ctl_json_close(&j, '}');
    }
    ctl_json_close(&j, ']');
    fputc('\n', stdout);
}

int ctl_models(int argc, char **argv)
{
    static const struct ctl_opt_usage usage = {
        "models [OPTIONS] [FOLDER...]",
        "Lists models: those that `gistctl pull` can fetch, GGUF files of its cache folder, of "
        "the\n"
        "caches of Hugging Face and Ollama, and of folders; and which of them gistd can load.\n"
    };
    bool json = false;
    const struct ctl_opt opts[] = {
        { "json", 'j', CTL_OPT_FLAG, NULL, &json, 0, 0, "one array of objects" },
    };
    char used[OPTIONS_TEXT_MAX + 1] = "";
    struct ctl_models m = { 0 };
    int r, first = ctl_opt_parse(&usage, opts, 1, argc, argv, &r);

    if (first < 0)
        return r;
    r = ctl_models_find(&m, argv + first, (size_t)(argc - first));
    for (size_t i = 0; r == 0 && i < m.n; i++)
        r = ctl_model_check(&m.v[i]);
    if (r == -ENOENT)
        r = ctl_tool_no_gistd();
    else if (r < 0)
        r = ctl_fail(CTL_FAILED, "cannot look for models: %s", strerror(-r));
    if (r == CTL_OK) {
        (void)ctl_conf_model(used);
        if (json)
            print_json(&m, used);
        else
            print_rows(&m, used);
    }
    ctl_models_fini(&m);
    return r;
}

/* --- pull, use -------------------------------------------------------------------------------- */

static void json_done(const char *name, const char *path, const char *config)
{
    struct ctl_json j = { .out = stdout };

    ctl_json_open(&j, NULL, '{');
    ctl_json_string(&j, "name", name);
    ctl_json_string(&j, "path", path);
    if (config)
        ctl_json_string(&j, "config", config);
    ctl_json_close(&j, '}');
    fputc('\n', stdout);
}

/* The one operand of both. */
static int read_name(const struct ctl_opt_usage *usage, int argc, char **argv, bool *json,
                     const char **ret)
{
    const struct ctl_opt opts[] = {
        { "json", 'j', CTL_OPT_FLAG, NULL, json, 0, 0, "one object: name and path" },
    };
    int r, first = ctl_opt_parse(usage, opts, 1, argc, argv, &r);

    if (first < 0)
        return r == CTL_OK ? -1 : r; /* --help was all */
    if (first + 1 != argc)
        return ctl_fail(CTL_USAGE, "%s needs one model; `gistctl models` lists them.", argv[0]);
    *ret = argv[first];
    return CTL_OK;
}

int ctl_pull(int argc, char **argv)
{
    static const struct ctl_opt_usage usage = {
        "pull [OPTIONS] MODEL",
        "Fetches a model of `gistctl models` into the cache folder, and compares its checksum. "
        "One\n"
        "that is there and whole is not fetched again; one that was cut leaves nothing behind.\n"
    };
    struct ctl_models m = { 0 };
    const char *name;
    char *path = NULL;
    bool json = false;
    int r = read_name(&usage, argc, argv, &json, &name);

    if (r != CTL_OK)
        return r < 0 ? CTL_OK : r;
    r = ctl_models_find(&m, NULL, 0);
    if (r < 0)
        r = ctl_fail(CTL_FAILED, "cannot look for models: %s", strerror(-r));
    else {
        const struct ctl_model *model = ctl_models_named(&m, name);

        if (!model || strcmp(model->source, "list") != 0)
            r = ctl_fail(CTL_FAILED,
                         "'%s' is no model that can be fetched; `gistctl models` lists "
                         "those.",
                         name);
        else
            r = ctl_model_fetch(name, &path);
    }
    if (r == CTL_OK && json)
        json_done(name, path, NULL);
    else if (r == CTL_OK)
        shown_line(stdout, "%s", path);
    free(path);
    ctl_models_fini(&m);
    return r;
}

int ctl_use(int argc, char **argv)
{
    static const struct ctl_opt_usage usage = {
        "use [OPTIONS] MODEL",
        "Takes a model for the next start of your daemon: a name of `gistctl models`, or a GGUF\n"
        "file. It is written into your gistd.conf, which is made if there is none.\n"
    };
    char config[OPTIONS_TEXT_MAX + 1];
    const char *name;
    char *path = NULL;
    bool json = false;
    int r = read_name(&usage, argc, argv, &json, &name);

    if (r != CTL_OK)
        return r < 0 ? CTL_OK : r;
    r = ctl_model_path(name, false, &path);
    if (r == CTL_OK)
        r = ctl_conf_set_model(path, config);
    if (r == CTL_OK && json) {
        json_done(name, path, config);
    } else if (r == CTL_OK) {
        shown_line(stdout, "%s: model = %s", config, path);
        puts("`gistctl stop`, where a daemon runs, and `gistctl start` take it.");
    }
    if (r == CTL_OK && getenv("GISTD_MODEL"))
        (void)ctl_fail(CTL_OK,
                       "the environment variable GISTD_MODEL names another and comes first.");
    free(path);
    return r;
}
