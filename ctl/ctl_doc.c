/* ctl/ctl_doc.c - gistctl doc: texts that are read once and asked about by name. */
#include "base/std.h"
#include "ctl/ctl_json.h"
#include "ctl/ctl_memory.h"
#include "ctl/ctl_named.h"
#include "ctl/ctl_progress.h"

#include <string.h>
#include <unistd.h>

static const struct ctl_opt_usage add_usage = {
    "doc add [OPTIONS] NAME",
    "Reads a text and keeps it under NAME: `gistctl ask --doc NAME` and `gistctl chat --doc NAME`\n"
    "begin with it, also while it is still read, and do not read it again. Without --file the "
    "text\n"
    "comes from standard input.\n"
};

struct add {
    struct ctl_memory_opts memory_opts;
    struct gist_memory memory;
    const char *file, *role;
    bool pin, plain, replace, background, is_public, json;
    struct ctl_text text;
    struct ctl_progress progress;
};

static int add_text(struct add *a, gist_conn *c, const char *name, struct gist_usage *ret)
{
    const struct gist_document d = {
        .size = sizeof(d),
        .segment = a->memory_opts.segment,
        .memory = &a->memory,
        .priority = a->background ? GIST_BACKGROUND : GIST_INTERACTIVE,
        .role = a->role,
        .on_progress = ctl_progress_tell,
        .arg = &a->progress,
        .flags = (a->pin ? GIST_PIN : 0) | (a->plain ? GIST_PLAIN : 0) |
                 (a->replace ? GIST_REPLACE : 0) | (a->is_public ? GIST_PUBLIC : 0),
    };
    int r;

    ctl_progress_begin(&a->progress);
    r = gist_document_add(c, name, a->text.bytes ? a->text.bytes : "", a->text.len, &d, ret);
    ctl_progress_end(&a->progress);
    return r;
}

static void print_json(const char *name, const struct gist_usage *usage)
{
    struct ctl_json j = { .out = stdout };

    ctl_json_open(&j, NULL, '{');
    ctl_json_string(&j, "name", name);
    ctl_json_usage(&j, "usage", usage);
    ctl_json_close(&j, '}');
    fputc('\n', stdout);
}

/* Nothing was read then: that it does not fit is found before. */
static bool is_too_long(const struct add *a, const gist_conn *c, int r)
{
    return r < 0 && gist_error_code(c) == GIST_E_CONTEXT_LENGTH_EXCEEDED &&
           !ctl_memory_said(&a->memory_opts);
}

/* A document is kept whole where it fits, so that it may stand beside others without being read
 * again. Who said nothing else has one that is longer, too. */
static int add_document(struct add *a, gist_conn *c, const char *name)
{
    struct gist_usage usage;
    int r = add_text(a, c, name, &usage);

    if (is_too_long(a, c, r)) {
        (void)fputs(
            "gistctl: the text is longer than the model's window: it is read with automatic "
            "memory (--memory auto)\n",
            stderr);
        a->memory = (struct gist_memory){ .size = sizeof(a->memory), .flags = GIST_AUTO };
        r = add_text(a, c, name, &usage);
    }
    if (r < 0 && gist_error_code(c) == GIST_E_NAME_EXISTS) {
        (void)ctl_fail_gist(c, r);
        return ctl_fail(CTL_FAILED, "--replace adds it anew.");
    }
    if (r < 0)
        return ctl_fail_gist(c, r);
    if (a->json)
        print_json(name, &usage);
    else
        printf("%u tokens, %u of them read now\n", usage.prompt_tokens, usage.computed_tokens);
    return CTL_OK;
}

static int doc_add(int argc, char **argv)
{
    struct add a = { 0 };
    const struct ctl_opt opts[] = {
        { "file", 'f', CTL_OPT_STRING, "FILE", &a.file, 0, 0, "the text; - is standard input" },
        { "pin", 0, CTL_OPT_FLAG, NULL, &a.pin, 0, 0,
          "keep it in memory until it is deleted, whatever else needs room" },
        { "replace", 0, CTL_OPT_FLAG, NULL, &a.replace, 0, 0, "also when the name is taken" },
        { "plain", 0, CTL_OPT_FLAG, NULL, &a.plain, 0, 0,
          "the bare text, and no message of a conversation" },
        { "role", 0, CTL_OPT_STRING, "ROLE", &a.role, 0, 0, "whose message it is (system)" },
        { "background", 0, CTL_OPT_FLAG, NULL, &a.background, 0, 0,
          "read it when nobody waits for an answer" },
        { "public", 0, CTL_OPT_FLAG, NULL, &a.is_public, 0, 0,
          "the text is not secret: share its computation with public sessions of other users" },
        CTL_MEMORY_OPTIONS(&a.memory_opts),
        { "json", 'j', CTL_OPT_FLAG, NULL, &a.json, 0, 0, "one object: name, usage" },
    };
    gist_conn *c;
    int first, r;

    ctl_memory_defaults(&a.memory_opts, false);
    first = ctl_opt_parse(&add_usage, opts, sizeof(opts) / sizeof(opts[0]), argc, argv, &r);
    if (first < 0)
        return r;
    if (first + 1 != argc)
        return ctl_fail(CTL_USAGE, "doc add needs one name; see `gistctl doc add --help`.");
    if (!a.file && (isatty(STDIN_FILENO) || !std_in_is_readable()))
        return ctl_fail(CTL_USAGE, "doc add needs a text: --file FILE, or standard input.");
    r = ctl_memory_read(&a.memory_opts, &a.memory);
    if (r == 0)
        r = ctl_text_read(&a.text, a.file ? a.file : "-");
    /* As a message it would have a few tokens, and be a document of nothing. */
    if (r == 0 && a.text.len == 0)
        r = ctl_fail(CTL_FAILED, "the text is empty, there is nothing to read.");
    if (r == 0)
        r = ctl_connect(&c);
    if (r == 0) {
        ctl_interrupt_catch(c, true);
        r = add_document(&a, c, argv[first]);
        ctl_interrupt_catch(NULL, false);
        gist_disconnect(c);
    }
    ctl_text_fini(&a.text);
    return r;
}

static int doc_ls(int argc, char **argv)
{
    return ctl_named_ls(GIST_DOCUMENTS, argc, argv);
}

static int doc_rm(int argc, char **argv)
{
    return ctl_named_rm(GIST_DOCUMENTS, argc, argv);
}

int ctl_doc(int argc, char **argv)
{
    static const struct ctl_sub_usage usage = {
        "doc", "Documents: texts that are read once and asked about by name, with\n"
               "`gistctl ask --doc NAME` and `gistctl chat --doc NAME`.\n"
    };
    static const struct ctl_sub subs[] = {
        { "add", doc_add, "read a text and give it a name" },
        { "ls", doc_ls, "list your documents" },
        { "rm", doc_rm, "delete some" },
    };

    return ctl_sub_run(&usage, subs, sizeof(subs) / sizeof(subs[0]), argc, argv);
}
