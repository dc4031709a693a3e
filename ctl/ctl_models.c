#include "ctl/ctl_models.h"

#include "base/files.h"
#include "ctl/ctl.h"
#include "ctl/ctl_tool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- rows ------------------------------------------------------------------------------------- */

static int copy(const char *text, char **ret)
{
    if (text && !(*ret = strdup(text)))
        return -ENOMEM;
    return 0;
}

static void free_row(struct ctl_model *model)
{
    free(model->name);
    free(model->path);
    free(model->licence);
    free(model->why);
}

/* The file of a row is in the list already: two commits of a repository, or the cache folder, named
 * by the user. Links are followed on both sides: Hugging Face's snapshots are links to blobs. */
static bool is_listed(const struct ctl_models *m, const char *path)
{
    char real[PATH_MAX], other[PATH_MAX];

    if (!path || !realpath(path, real))
        return false;
    for (size_t i = 0; i < m->n; i++)
        if (m->v[i].path && realpath(m->v[i].path, other) && strcmp(real, other) == 0)
            return true;
    return false;
}

/* Copies all of the row's texts. A file that is there already under another name stays as it was
 * first found: the list's names come first. */
int ctl_models_add(struct ctl_models *m, const struct ctl_model *model)
{
    struct ctl_model own = *model;

    if (is_listed(m, model->path))
        return 0;
    if (m->n == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 16;
        struct ctl_model *v = reallocarray(m->v, cap, sizeof(*v));

        if (!v)
            return -ENOMEM;
        m->v = v;
        m->cap = cap;
    }
    own.name = own.path = own.licence = own.why = NULL;
    if (copy(model->name, &own.name) < 0 || copy(model->path, &own.path) < 0 ||
        copy(model->licence, &own.licence) < 0 || copy(model->why, &own.why) < 0) {
        free_row(&own);
        return -ENOMEM;
    }
    m->v[m->n++] = own;
    return 0;
}

void ctl_models_fini(struct ctl_models *m)
{
    for (size_t i = 0; i < m->n; i++)
        free_row(&m->v[i]);
    free(m->v);
    *m = (struct ctl_models){ 0 };
}

struct ctl_model *ctl_models_named(const struct ctl_models *m, const char *name)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->v[i].name, name) == 0)
            return &m->v[i];
    return NULL;
}

/* --- the list --------------------------------------------------------------------------------- */

static int cache_folder(char ret[PATH_MAX])
{
    const char *own = getenv("GISTD_CACHE");

    if (!own || !*own)
        return ctl_tool_folder("XDG_CACHE_HOME", ".cache", ret);
    return snprintf(ret, PATH_MAX, "%s", own) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* A file of another size than the list has was cut, or is another's: as if it were not there. "NAME
 * FILE BYTES DIGEST WINDOW LICENCE"; lines that are not so are left out. */
static int add_line(struct ctl_models *m, char *line, const char *cache)
{
    char name[128], file[256], licence[64], path[PATH_MAX + 260];
    struct ctl_model model = { .name = name, .licence = licence, .source = "list" };
    unsigned long long bytes;
    unsigned window;
    struct stat st;

    if (line[0] == '#' ||
        sscanf(line, "%127s %255s %llu %*s %u %63s", name, file, &bytes, &window, licence) != 5)
        return 0;
    model.bytes = bytes;
    model.window = window;
    (void)snprintf(path, sizeof(path), "%s/%s", cache, file);
    if (stat(path, &st) == 0 && (uint64_t)st.st_size == bytes)
        model.path = path;
    return ctl_models_add(m, &model);
}

/* An installation without a list has models all the same: those on the disk. */
static int find_list(struct ctl_models *m, const char *cache)
{
    char list[PATH_MAX];
    char *line = NULL;
    size_t cap = 0;
    FILE *f;
    int r = ctl_tool_list(list);

    if (r == -ENOENT)
        return 0;
    f = r == 0 ? fopen(list, "re") : NULL;
    if (!f)
        return r < 0 ? r : -errno;
    while (r == 0 && getline(&line, &cap, f) >= 0)
        r = add_line(m, line, cache);
    if (r == 0)
        r = files_lines_end(f);
    free(line);
    (void)fclose(f);
    return r;
}

int ctl_models_find(struct ctl_models *m, char *const *folders, size_t n)
{
    char cache[PATH_MAX] = "";
    int r = 0;

    (void)cache_folder(cache);
    r = find_list(m, cache);
    if (r == 0 && cache[0])
        r = ctl_caches_folder(m, cache);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = ctl_caches_folder(m, folders[i]);
    return r == 0 ? ctl_caches_find(m) : r;
}

/* --- one model -------------------------------------------------------------------------------- */

/* gistd's sentence without what is known: "gistd: error: PATH: ". */
static int keep_why(struct ctl_model *model, char *text)
{
    char *line = strstr(text, "gistd: error: ");

    line = line ? line + strlen("gistd: error: ") : text;
    if (strncmp(line, model->path, strlen(model->path)) == 0)
        line += strlen(model->path) + strspn(line + strlen(model->path), ": ");
    line[strcspn(line, "\n")] = '\0';
    return copy(*line ? line : "it does not fit into this machine's memory", &model->why);
}

/* By asking gistd itself, which reads the head of the file: what it can load is known in one place.
 */
int ctl_model_check(struct ctl_model *model)
{
    struct ctl_text out = { 0 }, err = { 0 };
    char gistd[PATH_MAX];
    const char *window;
    int r, code = 0;

    if (!model->path || model->why)
        return 0;
    r = ctl_tool_gistd(gistd);
    if (r == 0)
        r = ctl_tool_run((char *[]){ gistd, "--plan", model->path, NULL }, &out, &err, &code);
    window = r == 0 ? strstr(out.bytes, "a window of ") : NULL;
    if (window)
        model->window = (uint32_t)strtoul(window + strlen("a window of "), NULL, 10);
    if (r == 0 && code != 0)
        r = keep_why(model, err.bytes);
    ctl_text_fini(&out);
    ctl_text_fini(&err);
    return r;
}

/* The script prints the file's path as its only line; what it says to people goes past us to
 * standard error. */
int ctl_model_fetch(const char *name, char **ret_path)
{
    struct ctl_text out = { 0 };
    char script[PATH_MAX];
    int code = 0, r = ctl_tool_fetch(script);

    if (r < 0)
        return ctl_fail(CTL_FAILED, "the script that fetches models is not beside this program: %s",
                        strerror(-r));
    r = ctl_tool_run((char *[]){ script, (char *)name, NULL }, &out, NULL, &code);
    if (r == 0 && code == 0 && out.len > 1) {
        out.bytes[strcspn(out.bytes, "\n")] = '\0';
        *ret_path = out.bytes;
        return CTL_OK;
    }
    ctl_text_fini(&out);
    if (r == 0 && code == CTL_INTERRUPTED)
        return CTL_INTERRUPTED;
    return r < 0 ? ctl_fail(CTL_FAILED, "cannot run %s: %s", script, strerror(-r))
                 : ctl_fail(CTL_FAILED, "%s was not fetched.", name);
}

static int check_path(const char *path, char **ret_path)
{
    struct ctl_model model = { .path = realpath(path, NULL) };
    int r = model.path ? ctl_model_check(&model) : -errno;

    if (r == -ENOENT && model.path)
        r = ctl_tool_no_gistd();
    else if (r < 0)
        r = ctl_fail(CTL_FAILED, "%s: %s", path, strerror(-r));
    else if (model.why)
        r = ctl_fail(CTL_FAILED, "%s can't be loaded: %s", path, model.why);
    free(model.why);
    if (r == CTL_OK)
        *ret_path = model.path;
    else
        free(model.path);
    return r;
}

static int named_path(const struct ctl_models *m, const char *what, bool may_fetch, char **ret_path)
{
    const struct ctl_model *model = ctl_models_named(m, what);

    if (!model)
        return ctl_fail(CTL_FAILED,
                        "there is no model '%s', and no such file; `gistctl models` lists those "
                        "there are.",
                        what);
    if (model->why)
        return ctl_fail(CTL_FAILED, "%s can't be loaded: %s", what, model->why);
    if (model->path)
        return check_path(model->path, ret_path);
    return may_fetch ? ctl_model_fetch(what, ret_path)
                     : ctl_fail(CTL_FAILED, "%s is not here yet: `gistctl pull %s` fetches it.",
                                what, what);
}

/* What looks like a file is one, and is not looked for among the names: with a slash if it is
 * there, else with .gguf in it. */
int ctl_model_path(const char *what, bool may_fetch, char **ret_path)
{
    struct ctl_models m = { 0 };
    int r;

    if (strchr(what, '/') ? access(what, F_OK) == 0 : strstr(what, ".gguf") != NULL)
        return check_path(what, ret_path);
    r = ctl_models_find(&m, NULL, 0);
    r = r < 0 ? ctl_fail(CTL_FAILED, "cannot look for models: %s", strerror(-r))
              : named_path(&m, what, may_fetch, ret_path);
    ctl_models_fini(&m);
    return r;
}
