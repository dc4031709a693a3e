/* ctl/ctl_score.c - gistctl score: how well the model foresees a text. */
#include "ctl/ctl.h"
#include "ctl/ctl_choices.h"
#include "ctl/ctl_json.h"
#include "ctl/ctl_memory.h"
#include "ctl/ctl_opt.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const struct ctl_opt_usage usage = {
    "score [OPTIONS] [FILE]",
    "Reads FILE (or standard input) in windows that do not overlap, each without context,\n"
    "and prints the mean negative log-likelihood of its tokens (nll, in nats) and exp of it "
    "(ppl).\n"
    "A window's first token is not scored.\n"
    "With --choice it says instead how likely each of several continuations of the text is.\n"
};

/* Mean over the scored tokens; NaN when there are none. A window's first token has no probability
 * (NaN). */
static double mean_nll(const struct gist_score *s, size_t *ret_scored)
{
    double sum = 0;
    size_t n = 0;

    for (size_t i = 0; i < s->n; i++) {
        if (isnan(s->logprobs[i]))
            continue;
        sum -= (double)s->logprobs[i];
        n++;
    }
    *ret_scored = n;
    return n ? sum / (double)n : NAN;
}

static void print_json(const struct gist_score *s)
{
    struct ctl_json j = { .out = stdout };
    size_t scored;
    double nll = mean_nll(s, &scored);

    ctl_json_open(&j, NULL, '{');
    ctl_json_open(&j, "tokens", '[');
    for (size_t i = 0; i < s->n; i++)
        ctl_json_u64(&j, NULL, s->ids[i]);
    ctl_json_close(&j, ']');
    ctl_json_open(&j, "logprobs", '[');
    for (size_t i = 0; i < s->n; i++)
        ctl_json_float(&j, NULL, s->logprobs[i]);
    ctl_json_close(&j, ']');
    ctl_json_double(&j, "nll", nll);
    ctl_json_double(&j, "ppl", exp(nll));
    ctl_json_usage(&j, "usage", &s->usage);
    ctl_json_close(&j, '}');
    fputc('\n', stdout);
}

static void print_text(const struct gist_score *s)
{
    size_t scored;
    double nll = mean_nll(s, &scored);

    printf("tokens  %zu (%zu scored)\n", s->n, scored);
    if (s->usage.gist_tokens > 0)
        printf("memory  %u raw tokens, %u as %u gists\n", s->usage.raw_tokens, s->usage.gist_tokens,
               s->usage.gists);
    if (scored > 0)
        printf("nll     %.6f\nppl     %.4f\n", nll, exp(nll));
}

static int score_text(gist_conn *c, const struct ctl_text *text, const struct gist_score_opts *o,
                      bool json)
{
    struct gist_score score = { 0 };
    int r = gist_score_text(c, text->bytes, text->len, o, &score);

    if (r < 0)
        r = ctl_fail_gist(c, r);
    else if (json)
        print_json(&score);
    else
        print_text(&score);
    free(score.ids);
    free(score.logprobs);
    return r;
}

int ctl_score(int argc, char **argv)
{
    struct gist_memory memory;
    struct ctl_choices_opts choices = { .memory = &memory };
    struct gist_score_opts o = { .size = sizeof(o), .memory = &memory };
    struct ctl_memory_opts m;
    const struct ctl_opt opts[] = {
        { "choice", 'c', CTL_OPT_LIST, "TEXT", &choices.choices, 0, 0,
          "a continuation of the text to score; repeatable" },
        { "choices", 0, CTL_OPT_STRING, "FILE", &choices.file, 0, 0, "more of them, one a line" },
        { "chat", 0, CTL_OPT_FLAG, NULL, &choices.chat, 0, 0,
          "the text is a user's message, the choices are answers to it" },
        { "window", 'w', CTL_OPT_U32, "N", &o.window, 0, 4294967295.0,
          "tokens per window; 0: the model's context (0)" },
        CTL_MEMORY_OPTIONS(&m),
        { "json", 'j', CTL_OPT_FLAG, NULL, &choices.json, 0, 0,
          "one object: tokens, logprobs, nll, ppl, usage; or choices, best, best_mean, usage" },
    };
    struct ctl_text text = { 0 };
    gist_conn *c;
    int r, first;

    ctl_memory_defaults(&m, false);
    first = ctl_opt_parse(&usage, opts, sizeof(opts) / sizeof(opts[0]), argc, argv, &r);
    if (first < 0)
        return r;
    o.segment = choices.segment = m.segment;
    r = ctl_memory_read(&m, &memory);
    if (r != 0)
        return r;
    if (argc - first > 1)
        return ctl_fail(CTL_USAGE, "score takes one FILE, not %d.", argc - first);
    if (ctl_choices_wanted(&choices) ? o.window > 0 : choices.chat)
        return ctl_fail(CTL_USAGE, "%s",
                        choices.chat ? "--chat is for --choice."
                                     : "--window and --choice exclude each other.");
    r = ctl_text_read(&text, first < argc ? argv[first] : "-");
    if (r == 0)
        r = ctl_connect(&c);
    if (r == 0) {
        r = ctl_choices_wanted(&choices) ? ctl_choices_run(c, &text, &choices)
                                         : score_text(c, &text, &o, choices.json);
        gist_disconnect(c);
    }
    ctl_text_fini(&text);
    return r;
}
