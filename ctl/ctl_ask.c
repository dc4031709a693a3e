/* ctl/ctl_ask.c - gistctl ask: one question, one answer. */
#include "base/std.h"
#include "ctl/ctl.h"
#include "ctl/ctl_answer.h"
#include "ctl/ctl_answers.h"
#include "ctl/ctl_attach.h"
#include "ctl/ctl_memory.h"
#include "ctl/ctl_named.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct ctl_opt_usage usage = {
    "ask [OPTIONS] [QUESTION]",
    "Asks the model one question and prints the answer as it is written. Files and standard input\n"
    "(when it is not a terminal) go before the question. Ctrl-C ends the answer.\n"
};

struct ask {
    struct ctl_answer_opts answer;
    struct ctl_memory_opts memory_opts;
    struct gist_memory memory;
    struct ctl_opt_list files, docs;
    bool no_stdin, detachable;
    uint32_t n; /* answers */
    struct ctl_text texts, question;
};

/* One part of the prompt, an empty line between parts. Line ends at the end of a part are left out:
 * a file's last one is not meant. */
static int add_part(struct ctl_text *prompt, const struct ctl_text *part)
{
    size_t len = part->len;
    int r = 0;

    while (len > 0 && (part->bytes[len - 1] == '\n' || part->bytes[len - 1] == '\r'))
        len--;
    if (len > 0 && prompt->len > 0)
        r = ctl_text_add(prompt, "\n\n", 2);
    if (r == 0)
        r = ctl_text_add(prompt, part->bytes, len);
    return r;
}

static int add_file(struct ask *a, const char *path)
{
    struct ctl_text t = { 0 };
    int r = ctl_text_read(&t, path);

    /* A message is a C string in libgist: what stands behind a NUL would be lost without a word. */
    if (r == 0 && t.len > 0 && memchr(t.bytes, '\0', t.len))
        r = ctl_fail(CTL_FAILED, "%s is not text: it has a NUL byte.",
                     strcmp(path, "-") == 0 ? "standard input" : path);
    if (r == 0 && add_part(&a->texts, &t) < 0)
        r = ctl_fail(CTL_FAILED, "out of memory.");
    ctl_text_fini(&t);
    return r;
}

/* Words as the shell has cut them, with spaces between them. */
static int add_question(struct ask *a, int argc, char **argv, int first)
{
    struct ctl_text t = { 0 };
    int r = 0;

    for (int i = first; r == 0 && i < argc; i++) {
        if (i > first)
            r = ctl_text_add(&t, " ", 1);
        if (r == 0)
            r = ctl_text_add(&t, argv[i], strlen(argv[i]));
    }
    if (r == 0)
        r = add_part(&a->question, &t);
    ctl_text_fini(&t);
    return r < 0 ? ctl_fail(CTL_FAILED, "out of memory.") : 0;
}

/* Files, standard input, question: the question last, where a model attends to it best. A dash as
 * the first word is standard input, also on a terminal. */
static int read_prompt(struct ask *a, int argc, char **argv, int first)
{
    bool dash = first < argc && strcmp(argv[first], "-") == 0;
    /* Closed, it holds no text: unless it was asked for, that is no reason to fail. */
    bool use_stdin = dash || (!a->no_stdin && std_in_is_readable() && !isatty(STDIN_FILENO));
    int r = 0;

    for (size_t i = 0; r == 0 && i < a->files.n; i++) {
        r = add_file(a, a->files.v[i]);
        if (strcmp(a->files.v[i], "-") == 0)
            use_stdin = false; /* it was read */
    }
    if (r == 0 && use_stdin)
        r = add_file(a, "-");
    if (r == 0)
        r = add_question(a, argc, argv, first + dash);
    if (r == 0 && a->texts.len == 0 && a->question.len == 0)
        r = ctl_fail(CTL_USAGE, "no question was given; see `gistctl ask --help`.");
    return r;
}

/* Texts and the question are messages of their own, so that the daemon knows which is which; one of
 * the two alone is the question. */
static int answer_prompt(const struct ask *a, gist_conn *c, gist_session *s)
{
    struct gist_message msgs[3];
    struct ctl_prompt p = { .before = msgs };
    size_t n = 0;

    if (a->answer.system)
        msgs[n++] = (struct gist_message){ "system", a->answer.system };
    if (a->texts.len > 0 && a->question.len > 0) {
        msgs[n++] = (struct gist_message){ "user", a->texts.bytes };
        p.n_before = n;
    }
    p.msgs = msgs + p.n_before;
    msgs[n++] =
        (struct gist_message){ "user", a->question.len > 0 ? a->question.bytes : a->texts.bytes };
    p.n_msgs = n - p.n_before;
    if (a->n > 1)
        return ctl_answers_run(c, s, &p, &a->answer, a->n);
    return ctl_answer_run(c, s, &p, &a->answer);
}

static int ask_question(const struct ask *a, gist_conn *c)
{
    struct gist_policy policy = { .size = sizeof(policy),
                                  .segment = a->memory_opts.segment,
                                  .label = "ask",
                                  .memory = &a->memory,
                                  .flags = ctl_answer_policy_flags(&a->answer),
                                  .documents = a->docs.v,
                                  .n_documents = a->docs.n };
    gist_session *s;
    int r = ctl_set_end(c, a->answer.end_ns);

    if (r == 0)
        r = gist_open(c, &policy, &s);
    if (r < 0)
        return a->docs.n ? ctl_named_fail(c, GIST_DOCUMENTS, r) : ctl_fail_gist(c, r);
    ctl_answer_began(s, &a->answer);
    r = a->detachable ? ctl_attach_offer(s, a->n < 2 && !a->answer.json) : 0;
    r = r < 0 ? ctl_fail_gist(c, r) : answer_prompt(a, c, s);
    gist_close(s);
    return r;
}

/* seconds 0: whenever it is said. Not counted before the daemon is reached: one that was just
 * started may load its model first. */
static int connect_and_ask(struct ask *a, float seconds)
{
    gist_conn *c;
    int r = ctl_connect(&c);

    if (r != CTL_OK)
        return r;
    ctl_interrupt_catch(c, true);
    if (seconds > 0)
        a->answer.end_ns = ctl_now_ns() + (uint64_t)((double)seconds * 1e9);
    r = ask_question(a, c);
    ctl_interrupt_catch(NULL, false);
    gist_disconnect(c);
    return r;
}

int ctl_ask(int argc, char **argv)
{
    uint32_t top = UINT32_MAX; /* not said */
    struct ask a = { .n = 1 };
    float deadline = 0; /* not said */
    const struct ctl_opt opts[] = {
        { "file", 'f', CTL_OPT_LIST, "FILE", &a.files, 0, 0,
          "ask about this text; - is standard input; repeatable" },
        { "doc", 'd', CTL_OPT_LIST, "NAME", &a.docs, 0, 0,
          "begin with this document of `gistctl doc add`; several in any order" },
        { "no-stdin", 0, CTL_OPT_FLAG, NULL, &a.no_stdin, 0, 0, "leave standard input alone" },
        CTL_MEMORY_OPTIONS(&a.memory_opts),
        CTL_ANSWER_OPTIONS(&a.answer),
        { "answers", 0, CTL_OPT_U32, "N", &a.n, 1, 64,
          "N answers, each with the next seed; the question is read once (1)" },
        { "deadline", 0, CTL_OPT_FLOAT, "SECONDS", &deadline, 0.001, 86400,
          "give up what is not said by then; the text so far is printed" },
        { "detachable", 0, CTL_OPT_FLAG, NULL, &a.detachable, 0, 0,
          "go on without this program: say how `gistctl attach` gets the rest" },
        { "json", 'j', CTL_OPT_FLAG, NULL, &a.answer.json, 0, 0,
          "one object when all is said: answer, reason, usage" },
        { "logprobs", 0, CTL_OPT_U32, "N", &top, 0, 20,
          "with --json: log-probabilities of the answer's tokens, and of the N likeliest" },
    };
    int first, r;

    ctl_answer_defaults(&a.answer);
    ctl_memory_defaults(&a.memory_opts, true);
    first = ctl_opt_parse(&usage, opts, sizeof(opts) / sizeof(opts[0]), argc, argv, &r);
    if (first < 0)
        return r;
    /* Documents bring the memory options that they were added with. */
    a.memory_opts.automatic = a.docs.n == 0;
    a.answer.whole = true;
    a.answer.logprobs = top != UINT32_MAX;
    a.answer.sampling.logprobs = a.answer.logprobs ? top : 0;
    if (a.n > 1 && a.answer.logprobs)
        return ctl_fail(CTL_USAGE, "--answers and --logprobs exclude each other.");
    r = ctl_memory_read(&a.memory_opts, &a.memory);
    if (r == 0)
        r = ctl_answer_read(&a.answer);
    if (r == 0)
        r = read_prompt(&a, argc, argv, first);
    if (r == 0)
        r = connect_and_ask(&a, deadline);
    ctl_text_fini(&a.texts);
    ctl_text_fini(&a.question);
    ctl_answer_fini(&a.answer);
    return r;
}
