#include "ctl/ctl_answers.h"

#include "ctl/ctl_json.h"

#include <errno.h>
#include <stdlib.h>

struct answers {
    const struct ctl_answer_opts *opts;
    uint32_t n;
    struct ctl_text *texts;      /* (n) */
    struct gist_result *results; /* (n) */
    struct gist_usage prompt;
};

/* Pieces of all answers come in any order, so each is put together here and printed at the end. */
static int on_text(void *arg, uint32_t answer, const char *text, size_t len, const uint32_t *ids,
                   size_t n_ids)
{
    const struct answers *a = arg;

    (void)ids;
    (void)n_ids;
    return ctl_text_add(&a->texts[answer], text, len) < 0 || ctl_interrupt_came();
}

static void print_json(const struct answers *a)
{
    struct ctl_json j = { .out = stdout };
    struct gist_usage u = a->prompt;

    ctl_json_open(&j, NULL, '{');
    ctl_json_open(&j, "answers", '[');
    for (uint32_t i = 0; i < a->n; i++) {
        const struct ctl_text *t = &a->texts[i];

        ctl_json_open(&j, NULL, '{');
        ctl_json_text(&j, "answer", t->bytes ? t->bytes : "", t->len);
        ctl_json_string(&j, "reason", gist_reason_name(a->results[i].reason));
        ctl_json_stop(&j, "stop", &a->results[i], a->opts->stop.v);
        ctl_json_u64(&j, "seed", a->opts->sampling.seed + i);
        ctl_json_u64(&j, "tokens", a->results[i].usage.generated_tokens);
        ctl_json_close(&j, '}');
        u.generated_tokens += a->results[i].usage.generated_tokens;
    }
    ctl_json_close(&j, ']');
    ctl_json_usage(&j, "usage", &u);
    ctl_json_close(&j, '}');
    fputc('\n', stdout);
}

static void print_text(const struct answers *a)
{
    for (uint32_t i = 0; i < a->n; i++) {
        printf("%s--- answer %u of %u\n", i ? "\n" : "", i + 1, a->n);
        ctl_text_print(a->texts[i].bytes ? a->texts[i].bytes : "", a->texts[i].len);
        fputc('\n', stdout);
    }
}

/* Half a JSON text is none, and a cut answer must not pass for a whole one. */
static int end(const struct answers *a)
{
    uint32_t n_cut = 0;

    for (uint32_t i = 0; i < a->n; i++)
        n_cut += a->results[i].reason != GIST_END_OF_TEXT && a->results[i].reason != GIST_STOP;
    if (n_cut > 0)
        ctl_fail(0, "%u of %u answers were cut off.", n_cut, a->n);
    return n_cut > 0 && a->opts->sampling.grammar ? CTL_FAILED : CTL_OK;
}

static int run(gist_conn *c, gist_session *s, const struct ctl_prompt *prompt, struct answers *a)
{
    struct gist_sampling sampling = a->opts->sampling;
    int r = ctl_answer_prompt(c, s, prompt, a->opts, &a->prompt);

    sampling.stop = a->opts->stop.v;
    sampling.n_stop = (uint32_t)a->opts->stop.n;
    if (r == 0)
        r = ctl_set_end(c, a->opts->end_ns);
    if (r == 0)
        r = gist_generate_several(s, &sampling, a->n, on_text, a, a->results);
    if (r < 0)
        return ctl_fail_gist(c, r);
    if (a->opts->json)
        print_json(a);
    else
        print_text(a);
    return end(a);
}

int ctl_answers_run(gist_conn *c, gist_session *s, const struct ctl_prompt *prompt,
                    const struct ctl_answer_opts *o, uint32_t n)
{
    struct answers a = { .opts = o, .n = n };
    int r;

    a.texts = calloc(n, sizeof(*a.texts));
    a.results = calloc(n, sizeof(*a.results));
    r = a.texts && a.results ? run(c, s, prompt, &a) : ctl_fail(CTL_FAILED, "out of memory.");
    for (uint32_t i = 0; a.texts && i < n; i++)
        ctl_text_fini(&a.texts[i]);
    free(a.texts);
    free(a.results);
    return r;
}
