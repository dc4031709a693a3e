/* ctl/ctl_named.c - lists of what has a name, and its end: doc ls, doc rm, session ls, session rm.
 */
#include "ctl/ctl_named.h"

#include "base/shown.h"
#include "ctl/ctl_json.h"
#include "ctl/ctl_opt.h"

#include <stdio.h>
#include <time.h>

static const char *const state_names[] = { [GIST_READY] = "ready",
                                           [GIST_READING] = "reading",
                                           [GIST_OTHER_MODEL] = "other model",
                                           [GIST_DAMAGED] = "damaged" };

int ctl_named_fail(const gist_conn *c, enum gist_named kind, int err)
{
    int r = ctl_fail_gist(c, err);

    if (gist_error_code(c) == GIST_E_NOT_FOUND)
        (void)ctl_fail(r, "`gistctl %s ls` lists those there are.",
                       kind == GIST_DOCUMENTS ? "doc" : "session");
    return r;
}

struct list {
    struct ctl_json *json; /* NULL: for people */
    enum gist_named kind;
    size_t n;
};

static void print_head(enum gist_named kind)
{
    if (kind == GIST_DOCUMENTS)
        printf("%8s  %-12s %-6s %-5s  %-16s  %s\n", "TOKENS", "STATE", "PINNED", "DISK", "ADDED",
               "NAME");
    else
        printf("%8s  %-12s %-16s  %s\n", "TOKENS", "STATE", "SAVED", "NAME");
}

static void print_row(const struct list *l, const struct gist_row *row)
{
    time_t at = (time_t)row->at_s;
    char state[32], when[32] = "?";
    struct tm tm;

    if (row->state == GIST_READING && row->n_tokens)
        (void)snprintf(state, sizeof(state), "reading %2u%%",
                       (unsigned)((uint64_t)row->n_read * 100 / row->n_tokens));
    else
        (void)snprintf(state, sizeof(state), "%s", state_names[row->state]);
    if (localtime_r(&at, &tm))
        (void)strftime(when, sizeof(when), "%Y-%m-%d %H:%M", &tm);
    printf("%8u  %-12s ", row->n_tokens, state);
    if (l->kind == GIST_DOCUMENTS)
        printf("%-6s %-5s  ", row->pinned ? "yes" : "no", row->kept ? "yes" : "no");
    printf("%-16s  ", when);
    if (row->state == GIST_OTHER_MODEL)
        shown_line(stdout, "%s (%s)", row->name, row->model);
    else
        shown_line(stdout, "%s", row->name);
}

static void json_row(struct ctl_json *j, const struct gist_row *row)
{
    ctl_json_open(j, NULL, '{');
    ctl_json_string(j, "name", row->name);
    ctl_json_string(j, "state", state_names[row->state]);
    ctl_json_u64(j, "n_tokens", row->n_tokens);
    ctl_json_u64(j, "n_read", row->n_read);
    ctl_json_bool(j, "pinned", row->pinned);
    ctl_json_bool(j, "kept", row->kept);
    ctl_json_u64(j, "at_s", row->at_s);
    ctl_json_u64(j, "bytes", row->bytes);
    ctl_json_string(j, "label", row->label);
    ctl_json_string(j, "model", row->model);
    ctl_json_close(j, '}');
}

static int on_row(void *arg, const struct gist_row *row)
{
    struct list *l = arg;

    if (l->json)
        json_row(l->json, row);
    else if (l->n == 0)
        print_head(l->kind);
    if (!l->json)
        print_row(l, row);
    l->n++;
    return ctl_interrupt_came();
}

/* Rows are printed as they come: a list may be long. */
static int list_all(gist_conn *c, enum gist_named kind, bool json)
{
    struct ctl_json j = { .out = stdout };
    struct list l = { .json = json ? &j : NULL, .kind = kind };
    int r;

    if (json)
        ctl_json_open(&j, NULL, '[');
    r = gist_list(c, kind, on_row, &l);
    if (json) {
        ctl_json_close(&j, ']');
        fputc('\n', stdout);
    }
    return r < 0 ? ctl_fail_gist(c, r) : CTL_OK;
}

int ctl_named_ls(enum gist_named kind, int argc, char **argv)
{
    static const struct ctl_opt_usage usages[] = {
        [GIST_SESSIONS] = { "session ls [OPTIONS]", "Lists your saved sessions.\n" },
        [GIST_DOCUMENTS] = { "doc ls [OPTIONS]", "Lists your documents.\n" },
    };
    bool json = false;
    const struct ctl_opt opts[] = {
        { "json", 'j', CTL_OPT_FLAG, NULL, &json, 0, 0, "one array of objects" },
    };
    gist_conn *c;
    int r;

    if (ctl_opt_parse_all(&usages[kind], opts, 1, argc, argv, &r) < 0)
        return r;
    r = ctl_connect(&c);
    if (r != 0)
        return r;
    r = list_all(c, kind, json);
    gist_disconnect(c);
    return r;
}

/* One that can't be deleted does not keep the others. */
static int delete_all(gist_conn *c, enum gist_named kind, char *const *names, int n, bool json)
{
    struct ctl_json j = { .out = stdout };
    int r = CTL_OK;

    if (json)
        ctl_json_open(&j, NULL, '[');
    for (int i = 0; i < n && r != CTL_NO_DAEMON; i++) {
        int e = gist_delete(c, kind, names[i]);

        if (e < 0)
            r = ctl_named_fail(c, kind, e);
        else if (json)
            ctl_json_string(&j, NULL, names[i]);
    }
    if (json) {
        ctl_json_close(&j, ']');
        fputc('\n', stdout);
    }
    return r;
}

int ctl_named_rm(enum gist_named kind, int argc, char **argv)
{
    static const struct ctl_opt_usage usages[] = {
        [GIST_SESSIONS] = { "session rm [OPTIONS] NAME...", "Deletes saved sessions.\n" },
        [GIST_DOCUMENTS] = { "doc rm [OPTIONS] NAME...",
                             "Deletes documents. Sessions that began with one go on.\n" },
    };
    bool json = false;
    const struct ctl_opt opts[] = {
        { "json", 'j', CTL_OPT_FLAG, NULL, &json, 0, 0, "one array: the names of those" },
    };
    gist_conn *c;
    int r, first = ctl_opt_parse(&usages[kind], opts, 1, argc, argv, &r);

    if (first < 0)
        return r;
    if (first == argc)
        return ctl_fail(CTL_USAGE, "%s needs a name; `gistctl %s ls` lists them.", argv[0],
                        kind == GIST_DOCUMENTS ? "doc" : "session");
    r = ctl_connect(&c);
    if (r != 0)
        return r;
    r = delete_all(c, kind, argv + first, argc - first, json);
    gist_disconnect(c);
    return r;
}
